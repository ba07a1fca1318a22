"""Prompts with the states of their traces, and what a model holds of them when the prompt ends.

Probes (`probes`) and heads (`rl.heads`) read both. A state is written as nodes, the alphabet
ignored, so that both alphabets share one set of labels. Knows no probe and no training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config.notation import TaskSpec
from grpo_origin.data.rows import Sequences, rendered
from grpo_origin.data.source import Source
from grpo_origin.data.strings import draw_train, shares
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import World
from grpo_origin.training.numerics import exact_arithmetic

if TYPE_CHECKING:
    import pyarrow as pa

    from grpo_origin.training.model import Decoder

NONE = -1  # the label where a task has no such step or position


def train_prompts(source: Source, split: str, count: int, purpose: str) -> pa.Table:
    """`count` prompts of a split from train strings, its tasks in equal shares, in random order.

    Drawn with repetition, so that no space is too small; `purpose` names the draw. Columns as in
    every data file.
    """
    rng = source.generator(purpose, split)
    strings = []
    for task, share in zip(
        source.tasks(split), shares(count, len(source.tasks(split))), strict=True
    ):
        base = draw_train(rng, share, task.spec.length, source.world_settings)
        strings.append((task, task.in_alphabet(base)))
    return rendered(source.vocabulary, split, strings, rng.permutation(count))


def states_of(table: pa.Table, world: World) -> np.ndarray:
    """Nodes of the state after each step of the prompts' traces, shape (rows, steps, positions).

    The last step stands twice: in its own place, and in an additional last one, which is the answer
    of every row. Where a task has fewer steps or positions the label is NONE.
    """
    names = np.array(table["task"].to_pylist())
    prompts, vocabulary = table["prompt_ids"].to_pylist(), Vocabulary(world.nodes)
    tasks = {name: Task(TaskSpec.model_validate(str(name)), world) for name in np.unique(names)}
    steps = max(len(task.spec.operations) for task in tasks.values())
    positions = max(task.spec.length for task in tasks.values())
    states = np.full((len(names), steps + 1, positions), NONE)
    for name, task in tasks.items():
        rows = np.flatnonzero(names == name)
        starts = vocabulary.starts(task, np.array([prompts[row] for row in rows]))
        trace = world.base(task.trace(starts))
        length = task.spec.length
        states[rows, : trace.shape[1], :length] = trace
        states[rows, -1, :length] = trace[:, -1]
    return states


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
    shape = (model.config.num_hidden_layers + 1, rows.size, model.config.hidden_size)
    states = np.empty(shape)
    for places, ids in prompt_blocks(rows, np.arange(rows.size), batch_size):
        with exact_arithmetic(device):
            hidden = model.model(
                input_ids=ids.to(device), use_cache=False, output_hidden_states=True
            ).hidden_states
        states[:, places] = torch.stack([layer[:, -1] for layer in hidden]).double().cpu().numpy()
    return states
