"""Three claims computed again from evaluation files, by pandas and scipy alone.

The project's code only writes the files and the ledger; what is compared with it is derived here
from docs/protocol.md.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.table_files import write_tables
from grpo_origin.evaluation.table import COLUMNS, evaluation_schema
from grpo_origin.jobs.files import write_table
from planting import STAGES, plant

SEEDS, AXES, ALPHA, NEGLIGIBLE, BROKEN = 7, ("one", "two", "three"), 0.05, 0.01, 0.5


def planted_mass(axis):
    """Masses in which axes differ: one gains with exposure, two without it too, three forgets."""
    draws = np.random.default_rng(AXES.index(axis))
    noise = draws.normal(0, 0.02, (SEEDS, 2, 4, 3))

    def mass(seed, ratio, stage, split, task, prompts):
        stages, splits = ("pretrain", *STAGES), ("id", "ood", "mixed-1")
        level = {"id": 0.9, "ood": 0.2, "mixed-1": 0.25}[split] + 0.002 * (prompts % 7)
        level = level + 0.3 * (axis == "three") * (split == "mixed-1")
        gain = {"one": 0.3 * (ratio != "0"), "two": 0.25, "three": -0.05}[axis]
        gain *= stage == "grpo~ood" and split == "ood"
        place = (seed, int(ratio != "0"), stages.index(stage), splits.index(split))
        return level + gain + noise[place]

    return mass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Evaluation files of a run, one an axis, and the ledger that the project makes of them."""
    root = tmp_path_factory.mktemp("run")
    files = []
    for axis in AXES:
        splits = ("id", "ood") if axis == "one" else ("id", "ood", "mixed-1")
        shape = {"seeds": SEEDS, "splits": splits, "stages": ("pretrain", *STAGES)}
        table = plant(planted_mass(axis), axis=axis, ratios=("0", "0.03", "0.10"), **shape)
        table = table.assign(variant="base", log_mass_markers=0.0, log_mass_content=0.0)
        arrow = pa.Table.from_pandas(table[[*COLUMNS]], evaluation_schema(), preserve_index=False)
        files.append(root / f"{axis}.parquet")
        write_table(files[-1], arrow)
    sources = Sources(evaluation_files=files, betas={"grpo": 0.0}, budget=7680)
    write_tables([root / "claims.parquet"], sources)
    evaluations = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    return evaluations.assign(mass=np.exp(evaluations["log_mass"])), pd.read_parquet(
        root / "claims.parquet"
    )


def p_above(values, edge):
    return stats.ttest_1samp(values, edge, alternative="greater").pvalue


def p_absent(values, edge):
    rising = sum(value >= edge for value in values)
    seeds = stats.binomtest(rising, len(values), 0.5, alternative="less").pvalue
    return max(seeds, stats.ttest_1samp(values, edge, alternative="less").pvalue)


def holm(p_values):
    """Adjusted p-values, from the definition: rank by rank."""
    ranked, adjusted = sorted(p_values.items(), key=lambda item: item[1]), {}
    largest = 0.0
    for rank, (name, p_value) in enumerate(ranked):
        largest = max(largest, min(1.0, p_value * (len(ranked) - rank)))
        adjusted[name] = largest
    return adjusted


def verdicts(values, edge, absence):
    """Verdict and adjusted p-value of every member of a family from its seeds' numbers."""
    above = holm({name: p_above(v, edge) for name, v in values.items()})
    absent = holm({name: p_absent(v, edge) for name, v in values.items()})
    supports, contradicts = (absent, above) if absence else (above, absent)
    return {
        name: ("supported", supports[name])
        if supports[name] <= ALPHA
        else ("contradicted", contradicts[name])
        if contradicts[name] <= ALPHA
        else ("inconclusive", None)
        for name in values
    }


def compared(ledger, expected, values, cells=""):
    """The ledger's rows (of one statement) say what was computed; returns the verdicts."""
    rows = ledger[ledger["cells"].str.contains(cells, regex=False)]
    assert len(rows) == len(expected)
    for row in rows.itertuples():
        names = (row.axis, (row.axis, row.cells.split(";")[0]))
        name = next(name for name in names if name in expected)
        verdict, p_value = expected[name]
        seeds = np.asarray(values[name])
        assert row.verdict == verdict
        assert row.effect == pytest.approx(seeds.mean(), abs=1e-9)
        assert row.spread == pytest.approx(seeds.std(ddof=1), abs=1e-9)
        assert p_value is None or row.p_adjusted == pytest.approx(p_value, rel=1e-6)
        half = stats.t.ppf(1 - ALPHA, len(seeds) - 1) * stats.sem(seeds)
        assert row.low == pytest.approx(seeds.mean() - half, abs=1e-9)
        assert row.high == pytest.approx(seeds.mean() + half, abs=1e-9)
    return {verdict for verdict, _ in expected.values()}


def level(table, **where):
    """Mean mass of every seed in these rows."""
    for name, value in where.items():
        table = table[table[name] == value]
    return table.groupby("seed")["mass"].mean()


def test_no_exposure_did_not_rise(run):
    evaluations, ledger = run
    values = {}
    for axis in AXES:
        at_zero = evaluations[(evaluations["axis"] == axis) & (evaluations["ood_ratio"] == "0")]
        before = level(at_zero, stage="sft", split="ood")
        gains = [level(at_zero, stage=s, split="ood") - before for s in ("grpo~id", "grpo~ood")]
        values[axis] = np.maximum(*gains)
    expected = verdicts(values, NEGLIGIBLE, absence=True)
    rows = ledger[ledger["claim"] == "no exposure"]
    assert "contradicted" in compared(rows, expected, values, "did not rise")


def test_exposure(run):
    evaluations, ledger = run
    positive = evaluations[(evaluations["ood_ratio"] != "0") & (evaluations["split"] == "ood")]
    values, closures = {}, {}
    for axis in AXES:
        table = positive[positive["axis"] == axis]
        before = level(table, stage="sft")
        values[axis] = level(table, stage="grpo~ood") - before
        closures[axis] = (values[axis] / (1 - before)).mean()
    rows = ledger[ledger["claim"] == "exposure"]
    seen = compared(rows, verdicts(values, NEGLIGIBLE, absence=False), values)
    assert seen >= {"supported", "contradicted"}
    assert rows.set_index("axis")["closure"].to_dict() == pytest.approx(closures)


def test_foreign_tokens(run):
    evaluations, ledger = run
    rows = ledger[ledger["claim"] == "foreign tokens"]
    taken, back = {}, {}
    for axis in ("two", "three"):
        table = evaluations[evaluations["axis"] == axis]
        for ratio, part in table.groupby("ood_ratio"):
            key = (axis, f"OOD ratio {ratio}")
            mixed = level(part, stage="sft", split="mixed-1")
            taken[key] = level(part, stage="sft", split="id") - mixed
            after = [level(part, stage=s, split="mixed-1") for s in ("grpo~id", "grpo~ood")]
            back[key] = (np.maximum(*after) - mixed) / taken[key]
    broken = verdicts(taken, BROKEN, absence=False)
    assert compared(rows, broken, taken, "ID minus") == {"supported", "contradicted"}
    repaired = verdicts(back, 1 - BROKEN, absence=True)
    repaired |= {key: ("inconclusive", None) for key in back if broken[key][0] != "supported"}
    compared(rows, repaired, back, "as a share of that")
