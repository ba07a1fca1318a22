"""RL methods: each update on a group worked out by hand, each different from plain GRPO in a real run, each resumable."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.rl import trainer as module
from grpo_origin.rl.method import Method, Rollout, find, names
from grpo_origin.tasks.tokenizer import build_tokenizer
from grpo_origin.tasks.world import World
from grpo_origin.training.model import load_model
from helpers import read, run_stage, tiny, weights_hash

GOLD = [9, 1, 2, 10, 3, 4, 8]  # two steps of `trav trav;2;A`: <think> 1 2 <answer> 3 4 <eos>
WRONG_FIRST = [9, 1, 5, 10, 3, 4, 8]
WRONG_LAST = [9, 1, 2, 10, 3, 5, 8]
WRONG_BOTH = [9, 5, 5, 10, 5, 5, 8]
UNENDED = [9, 1, 2, 10, 3, 4]


def rollout(
    completions: list[list[int]], group_size: int, memory: dict | None = None, **batch
) -> Rollout:
    """A batch of completions of prompts of one two-step task, with TRL's advantages."""
    size, width = len(completions), max(map(len, completions))
    rewards = torch.tensor([float(completion == GOLD) for completion in completions])
    mask = torch.tensor([[1] * len(c) + [0] * (width - len(c)) for c in completions])
    batch = {
        "completion_mask": mask,
        **{name: torch.as_tensor(values) for name, values in batch.items()},
    }
    trainer = SimpleNamespace(num_generations=group_size, memory={} if memory is None else memory)
    inputs = [
        {"prompt": [0, i // group_size], "gold": GOLD, "task": "trav trav;2;A"} for i in range(size)
    ]
    made = Rollout(inputs, completions, rewards, batch, trainer)
    made.batch["advantages"] = made.relative(rewards)
    return made


def close(tensor: torch.Tensor, expected: list) -> bool:
    return torch.allclose(tensor.float(), torch.tensor(expected, dtype=torch.float32), atol=2e-3)


def test_the_parts_of_a_rollout():
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


def test_unchanged_rewards_leave_trls_advantages_alone():
    made = rollout([GOLD, WRONG_LAST], 2)
    assert find("grpo")().advantages(made) is made.batch["advantages"]


def test_raft_and_expert_iteration_weigh_right_completions_only():
    made = rollout([GOLD, WRONG_LAST, GOLD, GOLD], 2, old_per_token_logps=torch.zeros(4, 7))
    third = 4 / 3  # the mean over 4 rows is then the mean over 3 right ones
    assert close(find("raft")().advantages(made), [third, 0, third, third])
    assert "old_per_token_logps" in made.batch
    assert close(find("expert_iteration")().advantages(made), [third, 0, third, third])
    assert (
        "old_per_token_logps" not in made.batch
    )  # so TRL's ratio is 1 throughout: plain likelihood
    assert find("expert_iteration")().arguments() == {"steps_per_generation": 4}
    nothing = rollout([WRONG_LAST, WRONG_LAST], 2)
    assert close(find("raft")().advantages(nothing), [0, 0])


def test_reinforce_rej_drops_groups_without_contrast():
    made = rollout([GOLD, WRONG_LAST, GOLD, GOLD, WRONG_BOTH, WRONG_BOTH], 2)
    assert close(find("reinforce_rej")().advantages(made), [1, -1, 0, 0, 0, 0])


def test_process_rewards_every_right_step():
    made = rollout([GOLD, WRONG_FIRST, WRONG_LAST, WRONG_BOTH], 4)
    assert close(find("process")().rewards(made), [1, 0.5, 0.5, 0])
    std = np.std([1, 0.5, 0.5, 0], ddof=1)
    assert close(find("process")().advantages(made), [0.5 / std, 0, 0, -0.5 / std])


def test_sgpo_grades_only_groups_that_are_all_wrong():
    made = rollout([GOLD, WRONG_LAST, WRONG_LAST, WRONG_FIRST], 2)
    method = find("sgpo")(slope=2.0, midpoint=0.5)
    low = 1 / (
        1 + math.exp(1)
    )  # no sound step before the first wrong one; a half of them gives 1/2
    assert close(method.rewards(made), [1, 0, 0.5, low])
    half = 1 / math.sqrt(2)
    assert close(method.advantages(made), [half, -half, half, -half])


def test_unlikeliness_rewards_the_unlikely():
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


def test_ha_dw_weighs_by_the_history_of_accuracy():
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


def test_grpo_care_adds_a_bonus_for_a_likely_answer():
    log_probs = torch.full((4, 7), -1.0)
    log_probs[0, 3:] = math.log(0.8)  # the answer's tokens: `<answer> 3 4 <eos>`
    log_probs[1, 3:] = math.log(0.2)
    made = rollout([GOLD, WRONG_FIRST, WRONG_LAST, WRONG_BOTH], 4, ref_per_token_logps=log_probs)
    # Right answers: rows 0 and 1, whatever the trace; their mean probability is 0.5, so only row 0 earns the bonus.
    assert close(find("grpo_care")().rewards(made), [1.5, 1, 0, 0])
    alone = rollout([GOLD, WRONG_LAST], 2, ref_per_token_logps=torch.full((2, 7), -1.0))
    assert close(find("grpo_care")().rewards(alone), [1.5, 0])


def test_random_reward_ignores_what_was_sampled():
    torch.manual_seed(0)
    drawn = find("random_reward")(probability=0.25).rewards(rollout([GOLD] * 4000, 4))
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert drawn.mean().item() == pytest.approx(0.25, abs=0.03)


def test_curriculum_moves_to_the_stages_own_prompts():
    own, other = (pa.table({"prompt_index": np.arange(1000) + start}) for start in (0, 1000))
    for count in (1000, 600):  # of a file made for a method that needs more
        order = (
            find("curriculum")(until=0.5)
            .prompts(own, other, count, np.random.default_rng(0))["prompt_index"]
            .to_numpy()
        )
        from_own, half = order < 1000, count // 2
        assert (order % 1000 == np.arange(count)).all()
        assert from_own[half:].all()
        assert 0.4 < from_own[:half].mean() < 0.6
        assert from_own[: half // 5].mean() < 0.25 < 0.75 < from_own[half * 4 // 5 : half].mean()


def test_nthr_spares_tokens_that_right_completions_share():
    """Hidden states and a vocabulary of 3 given; a group of four with one wrong completion and padding, worked out by hand."""
    tokens = torch.tensor([[0, 1], [0, 1], [0, 2], [0, 1]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]])
    states = torch.tensor(
        [[[1.0, 0], [0, 1]], [[1, 0], [9, 9]], [[1, 0], [1, 1]], [[1, 0], [0, -1]]]
    )  # (B, T, width); 9 is padding
    hidden = torch.cat([torch.zeros(4, 1, 2), states, torch.zeros(4, 1, 2)], 1)
    model = lambda **_: SimpleNamespace(hidden_states=[hidden], logits=torch.zeros(4, 3, 3))  # noqa: E731
    made = rollout([GOLD, GOLD, GOLD, WRONG_LAST], 4)
    made.batch = {
        "completion_ids": tokens,
        "completion_mask": mask,
        "prompt_ids": torch.zeros(4, 2, dtype=torch.long),
    }
    made.batch |= {
        "prompt_mask": torch.ones(4, 2, dtype=torch.long),
        "advantages": torch.tensor([0.5, 0.5, 0.5, -1.5]),
    }
    made.trainer.model = model
    # <e - pi, e - pi> is 2/3 for the same token, -1/3 for another. Right tokens: three (0; 1 0), one (1; 0 1), one (2; 1 1).
    # Scores: token (0; 1 0): 3 * 2/3 + 0 - 1/3 = 5/3; (1; 0 1): 0 + 2/3 - 1/3 = 1/3; (2; 1 1): -1 - 1/3 + 4/3 = 0; the wrong one's
    # last, (1; 0 -1): -2/3 + 1/3 = -1/3. Mean scores of the right rows: 1, 5/3 (padding left out), 5/6. So the first wrong token
    # is spared at threshold 1 (5/3 > 5/6) and not at 2.1 (5/3 < 7/4); eta = 2 |1/2 - 3/4| = 1/2.
    right = [[0.5, 0.5]] * 3
    assert close(find("nthr")().advantages(made), [*right, [-0.75, -1.5]])
    assert close(find("nthr")(threshold=2.1).advantages(made), [*right, [-1.5, -1.5]])
    assert close(find("nthr")(threshold=1.9).advantages(made), [*right, [-0.75, -1.5]])


def test_igrpo_trains_on_refinements_of_the_best_draft():
    drafts = [[1], [2], [3], [4]]
    trainer = SimpleNamespace(
        num_generations=2,
        draft=lambda inputs: (drafts, torch.tensor([0.0, 1.0, 0.0, 0.0])),
        sample=lambda inputs: inputs,
    )
    inputs = [{"prompt": [10 + i // 2], "question": [10 + i // 2], "task": "x"} for i in range(4)]
    sampled = find("igrpo")().rollout(trainer, inputs)
    assert [row["prompt"] for row in sampled] == [
        [10, 2, 10],
        [10, 2, 10],
        [11, 3, 11],
        [11, 3, 11],
    ]
    assert [row["question"] for row in sampled] == [[10], [10], [11], [11]]  # what is scored
    assert find("igrpo")().settings(tiny(grpo={"group_size": 8}).grpo).group_size == 4


def test_dapo_replaces_groups_without_contrast():
    def batch(made: Rollout, width: int) -> Rollout:
        rows = torch.arange(4)[:, None]
        made.batch |= {
            "completion_ids": rows.expand(4, width).clone(),
            "prompt_ids": rows.expand(4, 2).clone(),
        }
        made.batch["num_items_in_batch"] = torch.tensor(0)
        return made

    first = batch(rollout([GOLD, GOLD, GOLD, WRONG_LAST], 2), 7)
    second = batch(rollout([UNENDED, GOLD, WRONG_BOTH, WRONG_BOTH], 2), 9)
    second.batch["completion_mask"] = torch.nn.functional.pad(
        second.batch["completion_mask"], (0, 2)
    )
    second.batch["completion_ids"] += 100
    rounds = iter([first, second])
    trainer = SimpleNamespace(
        num_generations=2,
        sample=lambda inputs: next(rounds),
        train_dataset=[{"prompt": i} for i in range(5)],
    )
    trainer.args, trainer.state = SimpleNamespace(seed=0), SimpleNamespace(global_step=3)
    made = find("dapo")(draws=2).rollout(trainer, first.inputs)
    assert made.rewards.tolist() == [0, 1, 1, 0]
    assert made.completions == [UNENDED, GOLD, GOLD, WRONG_LAST]
    assert made.batch["completion_ids"][:, 0].tolist() == [100, 101, 2, 3]
    assert made.batch["completion_mask"].sum(1).tolist() == [6, 7, 7, 7]
    assert made.batch["num_items_in_batch"] == 27
    half = 1 / math.sqrt(2)
    assert close(made.batch["advantages"], [-half, half, half, -half])


def clipped(ratio, advantage, low, high):
    return -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


LOSSES = {  # log-ratio and mask (B, T), advantages (B, 1), log-probs -> loss, each as its paper has it
    "grpo": lambda d, m, a, p: ((clipped(d.exp(), a, 0.2, 0.2) * m).sum(1) / m.sum(1)).mean(),
    "dr_grpo": lambda d, m, a, p: (clipped(d.exp(), a, 0.2, 0.2) * m).sum() / (len(m) * 9),
    "dapo": lambda d, m, a, p: (clipped(d.exp(), a, 0.2, 0.28) * m).sum() / m.sum(),
    "gspo": lambda d, m, a, p: clipped(
        ((d * m).sum(1, keepdim=True) / m.sum(1, keepdim=True)).exp(), a, 3e-4, 4e-4
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
    """TRL's loss under each method's arguments and hooks, on ratios that leave every clip range, against the paper's formula."""
    bounds = (
        {"right_low": 0.2, "right_high": 0.3, "wrong_low": 0.1, "wrong_high": 0.4}
        if name == "abc_grpo"
        else {}
    )
    method, world = find(name)(beta=0.0, **bounds), World(8, 0)
    settings = method.settings(tiny().grpo)
    dataset = module.prompt_set(cell / "data" / "grpo.parquet", "ood", method, 48, 0)
    kind = {"GRPOTrainer": module.TokenGRPOTrainer, "RLOOTrainer": module.TokenRLOOTrainer}[
        method.trainer
    ]
    config = module.trainer_config(
        method, settings, tiny().runtime, torch.device("cpu"), 9, 0, tmp_path
    )
    trainer = kind(
        load_model(cell / "sft"),
        module.ExactMatch(world),
        config,
        dataset,
        None,
        build_tokenizer(world),
        method=method,
    )
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


METHODS = [name for name in names() if name != "grpo"]
STEPS = {"grpo": {"steps": 6, "group_size": 8, "learning_rate": 1e-3}}


def train(cell: Path, output: Path, stage: str, methods: list) -> str:
    run_stage(
        stage,
        cell,
        output,
        output.with_name(f"{output.name}.checkpoint"),
        STEPS | {"methods": methods},
    )
    return weights_hash(output)


@pytest.fixture(scope="module")
def plain(cell, tmp_path_factory):
    """Weights after plain GRPO with given iterations, KL weight and group size, trained once each."""
    found: dict[tuple, str] = {}

    def weights(iterations: int, beta: float, group_size: int) -> str:
        key = (iterations, beta, group_size)
        if key not in found:
            changes = {
                "grpo": STEPS["grpo"] | {"group_size": group_size},
                "methods": [{"grpo": {"iterations": iterations, "beta": beta}}],
            }
            output = tmp_path_factory.mktemp("plain") / "grpo"
            run_stage("grpo~ood", cell, output, output.with_name("checkpoint"), changes)
            found[key] = weights_hash(output)
        return found[key]

    return weights


HOOKS = ("arguments", "prompts", "rollout", "rewards", "advantages", "log_probs", "trainer")
ONLY_SETTINGS = ("grpo_off_policy", "grpo_kl_free")


def overridden(name: str) -> list[str]:
    return [hook for hook in HOOKS if hook in vars(find(name))]


@pytest.mark.parametrize("name", METHODS)
def test_a_real_run_differs_from_plain_grpo_and_only_by_the_hooks(
    cell, tmp_path, monkeypatch, plain, name
):
    """With all hooks taken away a method trains the very weights of plain GRPO with the same settings; with one of them taken away,
    others than with all. So every hook does something in a real run."""
    weights = train(cell, tmp_path / name, f"{name}~ood", [name])
    method, settings = find(name), find(name)().settings(tiny(**STEPS).grpo)
    log = read(tmp_path / name / "training_log.parquet")
    assert [row["step"] for row in log] == list(range(1, 7))
    assert all(math.isfinite(row["loss"]) and 0 <= row["reward_mean"] <= 1 for row in log)
    assert f'"{name}"' in (tmp_path / name / "provenance.json").read_text()
    twin = plain(settings.iterations, settings.beta, settings.group_size)
    if name in ONLY_SETTINGS:
        assert not overridden(name)
        assert weights == twin
        base = tiny(**STEPS).grpo
        assert weights != plain(base.iterations, base.beta, base.group_size)
        return
    for hook in overridden(name):
        with monkeypatch.context() as patch:
            patch.setattr(method, hook, getattr(Method, hook))
            assert train(cell, tmp_path / f"without-{hook}", f"{name}~ood", [name]) != weights, hook
    for hook in overridden(name):
        monkeypatch.setattr(method, hook, getattr(Method, hook))
    assert train(cell, tmp_path / "without", f"{name}~ood", [name]) == twin


RESUMED = ["ha_dw", "dapo", "random_reward", "expert_iteration", "igrpo", "curriculum", "rloo"]


@pytest.mark.parametrize("name", RESUMED)
def test_an_interrupted_run_ends_with_the_same_weights(cell, tmp_path, monkeypatch, name):
    settings = {"expert_iteration": {"round_steps": 2, "iterations": 1}}.get(name, {})
    changes = {
        "grpo": STEPS["grpo"] | {"steps": 8},
        "methods": [{name: settings}],
        "runtime": {"checkpoint_seconds": 0},
    }
    whole = tmp_path / "whole"
    run_stage(f"{name}~ood", cell, whole, tmp_path / "whole.checkpoint", changes)
    keep = module.Keeper.on_step_end

    def dying(self, args, state, control, **more):
        if state.global_step == 5:
            raise ConnectionError("killed")
        return keep(self, args, state, control, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module.Keeper, "on_step_end", dying)
        with pytest.raises(ConnectionError):
            run_stage(f"{name}~ood", cell, tmp_path / "part", tmp_path / "part.checkpoint", changes)
    assert not (tmp_path / "part").exists()
    run_stage(f"{name}~ood", cell, tmp_path / "part", tmp_path / "part.checkpoint", changes)
    assert weights_hash(tmp_path / "part") == weights_hash(whole)


def test_a_run_that_ends_early_is_an_error(cell, tmp_path):
    with pytest.raises(ArtefactError, match=r"grpo\.parquet.* too few ood prompts"):
        run_stage(
            "expert_iteration~ood",
            cell,
            tmp_path / "x",
            tmp_path / "c",
            {"methods": [{"expert_iteration": {"round_steps": 20}}]},
        )
    assert not (tmp_path / "x").exists()


def test_changed_rewards_need_a_trainer_that_makes_advantages_as_grpo_does():
    made = rollout([GOLD, WRONG_FIRST], 2)
    for changes in (
        {"trainer": "RLOOTrainer"},
        {"arguments": lambda self: {"scale_rewards": "batch"}},
    ):
        with pytest.raises(TypeError, match="override `advantages`"):
            type("Odd", (find("process"),), changes)().advantages(made)
    unscaled = type(
        "Unscaled", (find("process"),), {"arguments": lambda self: {"scale_rewards": False}}
    )
    assert close(unscaled().advantages(made), [0.25, -0.25])
