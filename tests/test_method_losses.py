"""What methods make of the loss: clipping, likelihood, and every hook asked in a real run."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

from grpo_origin.rl.method import Method, find
from rl_trainer import close, mixed_rollout, trainer_of


def clipped(ratio, advantage, low, high):
    return -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


# Log-ratio and mask (B, T), advantages (B, 1), log-probs -> loss, each as its paper has it.
LOSSES = {
    "grpo": lambda d, m, a, p: ((clipped(d.exp(), a, 0.2, 0.2) * m).sum(1) / m.sum(1)).mean(),
    "dr_grpo": lambda d, m, a, p: (clipped(d.exp(), a, 0.2, 0.2) * m).sum() / (len(m) * 10),
    "dapo": lambda d, m, a, p: (clipped(d.exp(), a, 0.2, 0.28) * m).sum() / m.sum(),
    "gspo": lambda d, m, a, p: clipped(
        ((d * m).sum(1, keepdim=True) / m.sum(1, keepdim=True)).exp(), a, 1e-2, 1.3e-2
    ).mean(),
    "cispo": lambda d, m, a, p: (-(d.exp().clamp(max=1.28) * a * p) * m).sum() / m.sum(),
    "abc_grpo": lambda d, m, a, p: (
        (-torch.where(a > 0, d.exp().clamp(0.8, 1.3), d.exp().clamp(0.9, 1.4)) * a * m).sum(1)
        / m.sum(1)
    ).mean(),
    "rloo": lambda d, m, a, p: clipped((d * m).sum(1, keepdim=True).exp(), a, 0.2, 0.2).mean(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_group(cell, tmp_path, name):
    """TRL's loss under each method's arguments and hooks, on ratios that leave every clip range,
    against the paper's formula.
    """
    bounds = (
        {"right_low": 0.2, "right_high": 0.3, "wrong_low": 0.1, "wrong_high": 0.4}
        if name == "abc_grpo"
        else {}
    )
    method = find(name)(beta=0.0, **bounds)
    trainer = trainer_of(cell, tmp_path, method)
    trainer.current_gradient_accumulation_steps = 1
    model = trainer.model.train()
    rows = torch.randint(3, 11, (4, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * n + [0] * (7 - n) for n in (7, 5, 7, 3)])
    prompts = torch.randint(3, 11, (4, 4), generator=torch.Generator().manual_seed(1))
    logits = model(input_ids=torch.cat([prompts, rows], 1)).logits[:, 3:-1]
    log_probs = logits.log_softmax(-1).gather(-1, rows[..., None])[..., 0].detach()
    log_ratio = torch.tensor([[0.5, -0.5, 0.1, 0, 0.3, -0.1, 0.2]]).repeat(4, 1) * torch.tensor(
        [[1.0], [-1.0], [0.5], [1.0]]
    )
    batch = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": rows,
        "completion_mask": mask,
    }
    advantages = torch.tensor([1.0, 1.0, -1.0, -0.5])
    old = log_probs - log_ratio
    batch |= {
        "advantages": advantages,
        "old_per_token_logps": old,
        "num_items_in_batch": mask.sum(),
    }
    if method.trainer == "RLOOTrainer":
        batch["old_logps"] = (old * mask).sum(1)
    loss = trainer._compute_loss(model, batch).item()
    assert loss == pytest.approx(
        LOSSES[name](log_ratio, mask, advantages[:, None], log_probs).item(), abs=1e-5
    )


def test_expert_iteration_fits_right_completions_whatever_the_old_policy(cell, tmp_path):
    """The gradient is that of the mean log-probability of their tokens, though the policy moved."""
    trainer = trainer_of(cell, tmp_path, find("expert_iteration")())
    trainer.current_gradient_accumulation_steps = 1
    sampled = mixed_rollout(trainer)
    batch, model = sampled.batch, trainer.model.train()
    mask = batch["completion_mask"]
    batch["advantages"] = trainer.method.advantages(sampled)
    batch["old_per_token_logps"] = torch.randn(mask.shape)
    trainer._compute_loss(model, batch).backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    seen = torch.cat([batch["prompt_mask"], mask], 1)
    log_probs, _, _ = trainer._get_per_token_logps_and_entropies(model, ids, seen, mask.shape[1])
    likelihood = (log_probs * mask).sum(1) / mask.sum(1)
    (-likelihood[sampled.rewards == 1].mean()).backward()
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-5)


def test_every_hook_is_asked_in_a_real_run(cell, tmp_path):
    """What a hook gives is what is trained on."""
    calls = []

    class Everything(Method):
        objective = "other"
        custom_rewards = True

        def rollout(self, trainer, inputs):
            calls.append("rollout")
            return super().rollout(trainer, inputs[::-1])

        def rewards(self, rollout):
            calls.append("rewards")
            return torch.arange(len(rollout.rewards), dtype=torch.float32)

        def advantages(self, rollout):
            calls.append("advantages")
            return super().advantages(rollout)

        def log_probs(self, log_probs, batch):
            calls.append("log_probs")
            return super().log_probs(log_probs, batch)

        def loss(self, trainer, model, batch):
            calls.append("loss")
            self.batches.append(batch)
            return super().loss(trainer, model, batch)

        batches: ClassVar[list] = []

    trainer = trainer_of(cell, tmp_path, Everything(), rl={"steps": 1})
    trainer.train()
    assert calls == ["rollout", "advantages", "rewards", "loss", "log_probs"]
    (batch,) = Everything.batches
    group = [-1.5, -0.5, 0.5, 1.5]
    expected = [x / np.std(group, ddof=1) for x in group] * 4
    assert close(batch["advantages"].sort().values, sorted(expected))
