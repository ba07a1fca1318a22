"""Mroueh's recursion along learning curves: planted ones are foreseen, others not."""

import numpy as np
import pandas as pd
import pytest

from grpo_origin.analysis.outcome_check import BETAS
from grpo_origin.analysis.recursion import ahead, errors_ahead
from grpo_origin.evaluation.amplification import amplified

STEPS = (0, 10, 25, 30)
WEIGHT = float(BETAS[20])


def curves(axes=("depth", "token"), weight=WEIGHT):
    """Curves that follow the recursion towards the model before each step, two seeds an axis."""
    rows = [
        {"axis": axis, "seed": seed, "ood_ratio": "0.1", "stage": "grpo~ood", "step": step}
        | {"mass": float(amplified(start, weight, step, mirror=True))}
        for axis in axes
        for seed, start in ((0, 0.02), (1, 0.3))
        for step in STEPS
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_curves_of_the_recursion_are_foreseen_a_point_ahead():
    table = ahead(curves(), 0.001)
    assert len(table) == 2 * 2 * (len(STEPS) - 1)
    own = table[(table["axis"] == "token") & (table["seed"] == 1)]
    assert own["step"].tolist() == [10, 25, 30]
    assert own["present"].tolist()[0] == pytest.approx(0.3)
    assert own["present"].tolist()[1:] == own["measured"].tolist()[:-1]
    assert table["fitted"].to_numpy() == pytest.approx(table["measured"].to_numpy(), abs=1e-9)
    # With a weight as small as a run's every start is at 1 after one iteration.
    assert table["recursion"].to_numpy() == pytest.approx(1.0)


def test_the_weight_is_that_of_the_other_axes():
    mixed = pd.concat([curves(("depth",)), curves(("token",), weight=float(BETAS[26]))])
    table = ahead(mixed, WEIGHT)
    depth = table[table["axis"] == "depth"]
    assert depth["recursion"].to_numpy() == pytest.approx(depth["measured"].to_numpy(), abs=1e-9)
    assert (np.abs(depth["fitted"] - depth["measured"]) > 1e-3).any()
    assert ahead(curves(("depth",)), WEIGHT)["fitted"].isna().all()


def test_errors_are_of_all_points_and_of_those_where_something_may_happen():
    table = pd.DataFrame({"present": [0.001, 0.5], "measured": [0.001, 0.7]})
    table = table.assign(stays=table["present"], recursion=1.0, fitted=[0.001, 0.8])
    found = errors_ahead(table).set_index(["points", "forecast"])
    assert found.loc[("all", "stays"), "mae"] == pytest.approx(0.1)
    assert found.loc[("open", "stays"), ["n", "mae", "bias"]].tolist() == pytest.approx(
        [1, 0.2, -0.2]
    )
    assert found.loc[("open", "fitted"), "bias"] == pytest.approx(0.1)
    assert found.loc[("all", "recursion"), "mae"] == pytest.approx((0.999 + 0.3) / 2)
