"""What signal an RL stage had: what could be sampled, what was rewarded or shown, what moved.

Written by `stage` beside the model, in two files: `prompt_mass.parquet`, a row a training prompt,
and `signal.parquet`, one row. The trainer counts here whatever it samples. Knows nothing of methods
and verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_origin.evaluation.exploration import any_success, expected_successes

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import Tensor

    from grpo_origin.config.stages import RLSettings

COUNTS = "signal"  # key in the memory that checkpoints keep
BATCH_SIZE = 512  # prompts a forward pass


def count(memory: dict[str, Any], rewards: Tensor, plain: int) -> None:
    """Add rewards (groups, group size) of completions just sampled to the counts so far.

    Rewarded are those of the full reward 1; in a group with contrast not all rewards are the same.
    `plain` of them follow the prompt itself, none a prompt that a method has made of it.
    """
    counts = {
        "completions": rewards.numel(),
        "plain": plain,
        "rewarded": int((rewards == 1).sum()),
        "groups": len(rewards),
        "contrasts": int((rewards != rewards[:, :1]).any(1).sum()),
    }
    _add(memory, counts)


def show(memory: dict[str, Any], gold: Iterable[Sequence[int]]) -> None:
    """Add gold completions, or parts of them (token lists), that training was shown."""
    _add(memory, {"gold_tokens": sum(map(len, gold))})


def _add(memory: dict[str, Any], counts: dict[str, int]) -> None:
    known = memory.setdefault(COUNTS, {})
    for name, number in counts.items():
        known[name] = known.get(name, 0) + number


def prompt_mass(model: Any, prompts: pa.Table, device: torch.device, rl: RLSettings) -> pa.Table:
    """Exact ln Q (nats) of prompts in their order, and when a plain run samples them.

    Columns split, prompt_index, task, log_mass, step (whose rollouts follow it) and samples (how
    many these are). Draws no random numbers, so training is the same with and without it.
    """
    import pyarrow as pa

    from grpo_origin.data.rows import Sequences
    from grpo_origin.evaluation.mass import exact_mass
    from grpo_origin.training.numerics import exact_arithmetic

    with exact_arithmetic(device):
        log_mass, _ = exact_mass(model, Sequences(prompts), BATCH_SIZE, device)
    return pa.table(
        {
            "split": prompts["split"].cast(pa.string()),
            "prompt_index": prompts["prompt_index"],
            "task": prompts["task"].cast(pa.string()),
            "log_mass": log_mass,
            "step": np.arange(len(log_mass)) // rl.prompts_per_step * rl.iterations + 1,
            "samples": np.full(len(log_mass), rl.group_size),
        }
    )


def summary(counts: dict[str, int], log_mass: np.ndarray, from_mass: bool, moved: bool) -> pa.Table:
    """The one row of `signal.parquet`, from the counts and ln Q of the prompts before RL.

    What was to be expected is of completions of the prompts themselves. Each prompt counts with the
    mean number of these: the group size times how often it was used; methods that sample anew draw
    prompts for it at random. Null unless it follows from Q (`from_mass`): at
    temperature 1, and if nothing but the correct completion is rewarded.
    """
    import pyarrow as pa

    samples = counts["plain"] / len(log_mass)
    row = {
        "completions": counts["completions"],
        "rewarded": counts["rewarded"],
        "contrast_share": counts["contrasts"] / counts["groups"],
        "expected_successes": expected_successes(log_mass, samples) if from_mass else None,
        "any_success": any_success(log_mass, samples) if from_mass else None,
        "gold_tokens": counts["gold_tokens"],
        "moved": moved,
    }
    numbers = ("contrast_share", "expected_successes", "any_success")
    types = {name: pa.float64() if name in numbers else pa.infer_type([row[name]]) for name in row}
    return pa.Table.from_pylist([row], pa.schema(types))


def moved(model: Any, before: Any) -> bool:
    """Whether any float32 weight of a model differs from that of another, bit for bit."""
    import torch

    weights, others = (
        {name: tensor.cpu().view(torch.int32) for name, tensor in of.state_dict().items()}
        for of in (model, before)
    )
    return weights.keys() != others.keys() or any(
        not torch.equal(tensor, others[name]) for name, tensor in weights.items()
    )
