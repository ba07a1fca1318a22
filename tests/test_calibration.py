"""Answers that are probabilities: the domain, measures worked out by hand, a tiny run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from grpo_origin.analysis import calibration as measured
from grpo_origin.analysis.calibration_claims import overconfidence
from grpo_origin.analysis.evidence import Evidence
from grpo_origin.analysis.ledger import ledgers
from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.stages import with_method
from grpo_origin.analysis.table_files import make_table
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import Paths
from grpo_origin.config.stages import AxisSettings, WorldSettings
from grpo_origin.evaluation.calibration import answer_probabilities, calibration
from grpo_origin.lineage import jobs
from grpo_origin.report.figures import ENTRIES, figures_of
from grpo_origin.tasks.domain import find
from grpo_origin.tasks.domains.chances import Chances
from helpers import read, tiny_study
from planting import SETTINGS, ZERO_MASS, confidences, plant, shifted, spread

CPU = torch.device("cpu")
TASKS = ("trav;3;A", "trav trav;3;A", "shift trav;3;A")
LEVELS = np.linspace(0, 1, 11)


def chances(seed: int = 0, nodes: int = 26, observed: int = 10) -> Chances:
    axis = AxisSettings(domain="chances", id=TASKS[:2], ood=TASKS[2:], observed=observed)
    return Chances(WorldSettings(nodes=nodes), axis, seed)


def words(domain: Chances, ids: Any) -> str:
    return " ".join(domain.tokens.names[i] for i in ids)


@pytest.mark.parametrize("task", TASKS)
def test_a_completion_is_the_trace_and_the_coin_of_where_the_first_element_ends(task):
    domain = chances()
    problems = domain.distinct(task, np.random.default_rng(0), 40, test=True)
    rendered = domain.rendered(task, problems)
    assert domain.lengths(task) == (
        rendered.prompts.ids.shape[1],
        rendered.completions.ids.shape[1],
    )
    letters = domain.vocabulary.elements
    for string, prompt, completion in zip(
        problems[:, :-1], rendered.prompts.ids, rendered.completions.ids, strict=True
    ):
        steps, state = [], list(string)
        for name in task.split(";")[0].split():
            if name == "shift":
                state = state[1:] + state[:1]
            else:
                state = [int(domain.world.successor[element]) for element in state]
            steps.append("<think> " + " ".join(letters[element] for element in state))
        answer = f"<answer> <{domain.coins[state[0]] / 10:.1f}> <eos>"
        assert words(domain, completion) == " ".join([*steps, answer])
        assert words(domain, prompt).endswith("<solve>")


def test_coins_have_all_eleven_values_about_equally_often():
    counts = np.bincount(chances(seed=3).coins, minlength=11)
    assert set(counts) == {2, 3}
    assert chances(seed=3).coins.tolist() != chances(seed=4).coins.tolist()


def test_training_samples_state_what_was_observed_and_test_problems_the_truth():
    draws = np.random.default_rng(0)
    for observed, values in ((10, set(range(11))), (1, {0, 10}), (0, None)):
        domain = chances(observed=observed)
        problems = domain.draw(TASKS[0], draws, 6000)
        said, true = problems[:, -1], domain.truth(domain._task(TASKS[0]), problems[:, :-1])
        assert values is None or set(said) == values
        assert (said == true).all() == (observed == 0)
        for tenth in range(11):  # means of Binomial(observed, p) / observed
            assert said[true == tenth].mean() == pytest.approx(tenth, abs=0.8)
        test = domain.distinct(TASKS[0], draws, 30, test=True)
        assert (test[:, -1] == domain.truth(domain._task(TASKS[0]), test[:, :-1])).all()


def test_rl_prompts_avoid_strings_of_sft_whatever_was_observed():
    domain, draws = chances(nodes=8), np.random.default_rng(0)
    first = domain.distinct(TASKS[0], draws, 150, test=False)
    again = domain.distinct(TASKS[0], draws, 150, test=False, avoid=first)
    assert not {row[:-1].tobytes() for row in first} & {row[:-1].tobytes() for row in again}


def test_outcomes_are_decided_by_prompt_and_seed_and_as_likely_as_they_should_be():
    domain, draws = chances(), np.random.default_rng(1)
    problems = domain.draw(TASKS[1], draws, 20_000)
    of = domain._task(TASKS[1])
    happened, true = domain.happened(of, problems[:, :-1]), domain.truth(of, problems[:, :-1])
    for tenth in range(11):
        share, n = happened[true == tenth].mean(), (true == tenth).sum()
        assert share == pytest.approx(tenth / 10, abs=5 * math.sqrt(0.25 / n))
    order = draws.permutation(len(problems))
    assert (domain.happened(of, problems[order, :-1]) == happened[order]).all()
    other = chances(seed=1)
    other.__dict__["coins"] = domain.coins  # the same coins, thrown again
    other.__dict__["world"] = domain.world
    assert (other.happened(of, problems[:, :-1]) != happened).mean() > 0.1
    outcome = domain.rendered(TASKS[1], problems[:50]).columns["outcome"]
    names = np.array(domain.tokens.names)[outcome]
    assert (names == np.where(happened[:50], "<1.0>", "<0.0>")).all()


def test_rewards_are_proper_scores_of_the_outcome():
    domain = chances()
    name = {token: i for i, token in enumerate(domain.tokens.names)}

    def score(kind, text, outcome):
        completion = [name[token] for token in text.split()]
        given = domain.score(kind, TASKS[0], [[]], [completion], {"outcome": [name[outcome]]})
        return float(given[0])

    assert score("brier", "<answer> <0.7> <eos>", "<1.0>") == pytest.approx(1 - 0.09)
    assert score("brier", "<think> A B <answer> <0.7> <eos>", "<0.0>") == pytest.approx(1 - 0.49)
    assert score("log", "<answer> <0.1> <eos>", "<1.0>") == pytest.approx(
        1 - 1 / 2
    )  # 0.1 = 0.01^.5
    assert score("log", "<answer> <0.0> <eos>", "<1.0>") == pytest.approx(0)
    for wrong in (
        "<0.7> <eos>",
        "<answer> <0.7>",
        "<answer> A <eos>",
        "<answer> <0.7> <0.7> <eos>",
    ):
        assert score("brier", wrong, "<1.0>") == score("log", wrong, "<1.0>") == 0
    for kind in ("brier", "log"):
        said = [f"<answer> <{k:.1f}> <eos>" for k in LEVELS]
        for_1, for_0 = ([score(kind, text, o) for text in said] for o in ("<1.0>", "<0.0>"))
        assert min(for_1 + for_0) >= 0
        assert max(for_1 + for_0) <= 1
        for i, p in enumerate(LEVELS):
            assert np.argmax(p * np.array(for_1) + (1 - p) * np.array(for_0)) == i


def test_the_tokenizer_knows_the_answers(tmp_path):
    from transformers import AutoTokenizer

    domain = chances()
    domain.build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == domain.vocabulary_size
    text = "A b<trav><solve><answer><0.3><1.0><eos>"
    expected = ["A", "b", "<trav>", "<solve>", "<answer>", "<0.3>", "<1.0>", "<eos>"]
    assert words(domain, tokenizer(text)["input_ids"]).split() == expected


def answers(*given: dict[float, float]) -> np.ndarray:
    """Probabilities of the eleven answers, a row each, from those above 0."""
    rows = np.zeros((len(given), 11))
    for row, chosen in zip(rows, given, strict=True):
        for answer, probability in chosen.items():
            row[round(answer * 10)] = probability
    return rows


def test_measures_by_hand():
    right = measured.measures(np.array([0.2, 0.9]), answers({0.2: 1}, {0.9: 1}))
    zero = ("ece", "confidence_ece", "bias", "overconfidence", "answer_overconfidence", "entropy")
    assert [right[name] for name in zero] == pytest.approx([0] * 6, abs=1e-12)
    assert right["brier"] == pytest.approx((0.16 + 0.09) / 2)
    assert right["answered"] == 1
    sure = measured.measures(np.array([0.2, 0.9]), answers({0.0: 1}, {1.0: 1}))
    assert sure["ece"] == sure["confidence_ece"] == pytest.approx(0.15)
    assert sure["bias"] == pytest.approx((-0.2 + 0.1) / 2)
    assert sure["overconfidence"] == sure["answer_overconfidence"] == pytest.approx(0.15)
    # One prompt, half of the mass on both ends: right on average, but never when it speaks.
    torn = measured.measures(np.array([0.5]), answers({0.0: 0.2, 1.0: 0.2}))
    assert torn["overconfidence"] == torn["confidence_ece"] == torn["bias"] == pytest.approx(0)
    assert torn["answer_overconfidence"] == torn["ece"] == pytest.approx(0.5)
    assert torn["brier"] == pytest.approx(0.5)
    assert torn["entropy"] == pytest.approx(math.log(2))
    assert torn["answered"] == pytest.approx(0.4)


def test_a_calibrated_answer_may_know_little():
    """Always 0.5 where half of the events are sure: calibrated, with the worst Brier score."""
    dull = measured.measures(np.array([0.0, 1.0]), answers({0.5: 1}, {0.5: 1}))
    assert dull["ece"] == dull["confidence_ece"] == 0
    assert dull["brier"] == pytest.approx(0.25)
    assert dull["overconfidence"] == pytest.approx(-0.5)


def planted(confidence: dict[str, float], seeds: int) -> pd.DataFrame:
    """Answers 0 and 1 to one prompt a seed, of probability 0.7, with the confidence of a stage."""
    rows = [
        {"axis": "any name", "seed": seed, "ood_ratio": "0.1", "stage": stage, "split": "ood"}
        | {"task": "trav;3;A", "prompt_index": 0, "truth": 0.7}
        | {"probabilities": answers({0.0: 1 - mean, 1.0: mean})[0]}
        for stage, middle in confidence.items()
        for seed, mean in spread(middle, seeds).items()
    ]
    return with_method(pd.DataFrame(rows))


def test_claims_are_of_the_methods_that_the_paper_speaks_of():
    table = plant(shifted(0.3, {}), stages=("sft", "grpo~ood", "rloo~ood", "raft~ood"))
    seeds = confidences({"sft": 0.02, "grpo~ood": 0.25, "rloo~ood": 0.01})
    betas = {"grpo": 0.0, "rloo": 0.0, "raft": 0.0}
    masses = dict.fromkeys(betas, ZERO_MASS)
    ledger = ledgers(table, SETTINGS, masses, betas, calibration=seeds)
    rows = ledger[ledger["claim"] == "overconfidence"].set_index("method")
    assert len(rows) == 2  # OOD prompts alone: nothing was trained on ID prompts
    assert rows["verdict"].to_dict() == {"grpo": "supported", "rloo": "supported"}
    assert rows["kind"].to_dict() == {"grpo": "present", "rloo": "absent"}
    assert rows.loc["grpo", "effect"] == pytest.approx(0.25)
    assert "before RL: +0.020" in rows.loc["grpo", "note"]
    swapped = confidences({"sft": 0.0, "grpo~ood": 0.01, "rloo~ood": 0.25})
    other = ledgers(table, SETTINGS, masses, betas, calibration=swapped)
    verdicts = other[other["claim"] == "overconfidence"]["verdict"]
    assert set(verdicts) == {"contradicted"}
    unexposed = confidences({"grpo~ood": 0.25, "grpo~id": 0.25}, ratio="0")
    (finding,) = overconfidence(Evidence(table, SETTINGS, ZERO_MASS, calibration=unexposed))
    assert finding.cells.startswith("every OOD ratio; ID prompts; grpo~id")
    assert not overconfidence(Evidence(table, SETTINGS, ZERO_MASS))  # none without such answers


def test_tables_and_diagram_show_what_was_planted(tmp_path):
    file = tmp_path / "calibration.parquet"
    planted({"sft": 0.7, "grpo~ood": 0.9, "rloo~ood": 0.7}, seeds=3).to_parquet(file)
    sources = Sources(calibration_files=[str(file)])
    table = make_table("calibration", sources)
    row = table.query("stage == 'grpo~ood' and metric == 'overconfidence'").iloc[0]
    half = 4.302652729911275 * 0.002 / math.sqrt(3)  # t(0.975, 2) x std of 0.898, 0.9, 0.902
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    assert (row["seeds"], row["prompts"]) == (3, 3)
    assert len(make_table("seed_calibration", sources)) == 9 * len(measured.MEASURES)
    said = make_table("reliability", sources)
    assert set(said["answer"]) == {0.0, 1.0}
    assert said["mean"].to_numpy() == pytest.approx(0.7)  # of one prompt it can't be anything else
    assert said.query("stage == 'grpo~ood' and answer == 1")["share"].tolist() == pytest.approx(
        [0.9]
    )
    picture = ENTRIES["reliability"].figure({"reliability": said}, "any name")
    drawn = [text.get_text() for text in picture.legends[0].get_texts()]
    assert drawn == ["SFT", "GRPO", "rloo"]
    for name in ("calibration", "seed_calibration", "reliability"):
        assert make_table(name, Sources()).empty


AXES = {
    "mini": None,
    "coins": {"domain": "chances", "id": ["trav;2;A", "shift trav;2;A"], "ood": ["trav trav;2;A"]},
}
RUN: dict[str, Any] = {
    "axes": AXES,
    "pretrain": {"samples": 640},
    "rl": {"steps": 3, "reward": "brier"},
    "methods": ["grpo", "outcome_sft"],
    "trained_on": ["ood"],
}


def test_only_an_axis_with_stochastic_outcomes_has_these_jobs_and_figures():
    study = tiny_study(**RUN)
    assert [job["ratio"] for job in jobs(study)["calibration"]] == ["0", "0.25"]
    assert "reliability-coins" in figures_of(study.settings)
    assert not jobs(tiny_study())["calibration"]
    assert not any(name.startswith("reliability") for name in figures_of(tiny_study().settings))
    assert [name for name in ("strings", "chances") if find(name).stochastic] == ["chances"]


def test_rewards_and_domains_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"rl\.reward: axes\.coins.*no 'exact'.*brier, log"):
        tiny_study(**RUN | {"rl": {"steps": 3}})
    with pytest.raises(ConfigError, match=r"rl\.reward: axes\.mini.*no 'brier'"):
        tiny_study(rl={"reward": "brier"})


@pytest.mark.parametrize("key", ["probes", "representation", "faithfulness"])
def test_what_reads_states_is_refused_where_answers_are_probabilities(key):
    with pytest.raises(ConfigError, match=rf"{key}: tasks of axes\.coins.*have no states"):
        tiny_study(**RUN | {key: {}})


@pytest.fixture(scope="module")
def cell(tmp_path_factory) -> Path:
    """The folder of a tiny cell of chances: pretrained, fine-tuned, after two methods."""
    from grpo_origin.cell import run_cell

    paths = Paths("tiny", str(tmp_path_factory.mktemp("chances")))
    evaluation = run_cell(tiny_study(**RUN), paths, "coins", 0, "0.25")
    return evaluation.parent


def test_a_tiny_cell_end_to_end(cell, tmp_path):
    study = tiny_study(**RUN)
    names = [stage.name for stage in study.grid.stages]
    domain = study.source("coins", 0, study.paths).domain
    output = tmp_path / "calibration.parquet"
    calibration(
        {name: cell / name for name in names},
        cell.parent / "data" / "test.parquet",
        output,
        axis="coins",
        ratio="0.25",
        domain=domain,
        evaluation=study.settings.evaluation,
        numerics=study.settings.numerics,
        runtime=study.settings.runtime,
    )
    written = read(output)
    assert {row["stage"] for row in written} == {"pretrain", "sft", "grpo~ood", "outcome_sft~ood"}
    test = {(r["split"], r["prompt_index"]): r for r in read(cell.parent / "data" / "test.parquet")}
    for row in written:
        gold = test[row["split"], row["prompt_index"]]["completion_ids"]
        assert f"<{row['truth']:.1f}>" == domain.tokens.names[gold[-2]]
        assert 0 < sum(row["probabilities"]) <= 1 + 1e-6
    table = make_table("calibration", Sources(calibration_files=[str(output)]))
    assert table["mean"].notna().all()
    evaluated = {"evaluation_files": [str(cell / "evaluation.parquet")]}
    assert len(make_table("warnings", Sources(**evaluated)))  # by mass it learnt nothing, but
    assert make_table("warnings", Sources(**evaluated, calibration_files=[str(output)])).empty
    signal = read(cell / "outcome_sft~ood" / "signal.parquet")[0]
    assert signal["gold_tokens"] == 3 * 4 * (2 * 3 + 3)  # steps x prompts x tokens


def test_probabilities_of_answers_are_those_of_stepwise_decoding(cell):
    from grpo_origin.data.prompt_sets import read_prompts
    from grpo_origin.data.rows import Sequences
    from grpo_origin.training.model import load_model

    prompts = read_prompts(cell.parent / "data" / "test.parquet")
    model, domain = (
        load_model(cell / "sft"),
        tiny_study(**RUN).source("coins", 0, Paths("x")).domain,
    )
    given, truth = answer_probabilities(model, Sequences(prompts), 3, CPU, domain.tokens)
    for i, row in enumerate(prompts.to_pylist()):
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"][:-2]])
        assert words(domain, ids[0, -1:]) == "<answer>"
        with torch.no_grad():
            alone = model(ids).logits[0, -1].softmax(-1)
        assert given[i] == pytest.approx(alone[list(domain.tokens.chances)].numpy(), abs=1e-5)
        assert domain.tokens.names[row["completion_ids"][-2]] == f"<{truth[i]:.1f}>"


def test_sft_on_outcomes_trains_on_the_gold_trace_with_what_happened():
    """One group: the completion that is trained on, with the weight 1 for every token."""
    from grpo_origin.rl.method import Rollout
    from grpo_origin.rl.methods.outcome_sft import OutcomeSFT

    class Trainer:
        num_generations, seen = 2, None

        def sample(self, inputs):
            width = torch.ones(2, 3, dtype=torch.long)
            batch = {"completion_ids": width, "completion_mask": width}
            return Rollout(inputs, [[1, 1, 1]] * 2, torch.zeros(2), batch, self)

        def show(self, gold):
            self.seen = gold

    trainer, method = Trainer(), OutcomeSFT()
    row = {"prompt": [9], "gold": [5, 6, 7, 64, 3], "outcome": 71}
    made = method.rollout(trainer, [row, row])
    assert trainer.seen == [[5, 6, 7, 71, 3]]
    assert made.batch["completion_ids"].tolist() == [[5, 6, 7, 71, 3]] * 2
    assert made.batch["completion_mask"].tolist() == [[1] * 5] * 2
    assert method.advantages(made).tolist() == [1, 1]
    plain = method.rollout(trainer, [{"prompt": [9], "gold": [5, 6, 3]}] * 2)
    assert plain.completions == [[5, 6, 3]] * 2
