"""RL methods: each update on a group worked out by hand, and on a real trainer, and resumable."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from grpo_origin.rl.method import Rollout, find
from rl_trainer import close, mixed_rollout, trainer_of

GOLD = [9, 1, 2, 10, 3, 4, 8]  # two steps of `trav trav;2;A`: <think> 1 2 <answer> 3 4 <eos>
WRONG_FIRST = [9, 1, 5, 10, 3, 4, 8]
WRONG_LAST = [9, 1, 2, 10, 3, 5, 8]
WRONG_BOTH = [9, 5, 5, 10, 5, 5, 8]
UNENDED = [9, 1, 2, 10, 3, 4]


@pytest.fixture(scope="module")
def trainer(cell, tmp_path_factory):
    """A real trainer of plain GRPO, on the tiny cell."""
    return trainer_of(cell, tmp_path_factory.mktemp("trainer"), find("grpo")())


@pytest.fixture
def rollout(trainer, monkeypatch):
    """A batch of chosen completions of prompts of one two-step task, with TRL's advantages."""

    def made(completions, group_size, memory=None, **batch):
        monkeypatch.setattr(trainer, "num_generations", group_size)
        monkeypatch.setattr(trainer, "memory", {} if memory is None else memory)
        return planted(trainer, completions, **batch)

    return made


