"""Exact evaluation: the probability of the one correct completion of every test prompt, from one forward pass.

Exactly one completion is correct, so its probability is the correct mass Q(x), and greedy decoding is right exactly
when the arg-max is the gold token at every gold-prefix position. Nothing is sampled, but for `sampling`, the check that
sampling agrees. Knows models and test prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.source import Sequences
from grpo_origin.jobs.files import write_table
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@torch.no_grad()
def exact_mass(
    model: LlamaForCausalLM, rows: Sequences, batch_size: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Log mass ln Q(x) in nats and greedy correctness of every row, shapes (rows,).

    Q is a probability under the full softmax at temperature 1, `<eos>` included.
    """
    log_mass, greedy = np.empty(rows.size), np.empty(rows.size, dtype=bool)
    for part, steps, right in _gold_steps(model, rows, batch_size, device):
        log_mass[part], greedy[part] = steps.sum(1), right
    return log_mass, greedy


@torch.no_grad()
def gold_log_probs(
    model: LlamaForCausalLM, rows: Sequences, batch_size: int, device: torch.device
) -> list[np.ndarray]:
    """Log-probabilities in nats of every row's gold tokens, one array (T,) a row; they sum to its ln Q."""
    found: list[np.ndarray] = [np.empty(0)] * rows.size
    for part, steps, _ in _gold_steps(model, rows, batch_size, device):
        for where, row in zip(part, steps, strict=True):
            found[where] = row
    return found


def _gold_steps(
    model: LlamaForCausalLM, rows: Sequences, batch_size: int, device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (row numbers (b,), log-probability of each gold token (b, T) in float64, whether greedy is right (b,))."""
    model.to(device).eval()
    for where, tokens, prompt in rows.blocks(np.arange(rows.size)):
        for start in range(0, len(where), batch_size):
            ids = torch.from_numpy(tokens[start : start + batch_size]).to(device)
            gold = ids[:, prompt:]
            logits = model(input_ids=ids, use_cache=False).logits[:, prompt - 1 : -1].float()
            steps = logits.log_softmax(-1).gather(-1, gold[..., None])[..., 0].double()
            yield (
                where[start : start + batch_size],
                steps.cpu().numpy(),
                (logits.argmax(-1) == gold).all(1).cpu().numpy(),
            )


def evaluate(
    stages: dict[str, str | Path],
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    seed: int,
    ratio: str,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Evaluate model folders (stage name -> folder) on the test prompts and write one row a stage and prompt."""
    import pyarrow as pa

    device = choose_device(numerics, runtime.threads)
    prompts = read_prompts(test)
    rows = Sequences(prompts)
    tables = []
    for stage, folder in stages.items():
        log_mass, greedy = exact_mass(load_model(folder), rows, evaluation.batch_size, device)
        columns = {"axis": axis, "seed": seed, "ood_ratio": ratio, "stage": stage}
        table = pa.table({name: pa.array([value] * rows.size) for name, value in columns.items()})
        for name in ("split", "task"):
            table = table.append_column(name, prompts[name].cast(pa.string()))
        table = table.append_column("prompt_index", prompts["prompt_index"])
        table = table.append_column("log_mass", pa.array(log_mass))
        tables.append(table.append_column("greedy_correct", pa.array(greedy)))
        print(
            f"{stage}: mean mass {np.exp(log_mass).mean():.4f}, greedy accuracy {greedy.mean():.4f}",
            flush=True,
        )
    write_table(output, pa.concat_tables(tables))
