"""GRPO: TRL's step against one written in plain torch, exact rewards, the same weights every time,
interrupted or not.
"""

from __future__ import annotations

import math
import os
import shutil

import numpy as np
import pytest
import torch
from trl import GRPOConfig, GRPOTrainer, RLOOTrainer

from bases import tiny_model
from grpo_origin.config.notation import TaskSpec
from grpo_origin.jobs.errors import NotFinite
from grpo_origin.rl import callbacks
from grpo_origin.rl import trainer as module
from grpo_origin.rl.method import find
from grpo_origin.rl.trainer import LOGGED, TaskReward
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import BOS, EOS, PAD, Vocabulary
from grpo_origin.tasks.world import World
from grpo_origin.training.model import build_model, load_model, save_model
from helpers import read, strings, tiny, weights_hash
from rl_trainer import STAGE, capture, run, trainer_of


def test_a_gradient_that_is_no_number_at_the_last_step_leaves_no_model(cell, tmp_path, monkeypatch):
    """The loss is finite: a model of NaN weights would be put in place."""
    original = module.MethodHooks.loss_of

    def loss_of(trainer, model, batch):
        loss = original(trainer, model, batch)
        if trainer.state.global_step == trainer.state.max_steps - 1:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    monkeypatch.setattr(module.MethodHooks, "loss_of", loss_of)
    with pytest.raises(NotFinite, match="grpo~ood: gradient norm not finite at step 12;"):
        run(cell, tmp_path / "grpo")
    assert not (tmp_path / "grpo").exists()


@pytest.mark.parametrize("bad", [3, 12])
def test_weights_that_are_no_numbers_become_neither_checkpoint_nor_model(
    cell, tmp_path, monkeypatch, bad
):
    """Gradients are finite, the optimiser overflows; step 12 is the last."""
    original = callbacks.Keeper.on_step_end

    def overflow(keeper, args, state, control, **more):
        if state.global_step == bad:
            next(more["model"].parameters()).data[0, 0] = math.inf
        original(keeper, args, state, control, **more)

    monkeypatch.setattr(callbacks.Keeper, "on_step_end", overflow)
    changes = {"runtime": {"checkpoint_seconds": 0}}
    with pytest.raises(NotFinite, match=rf"grpo~ood: weights .* not finite at step {bad};"):
        run(cell, tmp_path / "grpo", changes)
    assert not (tmp_path / "grpo").exists()
    assert os.listdir(tmp_path / "grpo.checkpoint") == [f"step-{bad - 1}"]


def token_log_probabilities(
    model, prompt: list[int], completion: list[int], temperature: float
) -> torch.Tensor:
    logits = (
        model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        / temperature
    )
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def oracle(policy, old, reference, prompts, completions, advantages, settings) -> torch.Tensor:
    """The GRPO loss, a completion at a time, without padding: clipped ratio times advantage, minus
    beta times the k3 estimate of the KL to the reference (weighted by the ratio, so that its
    gradient is that of the KL), mean over tokens, then over completions.
    """
    losses = []
    for prompt, completion, advantage in zip(prompts, completions, advantages, strict=True):
        now = token_log_probabilities(policy, prompt, completion, settings.temperature)
        with torch.no_grad():
            then = (
                now.detach()
                if old is None
                else token_log_probabilities(old, prompt, completion, settings.temperature)
            )
            base = token_log_probabilities(reference, prompt, completion, settings.temperature)
        ratio = (now - then).exp()
        clipped = ratio.clamp(1 - settings.epsilon, 1 + settings.epsilon)
        kl = (base - now).exp() - (base - now) - 1
        losses.append(
            (-torch.min(ratio * advantage, clipped * advantage) + settings.beta * kl * ratio).mean()
        )
    return torch.stack(losses).mean()


