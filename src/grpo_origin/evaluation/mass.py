"""Exact evaluation: the probability of the reference completion of every test prompt.

Where exactly one completion is correct, its probability, from one forward pass, is the correct mass
Q(x), and greedy decoding is right exactly when the arg-max is the gold token at every gold-prefix
position. Where others are right too (`Domain.unique`), Q is a lower bound of the correct mass.
Nothing is sampled (`sampling` checks that sampling agrees). The job `evaluate` calls
`evaluate`; RL to convergence and benchmarks call `exact_mass`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config.paths import BASE, stage_of
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.table import evaluation_schema
from grpo_origin.jobs.files import write_table
from grpo_origin.tasks.domain import Tokens
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device, exact_arithmetic

if TYPE_CHECKING:
    from grpo_origin.training.model import Decoder


@dataclass(frozen=True)
class GoldBatch:
    """Some rows of one prompt and completion length, and what the model says of their gold tokens.

    `rows` (b,) are row numbers, `tokens` (b, T) gold tokens, `log_probs` (b, T) their
    log-probabilities in nats given the gold prefix, `greedy_correct` (b,).
    """

    rows: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray
    greedy_correct: np.ndarray


def exact_parts(
    model: Decoder, rows: Sequences, batch_size: int, device: torch.device, tokens: Tokens
) -> dict[str, np.ndarray]:
    """Log mass ln Q(x), its two parts (nats) and greedy correctness, each of shape (rows,).

    Q is a probability under the full softmax at temperature 1, `<eos>` included. The part
    `log_mass_markers` is the sum over the markers of `tokens`, `log_mass_content` that over the
    others.
    """
    names = ("log_mass", "log_mass_markers", "log_mass_content")
    parts = {name: np.empty(rows.size) for name in names}
    parts["greedy_correct"] = np.empty(rows.size, dtype=bool)
    for batch in _gold_batches(model, rows, batch_size, device):
        marker = np.isin(batch.tokens, tokens.markers)
        parts["log_mass"][batch.rows] = batch.log_probs.sum(1)
        parts["log_mass_markers"][batch.rows] = np.where(marker, batch.log_probs, 0.0).sum(1)
        parts["log_mass_content"][batch.rows] = np.where(marker, 0.0, batch.log_probs).sum(1)
        parts["greedy_correct"][batch.rows] = batch.greedy_correct
    return parts


def exact_mass(
    model: Decoder, rows: Sequences, batch_size: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Log mass ln Q(x) in nats and greedy correctness of every row, shapes (rows,)."""
    log_mass, greedy_correct = np.empty(rows.size), np.empty(rows.size, dtype=bool)
    for batch in _gold_batches(model, rows, batch_size, device):
        log_mass[batch.rows] = batch.log_probs.sum(1)
        greedy_correct[batch.rows] = batch.greedy_correct
    return log_mass, greedy_correct


def gold_log_probs(
    model: Decoder, rows: Sequences, batch_size: int, device: torch.device
) -> list[np.ndarray]:
    """Log-probabilities in nats of every row's gold tokens, one array (T,) a row."""
    log_probs: list[np.ndarray] = [np.empty(0)] * rows.size
    for batch in _gold_batches(model, rows, batch_size, device):
        for row, values in zip(batch.rows, batch.log_probs, strict=True):
            log_probs[row] = values
    return log_probs


def _gold_batches(
    model: Decoder, rows: Sequences, batch_size: int, device: torch.device
) -> Iterator[GoldBatch]:
    model.to(device).eval()  # type: ignore[arg-type]
    for numbers, tokens, prompt in rows.blocks(np.arange(rows.size)):
        for start in range(0, len(numbers), batch_size):
            part = slice(start, start + batch_size)
            ids = torch.from_numpy(tokens[part]).to(device)
            gold = ids[:, prompt:]
            with torch.no_grad(), exact_arithmetic(device):
                logits = model(input_ids=ids, use_cache=False).logits[:, prompt - 1 : -1].float()
                log_probs = logits.log_softmax(-1).gather(-1, gold[..., None])[..., 0].double()
                right = (logits.argmax(-1) == gold).all(1)
            yield GoldBatch(
                numbers[part], tokens[part, prompt:], log_probs.cpu().numpy(), right.cpu().numpy()
            )


def evaluate(
    stages: Mapping[str, str | Path],
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    seed: int,
    ratio: str,
    tokens: Tokens,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
    variant: str = BASE,
) -> None:
    """Evaluate model folders (stage name -> folder) on the test prompts of a cell.

    Writes one row a stage and prompt, columns as in `evaluation.table`. Prints a line a stage; the
    table `warnings` judges the ID mass after SFT.
    """
    import pyarrow as pa

    device = choose_device(numerics, runtime.threads)
    prompts = read_prompts(test)
    rows, schema = Sequences(prompts), evaluation_schema()
    in_distribution = np.array(prompts["split"].to_pylist()) == "id"
    tables = []
    for name, folder in stages.items():
        stage = stage_of(name)
        parts = exact_parts(load_model(folder), rows, evaluation.batch_size, device, tokens)
        labels = {
            "axis": axis,
            "seed": seed,
            "ood_ratio": ratio,
            "variant": variant,
            "stage": stage.name,
            "method": stage.method,
            "trained_on": stage.trained_on,
        }
        columns = {
            label: pa.array([value] * rows.size, schema.field(label).type)
            for label, value in labels.items()
        }
        for label in ("split", "task", "prompt_index"):
            columns[label] = prompts[label].cast(schema.field(label).type)
        columns |= {label: pa.array(values) for label, values in parts.items()}
        tables.append(pa.table(columns, schema=schema))
        mass, greedy = np.exp(parts["log_mass"]), parts["greedy_correct"]
        print(
            f"{name}: mean mass {mass.mean():.4f} (ID {mass[in_distribution].mean():.4f}), "
            f"greedy accuracy {greedy.mean():.4f}",
            flush=True,
        )
    write_table(output, pa.concat_tables(tables))