def planted(trainer, completions: list[list[int]], **batch) -> Rollout:
    size, width = len(completions), max(map(len, completions))
    rewards = torch.tensor([float(completion == GOLD) for completion in completions])
    mask = torch.tensor([[1] * len(c) + [0] * (width - len(c)) for c in completions])
    batch = {
        "completion_mask": mask,
        **{name: torch.as_tensor(values) for name, values in batch.items()},
    }
    inputs = [
        {
            "prompt": [0, i // trainer.num_generations],
            "gold": GOLD,
            "task": "trav trav;2;A",
            "step_starts": [0, 3],
        }
        for i in range(size)
    ]
    made = Rollout(inputs, completions, rewards, batch, trainer)
    made.batch["advantages"] = made.relative(rewards)
    return made


def test_the_parts_of_a_rollout(rollout):
    made = rollout([GOLD, WRONG_LAST, GOLD, GOLD, WRONG_BOTH, UNENDED, WRONG_FIRST, [*GOLD, 8]], 2)
    assert made.steps == [
        [True, True],
        [True, False],
        [True, True],
        [True, True],
        [False, False],
        [True, False],
        [False, True],
        [True, False],
    ]
    assert made.mixed.tolist() == [True, True] + [False] * 6
    half = 1 / math.sqrt(2)  # (1 - 0.5) / std of (1, 0)
    assert close(made.relative(made.rewards), [half, -half, 0, 0, 0, 0, 0, 0])
    assert close(made.relative(made.rewards, scaled=False), [0.5, -0.5, 0, 0, 0, 0, 0, 0])


def test_unchanged_rewards_leave_trls_advantages_alone(rollout):
    made = rollout([GOLD, WRONG_LAST], 2)
    assert find("grpo")().advantages(made) is made.batch["advantages"]


def test_raft_and_expert_iteration_weigh_right_completions_only(rollout):
    made = rollout([GOLD, WRONG_LAST, GOLD, GOLD], 2)
    third = 4 / 3  # the mean over 4 rows is then the mean over 3 right ones
    assert close(find("raft")().advantages(made), [third, 0, third, third])
    assert close(find("expert_iteration")().advantages(made), [third, 0, third, third])
    assert find("expert_iteration")().arguments() == {"steps_per_generation": 5}
    nothing = rollout([WRONG_LAST, WRONG_LAST], 2)
    assert close(find("raft")().advantages(nothing), [0, 0])


def test_reinforce_rej_drops_groups_without_contrast(rollout):
    made = rollout([GOLD, WRONG_LAST, GOLD, GOLD, WRONG_BOTH, WRONG_BOTH], 2)
    # The mean over six rows is then that over the two kept.
    assert close(find("reinforce_rej")().advantages(made), [3, -3, 0, 0, 0, 0])
    nothing = rollout([WRONG_LAST, WRONG_LAST], 2)
    assert close(find("reinforce_rej")().advantages(nothing), [0, 0])


def test_process_rewards_every_right_step(rollout):
    made = rollout([GOLD, WRONG_FIRST, WRONG_LAST, WRONG_BOTH], 4)
    assert close(find("process")().rewards(made), [1, 0.5, 0.5, 0])
    std = np.std([1, 0.5, 0.5, 0], ddof=1)
    assert close(find("process")().advantages(made), [0.5 / std, 0, 0, -0.5 / std])


def test_sgpo_grades_only_groups_that_are_all_wrong(rollout):
    made = rollout([GOLD, WRONG_LAST, WRONG_LAST, WRONG_FIRST], 2)
    method = find("sgpo")(slope=2.0, midpoint=0.5)
    low = 1 / (
        1 + math.exp(1)
    )  # no sound step before the first wrong one; a half of them gives 1/2
    assert close(method.rewards(made), [1, 0, 0.5, low])
    half = 1 / math.sqrt(2)
    assert close(method.advantages(made), [half, -half, half, -half])


def test_unlikeliness_rewards_the_unlikely(rollout):
    made = rollout(
        [GOLD, WRONG_LAST, GOLD, WRONG_BOTH],
        4,
        old_per_token_logps=torch.tensor([[-2.0], [-1.0], [-2.0], [-3.0]]).expand(4, 7),
    )
    # Rank from below: the two right ones share places 1 and 2, so 1.5 of 4.
    reward = 1 - 0.25 * 1.5 / 4
    assert close(find("unlikeliness")().rewards(made), [reward, 0, reward, 0])
    assert close(
        find("unlikeliness")().advantages(made), [reward / 2, -reward / 2, reward / 2, -reward / 2]
    )  # not scaled


def test_ha_dw_weighs_by_the_history_of_accuracy(rollout):
    made = rollout(
        [GOLD, WRONG_LAST, WRONG_BOTH, WRONG_LAST, GOLD, GOLD, GOLD, WRONG_LAST],
        4,
        memory={"accuracies": [1.0]},
    )
    plain = made.batch["advantages"].clone()
    anchor = (1.0 + 0.5) / 2  # past batches and this one; groups are right by 1/4 and 3/4
    hard, easy = 0.25 - anchor, 0.75 - anchor
    assert easy == 0
    up, down = (
        1.3 * math.exp(-hard),
        1.3 * math.exp(hard),
    )  # on a hard prompt right ones weigh more, wrong ones less
    weights = torch.tensor([up, down, down, down, 1.3, 1.3, 1.3, 1.3])
    assert torch.allclose(find("ha_dw")().advantages(made), plain * weights)
    assert made.trainer.memory == {"accuracies": [1.0, 0.5]}
    long = rollout([GOLD, WRONG_LAST], 2, memory={"accuracies": [0.0] * 10})
    find("ha_dw")(history=3).advantages(long)
    assert long.trainer.memory == {"accuracies": [0.0, 0.0, 0.5]}


def test_grpo_care_adds_a_bonus_for_a_likely_answer(rollout):
    log_probs = torch.full((4, 7), -1.0)
    log_probs[0, 3:] = math.log(0.8)  # the answer's tokens: `<answer> 3 4 <eos>`
    log_probs[1, 3:] = math.log(0.2)
    made = rollout([GOLD, WRONG_FIRST, WRONG_LAST, WRONG_BOTH], 4, ref_per_token_logps=log_probs)
    # Right answers: rows 0 and 1, whatever the trace; their mean probability is 0.5, so only row 0
    # earns the bonus.
    assert close(find("grpo_care")().rewards(made), [1.5, 1, 0, 0])
    alone = rollout([GOLD, WRONG_LAST], 2, ref_per_token_logps=torch.full((2, 7), -1.0))
    assert close(find("grpo_care")().rewards(alone), [1.5, 0])


def test_random_reward_ignores_what_was_sampled(rollout):
    torch.manual_seed(0)
    drawn = find("random_reward")(probability=0.25).rewards(rollout([GOLD] * 4000, 4))
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert drawn.mean().item() == pytest.approx(0.25, abs=0.03)


def test_curriculum_moves_to_the_stages_own_prompts():
    own, other = (pa.table({"prompt_index": np.arange(1000) + start}) for start in (0, 1000))
    for count in (1000, 600):  # of a file made for a method that needs more
        order = (
            find("curriculum")(until=0.5)
            .order(own, other, count, np.random.default_rng(0))["prompt_index"]
            .to_numpy()
        )
        from_own, half = order < 1000, count // 2
        assert (order % 1000 == np.arange(count)).all()
        assert from_own[half:].all()
        assert 0.4 < from_own[:half].mean() < 0.6
        assert from_own[: half // 5].mean() < 0.25 < 0.75 < from_own[half * 4 // 5 : half].mean()


def test_nthr_spares_tokens_whose_penalty_would_push_right_ones_down(cell, tmp_path):
    """Scores are inner products of the gradients of log-probabilities by the last layer."""
    method = find("nthr")()
    trainer = trainer_of(cell, tmp_path, method)
    sampled = mixed_rollout(trainer)
    batch, width = sampled.batch, sampled.batch["completion_ids"].shape[1]
    plain, weakened = batch["advantages"].clone(), method.advantages(sampled)
    model, mask = trainer.model, batch["completion_mask"].bool()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    logits = model(input_ids=ids, attention_mask=seen).logits[:, -width - 1 : -1]
    log_probs = logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]

    def gradient(row, place):
        (by_head,) = torch.autograd.grad(
            log_probs[row, place], model.lm_head.weight, retain_graph=True
        )
        return by_head.flatten()

    spared = 0
    for start in range(0, len(plain), sampled.group_size):
        rows = range(start, start + sampled.group_size)
        right = [row for row in rows if sampled.rewards[row]]
        wrong = [row for row in rows if not sampled.rewards[row]]
        if not right or not wrong:
            assert close(weakened[start], [plain[start].item()] * width)
            continue
        pushed = sum(gradient(row, t) for row in right for t in range(width) if mask[row, t])
        scores = {
            row: torch.stack([gradient(row, t) @ pushed for t in range(width) if mask[row, t]])
            for row in rows
        }
        least = min(scores[row].mean() for row in right)
        eta = 2 * abs(0.5 - len(right) / len(rows))
        for row in wrong:
            heavy = scores[row] > least
            expected = torch.where(heavy, eta * plain[row], plain[row])
            assert torch.allclose(weakened[row][mask[row]], expected, atol=1e-5)
            spared += int(heavy.sum())
        for row in right:
            assert close(weakened[row], [plain[row].item()] * width)
    assert spared


def test_igrpo_trains_on_refinements_of_the_best_draft(cell, tmp_path, monkeypatch):
    trainer = trainer_of(cell, tmp_path, find("igrpo")(), rl={"temperature": 2.0})
    assert trainer.num_generations == 2  # of a group of 4, half are drafts
    drafts, original = [], trainer.draft
    monkeypatch.setattr(
        trainer, "draft", lambda inputs: drafts.append(original(inputs)) or drafts[-1]
    )
    torch.manual_seed(0)
    rows = [row for i in range(12) for row in [trainer.train_dataset[i]] * 2]
    sampled = trainer.method.rollout(trainer, rows)
    ((texts, rewards),) = drafts
    assert 0 < rewards.sum() < len(rows)
    for number, (row, given) in enumerate(zip(sampled.inputs, rows, strict=True)):
        first = number - number % 2
        best = first + int(rewards[first + 1] > rewards[first])
        assert row["prompt"] == [*given["prompt"], *texts[best], *given["prompt"]]
        assert row["question"] == given["question"] == given["prompt"]  # what is scored
    prompts = sampled.batch["prompt_ids"], sampled.batch["prompt_mask"].bool()
    assert [ids[keep].tolist() for ids, keep in zip(*prompts, strict=True)] == [
        row["prompt"] for row in sampled.inputs
    ]


def test_dapo_replaces_groups_without_contrast(cell, tmp_path, monkeypatch):
    trainer = trainer_of(cell, tmp_path, find("dapo")(draws=3))
    rounds, original = [], trainer.sample
    monkeypatch.setattr(
        trainer, "sample", lambda inputs: rounds.append(original(inputs)) or rounds[-1]
    )
    torch.manual_seed(0)
    size = trainer.num_generations
    rows = [row for i in range(4) for row in [trainer.train_dataset[i]] * size]
    made = trainer.method.rollout(trainer, rows)
    assert 1 < len(rounds) <= 3
    assert made.mixed.sum() == min(len(rows), sum(int(sampled.mixed.sum()) for sampled in rounds))
    assert made.mixed.sum() > rounds[0].mixed.sum()
    known = {
        (tuple(row["prompt"]), tuple(completion)): advantage
        for sampled in rounds
        for row, completion, advantage in zip(
            sampled.inputs, sampled.completions, sampled.batch["advantages"].tolist(), strict=True
        )
        if advantage
    }
    batch = made.batch
    for i, (row, completion) in enumerate(zip(made.inputs, made.completions, strict=True)):
        assert batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist() == row["prompt"]
        assert batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist() == completion
        assert made.rewards[i] == float(completion == row["gold"])
        if made.mixed[i]:
            assert (tuple(row["prompt"]), tuple(completion)) in known
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    assert close(made.relative(made.rewards), batch["advantages"].tolist())


def test_rewards_may_be_unscaled(rollout):
    class Unscaled(find("process")):
        def arguments(self):
            return {"scale_rewards": False}

    assert close(Unscaled().advantages(rollout([GOLD, WRONG_FIRST], 2)), [0.25, -0.25])