def unpadded(rows: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    return [row[keep.bool()].tolist() for row, keep in zip(rows, mask, strict=True)]


CASES = {
    "KL": ({"beta": 0.1}, "grpo~ood"),
    "no KL": ({"beta": 0.0}, "grpo~ood"),
    "prompts of several lengths, temperature": ({"beta": 0.1, "temperature": 1.6}, "grpo~id"),
    "two iterations, clipping": ({"beta": 0.1, "iterations": 2, "epsilon": 0.02}, "grpo~ood"),
}


@pytest.mark.parametrize(("changes", "stage"), CASES.values(), ids=CASES)
def test_every_step_equals_plain_torch(cell, tmp_path, monkeypatch, changes, stage):
    """Same rewards, advantages, loss and gradient for the same rollouts, at the first steps: from
    the second the policy has left the reference, so that the KL term shows.
    """
    changes = {
        "rl": {
            "steps": 4,
            "group_size": 8,
            "learning_rate": 3e-3,
            "max_grad_norm": 1e9,
            **changes,
        }
    }
    records, rewards = [], []
    capture(monkeypatch, records, rewards)
    run(cell, tmp_path / "grpo", changes, stage)
    settings = tiny(**changes).rl
    assert len(records) == 4
    assert len(rewards) == 4 / settings.iterations
    reference, policy, old = (load_model(cell / "sft") for _ in range(3))
    prompts_file = {
        tuple(row["prompt_ids"]): row
        for row in read(cell / "data" / "grpo.parquet")
        if row["split"] == stage[5:]
    }
    varied = moved = 0
    for step, record in enumerate(records):
        rollout = record["rollout"]
        prompts = unpadded(rollout["prompt_ids"], rollout["prompt_mask"])
        completions = unpadded(rollout["completion_ids"], rollout["completion_mask"])
        gold = [prompts_file[tuple(prompt)]["completion_ids"] for prompt in prompts]
        reward = torch.tensor(
            [float(given == right) for given, right in zip(completions, gold, strict=True)]
        )
        assert rewards[step // settings.iterations][:, 0].tolist() == reward.tolist()
        groups = reward.view(-1, settings.group_size)
        assert all(
            len({tuple(p) for p in prompts[i : i + 8]}) == 1 for i in range(0, len(prompts), 8)
        )
        advantages = (
            (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
        ).flatten()
        assert torch.allclose(rollout["advantages"], advantages, atol=1e-5)
        varied += int((groups.std(1) > 0).sum())

        # The rollout is split into batches and shuffled before the optimiser; here it is one.
        policy.load_state_dict(record["weights"])
        old.load_state_dict(rollout["weights_at_rollout"])
        policy.zero_grad()
        on_policy = settings.iterations == 1
        loss = oracle(
            policy,
            None if on_policy else old,
            reference,
            prompts,
            completions,
            advantages,
            settings,
        )
        loss.backward()
        assert record["loss"] == pytest.approx(loss.item(), abs=2e-5)
        for name, parameter in policy.named_parameters():
            assert torch.allclose(record["gradient"][name], parameter.grad, atol=2e-5, rtol=2e-3), (
                step,
                name,
            )
        moved += any(
            not torch.equal(policy.state_dict()[name], tensor)
            for name, tensor in reference.state_dict().items()
        )
    assert varied >= 3
    assert moved >= 3
    log = read(tmp_path / "grpo" / "training_log.parquet")
    assert [row["loss"] for row in log] == pytest.approx(
        [record["loss"] for record in records], abs=1e-4
    )
    assert [row["reward_mean"] for row in log] == pytest.approx(
        [float(rewards[i // settings.iterations].mean()) for i in range(4)]
    )
    if settings.iterations > 1:
        assert max(row["clip_share"] for row in log) > 0
    if settings.beta:
        assert log[0]["kl"] == pytest.approx(0, abs=1e-6)
        assert log[-1]["kl"] > 1e-4


def test_rewards_are_one_for_the_gold_completion_and_zero_for_everything_near_it(world):
    reward, vocabulary = TaskReward(strings()), Vocabulary(world.nodes)
    prompts, completions, names, expected = [], [], [], []
    for name in ("trav;2;A", "shift trav;2;A", "trav;2;B"):
        task = Task(TaskSpec.model_validate(name), world)
        start = task.in_alphabet(np.array([[1, 3]], dtype=np.int16))
        gold = vocabulary.completions(task, start)[0].tolist()
        near = [
            gold[:-1],
            [*gold, EOS],
            [*gold[:-1], PAD],
            [BOS, *gold[1:]],
            [gold[0], *gold[2:]],
            [],
            gold[:1] + gold[2:0:-1] + gold[3:],
        ]
        if len(task.spec.operations) > 1:
            near.append(gold[3:])  # the answer without its trace
        for completion in (gold, *near):
            prompts.append(vocabulary.prompts(task, start)[0].tolist())
            completions.append(completion)
            names.append(name)
            expected.append(float(completion is gold))
    order = np.random.default_rng(0).permutation(len(prompts))  # tasks mixed within a batch
    shuffled = [[values[i] for i in order] for values in (prompts, completions, names, expected)]
    assert reward(shuffled[0], shuffled[1], shuffled[2]) == shuffled[3]
    assert sum(expected) == 3


def test_a_gold_completion_of_another_prompt_earns_nothing(world):
    vocabulary = Vocabulary(world.nodes)
    task = Task(TaskSpec.model_validate("trav;2;A"), world)
    starts = task.in_alphabet(np.array([[1, 3], [2, 4]], dtype=np.int16))
    prompts, gold = (
        vocabulary.prompts(task, starts).tolist(),
        vocabulary.completions(task, starts).tolist(),
    )
    assert TaskReward(strings())(prompts, gold[::-1], ["trav;2;A"] * 2) == [0.0, 0.0]


def written(names: str) -> list[int]:
    """Token ids of a text such as `<think> B C <answer> C D <eos>`, in a world of 8 nodes."""
    tokens = Vocabulary(8).tokens
    return [tokens.index(name) for name in names.split()]


@pytest.mark.parametrize(
    ("completion", "answer", "steps"),
    [
        ("<think> B C <answer> C D <eos>", 1, 1),
        ("<answer> C D <eos>", 1, 0),  # the trace is free; the answer stands where B C should
        ("<think> E E <think> F <answer> C D <eos>", 1, 0),
        ("<think> B C <think> C D <eos>", 0, 1),  # right states, wrong marker
        ("B C <think> C D", 0, 1),
        ("<think> B C <answer> C E <eos>", 0, 1 / 2),
        ("<answer> B C <eos>", 0, 1 / 2),
        ("<think> B C <think> C D <answer> D E <eos>", 0, 2 / 3),  # a state too many
        ("<think> B C <answer> C D", 0, 1),  # not ended
        ("<answer> C D <answer> C D <eos>", 0, 1 / 2),
        ("<think> B C <answer> C D <eos> <eos>", 0, 1),
        ("", 0, 0),
    ],
)
def test_rewards_of_the_answer_alone_and_of_states(completion, answer, steps, monkeypatch):
    monkeypatch.setattr(World, "successor", np.roll(np.arange(8), -1))  # A -> B -> C ...
    given = [written("<bos> A B <trav> <trav> <solve>")], [written(completion)], ["trav trav;2;A"]
    assert TaskReward(strings(), "answer")(*given) == [answer]
    assert TaskReward(strings(), "steps")(*given) == [pytest.approx(steps)]


def test_the_training_log(cell):
    log = read(cell / STAGE / "training_log.parquet")
    steps = tiny().rl.steps
    assert list(log[0]) == ["step", *LOGGED]
    assert [row["step"] for row in log] == list(range(1, steps + 1))
    for row in log:
        assert all(math.isfinite(value) for value in row.values())
        assert 0 <= row["reward_mean"] <= 1
        assert 0 <= row["zero_variance_share"] <= 1
        assert row["learning_rate"] == pytest.approx(3e-4)
        assert 1 <= row["completion_length"] <= 10
    assert any(0 < row["zero_variance_share"] < 1 for row in log)


@pytest.mark.parametrize(("name", "trls"), [("grpo", GRPOTrainer), ("rloo", RLOOTrainer)])
def test_log_probabilities_and_entropies_are_trls(cell, tmp_path, name, trls, monkeypatch):
    trainer = trainer_of(cell, tmp_path, find(name)(), rl={"temperature": 0.7})
    tokens = torch.randint(3, 11, (6, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor(
        [
            [0] * left + [1] * (11 - left - right) + [0] * right
            for left, right in ((0, 0), (2, 0), (0, 3), (1, 1), (0, 6), (3, 5))
        ]
    )
    arguments = (trainer.model, tokens, mask, 7)
    ours = trainer._get_per_token_logps_and_entropies(*arguments, compute_entropy=True)
    theirs = trls._get_per_token_logps_and_entropies(trainer, *arguments, compute_entropy=True)
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert mine.shape == (6, 7)
        assert torch.allclose(mine, other, atol=1e-5)
    weights = torch.rand(6, 7, generator=torch.Generator().manual_seed(1))
    gradients = [
        torch.autograd.grad((weights * x).sum(), trainer.model.lm_head.weight, retain_graph=True)[0]
        for x in (ours[0], theirs[0])
    ]
    assert torch.allclose(*gradients, atol=1e-5)
    assert trainer._get_per_token_logps_and_entropies(*arguments)[1] is None
    monkeypatch.setattr(module, "LARGE", 0)  # then they are computed as TRL does
    large = trainer._get_per_token_logps_and_entropies(*arguments, compute_entropy=True)
    assert torch.equal(large[0], theirs[0])
    assert torch.equal(large[1], theirs[1])


def test_learned_positions_count_from_the_first_token_behind_the_padding():
    """As when completions are drawn; rotary positions need not, so other models are given none."""
    ids = torch.tensor([[9, 10, 11, 12]])
    padded, seen = torch.cat([torch.zeros_like(ids), ids], 1), torch.tensor([[0] * 4 + [1] * 4])
    learned = tiny_model("gpt2", 30).eval()
    plain = learned(ids).logits
    places = module._positions(learned, seen)
    assert torch.allclose(learned(padded, attention_mask=seen, **places).logits[:, 4:], plain)
    assert not torch.allclose(learned(padded, attention_mask=seen).logits[:, 4:], plain)
    assert module._positions(tiny_model("llama", 30), seen) == {}


def test_every_prompt_is_used_once_in_file_order(cell, tmp_path, monkeypatch):
    records: list[dict] = []
    capture(monkeypatch, records, [])
    run(cell, tmp_path / "grpo")
    used = [row["prompt"] for record in records for row in record["rollout"]["inputs"]][
        :: tiny().rl.group_size
    ]
    assert used == [
        row["prompt_ids"] for row in read(cell / "data" / "grpo.parquet") if row["split"] == "ood"
    ]


def test_without_reward_variance_nothing_is_learnt(cell, tmp_path):
    """A model that is never right: every group is all zeros, so without a KL term no weight may
    move.
    """
    shutil.copytree(cell / "data", tmp_path / "root" / "data")
    save_model(
        build_model(tiny().model, strings().tokens, seed=0), strings(), tmp_path / "root" / "sft"
    )
    run(tmp_path / "root", tmp_path / "grpo", {"rl": {"beta": 0.0}})
    log = read(tmp_path / "grpo" / "training_log.parquet")
    assert {row["zero_variance_share"] for row in log} == {1.0}
    assert {row["grad_norm"] for row in log} == {0.0}
    assert weights_hash(tmp_path / "grpo") == weights_hash(tmp_path / "root" / "sft")


def test_the_schedule_warms_up_and_decays(cell, tmp_path):
    run(cell, tmp_path / "grpo", {"rl": {"schedule": "linear", "warmup": 0.25}})
    rates = [row["learning_rate"] for row in read(tmp_path / "grpo" / "training_log.parquet")]
    assert rates == pytest.approx([3e-4 * min(i / 3, (12 - i) / 9) for i in range(12)])


def test_the_optimiser_is_that_of_the_settings(cell, tmp_path):
    given = {"weight_decay": 0.3, "adam_beta1": 0.8, "adam_beta2": 0.97, "adam_epsilon": 1e-6}
    for name in ("grpo", "rloo"):
        optimiser = trainer_of(cell, tmp_path, find(name)(), rl=given).create_optimizer()
        groups = optimiser.param_groups
        assert {group["betas"] for group in groups} == {(0.8, 0.97)}, name
        assert {group["eps"] for group in groups} == {1e-6}, name
        assert 0.3 in {group["weight_decay"] for group in groups}, name


def test_the_optimiser_of_default_settings_is_trls(cell, tmp_path):
    """A TRL whose own default is another changes nothing here, but is to be known of."""
    ours, trls = (
        trainer_of(cell, tmp_path, find("grpo")()).args,
        GRPOConfig(str(tmp_path), use_cpu=True),
    )
    for name in ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"):
        assert getattr(ours, name) == getattr(trls, name), name


def test_the_same_job_gives_the_same_weights_and_other_prompts_others(cell, tmp_path):
    again = run(cell, tmp_path / "again")
    assert again == weights_hash(cell / STAGE)
    assert again != run(cell, tmp_path / "id", stage="grpo~id")
    assert again != weights_hash(cell / "sft")
