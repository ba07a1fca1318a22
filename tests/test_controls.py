"""Methods that are shown gold tokens: each hook by hand, what is counted, and that mass rises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from grpo_origin.config.notation import TaskSpec
from grpo_origin.config.paths import PROMPT_MASS, SIGNAL
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.exploration import expected_successes
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.rl.method import Rollout, find, given
from grpo_origin.rl.methods.hints import Hints
from grpo_origin.rl.methods.luffy import LUFFY
from grpo_origin.rl.methods.reverse_curriculum import ReverseCurriculum
from grpo_origin.rl.trainer import MethodHooks, TaskReward
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import THINK, Vocabulary
from grpo_origin.tasks.world import World
from helpers import read, run_stage, strings, tiny
from rl_trainer import CPU, close, copy_of, trainer_of

STEP = 3  # tokens of a step of the tiny tasks: a marker and a state of two elements
GOLD = 3 * STEP + 1  # tokens of a right completion of its OOD task
GROUP = tiny().rl.group_size


def rows_of(trainer: MethodHooks, prompts: int = 4) -> list[dict]:
    """Rows of a step, each prompt repeated for its group."""
    return [trainer.train_dataset[i] for i in range(prompts) for _ in range(GROUP)]


@pytest.fixture
def luffy(cell, tmp_path) -> tuple[MethodHooks, Rollout, Rollout]:
    """A trainer of luffy, what it sampled at a step, and that with the gold completions in it."""
    trainer, sampled = trainer_of(cell, tmp_path, LUFFY(), rl={"temperature": 2.0}), []
    original = trainer.sample
    trainer.sample = lambda inputs: sampled.append(original(inputs)) or sampled[-1]  # type: ignore[method-assign]
    torch.manual_seed(0)
    mixed = trainer.method.rollout(trainer, rows_of(trainer))
    return trainer, sampled[0], mixed


def test_luffy_replaces_one_completion_of_each_group_by_the_gold_one(luffy):
    trainer, sampled, mixed = luffy
    batch = mixed.batch
    for i, row in enumerate(mixed.inputs):
        assert mixed.completions[i] == (sampled.completions[i] if i % GROUP else row["gold"])
        assert mixed.rewards[i] == float(mixed.completions[i] == row["gold"])
        for part, tokens in (("prompt", row["prompt"]), ("completion", mixed.completions[i])):
            kept = batch[f"{part}_ids"][i][batch[f"{part}_mask"][i].bool()]
            assert kept.tolist() == tokens
    assert batch["is_gold"].tolist() == [True, False, False, False] * 4
    assert not batch["old_per_token_logps"][::GROUP].any()  # the gold's own probability is 1
    now = trainer.log_probs_of(batch) * batch["completion_mask"]
    others = ~batch["is_gold"]
    assert torch.allclose(batch["old_per_token_logps"][others], now[others], atol=1e-5)
    assert (mixed.rewards != sampled.rewards).any()
    assert trainer.memory["signal"]["gold_tokens"] == 4 * GOLD


def test_advantages_of_luffy_are_relative_to_the_mixed_group(luffy):
    trainer, sampled, mixed = luffy
    mixed.rewards = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0])
    one, two = ((1 - m) / (s + 1e-4) for m, s in ((0.25, 0.5), (0.5, np.sqrt(1 / 3))))
    alone = [one, *3 * [-one / 3]]
    assert close(trainer.method.advantages(mixed), alone + [two, two, -two, -two] + 4 * [0] + alone)
    assert (sampled.batch["advantages"] != trainer.method.advantages(mixed)).any()


def test_the_loss_of_luffy_shapes_gold_tokens_and_clips_the_others(luffy):
    """Against eq. 6 with ratios that leave the clip range, and its gradient."""
    trainer, _, mixed = luffy
    batch, mask = mixed.batch, mixed.batch["completion_mask"]
    trainer.current_gradient_accumulation_steps = 1
    batch["advantages"] = trainer.method.advantages(mixed)
    others = ~batch["is_gold"]
    moved = 0.5 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    batch["old_per_token_logps"][others] += moved[others]
    model = trainer.model.train()
    loss = trainer._compute_loss(model, batch)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    seen = torch.cat([batch["prompt_mask"], mask], 1)
    logits = model(input_ids=ids, attention_mask=seen).logits[:, -mask.shape[1] - 1 : -1]
    p = (logits / 2.0).softmax(-1).gather(-1, batch["completion_ids"][..., None])[..., 0]
    ratio = p / batch["old_per_token_logps"].exp()
    advantage = batch["advantages"][:, None]
    on_policy = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    gain = torch.where(batch["is_gold"][:, None], p / (p + 0.1) * advantage, on_policy)
    expected = -((gain * mask).sum(1) / mask.sum(1)).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    expected.backward()
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-5)


@pytest.mark.parametrize("logit", [-12.0, 0.0, 12.0])
def test_the_weight_of_a_gold_token_is_that_of_the_paper(logit):
    """Eq. 8: gamma / (p + gamma)^2 times p (1 - p), the gradient by the token's own logit."""
    logits = torch.tensor([logit, 0.0], requires_grad=True, dtype=torch.float64)
    log_probs = logits.log_softmax(-1)[:1].view(1, 1)
    batch = {"is_gold": torch.tensor([True])}
    ratio = LUFFY(gamma=0.2).log_probs(log_probs, batch).exp().sum()  # the old one is 1
    p = log_probs.exp().item()
    assert ratio.item() == pytest.approx(p / (p + 0.2))
    (gradient,) = torch.autograd.grad(ratio, logits)
    assert gradient[0].item() == pytest.approx(0.2 / (p + 0.2) ** 2 * p * (1 - p))


