"""Prompts with the states of their traces, and what a model holds of them when the prompt ends.

Probes (`probes`) and heads (`rl.heads`) read both. A state is written as nodes, the alphabet
ignored, so that both alphabets share one set of labels. Knows no probe and no training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config.notation import shares
from grpo_origin.data.rows import Sequences, rendered
from grpo_origin.data.source import Source
from grpo_origin.tasks.domain import Domain
from grpo_origin.tasks.states import states
from grpo_origin.training.numerics import exact_arithmetic

if TYPE_CHECKING:
    import pyarrow as pa

    from grpo_origin.training.model import Decoder

NONE = -1  # the label where a task has no such step or position


def train_prompts(source: Source, split: str, count: int, purpose: str) -> pa.Table:
    """`count` prompts of a split from its train side, its tasks in equal shares, in random order.

    Drawn with repetition, so that no space is too small; `purpose` names the draw. Columns as in
    every data file.
    """
    rng, tasks = source.generator(purpose, split), source.tasks(split)
    problems = [
        (task, source.domain.draw(task, rng, share))
        for task, share in zip(tasks, shares(count, len(tasks)), strict=True)
    ]
    return rendered(source.domain, split, problems, rng.permutation(count))


def states_of(table: pa.Table, domain: Domain) -> np.ndarray:
    """Nodes of the state after each step of the prompts' traces, shape (rows, steps, positions).

    The last step stands twice: in its own place, and in an additional last one, which is the answer
    of every row. Where a task has fewer steps or positions the label is NONE.
    """
    names, prompts = np.array(table["task"].to_pylist()), table["prompt_ids"].to_pylist()
    rows = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    traces = {
        name: states(domain, name, np.array([prompts[row] for row in of_task]))
        for name, of_task in rows.items()
    }
    steps, positions = np.max([trace.shape[1:] for trace in traces.values()], axis=0)
    labels = np.full((len(names), steps + 1, positions), NONE)
    for name, trace in traces.items():
        length = trace.shape[2]
        labels[rows[name], : trace.shape[1], :length] = trace
        labels[rows[name], -1, :length] = trace[:, -1]
    return labels


def prompt_blocks(
    rows: Sequences, chosen: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Places within `chosen` row numbers (b,), and prompts (b, T) of one length, b up to `size`."""
    for places, tokens, prompt in rows.blocks(chosen):
        for start in range(0, len(places), size):
            part = slice(start, start + size)
            yield places[part], torch.from_numpy(tokens[part, :prompt])


@torch.no_grad()
def end_states(
    model: Decoder, rows: Sequences, batch_size: int, device: torch.device
) -> np.ndarray:
    """Hidden states at the last token of each prompt, float64 (layers + 1, rows, width).

    The first is the embedding of that token, the last what the output layer reads.
    """
    model.to(device).eval()  # type: ignore[arg-type]
    order, parts = [], []
    for places, ids in prompt_blocks(rows, np.arange(rows.size), batch_size):
        with exact_arithmetic(device):
            hidden = model.base_model(
                input_ids=ids.to(device), use_cache=False, output_hidden_states=True
            ).hidden_states
        order.append(places)
        parts.append(torch.stack([layer[:, -1] for layer in hidden]).double().cpu().numpy())
    return np.concatenate(parts, axis=1)[:, np.argsort(np.concatenate(order))]
