"""Tables of answers that are probabilities (`evaluation.calibration`).

Part of the registry in `tables`; empty unless an axis has stochastic outcomes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.table_entry import NUMBER, TEXT, WHOLE, Table, columns

if TYPE_CHECKING:
    import pandas as pd


def _seed_calibration(sources: Sources) -> pd.DataFrame:
    seeds = sources.calibration
    return CALIBRATION_TABLES["seed_calibration"].empty() if seeds is None else seeds


def _calibration(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.calibration import calibration_table

    seeds = sources.calibration
    return CALIBRATION_TABLES["calibration"].empty() if seeds is None else calibration_table(seeds)


def _reliability(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.calibration import reliability_table, seed_reliability

    if not sources.calibration_files:
        return CALIBRATION_TABLES["reliability"].empty()
    return reliability_table(sources.of_calibration(seed_reliability))


_MEASURED = "axis ood_ratio stage method trained_on split metric mean"
_MEASURE = {
    "metric": (TEXT, "measure of calibration, as docs/related.md defines it"),
    "mean": (NUMBER, "its value; mean over the seeds"),
    "low": (NUMBER, "lower end of its 95 % t interval over seeds; empty of one seed"),
    "high": (NUMBER, "upper end of it"),
}

CALIBRATION_TABLES: dict[str, Table] = {
    "calibration": Table(
        "evaluation",
        "a stage of a cell, split and measure of answers that are probabilities: exact, after the "
        "right trace; none unless an axis has stochastic outcomes",
        columns(f"{_MEASURED} low high seeds prompts", **_MEASURE),
        _calibration,
    ),
    "seed_calibration": Table(
        "evaluation",
        "as `calibration`, for every seed by itself",
        columns(
            _MEASURED.replace("ood_ratio", "seed ood_ratio") + " prompts",
            metric=_MEASURE["metric"],
            mean=(NUMBER, "its value"),
        ),
        _seed_calibration,
    ),
    "reliability": Table(
        "evaluation",
        "a stage of a cell, split and answer: how likely the event is where the answer is given",
        columns(
            "axis ood_ratio stage method trained_on split answer share mean low high seeds",
            answer=(NUMBER, "the probability that is said"),
            share=(NUMBER, "share of prompts that it is said of; mean over seeds"),
            mean=(NUMBER, "mean true probability of these, weighted by how likely it is said"),
            low=_MEASURE["low"],
            high=_MEASURE["high"],
            seeds=(WHOLE, "seeds in which it is said of one prompt in a thousand at least"),
        ),
        _reliability,
    ),
}
