"""DPO: its loss on hand-computed pairs and against TRL's own, who samples, rounds, and no pairs."""

from __future__ import annotations

from math import exp, log
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.stages import LoraSettings
from grpo_origin.rl.methods.dpo import DPO
from grpo_origin.tasks.tokenizer import PAD, Vocabulary, build_tokenizer
from grpo_origin.tasks.world import World
from grpo_origin.training.model import load_model
from helpers import read, run_stage, tiny_study
from rl_trainer import mixed_rollout, trainer_of


def loss_of(log_ratios: list[float], rewards: list[float], prompts: list[int]) -> float:
    """The loss of planted sequences of two tokens, the second of which carries the log ratio.

    A third token is padding whose log ratio must not count.
    """
    rows = len(rewards)
    planted = torch.tensor([[0.5, ratio, 9.0] for ratio in log_ratios])
    trainer = SimpleNamespace(_get_per_token_logps_and_entropies=lambda *_: (planted, None, None))
    batch = {name: torch.zeros(rows, 2) for name in ("prompt_ids", "prompt_mask")}
    batch |= {
        "completion_ids": torch.zeros(rows, 3),
        "completion_mask": torch.tensor([[1.0, 1.0, 0.0]] * rows),
        "ref_per_token_logps": torch.tensor([[0.5, 0.0, 0.0]] * rows),
        "advantages": torch.tensor(rewards),
        "prompt_number": torch.tensor(prompts),
    }
    return DPO(beta=0.5).loss(trainer, None, batch).item()  # type: ignore[arg-type]


def pair(difference: float) -> float:
    """-log sigmoid(0.5 x) of a pair whose log ratios differ by x."""
    return log(1 + exp(-0.5 * difference))


def test_the_loss_of_one_pair_is_that_of_the_paper():
    assert loss_of([1.0, -2.0], [1, 0], [0, 0]) == pytest.approx(pair(3.0))
    assert loss_of([1.0, -2.0], [0, 1], [0, 0]) == pytest.approx(pair(-3.0))
    assert loss_of([0.0, 0.0], [1, 0], [0, 0]) == pytest.approx(log(2))


def test_pairs_are_of_one_prompt_and_every_prompt_counts_the_same():
    """Rows come shuffled: prompt 7 has one pair, prompt 3 two, prompt 5 none."""
    loss = loss_of(
        [2.0, 0.5, -1.0, 4.0, 1.0, 3.0, -3.0],
        [1, 1, 0, 1, 0, 0, 1],
        [7, 3, 3, 5, 7, 3, 5],
    )
    assert loss == pytest.approx((pair(1.0) + (pair(1.5) + pair(-2.5)) / 2) / 2)


def test_graded_rewards_are_compared_too():
    loss = loss_of([0.0, 1.0, 2.0], [0.5, 0.0, 1.0], [0, 0, 0])
    assert loss == pytest.approx((pair(-1.0) + pair(2.0) + pair(1.0)) / 3)


def test_without_a_pair_there_is_no_loss():
    assert loss_of([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], [0, 0, 1, 1]) == 0.0


