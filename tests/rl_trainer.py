"""A real tiny trainer for the tests of RL and its methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from grpo_origin.config.stages import LoraSettings, RLSettings
from grpo_origin.rl import trainer as module
from grpo_origin.rl.method import Method, Rollout
from grpo_origin.rl.stage import ordered_prompts, prompt_dataset
from grpo_origin.rl.trainer import MethodHooks, make_trainer
from grpo_origin.training.lora import lora_config
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import FiniteGuard
from helpers import run_stage, strings, tiny, weights_hash

CPU = torch.device("cpu")
STAGE = "grpo~ood"


def trainer_of(
    cell: Path,
    folder: Path,
    method: Method,
    device: torch.device = CPU,
    repeats: int = 1,
    adapters: LoraSettings | None = None,
    **changes: Any,
) -> MethodHooks:
    """The trainer of a method on the OOD prompts of the tiny cell, from its SFT model.

    The prompts are those of twelve steps, `repeats` times over.
    """
    settings = tiny(**{key: value for key, value in changes.items() if key != "rl"})
    prompts = ordered_prompts(cell / "data" / "grpo.parquet", "ood", method, 48, 0)
    domain, model = strings(), load_model(cell / "sft")
    rl = RLSettings.model_validate(settings.rl.model_dump() | changes.get("rl", {}))
    return make_trainer(
        method,
        model,
        prompt_dataset(pa.concat_tables([prompts] * repeats), domain.tokens),
        domain=domain,
        rl=method.settings(rl),
        numerics=settings.numerics,
        device=device,
        folder=folder,
        guard=FiniteGuard("test"),
        adapters=lora_config(model, adapters, 0) if adapters else None,
    )


def run(cell: Path, output: Path, changes: dict | None = None, stage: str = STAGE) -> str:
    """Run an RL stage to `output`, its checkpoint beside it; the hash of its weights."""
    run_stage(stage, cell, output, output.with_name(f"{output.name}.checkpoint"), changes)
    return weights_hash(output)


def capturing(records: list[dict], rewards: list[torch.Tensor]) -> type:
    """The trainer, writing down the weights, rollouts, loss and gradient of each step."""

    class Capturing(module.TokenGRPOTrainer):
        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
            out = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            rewards.append(out.clone())
            return out

        def _generate_and_score_completions(self, inputs):
            self.rollout = {
                "weights_at_rollout": copy_of(self.model.state_dict()),
                "inputs": inputs,
            }
            self.rollout |= {
                key: value for key, value in super()._generate_and_score_completions(inputs).items()
            }
            return {
                key: value
                for key, value in self.rollout.items()
                if key not in ("weights_at_rollout", "inputs")
            }

        def training_step(self, model, inputs, num_items_in_batch):
            before = copy_of(model.state_dict())
            loss = super().training_step(model, inputs, num_items_in_batch)
            gradient = {name: p.grad.clone() for name, p in model.named_parameters()}
            records.append(
                {
                    "weights": before,
                    "rollout": self.rollout,
                    "loss": loss.item(),
                    "gradient": gradient,
                    "batch": inputs,
                }
            )
            return loss

    return Capturing


def capture(monkeypatch, records: list[dict], rewards: list[torch.Tensor]) -> None:
    """Let stages of GRPO write down their steps."""
    kind = module.TRAINERS["GRPOTrainer"]._replace(trainer=capturing(records, rewards))
    monkeypatch.setitem(module.TRAINERS, "GRPOTrainer", kind)


def copy_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def mixed_rollout(trainer) -> Rollout:
    """A sampled rollout in which some group has right and wrong completions."""
    torch.manual_seed(0)
    size = trainer.num_generations
    rows = [row for i in range(4) for row in [trainer.train_dataset[i]] * size]
    for _ in range(20):
        sampled = trainer.sample(rows)
        if sampled.mixed.any():
            return sampled
    raise AssertionError("no group has contrast")


def close(tensor: torch.Tensor, expected: list) -> bool:
    return torch.allclose(tensor.float(), torch.tensor(expected, dtype=torch.float32), atol=2e-3)
