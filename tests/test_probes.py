"""Linear probes: hand-computed fits, planted representations, and their job on a tiny cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from bases import string_base
from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.table_files import make_table
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import Paths
from grpo_origin.config.places import probes_of, representation_of
from grpo_origin.config.representation import ProbeSettings
from grpo_origin.cost import find_rates, plan
from grpo_origin.data.prompt_sets import write_test
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.probes import ANSWER, Asked, Probe, accuracies, write_probes
from grpo_origin.evaluation.states import NONE, end_states, states_of, train_prompts
from grpo_origin.jobs.files import read_table
from grpo_origin.lineage import jobs
from grpo_origin.partial import sources_of
from grpo_origin.report.figures import ENTRIES, figures_of
from grpo_origin.rl.heads import Head
from grpo_origin.study import read_study
from grpo_origin.tasks.split import is_test
from grpo_origin.training.model import build_model, save_model
from helpers import REPO, copy_code, planned, source_of, tiny, tiny_study, write_config

SETTINGS = ProbeSettings(prompts=400)
STAGES = ("pretrain", "sft", "grpo~ood")
ON = {"probes": {"prompts": 400}, "representation": {"steps": 3, "position": 2}}


def prompts(source, purpose="here", count=400) -> Asked:
    return Asked.of(
        [train_prompts(source, split, count, purpose) for split in ("id", "ood")], source
    )


@pytest.fixture(scope="module")
def source():
    return source_of(tiny())


def read(known, asked, features, nodes=8):
    """Accuracies as a table."""
    found = accuracies(known, asked, features, nodes, SETTINGS, np.random.default_rng(0))
    return pd.DataFrame(
        [place | {"accuracy": right, "control": control} for place, right, control in found]
    )


def test_a_ridge_probe_is_the_hand_computed_one():
    """Features -1 and 1 of unit variance; of label 1 the one-hot less its mean is -1/2 and 1/2."""
    probe = Probe.fitted(np.array([[3.0, 9.0], [5.0, 9.0]]), np.array([[0], [1]]), 2, ridge=0.25)
    assert probe.base.tolist() == [[0.5, 0.5]]
    np.testing.assert_allclose(probe.weights, [[-0.4, 0.4], [0, 0]])  # 1/2 over 1 + ridge
    assert probe.read(np.array([[2.0, 0.0], [4.5, 7.0]])).tolist() == [[0], [1]]


def test_states_are_those_of_the_trace_whatever_the_alphabet():
    source = source_of(
        tiny(axes={"mini": {"id": ["trav;2;A", "shift trav;2;A"], "ood": ["trav shift;3;B"]}})
    )
    tables = [train_prompts(source, split, 40, "x") for split in ("id", "ood")]
    table = pa.concat_tables(tables).unify_dictionaries()
    world, states = source.domain.world, states_of(table, source.domain)
    assert states.shape == (80, 3, 3)  # two steps, the answer; three positions
    first = world.successor[: world.nodes]
    starts = [np.array(row[1:-1]) for row in table["prompt_ids"].to_pylist()]
    for row, (task, ids) in enumerate(zip(table["task"].to_pylist(), starts, strict=True)):
        spell = (ids - source.domain.vocabulary.first_element) % world.nodes
        a, b, c = spell[0], spell[1], spell[2] if "3" in task else None
        expected = {
            "trav;2;A": [[first[a], first[b], NONE], [NONE] * 3, [first[a], first[b], NONE]],
            "shift trav;2;A": [[b, a, NONE], *[[first[b], first[a], NONE]] * 2],
        }
        if c is not None:
            step = [first[a], first[b], first[c]]
            expected["trav shift;3;B"] = [step, *[[*step[1:], step[0]]] * 2]
        assert states[row].tolist() == expected[task], task


def test_prompts_are_of_train_strings_in_equal_shares_and_the_same_again(source):
    one, again, other = (train_prompts(source, "id", 41, name) for name in ("a", "a", "b"))
    assert one.equals(again)
    assert not one.equals(other)
    assert pd.Series(one["task"].to_pylist()).value_counts().tolist() == [21, 20]
    elements = np.array([row[1:3] for row in one["prompt_ids"].to_pylist()])
    base = elements - source.domain.vocabulary.first_element
    assert not is_test(base.astype(np.int16), source.world_settings.test_fraction).any()


def test_planted_answers_are_read_and_noise_is_not(source):
    """A model that holds the answer when the prompt ends, and one that holds nothing."""
    known, asked = prompts(source), prompts(source, "asked")

    def held(part):  # the answer's nodes, in coordinates turned at random
        turned = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
        return np.eye(8)[part.labels[:, -1]].reshape(len(part.labels), -1) @ turned

    table = read(known, asked, (held(known), held(asked)))
    answers = table[table["step"] == ANSWER]
    assert set(answers["split"]) == {"id", "ood"}
    assert set(answers["fitted_on"]) == {"id", "both"}
    assert (answers["accuracy"] == 1).all()
    assert (answers["control"] < 0.3).all()
    noise = np.random.default_rng(2).normal(size=(2, 800, 16))
    nothing = read(known, asked, (noise[0], noise[1]))
    assert (nothing["accuracy"] < 0.25).all()  # one of eight is chance
    still = read(known, asked, (np.ones((800, 3)), np.ones((800, 3))))  # an embedding layer
    assert (still["accuracy"] < 0.25).all()


def test_an_answer_fitted_on_id_prompts_is_read_in_ood_prompts_only_if_it_is_held_alike(source):
    known, asked = prompts(source), prompts(source, "asked")

    def held(part):  # OOD answers in directions of their own
        kept = np.eye(8)[part.labels[:, -1, 0]]
        ood = (part.splits == "ood")[:, None]
        return np.concatenate([kept * ~ood, kept * ood], axis=1)

    table = read(known, asked, (held(known), held(asked)))
    table = table[(table["step"] == ANSWER) & (table["position"] == 1)]
    found = table.set_index(["fitted_on", "split"])["accuracy"]
    assert found["id", "id"] == found["both", "id"] == found["both", "ood"] == 1
    assert found["id", "ood"] < 0.3


def test_whoever_reads_the_string_reads_every_state_of_one_traversal():
    """Successors are a bijection: why accuracies stand beside those of the prompt's tokens."""
    axis = {"id": ["trav trav;2;A"], "ood": ["trav;2;A"]}
    source = source_of(tiny(axes={"mini": axis | {"mixed": []}}))
    known, asked = prompts(source), prompts(source, "asked")
    features = tuple(part.tokens(6, source.domain.tokens) for part in (known, asked))
    table = read(known, asked, features)
    own = table[(table["fitted_on"] == "id") & (table["split"] == "id")]
    assert (own["accuracy"] == 1).all()  # of one task: every step, and the answer
    both = table[(table["fitted_on"] == "both") & (table["step"] == ANSWER)]
    assert both["accuracy"].max() < 0.75  # of two tasks: not what has to be computed


