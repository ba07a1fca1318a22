"""A real tiny trainer for the tests of RL and its methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from grpo_origin.rl.method import Method
from grpo_origin.rl.stage import ordered_prompts, prompt_dataset
from grpo_origin.rl.trainer import MethodHooks, make_trainer
from grpo_origin.tasks.world import World
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import FiniteGuard
from helpers import tiny

CPU = torch.device("cpu")


def trainer_of(
    cell: Path, folder: Path, method: Method, device: torch.device = CPU, **changes: Any
) -> MethodHooks:
    """The trainer of a method on the OOD prompts of the tiny cell, from its SFT model."""
    settings = tiny(**changes)
    return make_trainer(
        method,
        load_model(cell / "sft"),
        prompt_dataset(ordered_prompts(cell / "data" / "grpo.parquet", "ood", method, 48, 0)),
        world=World(8, 0),
        rl=method.settings(settings.rl),
        numerics=settings.numerics,
        device=device,
        folder=folder,
        guard=FiniteGuard("test"),
    )
