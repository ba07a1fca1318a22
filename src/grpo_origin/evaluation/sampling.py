"""Completions drawn from a model: as a check of the exact masses, and where there is no exact one.

The job `sampling` calls `sampling`, and `analysis.theory` compares its frequencies with masses. The
job `answers` calls `answers`: of a right answer after any trace only the part with the right trace
has an exact mass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import stage_of
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.jobs.files import write_table
from grpo_origin.tasks.domain import Domain
from grpo_origin.tasks.rewards import TaskReward
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device, exact_arithmetic

if TYPE_CHECKING:
    import pyarrow as pa

    from grpo_origin.training.model import Decoder


@torch.no_grad()
def sampled_successes(
    model: Decoder,
    rows: Sequences,
    samples: int,
    batch_size: int,
    device: torch.device,
    seed: int,
    right: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    room: int = 0,
) -> np.ndarray:
    """How many of `samples` completions drawn for each row are right, shape (rows,).

    They are drawn at temperature 1 from the full softmax. `right` says so of row numbers (b,) and
    their completions (b, T), padded after `<eos>`; without it only the gold completion is right. A
    completion may be as long as the gold one, or as `room` if that is more.
    """
    model.to(device).eval()  # type: ignore[arg-type]
    torch.manual_seed(seed)
    successes = np.zeros(rows.size, dtype=np.int64)
    for numbers, tokens, prompt in rows.blocks(np.arange(rows.size)):
        repeated = np.repeat(np.arange(len(numbers)), samples)
        longest = max(tokens.shape[1] - prompt, room)
        for start in range(0, len(repeated), batch_size):
            chosen = repeated[start : start + batch_size]
            ids = torch.from_numpy(tokens[chosen, :prompt]).to(device)
            with exact_arithmetic(device):
                drawn = model.generate(  # type: ignore[misc]
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=longest,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                )[:, prompt:].cpu()
            if right is None:
                gold = tokens[chosen, prompt : prompt + drawn.shape[1]]
                hits = (drawn.numpy() == gold).all(1) & (drawn.shape[1] == longest)
            else:
                hits = right(numbers[chosen], drawn.numpy())
            np.add.at(successes, numbers[chosen], hits)
    return successes


def sampling(
    folder: str | Path,
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    seed: int,
    ratio: str,
    prompts: int,
    samples: int,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Sample completions of `prompts` ID and OOD test prompts each, from the model in `folder`.

    Writes the successes beside ln Q, one row a prompt; the prompts are spread evenly over tasks.
    """
    import pyarrow as pa

    device, model, tables = choose_device(numerics, runtime.threads), load_model(folder), []
    for split in SPLITS:
        table = _spread(read_prompts(test, split), prompts)
        rows = Sequences(table)
        labels = {
            "axis": axis,
            "seed": seed,
            "ood_ratio": ratio,
            "split": split,
            "samples": samples,
        }
        columns = {name: pa.array([value] * rows.size) for name, value in labels.items()}
        columns |= {"task": table["task"].cast(pa.string()), "prompt_index": table["prompt_index"]}
        columns["log_mass"] = pa.array(exact_mass(model, rows, evaluation.batch_size, device)[0])
        columns["successes"] = pa.array(
            sampled_successes(model, rows, samples, evaluation.batch_size, device, seed)
        )
        tables.append(pa.table(columns))
    write_table(output, pa.concat_tables(tables))


def _spread(table: pa.Table, prompts: int) -> pa.Table:
    """So many prompts of a table, evenly spread over it."""
    last = table.num_rows - 1
    return table.take(np.linspace(0, last, min(prompts, table.num_rows)).astype(int))


def answers(
    stages: Mapping[str, str | Path],
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    ratio: str,
    variant: str,
    domain: Domain,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Sample completions of some ID and OOD test prompts from model folders (stage name -> folder).

    Writes a row a stage and prompt: how many of `samples` end in the right answer, whatever their
    trace, beside ln Q of the completion whose trace is right too.
    """
    import pyarrow as pa

    device, tables = choose_device(numerics, runtime.threads), []
    size, samples = evaluation.batch_size, evaluation.answer_samples
    parts = [_spread(read_prompts(test, split), evaluation.answer_prompts) for split in SPLITS]
    table = pa.concat_tables(parts)
    rows, names = Sequences(table), table["task"].to_pylist()
    # Where others than the gold completion are right, they may be longer.
    room = 0 if domain.unique else max(map(len, table["completion_ids"].to_pylist()))
    prompts, reward = table["prompt_ids"].to_pylist(), TaskReward(domain, "answer")
    beside, pad = {name: table[name].to_pylist() for name in domain.columns}, domain.tokens.pad
    eos = domain.tokens.eos

    def right(numbers: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        ended = [row[: row.index(eos) + 1] if eos in row else row for row in drawn.tolist()]
        written = [[token for token in row if token != pad or pad == eos] for row in ended]
        asked = [prompts[i] for i in numbers], written, [names[i] for i in numbers]
        of_prompts = {name: [values[i] for i in numbers] for name, values in beside.items()}
        return np.array(reward(*asked, **of_prompts)) == 1

    for name, folder in stages.items():
        model, stage = load_model(folder), stage_of(name)
        counts = sampled_successes(model, rows, samples, size, device, domain.seed, right, room)
        place = {"axis": axis, "seed": domain.seed, "ood_ratio": ratio, "variant": variant}
        place |= {"stage": name, "method": stage.method, "trained_on": stage.trained_on}
        columns = {label: pa.array([value] * rows.size) for label, value in place.items()}
        columns |= {
            "split": table["split"].cast(pa.string()),
            "task": table["task"].cast(pa.string()),
            "prompt_index": table["prompt_index"],
            "log_mass": pa.array(exact_mass(model, rows, size, device)[0]),
            "samples": pa.array([samples] * rows.size),
            "successes": pa.array(counts),
        }
        for label in ("method", "trained_on"):
            columns[label] = columns[label].cast(pa.string())
        tables.append(pa.table(columns))
        share = counts.sum() / (samples * rows.size)
        print(f"{name}: {share:.4f} of sampled completions end in the right answer", flush=True)
    write_table(output, pa.concat_tables(tables))
