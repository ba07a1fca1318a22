"""Sampling as a check of the exact masses: completions drawn from a model, counted beside ln Q.

The job `sampling` calls `sampling`; `analysis.theory` compares frequencies with masses.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config.notation import SPLITS
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.jobs.files import write_table
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device, exact_arithmetic

if TYPE_CHECKING:
    from grpo_origin.training.model import Decoder


@torch.no_grad()
def sampled_successes(
    model: Decoder,
    rows: Sequences,
    samples: int,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> np.ndarray:
    """How many of `samples` completions drawn for each row are correct, shape (rows,).

    They are drawn at temperature 1 from the full softmax.
    """
    model.to(device).eval()  # type: ignore[arg-type]
    torch.manual_seed(seed)
    successes = np.zeros(rows.size, dtype=np.int64)
    for numbers, tokens, prompt in rows.blocks(np.arange(rows.size)):
        repeated = np.repeat(np.arange(len(numbers)), samples)
        longest = tokens.shape[1] - prompt
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
            gold = tokens[chosen, prompt : prompt + drawn.shape[1]]
            right = (drawn.numpy() == gold).all(1) & (drawn.shape[1] == longest)
            np.add.at(successes, numbers[chosen], right)
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
        table = read_prompts(test, split)
        last = table.num_rows - 1
        table = table.take(np.linspace(0, last, min(prompts, table.num_rows)).astype(int))
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