def test_a_completion_is_judged_with_what_was_given_of_it():
    world = World(8, 0)
    task = Task(tiny().axes["mini"].ood[0], world)
    start = np.array([[1, 2]])
    vocabulary = Vocabulary(8)
    question = vocabulary.prompts(task, start)[0].tolist()
    gold = vocabulary.completions(task, start)[0].tolist()
    row = {"prompt": question, "question": question, "gold": gold, "task": str(task)}
    row["step_starts"] = strings().tokens.step_starts(gold)
    extended = given(row, STEP + 1)
    assert extended["prompt"] == [*question, *gold[: STEP + 1]]
    assert given(extended, 0) == row | {"given": []}
    rest, wrong = gold[STEP + 1 :], [*gold[STEP + 1 : -2], gold[1], gold[-1]]
    assert wrong != rest
    texts = [rest, wrong, gold, rest[:-1]]
    columns = {name: [extended[name]] * 4 for name in ("question", "task", "given")}
    assert TaskReward(strings())(completion_ids=texts, **columns) == [1, 0, 0, 0]
    shares = TaskReward(strings(), "steps")(completion_ids=texts, **columns)
    assert shares[:2] == pytest.approx([1, 2 / 3])
    made = Rollout([extended] * 4, texts, torch.zeros(4), {}, None)  # type: ignore[arg-type]
    assert made.steps[0] == [True, True, True]
    assert made.steps[1] == [True, True, False]
    assert made.steps[3] == [True, True, False]
    assert not all(made.steps[2])


def prefixes(trainer: MethodHooks, monkeypatch, step: int) -> list[list[int]]:
    """What a method gives of the gold completions at a step, a list a row; sampled truly."""
    monkeypatch.setattr(trainer.state, "global_step", step)
    made = trainer.method.rollout(trainer, rows_of(trainer))
    for row, completion, reward in zip(made.inputs, made.completions, made.rewards, strict=True):
        assert row["prompt"] == [*row["question"], *row["given"]]
        assert row["given"] == row["gold"][: len(row["given"])]
        assert reward == float([*row["given"], *completion] == row["gold"])
    return [row["given"] for row in made.inputs]


def test_the_reverse_curriculum_starts_at_the_end_and_ends_on_plain_prompts(
    cell, tmp_path, monkeypatch
):
    """Twelve steps, of which nine have prefixes of a completion of ten tokens."""
    trainer = trainer_of(cell, tmp_path, ReverseCurriculum(until=0.75))
    lengths = [{len(part) for part in prefixes(trainer, monkeypatch, s)} for s in range(12)]
    assert lengths == [{n} for n in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0)]
    counts = trainer.memory["signal"]
    assert counts["gold_tokens"] == 4 * 45  # once a prompt
    assert counts["plain"] == 3 * 4 * GROUP
    assert counts["completions"] == 12 * 4 * GROUP


