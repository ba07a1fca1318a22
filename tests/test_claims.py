"""The rule of the ledger, and each claim each way from planted masses."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_origin.analysis.claims import Claim, decide
from grpo_origin.config.schema import ClaimsSettings
from planting import PROMPTS, SETTINGS, STAGES, TASKS, plant, rows, shifted, spread, theory, verdict

WIDE = 0.2
VERDICTS = pytest.mark.parametrize(
    ("effect", "width", "expected"),
    [
        ("true", 0.002, "supported"),
        ("false", 0.002, "contradicted"),
        ("true", WIDE, "inconclusive"),
        ("false", WIDE, "inconclusive"),
    ],
)


# The rule


@pytest.mark.parametrize(
    ("low", "high", "inside", "outside"),
    [
        (0.1, 0.2, "supported", "contradicted"),
        (-0.2, -0.1, "contradicted", "supported"),
        (0.6, 0.7, "contradicted", "supported"),
        (-0.1, 0.1, "inconclusive", "inconclusive"),
        (-0.1, 0.9, "inconclusive", "inconclusive"),
        (0.0, 0.2, "inconclusive", "inconclusive"),
        (np.nan, np.nan, "inconclusive", "inconclusive"),
    ],
)
def test_rule(low, high, inside, outside):
    assert decide(low, high, (0.0, 0.5)) == inside
    assert decide(low, high, (0.0, 0.5), inside=False) == outside


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=6),
    st.sampled_from([(-np.inf, 0.01), (0.01, np.inf), (-0.01, 0.01)]),
    st.booleans(),
    st.floats(0.01, 0.4),
)
def test_p_value_and_interval_agree(values, region, inside, significance):
    settings = ClaimsSettings(significance=significance)
    row = Claim("x", "x", region, inside).row("all", "cells", pd.Series(values), 100, settings)
    assert row["low"] <= row["effect"] + 1e-12
    assert row["effect"] <= row["high"] + 1e-12
    if not np.isnan(row["p_value"]) and abs(row["p_value"] - significance) > 1e-6:
        assert (row["p_value"] < significance) == (row["verdict"] != "inconclusive")


def test_row_by_hand():
    row = Claim("x", "x", (0.01, np.inf)).row(
        "all", "cells", pd.Series([0.1, 0.2, 0.3]), 100, SETTINGS
    )
    assert row["effect"] == pytest.approx(0.2)
    assert row["high"] - row["effect"] == pytest.approx(4.302652729911275 * 0.1 / np.sqrt(3))
    assert row["p_value"] == pytest.approx(
        0.0812, abs=1e-3
    )  # t = 0.19 / 0.0577 = 3.29 on 2 degrees of freedom
    assert row["verdict"] == "inconclusive"


# Each claim each way


@VERDICTS
def test_no_exposure(effect, width, expected):
    gain = {"true": 0.0, "false": 0.2}[effect]
    table = plant(
        shifted(0.3, {("0", "grpo~id", "ood"): gain, ("0.1", "grpo~ood", "ood"): 0.4}, width=width)
    )
    assert verdict(table, "no exposure") == expected


def test_no_exposure_counts_the_better_stage():
    assert (
        verdict(
            plant(shifted(0.3, {("0", "grpo~ood", "ood"): 0.2, ("0", "grpo~id", "ood"): -0.2})),
            "no exposure",
        )
        == "contradicted"
    )


def test_no_exposure_with_exact_zeros_rests_on_a_bound():
    row = rows(plant(shifted(0.0, {})), "no exposure").iloc[0]
    assert row["verdict"] == "supported"
    assert np.isnan(row["p_value"])
    assert row["high"] == pytest.approx(1 - 0.05 ** (1 / (3 * 2 * PROMPTS)))
    assert "Clopper-Pearson" in row["note"]


@VERDICTS
def test_exposure(effect, width, expected):
    gain = {"true": 0.2, "false": 0.0}[effect]
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
    assert verdict(table, "no exposure", axis="two") == "supported"


WITH_PRETRAINING = ("pretrain", *STAGES)


@pytest.mark.parametrize(
    ("pretrained", "width", "expected"),
    [(0.1, 0.002, "supported"), (0.5, 0.002, "contradicted"), (0.3, WIDE, "inconclusive")],
)
def test_mass_that_sft_hid_is_not_beyond_pretraining(pretrained, width, expected):
    changes = {("0.1", "grpo~ood", "ood"): 0.4}
    table = plant(
        shifted(0.1, {("0.1", "pretrain", "ood"): pretrained - 0.1}), stages=("pretrain",)
    )
    after = plant(shifted(0.1, changes, width=width), stages=STAGES)
    table = pd.concat([table, after])
    assert verdict(table, "exposure") == ("supported" if width < WIDE else "inconclusive")
    row = rows(table, "beyond pretraining").iloc[0]
    assert row["verdict"] == expected
    assert row["effect"] == pytest.approx(0.5 - pretrained, abs=0.01)
    assert f"pretrain {pretrained:.3f}, sft 0.100, grpo~ood 0.500" in row["note"]


BANDS = np.repeat([1e-6, 0.5, 0.97], [21, 22, 21])


def banded(gains, width=0.002):
    """Prompts near zero, partly right and near one, with a gain for each."""

    def mass(seed, ratio, stage, split, task, prompts):
        gain = np.repeat(gains, [21, 22, 21]) + np.where(
            BANDS == 0.5, spread(0.0, 3, width)[seed], spread(0.0, 3, 0.001)[seed]
        )
        return BANDS + (gain if stage == f"grpo~{split}" else 0.0)

    return mass


@pytest.mark.parametrize(
    ("gains", "width", "expected"),
    [
        ((0.0, 0.3, 0.0), 0.002, "supported"),
        ((0.4, 0.3, 0.0), 0.002, "contradicted"),  # the gain only falls
        ((0.0, 0.02, 0.02), 0.002, "contradicted"),  # it only rises
        ((0.0, 0.1, 0.0), WIDE, "inconclusive"),
    ],
)
def test_sweet_spot(gains, width, expected):
    assert verdict(plant(banded(gains, width)), "sweet spot") == expected


def test_sweet_spot_compares_the_bands_alone():
    row = rows(plant(banded((0.0, 0.3, 0.01))), "sweet spot").iloc[0]
    assert row["effect"] == pytest.approx(0.29, abs=1e-3)
    assert "near 0 +0.000, partly right +0.300, near 1 +0.010" in row["note"]


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
        return broken + (repaired if stage == "grpo~ood" else 0.0) + spread(0.0, 3, width)[seed]

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
    reached = {"true": 0.0, "false": 0.3}[effect]
    base = 0.002 if effect == "true" and width < WIDE else 0.1 * (width == WIDE)

    def mass(seed, ratio, stage, split, task, prompts):
        reaches = (
            stage == "grpo~ood" and split == "ood" and task == "shift trav;4;A"
        )  # one task in one stage is enough
        return (
            0.9
            if ratio != "0" or split == "id"
            else base + (reached + spread(0.0, 3, width)[seed]) * reaches
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
        (0.2, 0.19, "inconclusive"),
    ],
)
def test_mass_bound_in_theory_runs(above, width, expected):
    assert (
        verdict(plant(shifted(0.3, {})), "mass bound", theory=theory(above, width=width))
        == expected
    )


def test_axes_of_one_seed_are_one_unit_of_the_mass_bound():
    runs = pd.concat([theory(0.4, seeds=1), theory(0.3, seeds=1).assign(axis="length")])
    row = rows(plant(shifted(0.3, {})), "mass bound", theory=runs).iloc[0]
    assert (row["verdict"], row["effect"]) == ("inconclusive", pytest.approx(0.35, abs=0.01))


def test_mass_bound_says_when_it_is_vacuous():
    table = plant(shifted(0.3, {("grpo~ood",): 0.3}))
    row = rows(table, "mass bound", beta=0.001).iloc[0]
    assert row["verdict"] == "inconclusive"
    assert "for 100.0% of prompts" in row["note"]
    assert rows(table, "mass bound", beta=0.0).empty  # no KL weight, no bound
    runs = theory(0.0, beta=0.3, start=0.5)  # 0.5 e^{1/0.3} > 1
    row = rows(table, "mass bound", theory=runs).iloc[0]
    assert (row["verdict"], "for 100.0% of prompts" in row["note"]) == ("inconclusive", True)


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
        gain = {"sft": 0.0, f"grpo~{split}": same + spread(0.0, 3, width or 0.002)[seed]}.get(
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
        change = np.where(base < 0.1, max(spread(gain, 3, width)[seed], 0), 0.3)
        return base + (change if stage == "grpo~ood" and ratio != "0" else 0.0)

    assert verdict(plant(mass), "sharpening") == expected


def test_sharpening_leaves_out_what_only_sft_hid():
    """Prompts of no mass after SFT gain much, but the pretrained model had most of them."""

    def mass(seed, ratio, stage, split, task, prompts):
        new = prompts < 32
        after = np.where(new, 1e-6 * (seed + 1), 0.9 + spread(0.0, 3)[seed])
        return {
            "pretrain": np.where(new, 1e-6, 0.5),
            "grpo~ood": after if ratio != "0" else 1e-6,
        }.get(stage, 1e-6)

    table = plant(mass, stages=WITH_PRETRAINING)
    assert verdict(table, "sharpening") == "supported"
    assert verdict(table[table["stage"] != "pretrain"], "sharpening") == "contradicted"


def test_shares_that_agree_by_chance_are_counted_together():
    row = Claim("x", "x", (-np.inf, 0.05), floor=0.0, share=True).row(
        "all", "", pd.Series([0.125, 0.125]), 32, SETTINGS
    )
    assert (row["low"], row["high"]) == (
        pytest.approx(0.0351, abs=1e-4),
        pytest.approx(0.2899, abs=1e-4),
    )  # exact interval of 4 in 32
    assert row["verdict"] == "inconclusive"


def test_thresholds_come_from_the_settings():
    table = plant(shifted(0.3, {("0.1", "grpo~ood", "ood"): 0.05}))
    assert verdict(table, "exposure") == "supported"
    assert verdict(table, "exposure", settings=ClaimsSettings(negligible=0.1)) == "contradicted"
    assert (
        verdict(table, "exposure", settings=ClaimsSettings(significance=0.0001)) == "inconclusive"
    )
