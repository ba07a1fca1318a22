"""Heads over a fixed set (GRPO-RM): every measure by hand, what each loss teaches, the claim."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.table_files import make_table
from grpo_origin.config.representation import HEADS, RepresentationSettings
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import NumericsSettings
from grpo_origin.data.prompt_sets import write_test
from grpo_origin.evaluation.geometry import alignment, uniformity
from grpo_origin.jobs.files import read_table
from grpo_origin.report.figures import ENTRIES, figures_of
from grpo_origin.rl.heads import (
    Examples,
    Head,
    Judged,
    advantages,
    loss_of,
    measures,
    rewards,
    write_heads,
)
from grpo_origin.training.model import build_model, save_model
from helpers import source_of, tiny
from planting import heads, judged, plant, shifted

PLAIN = RepresentationSettings(uniformity=0)


def test_alignment_and_uniformity_of_two_and_three_points():
    """Of unit vectors at right angles the squared distance is 2, of opposite ones 4."""
    right_angle = np.array([[3.0, 0.0], [0.0, 0.5]])  # lengths don't matter
    assert alignment(right_angle, np.array([7, 7])) == pytest.approx(2)
    assert math.isnan(alignment(right_angle, np.array([7, 8])))
    assert uniformity(right_angle) == pytest.approx(-4)
    assert uniformity(np.array([[1.0, 1.0], [2.0, 2.0]])) == pytest.approx(0)
    three = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert alignment(three, np.array([0, 1, 0])) == pytest.approx(4)
    assert uniformity(three) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))
    assert math.isnan(uniformity(three[:1]))


def test_rewards_and_advantages_of_a_set_of_three():
    probabilities = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    values = rewards(probabilities, torch.tensor([0]), 0.5)
    assert values[0].tolist() == pytest.approx([1, -0.15, -0.1])
    binary = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
    found = advantages(binary)  # mean 1/4, standard deviation sqrt(3)/4
    assert found[0].tolist() == pytest.approx([math.sqrt(3), *[-1 / math.sqrt(3)] * 3])
    assert found[1].tolist() == [0, 0, 0, 0]


def gradient(kind, logits, settings=PLAIN, gold=0):
    """Of the loss of one prompt by its logits."""
    logits = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    draws = torch.Generator().manual_seed(0)
    loss_of(kind, logits, torch.tensor([gold]), settings, draws).backward()
    return logits.grad[0].numpy()


def test_a_whole_set_teaches_as_much_whatever_the_mass_and_samples_nothing_without():
    """Relative to the whole set the gradient by the logits is advantage / outputs, mass or none."""
    expected = -np.array([math.sqrt(3), *[-1 / math.sqrt(3)] * 3]) / 4
    for logits in ([0, 0, 0, 0], [-60.0, 0, 1, 2], [60.0, 0, 0, 0]):
        np.testing.assert_allclose(gradient("grpo_rm", logits), expected, atol=1e-9)
    assert gradient("grpo_rm_sampled", [-60.0, 0, 1, 2]).tolist() == [0, 0, 0, 0]
    assert gradient("grpo_rm_sampled", [0, 0, 0, 0])[0] < 0  # the right one is pushed up
    np.testing.assert_allclose(gradient("cross_entropy", [0, 0, 0, 0]), [-0.75, 0.25, 0.25, 0.25])


def test_the_uniformity_reward_evens_the_wrong_outputs():
    pushed = gradient("grpo_rm", [0.0, 2.0, 0.0, 0.0], RepresentationSettings(uniformity=0.5))
    assert pushed[1] > pushed[2] > pushed[0]  # the likelier a wrong one, the more it is pushed down
    assert pushed[2] == pytest.approx(pushed[3])


def test_measures_are_of_all_prompts_and_of_those_that_had_no_mass():
    points, gold = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 0, 1])
    before = Judged(np.array([0.0005, 0.5, 0.0001]), np.zeros(3, bool), points)
    now = Judged(np.array([0.2, 0.6, 0.4]), np.array([False, True, True]), points)
    found = measures(now, before, gold, 0.001)
    assert found == pytest.approx(
        {
            "prompts": 3,
            "accuracy": 2 / 3,
            "mass": 0.4,
            "alignment": 2.0,
            "uniformity": math.log((2 * math.exp(-4) + 1) / 3),
            "without": 2,
            "without_before": 0.0003,
            "without_after": 0.3,
        }
    )
    none = measures(now, now, gold, 0.001)
    assert none["without"] == 0
    assert math.isnan(none["without_after"])


@pytest.fixture(scope="module")
def study():
    return tiny(representation={"steps": 25, "position": 2, "learning_rate": 3.0e-3})


@pytest.fixture(scope="module")
def file(study, tmp_path_factory):
    """What the job leaves of a tiny cell whose model has not learnt anything."""
    root, source = tmp_path_factory.mktemp("heads"), source_of(study)
    save_model(build_model(study.model, source.domain.tokens, 0), source.domain, root / "pretrain")
    write_test(source, 8, root / "test.parquet")
    for name in ("one", "again"):
        torch.manual_seed(len(name))  # whatever was drawn before
        write_heads(
            root / "pretrain",
            root / "test.parquet",
            root / f"{name}.parquet",
            axis="mini",
            ratio="0.25",
            source=source,
            representation=study.representation,
            numerics=NumericsSettings(device="cpu"),
            runtime=RuntimeSettings(),
        )
    return root / "one.parquet"


def test_heads_of_a_cell_are_the_same_again_and_learn_what_they_are_told(file):
    rows = read_table(file).to_pandas()
    pd.testing.assert_frame_equal(rows, read_table(file.with_name("again.parquet")).to_pandas())
    assert rows.groupby(["head", "trained_on"]).size().to_dict() == {
        ("linear", "id"): 2,
        **{(kind, split): 2 for kind in HEADS for split in ("id", "ood")},
    }
    assert (rows["guess"] == 1 / 8).all()
    mass = rows.set_index(["head", "trained_on", "split"])["mass"]
    for kind in ("cross_entropy", "grpo_rm"):
        assert mass[kind, "ood", "ood"] > mass["linear", "id", "ood"] + 0.2, kind
        assert mass[kind, "ood", "ood"] > mass[kind, "id", "ood"] + 0.2, kind


def test_representations_are_in_the_order_of_the_rows(study):
    source = source_of(study)
    from grpo_origin.evaluation.states import train_prompts

    table = train_prompts(source, "id", 12, "order")
    examples = Examples.of(table, source, position=2)
    model = Head(build_model(study.model, source.domain.tokens, 0), 8).eval()
    with torch.no_grad():
        together = model.represent(examples.rows, examples.all, torch.device("cpu"))
        for row in range(12):
            alone = model.represent(examples.rows, np.array([row]), torch.device("cpu"))
            torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-4)


def test_the_figure_draws_every_measure_and_head(file, study):
    table = make_table("representation", Sources(head_files=[file]))
    assert "heads-mini" in figures_of(study)
    assert "heads-mini" not in figures_of(tiny())
    picture = ENTRIES["heads"].figure({"representation": table}, "mini")
    assert len(picture.axes) == 16
    assert len(picture.legends[0].get_texts()) == 4
    shown = picture.axes[7].containers[2].lines[0].get_ydata()  # OOD mass by GRPO-RM on OOD prompts
    row = table.query("head == 'grpo_rm' and trained_on == 'ood' and split == 'ood'")
    assert shown == pytest.approx(row["mass"].to_numpy())
    assert ENTRIES["heads"].figure({"representation": table[:0]}, "mini")


def test_the_claim_on_heads_is_judged_against_guessing_for_each_kind_of_group():
    table = plant(shifted(0.3, {}))
    assert "mass of a head" not in set(judged(table)["claim"])
    found = judged(table, heads=heads({"grpo_rm_sampled": 0.04, "grpo_rm": 0.9}))
    found = found[found["claim"] == "mass of a head"]
    assert found["verdict"].tolist() == ["supported", "contradicted"]
    assert found["effect"].tolist() == pytest.approx([0.0035, 0.8635])
    few = judged(table, heads=heads({"grpo_rm_sampled": 0.04, "grpo_rm": 0.9}, without=5))
    few = few[few["claim"] == "mass of a head"]
    assert set(few["verdict"]) == {"inconclusive"}
    assert few["note"].str.contains("nothing to test").all()
