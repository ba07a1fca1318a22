from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from grpo_origin.config.fields import Count, Number
from grpo_origin.config.stages import RLSettings
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from grpo_origin.rl.trainer import MethodHooks


class DPO(Method):
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290, eq. 7), pairs from the
    SFT model's own completions.

    A pair is two completions of a prompt of which the first is rewarded more: a right and a wrong
    one. loss = -log sigmoid(beta [log pi/ref of the first - log pi/ref of the second]) of whole
    completions, mean over the pairs of a prompt, then over the prompts that have any; one without
    both kinds gives none (one less `contrast_share` of `tables/signal` counts these). Completions
    are sampled from the reference, never from the policy, so drawing them step by step gives the
    same pairs as drawing all before training, and the budget is plain GRPO's: as many completions,
    and one update a step. `round_steps` makes it online, in rounds: the policy becomes reference
    and sampler, and the optimiser starts anew (iterative DPO, as in arXiv 2404.19733).
    """

    beta: Number = Field(0.1, gt=0, description="Weight beta of the implicit KL term.")
    round_steps: Count | None = Field(
        None,
        description="Steps of a round; `rl.reset_reference_every` when left out, whose 0 makes all "
        "steps one round, from the SFT model.",
    )

    objective = "other"

    def settings(self, rl: RLSettings, **changes: Any) -> RLSettings:
        if self.round_steps:
            changes["reset_reference_every"] = self.round_steps
        return super().settings(rl, **changes)

    def rollout(self, trainer: MethodHooks, inputs: list[dict[str, Any]]) -> Rollout:
        import torch

        with _as_reference(trainer):
            sampled = trainer.sample(inputs)
        place = torch.arange(len(inputs), device=sampled.rewards.device)
        sampled.batch["prompt_number"] = place // sampled.group_size
        return sampled

    def advantages(self, rollout: Rollout) -> Tensor:
        """The rewards themselves: `loss` compares them."""
        return rollout.rewards

    def loss(self, trainer: MethodHooks, model: Any, batch: dict[str, Any]) -> Tensor:
        import torch
        from torch.nn.functional import logsigmoid

        ids, seen = (
            torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], 1)
            for kind in ("ids", "mask")
        )
        length = batch["completion_ids"].shape[1]
        log_probs = trainer._get_per_token_logps_and_entropies(model, ids, seen, length)[0]
        ratio = ((log_probs - batch["ref_per_token_logps"]) * batch["completion_mask"]).sum(1)
        rewards, prompt = batch["advantages"], batch["prompt_number"]
        same = prompt[:, None] == prompt
        pairs = (same & (rewards[:, None] > rewards)).float()  # (B, B): row above column
        of_prompt = same.float() @ pairs.sum(1)  # pairs of each row's prompt
        weights = pairs / of_prompt.clamp(min=1)[:, None]
        losses = -logsigmoid(self.beta * (ratio[:, None] - ratio))
        return (weights * losses).sum() / weights.sum().clamp(min=1)


@contextmanager
def _as_reference(trainer: MethodHooks) -> Iterator[None]:
    """The reference in the policy's place wherever the trainer generates."""
    if trainer.ref_model is None:  # with LoRA it is the model without its adapters
        with trainer.model.disable_adapter():
            yield
        return
    policy, trainer.model_wrapped = trainer.model_wrapped, trainer.ref_model
    try:
        yield
    finally:
        trainer.model_wrapped = policy
