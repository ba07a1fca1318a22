"""Each claim each way, from planted masses."""

import numpy as np
import pandas as pd
import pytest

from grpo_origin.config.schema import ClaimsSettings
from planting import (
    SEEDS,
    STAGES,
    TASKS,
    plant,
    rows,
    shifted,
    signal,
    spread,
    theory,
    verdict,
)

WIDE = 0.2
VERDICTS = pytest.mark.parametrize(
    ("effect", "width", "expected"),
    [
        ("true", 0.002, "supported"),
        ("false", 0.002, "contradicted"),
        ("open", WIDE, "inconclusive"),
    ],
)


# Each claim each way


@VERDICTS
def test_no_exposure(effect, width, expected):
    gain = {"true": 0.0, "false": 0.2, "open": -0.1}[effect]
    table = plant(
        shifted(0.3, {("0", "grpo~id", "ood"): gain, ("0.1", "grpo~ood", "ood"): 0.4}, width=width)
    )
    assert verdict(table, "no exposure", cells="did not rise") == expected


def test_no_exposure_counts_the_better_stage():
    changes = {("0", "grpo~ood", "ood"): 0.2, ("0", "grpo~id", "ood"): -0.2}
    table = plant(shifted(0.3, changes))
    assert verdict(table, "no exposure", cells="did not rise") == "contradicted"


def test_no_exposure_counts_stages_whose_weights_moved_alone():
    table = plant(shifted(0.3, {("0", "grpo~id", "ood"): 0.2}))
    still = signal([1e-9] * SEEDS)
    moved = signal([1e-9] * SEEDS, stage="grpo~id", moved=True)
    where = {"cells": "did not rise"}
    both = pd.concat([still, moved])
    assert verdict(table, "no exposure", signal=both, **where) == "contradicted"
    other = pd.concat([signal([0.9] * SEEDS, moved=True), moved.assign(moved=False)])
    assert verdict(table, "no exposure", signal=other, **where) == "supported"
    row = rows(table, "no exposure", signal=still, **where).iloc[0]
    assert (row["verdict"], row["seeds"]) == ("inconclusive", 0)
    assert "weights moved nowhere" in row["note"]
    assert "no record of whether weights moved" in rows(table, "no exposure", **where).iloc[0].note


