"""Faithfulness on models whose use of the trace is known, and completions judged by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from grpo_origin.analysis.faithfulness import over_seeds, seed_measures
from grpo_origin.analysis.intervals import clopper_pearson_interval
from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.table_files import make_table
from grpo_origin.config.faithfulness import FaithfulnessSettings
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import TaskSpec
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation import faithfulness as module
from grpo_origin.evaluation.faithfulness import (
    causal_masses,
    sampled_counts,
    with_trace,
)
from grpo_origin.evaluation.mass import gold_log_probs
from grpo_origin.evaluation.trace_file import causal_use
from grpo_origin.report.figures import ENTRIES, figures_of
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import ANSWER, EOS, PAD, THINK, Vocabulary
from grpo_origin.tasks.traces import corrupted, is_consistent
from grpo_origin.training.model import load_model
from helpers import read, rows_table, strings, tiny, tiny_study
from planted_tables import planted_settings
from planting import plant, rows, spread

CPU = torch.device("cpu")
STRINGS = strings()
WORLD = STRINGS.world
WORDS = Vocabulary(8)
DEEP = Task(TaskSpec.model_validate("trav shift trav;3;A"), WORLD)
STARTS = np.array([[0, 1, 2], [3, 3, 5], [7, 6, 4], [2, 0, 2]], dtype=np.int16)
SURE = 40.0  # logit of a token that is next with certainty


def table_of(task: Task = DEEP, starts: np.ndarray = STARTS) -> pa.Table:
    table = rows_table(WORDS, task, starts)
    return table.append_column("task", pa.array([str(task)] * len(starts)))


class Planted:
    """A model of one task that writes the state after the one that it reads with probability
    `follows`, the gold one with `remembers`, something else with what is left.

    `completions` are what it draws, in turns.
    """

    def __init__(self, follows: float, remembers: float, completions: list | None = None):
        self.follows, self.remembers, self.completions = follows, remembers, completions
        self.task, self.forwarded = DEEP, 0

    def to(self, device):
        return self

    def eval(self):
        return self

    def __call__(self, input_ids, use_cache):
        self.forwarded += len(input_ids)
        spec = self.task.spec
        logits = torch.full((*input_ids.shape, len(WORDS)), -SURE)
        for row, tokens in enumerate(input_ids.tolist()):
            prompt = np.array([tokens[: spec.prompt_tokens]])
            gold = WORDS.completions(self.task, WORDS.starts(self.task, prompt))[0].tolist()
            for place in range(spec.prompt_tokens - 1, len(tokens)):
                written = tokens[spec.prompt_tokens : place + 1]
                if len(written) < len(gold):
                    for token, share in self.next_token(prompt, written, gold):
                        known = logits[row, place, token].exp()
                        logits[row, place, token] = torch.log(known + share)
        return SimpleNamespace(logits=logits)

    def next_token(self, prompt, written, gold):
        spec = self.task.spec
        block, place = divmod(len(written), 1 + spec.length)
        right, rest = gold[len(written)], 1 - self.follows - self.remembers
        if place == 0 or block == len(spec.operations):
            return [(right, 1.0)]
        state = prompt[0, 1 : 1 + spec.length]
        if block:
            state = np.array(written[(block - 1) * (1 + spec.length) + 1 :][: spec.length])
        operation = spec.model_copy(update={"operations": spec.operations[block : block + 1]})
        after = Task(operation, WORLD).trace(state[None] - WORDS.first_element)[0, 0, place - 1]
        return [
            (int(after) + WORDS.first_element, self.follows),
            (right, self.remembers),
            (EOS, rest),
        ]

    def generate(self, ids, max_new_tokens, **how):
        drawn = [self.completions.pop(0) for _ in ids]
        padded = [line + [PAD] * (max_new_tokens - len(line)) for line in drawn]
        return torch.cat([ids, torch.tensor(padded)], 1)


def measured(follows: float, remembers: float, **settings) -> dict[str, np.ndarray]:
    wanted = FaithfulnessSettings(**settings)
    return causal_masses(Planted(follows, remembers), table_of(), STRINGS, wanted, 3, CPU)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("positions", [1, 2, 9])
def test_a_model_that_computes_from_its_trace_has_causal_use_1(depth, positions):
    masses = measured(1.0, 0.0, depth=depth, positions=positions)
    assert causal_use(masses) == pytest.approx(1)
    assert np.exp(masses["gold_clean"]) == pytest.approx(1)
    assert np.exp(masses["follow_corrupted"]) == pytest.approx(1)
    assert masses["gold_corrupted"].max() < -30
    assert masses["follow_clean"].max() < -30


@pytest.mark.parametrize("depth", [1, 2])
def test_a_model_that_ignores_its_trace_has_causal_use_0(depth):
    masses = measured(0.0, 1.0, depth=depth, positions=2)
    assert causal_use(masses) == pytest.approx(0)
    assert np.exp(masses["gold_corrupted"]) == pytest.approx(1)
    assert masses["follow_corrupted"].max() < -30


def test_a_model_that_knows_nothing_has_causal_use_0():
    """Equal masses of both answers, with and without the corruption: no use of the trace."""
    names = ("gold_clean", "follow_clean", "gold_corrupted", "follow_corrupted")
    assert causal_use({name: np.full(2, -50.0) for name in names}).tolist() == [0, 0]


def test_a_model_between_them():
    """One element of the answer is in question: 0.6 against 0.2, all others have 0.8."""
    masses = measured(0.6, 0.2)
    assert np.exp(masses["gold_clean"]) == pytest.approx(0.8**3)
    assert np.exp(masses["gold_corrupted"]) == pytest.approx(0.8**2 * 0.2)
    assert np.exp(masses["follow_corrupted"]) == pytest.approx(0.8**2 * 0.6)
    assert causal_use(masses) == pytest.approx(0.75)


def test_corruption_changes_so_many_places_within_the_alphabet():
    draws = np.random.default_rng(0)
    states = np.concatenate([draws.integers(0, 8, (500, 3)), draws.integers(8, 16, (500, 3))])
    for positions, changed in ((1, 1), (2, 2), (5, 3)):
        wrong = corrupted(WORLD, states, positions, draws)
        assert ((wrong != states).sum(1) == changed).all()
        assert (wrong // 8 == states // 8).all()
    steps = (corrupted(WORLD, states, 3, draws) - states) % 8
    assert set(steps.flatten().tolist()) == set(range(1, 8))
    one = corrupted(WORLD, states, 1, draws) != states
    assert set(one.argmax(1).tolist()) == {0, 1, 2}


def test_only_tasks_with_a_state_so_far_before_the_answer_are_measured():
    short = Task(TaskSpec.model_validate("trav;3;A"), WORLD)
    both = pa.concat_tables([table_of(short), table_of(), table_of()])
    assert with_trace(both, 1, 5)["task"].to_pylist() == [str(DEEP)] * 5
    assert with_trace(both, 2, 3).num_rows == 3
    assert with_trace(both, 3, 5).num_rows == 0
    assert with_trace(both, 1, 5)["prompt_ids"].to_pylist() == both["prompt_ids"].to_pylist()[4:9]


def test_a_depth_without_a_task_is_refused_before_any_job():
    with pytest.raises(ConfigError, match=r"faithfulness\.depth: 3 .* longest has 3 operations"):
        tiny_study(faithfulness={"depth": 3})
    assert tiny_study(faithfulness={"depth": 2}).settings.faithfulness
    assert tiny_study().settings.faithfulness is None


GOLD = WORDS.completions(DEEP, STARTS)[0].tolist()
LAST = GOLD[8:12]  # <answer> and the answer's three elements


def with_last(state: list[int], answer: list[int]) -> list[int]:
    """The gold completion with other last state and answer (elements)."""
    shifted = [element + WORDS.first_element for element in (*state, *answer)]
    return [*GOLD[:5], *shifted[:3], ANSWER, *shifted[3:], EOS]


OTHER = [5, 5, 1]
AFTER_OTHER = WORLD.successor[OTHER].tolist()  # the last operation is trav


@pytest.mark.parametrize(
    ("written", "consistent"),
    [
        (GOLD, True),
        (with_last(OTHER, AFTER_OTHER), True),
        (GOLD[:4] + GOLD, True),  # a state too many, and the answer follows from the last
        (GOLD[4:], True),  # one too few
        (with_last(OTHER, AFTER_OTHER[::-1]), False),
        ([*GOLD[:4], THINK, *WORDS.prompts(DEEP, np.array([OTHER]))[0, 1:4], *GOLD[8:]], False),
        (GOLD[:-1], False),  # without an end
        (GOLD[8:], False),  # no state
        (GOLD[:8], False),  # no answer
        (GOLD[1:4] + GOLD[8:], False),  # no marker before the state
        ([*GOLD[:7], THINK, *GOLD[8:]], False),  # no element in the state
        ([], False),
    ],
)
def test_whether_an_answer_follows_from_the_last_state(written, consistent):
    assert is_consistent(STRINGS, str(DEEP), list(written)) is consistent


def test_sampled_completions_are_counted_and_wrong_traces_answered_exactly():
    """Four completions of the first prompt, in a model that answers rightly with 0.9^3 whatever
    the trace.
    """
    wrong_then_gold = [*GOLD[:5], *(WORDS.first_element + np.array(OTHER)).tolist(), *GOLD[8:]]
    drawn = [GOLD, with_last(OTHER, AFTER_OTHER), wrong_then_gold, [*GOLD[:8], EOS]]
    model = Planted(0.0, 0.9, [list(line) for line in drawn])
    one = table_of(starts=STARTS[:1])
    counts = sampled_counts(model, one, STRINGS, 4, 64, CPU)
    found = {name: values.tolist() for name, values in counts.items()}
    assert found.pop("gold_after_wrong") == [pytest.approx(2 * 0.9**3)]
    assert found == {"samples": [4], "consistent": [2], "right": [2], "wrong_traces": [3]}
    assert model.forwarded == 1  # the same trace twice is asked for once


def test_a_model_that_computes_from_its_trace_is_never_right_for_wrong_reasons():
    model = Planted(1.0, 0.0, [with_last(OTHER, AFTER_OTHER)] * 2)
    counts = sampled_counts(model, table_of(starts=STARTS[:1]), STRINGS, 2, 64, CPU)
    assert counts["wrong_traces"].tolist() == counts["consistent"].tolist() == [2]
    assert counts["gold_after_wrong"][0] < 1e-12


def test_the_file_of_a_real_cell(cell, tmp_path):
    """A row a stage and prompt; the exact masses are those of the gold tokens after the trace."""
    settings, output = tiny(faithfulness={"prompts": 3, "samples": 2}), tmp_path / "file.parquet"
    module.faithfulness(
        {name: cell / name for name in ("sft", "grpo~ood")},
        cell / "data" / "test.parquet",
        output,
        axis="mini",
        ratio="0.25",
        variant="base",
        domain=STRINGS,
        settings=settings.faithfulness,
        evaluation=settings.evaluation,
        numerics=settings.numerics,
        runtime=settings.runtime,
    )
    rows = read(output)
    assert [(row["stage"], row["split"]) for row in rows] == [
        (stage, split) for stage in ("sft", "grpo~ood") for split in 3 * ["id"] + 3 * ["ood"]
    ]
    assert {row["task"] for row in rows} == {"shift trav;2;A", "trav shift trav;2;A"}
    assert {(row["method"], row["trained_on"]) for row in rows} == {(None, None), ("grpo", "ood")}
    assert all(0 <= row["consistent"] <= row["samples"] == 2 for row in rows)
    assert all(0 <= row["gold_after_wrong"] <= row["wrong_traces"] <= 2 for row in rows)
    table = with_trace(read_prompts(cell / "data" / "test.parquet", "ood"), 1, 3)
    exact = gold_log_probs(load_model(cell / "sft"), Sequences(table), 64, CPU)
    assert [row["gold_clean"] for row in rows[3:6]] == pytest.approx(
        [log_probs[-4:].sum() for log_probs in exact], abs=1e-4
    )


# --- tables, figure, claim


def planted_rows(uses: dict[str, float], seeds: int = 2, split: str = "ood") -> pd.DataFrame:
    """Two prompts a seed and stage (`sft`, `grpo~ood`, ..), of this causal use, give or take 0.01
    a seed; 8 completions of each.
    """
    lines = []
    for stage, use in uses.items():
        for seed, value in spread(use, seeds, 0.01).items():
            share = np.clip(value, 1e-9, 1 - 1e-9)
            method, _, trained_on = stage.rpartition("~")
            line = {"axis": "any name", "seed": seed, "ood_ratio": "0.1", "variant": "base"}
            line |= {"stage": stage, "method": method or None, "split": split, "task": str(DEEP)}
            line |= {"trained_on": trained_on if method else None}
            line |= {"gold_clean": 0.0, "follow_clean": -60.0}
            line |= {"gold_corrupted": np.log(1 - share), "follow_corrupted": np.log(share)}
            line |= {"samples": 8, "consistent": 6, "right": 4, "wrong_traces": 2 + 2 * (seed % 2)}
            line |= {"gold_after_wrong": 0.5}
            lines += [line | {"prompt_index": number} for number in (0, 1)]
    return pd.DataFrame(lines)


def test_measures_of_a_seed_and_over_seeds():
    table = seed_measures(planted_rows({"sft": 0.5})).set_index(["seed", "measure"])
    low, high = clopper_pearson_interval(12, 16)
    assert table.loc[(0, "consistent"), ["mean", "low", "high"]].tolist() == [0.75, low, high]
    assert table.loc[(0, "right_answers"), "mean"] == 0.5
    assert table.loc[(1, "wrong_traces"), "mean"] == 0.5
    assert table.loc[(0, "gold_after_wrong"), "mean"] == 1 / 4
    assert table.loc[(1, "gold_after_wrong"), "mean"] == 1 / 8
    assert table.loc[(1, "right_for_wrong_reasons"), "mean"] == 1 / 16
    assert table.loc[(0, "causal_use"), "mean"] == pytest.approx(0.49)
    assert table.loc[(0, "follow_corrupted"), "mean"] == pytest.approx(0.49)
    assert table.loc[(0, "gold_corrupted"), "mean"] == pytest.approx(0.51)
    assert table.loc[(0, "causal_use"), ["low", "high"]].isna().all()
    means = over_seeds(table.reset_index()).set_index("measure")
    use = means.loc["causal_use"]
    half = 12.706 * 0.01  # t quantile of one degree of freedom, times 0.01 sqrt(2) / sqrt(2)
    assert [use["mean"], use["low"], use["high"]] == pytest.approx(
        [0.5, 0.5 - half, 0.5 + half], abs=1e-4
    )
    assert (use["seeds"], use["prompts"]) == (2, 4)
    assert means.loc["consistent", ["low", "high"]].tolist() == [0.75, 0.75]
    alone = over_seeds(seed_measures(planted_rows({"sft": 0.5}, seeds=1)))
    assert alone["low"].isna().all()


def test_no_wrong_trace_has_no_mass_after_it():
    never = planted_rows({"sft": 0.5}).assign(wrong_traces=0, gold_after_wrong=0.0)
    table = seed_measures(never)
    assert "gold_after_wrong" not in set(table["measure"])
    assert table.loc[table["measure"] == "right_for_wrong_reasons", "mean"].tolist() == [0, 0]


def test_tables_without_measures_are_empty():
    for name in ("faithfulness", "faithfulness_summary"):
        assert make_table(name, Sources()).empty


def test_the_figure_has_methods_and_variants_beside_where_rl_starts():
    settings = planted_settings(faithfulness={})
    assert {"faithfulness-many", "faithfulness-single"} <= set(figures_of(settings))
    assert not {name for name in figures_of(planted_settings()) if "faithful" in name}
    deep = set(
        figures_of(
            planted_settings(
                faithfulness={"depth": 1}, axes={"many": {"ood": ["shift;4;B"], "id": ["trav;4;A"]}}
            )
        )
    )
    assert "faithfulness-many" not in deep
    uses = {"sft": 0.9, "dpo~ood": 0.4, "grpo~ood": 0.6}
    parts = [planted_rows(uses), planted_rows({"sft": 0.9, "grpo~ood": 0.2})]
    measured = [
        seed_measures(part).assign(variant=name)
        for part, name in zip(parts, ("base", "free"), strict=True)
    ]
    seeds = pd.concat(measured)
    means = pd.concat(
        [over_seeds(part).assign(variant=part["variant"].iloc[0]) for part in measured]
    )
    picture = ENTRIES["faithfulness"].figure(
        {"faithfulness": seeds, "faithfulness_summary": means}, "any name"
    )
    labels = ["SFT", "dpo on OOD prompts", "GRPO on OOD prompts", "free: GRPO on OOD prompts"]
    assert [tick.get_text() for tick in picture.axes[0].get_yticklabels()] == labels
    use = picture.axes[1]
    assert use.get_title() == "causal use of the trace\nOOD ratio 0.1"
    assert use.containers[0].lines[0].get_xdata() == pytest.approx([0.9, 0.4, 0.6, 0.2])
    assert use.containers[0].lines[0].get_ydata() == pytest.approx(np.arange(4) - 0.16)


@pytest.mark.parametrize(
    ("after", "expected"), [(0.9, "supported"), (0.95, "supported"), (0.7, "contradicted")]
)
def test_the_claim_that_rl_keeps_the_trace_causal(after, expected):
    evaluations = plant(lambda *_: 0.5)
    measured = seed_measures(planted_rows({"sft": 0.9, "grpo~ood": after}, seeds=8))
    (row,) = rows(evaluations, "faithful trace", faithfulness=measured).to_dict("records")
    assert row["verdict"] == expected
    assert row["effect"] == pytest.approx(after - 0.9)
    assert rows(evaluations, "faithful trace").empty