def test_hidden_states_are_those_of_the_last_token_in_the_order_of_rows(source):
    table = pa.concat_tables([train_prompts(source, s, 30, "x") for s in ("id", "ood")])

    class Fake(SimpleNamespace):
        def to(self, device):
            return self

        def eval(self):
            return self

        def base_model(self, input_ids, **_):
            place = torch.arange(input_ids.shape[1]).expand_as(input_ids)
            layer = torch.stack([input_ids[:, 1:2].expand_as(input_ids), place], -1).float()
            return SimpleNamespace(hidden_states=(layer, 2 * layer))

    states = end_states(Fake(), Sequences(table.unify_dictionaries()), 7, torch.device("cpu"))
    rows = [(row[1], len(row) - 1) for row in table["prompt_ids"].to_pylist()]
    np.testing.assert_array_equal(states[0], rows)
    np.testing.assert_array_equal(states[1], 2 * states[0])


def test_a_base_of_another_architecture_has_states_and_takes_a_head(source, tmp_path):
    base = string_base(tmp_path / "base", "gpt2")
    model = AutoModelForCausalLM.from_pretrained(base)
    rows = Sequences(train_prompts(source, "id", 6, "x"))
    states = end_states(model, rows, 4, torch.device("cpu"))
    assert states.shape == (2, 6, 32)
    held = Head(model, 8).represent(rows, np.arange(6), torch.device("cpu"))
    np.testing.assert_allclose(states[-1], held.detach(), atol=1e-5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny cell: its study, paths, and three models that have not learnt anything."""
    root = tmp_path_factory.mktemp("probed")
    study = tiny_study(**ON, trained_on=["ood"])
    paths, cell = Paths("tiny", str(root)), {"axis": "mini", "seed": 0, "ratio": "0.25"}
    source = source_of(study.settings)
    for number, stage in enumerate(STAGES):
        model = build_model(study.settings.model, source.domain.tokens, number)
        save_model(model, source.domain, paths.stage(**cell, stage=stage))
    write_test(source, 8, paths.data("mini", 0, "test"))
    return study, paths, cell


@pytest.fixture(scope="module")
def file(models):
    """What the job leaves of it."""
    study, paths, cell = models
    output, settings = probes_of(paths, **cell), study.settings
    write_probes(
        {stage.name: paths.stage(**cell, stage=stage.name) for stage in study.grid.stages},
        paths.data("mini", 0, "test"),
        output,
        axis="mini",
        ratio="0.25",
        source=source_of(settings),
        probes=settings.probes,
        evaluation=settings.evaluation,
        numerics=settings.numerics,
        runtime=settings.runtime,
    )
    return output


def test_every_stage_layer_step_and_position_of_a_cell_is_probed(file):
    rows = read_table(file).to_pandas()
    assert set(rows["stage"]) == {*STAGES}
    assert rows["method"].dropna().unique().tolist() == ["grpo"]
    places = rows.groupby(["stage", "layer"]).size()
    # Both positions. Fitted on ID: steps 1, 2 and the answer, of both splits; on both: step 3, of
    # OOD prompts alone, as well.
    assert set(places) == {2 * (3 * 2) + 2 * (3 * 2 + 1)}
    assert set(rows["layer"]) == {0, 1}
    embedding = rows[rows["layer"] == 0]  # the same token ends every prompt
    assert embedding["accuracy"].max() < 0.75
    of_stages = rows.pivot(
        index=["layer", "fitted_on", "split", "step", "position"],
        columns="stage",
        values=["from_prompt", "prompts"],
    )
    for name in ("from_prompt", "prompts"):
        assert (of_stages[name]["pretrain"] == of_stages[name]["grpo~ood"]).all()


def test_the_table_has_means_over_positions_and_the_figure_draws_them(file, models):
    rows = read_table(file).to_pandas()
    table = make_table("probes", Sources(probe_files=[file]))
    assert (table["positions"] == 2).all()
    one = {"stage": "pretrain", "layer": 1, "fitted_on": "both", "split": "ood", "step": "3"}
    where = lambda frame: frame.loc[(frame[[*one]] == pd.Series(one)).all(axis=1)]  # noqa: E731
    assert where(table)["accuracy"].item() == pytest.approx(where(rows)["accuracy"].mean())
    assert "probes-mini" in figures_of(models[0].settings)
    assert "probes-mini" not in figures_of(tiny())
    picture = ENTRIES["probes"].figure({"probes": table}, "mini")
    panels = [axes for axes in picture.axes if axes.images]
    assert len(panels) == 6  # stages x splits, one ratio
    steps = [tick.get_text() for tick in panels[-1].get_xticklabels()]  # the lowest row has them
    assert steps == ["1", "2", "3", "answer"]
    drawn = np.asarray(panels[1].images[0].get_array())
    assert drawn[2, 2] == pytest.approx(where(table)["accuracy"].item())  # above the tokens' row
    assert drawn[0, 2] == pytest.approx(where(table)["from_prompt"].item())
    assert ENTRIES["probes"].figure({"probes": table[:0]}, "mini")  # a part of a run has none yet


def test_the_jobs_are_planned_where_a_run_asks_and_nowhere_else(models):
    study, paths, cell = models
    assert jobs(study)["probes"] == jobs(study)["representation"] == study.grid.cells
    assert not jobs(tiny_study())["probes"]
    assert not jobs(tiny_study())["representation"]
    changed = tiny_study(**ON, variants={"slow": {"rl": {"steps": 3}}})
    assert jobs(changed)["probes"] == changed.grid.cells  # of the run's own settings
    Path(representation_of(paths, **cell)).touch()
    sources = sources_of(study, paths, [cell, cell | {"ratio": "0"}])
    assert [Path(name).name for name in sources.head_files] == ["representation.parquet"]
    Path(representation_of(paths, **cell)).unlink()


def test_a_position_that_a_string_lacks_is_answered_by_the_key():
    with pytest.raises(ConfigError, match=r"^representation.position: axes.mini has strings of"):
        tiny_study(representation={"position": 3})
    with pytest.raises(ConfigError, match=r"^probes.prompts: .* 100"):
        tiny_study(probes={"prompts": 5})


def test_the_shipped_run_takes_at_most_twenty_minutes_of_two_cores():
    default = REPO / "config" / "config.yaml"
    study = read_study(default, REPO / "config" / "representation.yaml")
    rates = find_rates({}, REPO / "benchmarks" / "rates.json", study.settings)
    costs = plan(study, rates)
    assert costs["core_hours"] <= 2 * 20 / 60
    free = replace(study, settings=study.settings.model_copy(update={"probes": None}))
    assert plan(free, rates)["core_hours"] < costs["core_hours"]
    assert len(study.settings.seeds) >= 4
    assert len(study.settings.axes) == 2


def test_the_workflow_plans_both_jobs(tmp_path):
    tree = copy_code(tmp_path)
    config = write_config(tree, **ON)
    counts = planned(tree, "--configfile", config)
    assert counts["probes"] == counts["representation"] == 2
    assert "probes" not in planned(tree, "--configfile", write_config(tree, "plain.yaml"))