@pytest.mark.parametrize(
    ("chances", "expected"),
    [
        ([1e-12] * SEEDS, "supported"),
        ([1e-12] * (SEEDS - 1) + [0.5], "supported"),  # 1 of 8 may be: p = 9 / 256
        ([0.5] * SEEDS, "contradicted"),
        ([1e-12, 0.5] * (SEEDS // 2), "inconclusive"),
        ([1e-12] * 5, "inconclusive"),
    ],
)
def test_what_cannot_be_sampled(chances, expected):
    table, where = plant(shifted(0.3, {})), {"cells": "cannot be sampled"}
    row = rows(table, "no exposure", signal=signal(chances), **where).iloc[0]
    assert row["verdict"] == expected
    assert f"rewarded 0 of {7680 * len(chances)} completions" in row["note"]
    assert f"weights moved in 0 of {len(chances)} seeds" in row["note"]
    other = signal(chances, stage="raft~ood")
    for record in (None, other, signal(chances, ratio="0.1")):
        row = rows(table, "no exposure", signal=record, **where).iloc[0]
        assert (row["verdict"], row["note"]) == ("inconclusive", "no record of what was sampled")


@VERDICTS
def test_exposure(effect, width, expected):
    gain = {"true": 0.2, "false": 0.0, "open": 0.05}[effect]
    table = plant(
        shifted(
            0.3,
            {("0.1", "grpo~ood", "ood"): gain, ("0.1", "grpo~id", "ood"): 0.1 - gain},
            width=width,
        )
    )
    assert verdict(table, "exposure") == expected


def test_exposure_is_judged_for_every_axis():
    table = pd.concat(
        [
            plant(shifted(0.3, {("0.1", "grpo~ood", "ood"): 0.2}), axis="one"),
            plant(shifted(0.3, {}), axis="two", ratios=("0.00", "0.5")),
        ]
    )
    assert verdict(table, "exposure", axis="one") == "supported"
    assert verdict(table, "exposure", axis="two") == "contradicted"
    assert verdict(table, "no exposure", axis="two", cells="did not rise") == "supported"


WITH_PRETRAINING = ("pretrain", *STAGES)


@pytest.mark.parametrize(
    ("pretrained", "width", "expected"),
    [(0.1, 0.002, "supported"), (0.5, 0.002, "contradicted"), (0.48, WIDE, "inconclusive")],
)
def test_mass_that_sft_hid_is_not_beyond_pretraining(pretrained, width, expected):
    changes = {("0.1", "grpo~ood", "ood"): 0.4}
    table = plant(
        shifted(0.1, {("0.1", "pretrain", "ood"): pretrained - 0.1}), stages=("pretrain",)
    )
    after = plant(shifted(0.1, changes, width=width), stages=STAGES)
    table = pd.concat([table, after])
    assert verdict(table, "exposure") == "supported"
    row = rows(table, "beyond pretraining").iloc[0]
    assert row["verdict"] == expected
    assert row["effect"] == pytest.approx(0.5 - pretrained, abs=0.01)
    assert f"pretrain {pretrained:.3f}, sft 0.100, grpo~ood 0.500" in row["note"]


BANDS = np.repeat([1e-6, 0.5, 0.97], [21, 22, 21])


def banded(gains, width=0.002):
    """Prompts near zero, partly right and near one, with a gain for each."""

    def mass(seed, ratio, stage, split, task, prompts):
        gain = np.repeat(gains, [21, 22, 21]) + np.where(
            BANDS == 0.5, spread(0.0, SEEDS, width)[seed], spread(0.0, SEEDS, 0.001)[seed]
        )
        return BANDS + (gain if stage == f"grpo~{split}" else 0.0)

    return mass


@pytest.mark.parametrize(
    ("gains", "width", "expected"),
    [
        ((0.0, 0.3, 0.0), 0.002, "supported"),
        ((0.4, 0.3, 0.0), 0.002, "supported"),  # 0.6 of the room against 0.4
        ((0.8, 0.3, 0.0), 0.002, "contradicted"),  # the share only falls
        ((0.0, 0.3, 0.025), 0.002, "contradicted"),  # near one little is left, and it is gained
        ((0.0, 0.03, 0.0), WIDE, "inconclusive"),
    ],
)
def test_sweet_spot(gains, width, expected):
    assert verdict(plant(banded(gains, width)), "sweet spot") == expected


def test_sweet_spot_compares_the_bands_alone():
    row = rows(plant(banded((0.0, 0.3, 0.01))), "sweet spot").iloc[0]
    assert row["effect"] == pytest.approx(0.6 - 1 / 3, abs=1e-3)
    assert "near 0 -0.000, partly right +0.600, near 1 +0.333" in row["note"].replace(
        "+0.000", "-0.000"
    )


def test_sweet_spot_needs_all_bands():
    row = rows(plant(shifted(0.5, {("grpo~ood",): 0.2})), "sweet spot").iloc[0]
    assert (row["verdict"], row["note"]) == ("inconclusive", "nothing to test on in this run")


@pytest.mark.parametrize(
    ("gain", "width", "expected"),
    [(0.001, 0.001, "supported"), (0.02, 0.001, "contradicted"), (0.008, 0.02, "inconclusive")],
)
def test_saturation(gain, width, expected):
    assert (
        verdict(plant(shifted(0.96, {("grpo~id", "id"): gain}, width=width)), "saturation")
        == expected
    )


@pytest.mark.parametrize(("gain", "loss"), [(-0.2, True), (0.001, False)])
def test_saturation_says_when_no_gain_is_a_loss(gain, loss):
    row = rows(plant(shifted(0.96, {("grpo~id", "id"): gain})), "saturation").iloc[0]
    assert (row["verdict"], row["note"].startswith("no gain, but a loss")) == (
        "supported",
        loss,
    )


def mixed(broken, repaired, width=0.002):
    def mass(seed, ratio, stage, split, task, prompts):
        if split != "mixed-1":
            return 0.95 - (
                0.5 if stage == "grpo~ood" and split == "id" else 0.0
            )  # forgetting is not repair
        return broken + (repaired if stage == "grpo~ood" else 0.0) + spread(0.0, SEEDS, width)[seed]

    return plant(mass, splits=("id", "ood", "mixed-1"), ratios=("0", "0.1"))


@pytest.mark.parametrize(
    ("broken", "repaired", "width", "expected"),
    [
        (0.05, 0.0, 0.002, ("supported", "supported")),
        (0.05, 0.7, 0.002, ("supported", "contradicted")),
        (0.9, 0.0, 0.002, ("contradicted", "inconclusive")),  # nothing broken, so nothing to repair
        (0.4, 0.0, WIDE, ("inconclusive", "inconclusive")),
        (0.05, 0.45, 0.05, ("supported", "inconclusive")),
    ],
)
def test_foreign_tokens(broken, repaired, width, expected):
    both = rows(mixed(broken, repaired, width), "foreign tokens", cells="OOD ratio 0;")
    assert tuple(both["verdict"]) == expected


def test_foreign_tokens_only_for_axes_with_mixed_splits():
    table = pd.concat([mixed(0.05, 0.0), plant(shifted(0.3, {}), axis="other")])
    assert set(rows(table, "foreign tokens")["axis"]) == {"any name"}
    assert len(rows(table, "foreign tokens")) == 4  # with and without OOD pretraining


@VERDICTS
def test_composition(effect, width, expected):
    reached = {"true": 0.0, "false": 0.3, "open": -0.1}[effect]
    base = 0.002 if effect == "true" else 0.0

    def mass(seed, ratio, stage, split, task, prompts):
        reaches = (
            stage == "grpo~ood" and split == "ood" and task == "shift trav;4;A"
        )  # one task in one stage is enough
        return (
            0.9
            if ratio != "0" or split == "id"
            else base + (reached + spread(0.0, SEEDS, width)[seed]) * reaches
        )

    assert verdict(plant(mass), "composition") == expected


def test_composition_only_where_operations_meet_for_the_first_time():
    together = TASKS | {
        "id": ("trav shift;4;A", "shift;4;A"),
        "ood": ("shift trav;4;A", "shift trav shift;4;A"),
    }
    assert rows(plant(shifted(0.0, {}), tasks=together), "composition").empty
    deeper = TASKS | {"ood": ("trav trav;4;A", "trav trav trav;4;A")}
    assert rows(plant(shifted(0.0, {}), tasks=deeper), "composition").empty


@pytest.mark.parametrize(
    ("above", "width", "expected"),
    [
        (0.0, 0.0, "supported"),
        (0.01, 0.005, "supported"),
        (0.4, 0.01, "contradicted"),
        (0.06, 0.06, "inconclusive"),
    ],
)
def test_mass_bound_in_theory_runs(above, width, expected):
    assert (
        verdict(plant(shifted(0.3, {})), "mass bound", theory=theory(above, width=width))
        == expected
    )


def test_axes_of_one_seed_are_one_unit_of_the_mass_bound():
    runs = pd.concat([theory(0.4), theory(0.3).assign(axis="length")])
    row = rows(plant(shifted(0.3, {})), "mass bound", theory=runs).iloc[0]
    assert (row["seeds"], row["effect"]) == (SEEDS, pytest.approx(0.35, abs=0.01))


def test_runs_to_convergence_of_few_seeds_have_no_row():
    runs = theory(0.0, seeds=5)
    assert rows(plant(shifted(0.3, {})), "mass bound", theory=runs).empty


def test_a_success_or_step_that_the_chance_did_not_allow_refutes_it():
    table, where = plant(shifted(0.3, {})), {"cells": "cannot be sampled"}
    record = signal([1e-9] * SEEDS)
    record.loc[record["seed"] < 3, "moved"] = True
    row = rows(table, "no exposure", signal=record, **where).iloc[0]
    assert (row["seeds"], row["verdict"]) == (SEEDS - 3, "inconclusive")
    assert "rewarded all the same: 3 seeds" in row["note"]
    odd = rows(table, "no exposure", signal=record.assign(rewarded=1), **where).iloc[0]
    assert odd["seeds"] == 0


def test_mass_bound_is_tested_on_the_run_where_it_can_be():
    table = plant(shifted(0.1, {("grpo~ood",): 0.3, ("grpo~id",): 0.3}))  # bound 0.1 e = 0.27
    assert verdict(table, "mass bound", beta=1.0) == "contradicted"
    assert verdict(table, "mass bound", beta=0.5) == "supported"  # bound 0.1 e^2 = 0.74


@pytest.mark.parametrize(
    ("same", "other", "width", "expected"),
    [
        (0.3, 0.0, 0.002, "supported"),
        (0.0, 0.3, 0.002, "supported"),  # it matters, though the other way round
        (0.2, 0.2, 0.0, "contradicted"),
        (0.1, 0.0, WIDE, "inconclusive"),
    ],
)
def test_prompts_matter(same, other, width, expected):
    def mass(seed, ratio, stage, split, task, prompts):
        gain = {"sft": 0.0, f"grpo~{split}": same + spread(0.0, SEEDS, width or 0.002)[seed]}.get(
            stage, other
        )
        return 0.3 + gain

    table = plant(mass)
    assert [verdict(table, "prompts", cells=f"; {split} prompts") for split in ("ID", "OOD")] == [
        expected
    ] * 2


@pytest.mark.parametrize(
    ("gain", "width", "expected"),
    [(0.0, 1e-7, "supported"), (0.01, 0.002, "contradicted"), (1e-4, 3e-4, "inconclusive")],
)
def test_sharpening(gain, width, expected):
    base = np.repeat([1e-6, 0.5], 32)

    def mass(seed, ratio, stage, split, task, prompts):
        change = np.where(base < 0.1, max(spread(gain, SEEDS, width)[seed], 0), 0.3)
        return base + (change if stage == "grpo~ood" and ratio != "0" else 0.0)

    assert verdict(plant(mass), "sharpening") == expected


def test_sharpening_leaves_out_what_only_sft_hid():
    """Prompts of no mass after SFT gain much, but the pretrained model had most of them."""

    def mass(seed, ratio, stage, split, task, prompts):
        new = prompts < 32
        after = np.where(new, 1e-6 * (seed + 1), 0.9 + spread(0.0, SEEDS)[seed])
        return {
            "pretrain": np.where(new, 1e-6, 0.5),
            "grpo~ood": after if ratio != "0" else 1e-6,
        }.get(stage, 1e-6)

    table = plant(mass, stages=WITH_PRETRAINING)
    assert verdict(table, "sharpening") == "supported"
    assert verdict(table[table["stage"] != "pretrain"], "sharpening") == "contradicted"


def rising(with_mass, without, width=0.002):
    """Masses of a task half of whose prompts have mass, and of one without; both may rise."""

    def mass(seed, ratio, stage, split, task, prompts):
        shared = task == "trav shift;4;A"
        base = np.where(shared & (prompts >= 32), 0.4, 1e-9)
        gain = (with_mass if shared else without) + spread(0.0, SEEDS, width)[seed]
        after = stage == "grpo~ood" and split == "ood" and ratio != "0"
        return base + np.where(base < 0.1, max(gain, 0), 0.5) * after

    return plant(mass, stages=WITH_PRETRAINING)


@pytest.mark.parametrize(
    ("with_mass", "without", "width", "expected"),
    [
        (0.9, 0.0, 1e-6, ("supported", "supported")),
        (0.0, 0.9, 1e-6, ("contradicted", "contradicted")),
        (0.02, 0.02, 0.1, ("inconclusive", "inconclusive")),
    ],
)
def test_transfer(with_mass, without, width, expected):
    both = rows(rising(with_mass, without, width), "transfer")
    assert tuple(both["verdict"]) == expected
    assert both["seeds"].tolist() == [SEEDS, SEEDS]


def test_transfer_leaves_out_what_only_sft_hid():
    table = rising(0.9, 0.0)
    hid = (table["stage"] == "pretrain") & (table["task"] == "trav shift;4;A")
    table.loc[hid, "log_mass"] = np.log(0.3)
    rise, _ = rows(table, "transfer").to_dict("records")
    assert rise["seeds"] == 0


def test_thresholds_come_from_the_settings():
    table = plant(shifted(0.3, {("0.1", "grpo~ood", "ood"): 0.05}, width=0.05))

    def exposure(**settings):
        return verdict(table, "exposure", settings=ClaimsSettings(**settings))

    assert exposure() == "supported"
    assert exposure(negligible=0.12) == "contradicted"
    assert exposure(significance=0.001) == "inconclusive"
    assert exposure(looks=((8, 0.001), (12, 0.04))) == "inconclusive"
    assert exposure(looks=((4, 0.001), (8, 0.04))) == "supported"