def test_the_loss_is_that_of_trls_dpo_trainer(cell, tmp_path):
    """On sampled completions, a pair a prompt, under a policy that has moved from its reference."""
    trainer = trainer_of(cell, tmp_path, DPO(beta=0.3))
    sampled = mixed_rollout(trainer)
    place, size = torch.arange(len(sampled.rewards)), trainer.num_generations
    groups = [place[i : i + size] for i in range(0, len(place), size)]
    chosen = [(g[sampled.rewards[g] == 1], g[sampled.rewards[g] == 0]) for g in groups]
    rows = [
        int(row)
        for right, wrong in chosen
        if len(right) and len(wrong)
        for row in (right[0], wrong[0])
    ]
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            )
    batch = {name: value[rows] for name, value in sampled.batch.items() if value.dim()}
    batch |= {"advantages": sampled.rewards[rows], "prompt_number": torch.arange(len(rows)) // 2}
    ours = trainer.method.loss(trainer, trainer.model, batch)

    names = Vocabulary(8).tokens
    texts = [" ".join(names[i] for i in sampled.completions[row]) for row in rows]
    prompts = [" ".join(names[i] for i in sampled.inputs[row]["prompt"]) for row in rows[::2]]
    pairs = {"prompt": prompts, "chosen": texts[::2], "rejected": texts[1::2]}
    theirs = DPOTrainer(
        model=trainer.model,
        ref_model=load_model(cell / "sft"),
        args=DPOConfig(
            output_dir=str(tmp_path),
            beta=0.3,
            use_cpu=True,
            bf16=False,
            report_to="none",
            gradient_checkpointing=False,
            max_length=None,
        ),
        train_dataset=Dataset.from_dict(pairs),
        processing_class=build_tokenizer(World(8, 0)),
    )
    examples = theirs.data_collator([theirs.train_dataset[i] for i in range(len(prompts))])
    assert (examples["input_ids"] != PAD).sum() > 0
    expected = theirs.compute_loss(theirs.model, examples)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    assert abs(ours.item() - log(2)) > 1e-3


def test_the_reference_samples_not_the_policy(cell, tmp_path):
    """A policy without any right completion still gets pairs, those the SFT model gives."""
    trainer = trainer_of(cell, tmp_path, DPO())
    rows = [trainer.train_dataset[i] for i in range(4) for _ in range(trainer.num_generations)]
    torch.manual_seed(0)
    before = trainer.method.rollout(trainer, rows)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.zero_()
    torch.manual_seed(0)
    after = trainer.method.rollout(trainer, rows)
    assert after.completions == before.completions
    assert after.batch["prompt_number"].tolist() == [i for i in range(4) for _ in range(4)]
    torch.manual_seed(0)
    assert trainer.sample(rows).completions != before.completions  # the policy samples again


def test_rounds_are_resets_of_the_reference():
    rl = tiny_study(rl={"reset_reference_every": 6}).settings.rl
    assert DPO().settings(rl).reset_reference_every == 6
    assert DPO(round_steps=4).settings(rl).reset_reference_every == 4
    assert DPO().settings(tiny_study().settings.rl).reset_reference_every == 0


def test_rounds_with_adapters_are_refused_before_any_job():
    """Their reference is the model without adapters, which can't become the policy."""
    lora = {"lora": {"rank": 2}}
    with pytest.raises(ConfigError, match="methods: dpo makes the policy its reference"):
        tiny_study(methods=[{"dpo": {"round_steps": 4}}], **lora)
    assert tiny_study(methods=["dpo"], **lora).settings.lora


def test_adapters_are_off_while_the_reference_samples(cell, tmp_path):
    """A policy whose adapters have moved far still samples as the SFT model does."""
    pytest.importorskip("peft")
    trainer = trainer_of(cell, tmp_path, DPO(), adapters=LoraSettings(rank=2))
    rows = [trainer.train_dataset[i] for i in range(4) for _ in range(trainer.num_generations)]
    torch.manual_seed(0)
    before = trainer.method.rollout(trainer, rows)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1.0)
    torch.manual_seed(0)
    after = trainer.method.rollout(trainer, rows)
    assert after.completions == before.completions
    assert torch.equal(after.batch["ref_per_token_logps"], before.batch["ref_per_token_logps"])
    torch.manual_seed(0)
    assert trainer.sample(rows).completions != before.completions  # the adapters are on again


def test_a_round_starts_from_the_policy_and_samples_with_it(cell, tmp_path):
    """With rounds the run has the same first round and then goes another way."""
    logs = {}
    for name, settings in (("offline", {}), ("online", {"round_steps": 6})):
        changes = {"methods": [{"dpo": settings}], "rl": {"learning_rate": 1e-3}}
        run_stage("dpo~ood", cell, tmp_path / name, tmp_path / f"{name}.c", changes)
        logs[name] = [row["loss"] for row in read(tmp_path / name / "training_log.parquet")]
    assert logs["offline"][:6] == logs["online"][:6]
    assert logs["offline"][7:] != logs["online"][7:]
    assert logs["online"][0] == logs["online"][6] == pytest.approx(log(2))  # policy = reference