def test_hints_are_the_first_step_of_some_prompts(cell, tmp_path, monkeypatch):
    trainer = trainer_of(cell, tmp_path, Hints(share=0.5))
    drawn = [[len(part) for part in prefixes(trainer, monkeypatch, s)] for s in range(12)]
    assert drawn[3] == [len(part) for part in prefixes(trainer, monkeypatch, 3)]  # as on a resume
    for lengths in drawn:
        groups = [set(lengths[i : i + GROUP]) for i in range(0, len(lengths), GROUP)]
        assert all(group in ({0}, {STEP}) for group in groups)
    assert len(set(map(tuple, drawn))) > 3
    assert 0.3 < np.mean(drawn) / STEP < 0.7
    everyone = trainer_of(cell, tmp_path, Hints(share=1.0))
    assert {len(part) for part in prefixes(everyone, monkeypatch, 0)} == {STEP}


def test_a_hint_never_holds_the_answer():
    domain = strings()
    for task, tokens in (("trav;2;A", 0), ("trav shift;4;B", 5)):
        spec = TaskSpec.model_validate(task)
        problems = domain.draw(spec, np.random.default_rng(0), 1)
        gold = domain.rendered(spec, problems).completions.ids[0].tolist()
        assert Hints.hint({"step_starts": domain.tokens.step_starts(gold)}) == tokens


def test_prefixes_need_room_for_what_is_sampled_after_them():
    for name in ("hints", "reverse_curriculum"):
        assert find(name)().tokens(7, 10) == 27
    assert LUFFY().tokens(7, 10) == 17


# --- real runs


FAINT = -0.25  # factor on the head's row of THINK, which the OOD task needs twice


def train(root: Path, folder: Path, method: str | dict, changes: dict | None = None) -> dict:
    """Train a method on OOD prompts into a folder; the row of its signal."""
    name = method if isinstance(method, str) else next(iter(method))
    changes = (changes or {}) | {"methods": [method]}
    run_stage(f"{name}~ood", root, folder, folder.with_name(f"{folder.name}.c"), changes)
    (row,) = read(folder / SIGNAL)
    return row


@pytest.mark.parametrize(
    ("method", "tokens"),
    [
        ("grpo", 0),
        ("luffy", 48 * GOLD),
        ({"luffy": {"iterations": 2}}, 24 * GOLD),  # half the rollouts
        ("reverse_curriculum", 4 * 45),
        ({"hints": {"share": 1.0}}, 48 * STEP),
    ],
)
def test_gold_tokens_of_a_stage(cell, tmp_path, method, tokens):
    row = train(cell, tmp_path / "out", method)
    assert row["gold_tokens"] == tokens
    assert row["moved"]


def test_what_follows_a_prefix_is_not_expected_by_the_mass_of_the_prompt(cell, tmp_path):
    """A quarter of the curriculum's completions follow the plain prompt."""
    row = train(cell, tmp_path / "out", "reverse_curriculum")
    log_mass = [line["log_mass"] for line in read(tmp_path / "out" / PROMPT_MASS)]
    assert row["expected_successes"] == pytest.approx(expected_successes(log_mass, GROUP / 4))


def test_a_control_rises_where_grpo_cannot_move(cell, tmp_path):
    """From an OOD mass that no completion of the run finds, with the same settings of RL."""
    rl = {"steps": 200, "group_size": 8, "learning_rate": 1e-3, "beta": 0.0}
    rows = Sequences(read_prompts(cell / "data" / "test.parquet", "ood"))
    ends, moved = {}, {}
    for name in ("grpo", "luffy"):
        trainer = trainer_of(cell, tmp_path, find(name)(), repeats=17, rl=rl)
        with torch.no_grad():
            trainer.model.lm_head.weight[THINK] *= FAINT
        weights = copy_of(trainer.model.state_dict())
        before = exact_mass(trainer.model, rows, 64, CPU)[0]
        assert before.max() < np.log(1e-5)
        trainer.model.train()
        trainer.train()
        assert trainer.state.global_step == rl["steps"]
        ends[name] = np.exp(exact_mass(trainer.model, rows, 64, CPU)[0]).mean()
        now = trainer.model.state_dict()
        moved[name] = not all(torch.equal(now[key], weights[key]) for key in weights)
    assert moved == {"grpo": False, "luffy": True}
    assert ends["luffy"] > 0.1
