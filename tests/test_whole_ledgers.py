"""Whole ledgers of simulated runs in which claims are false, at the edge of being true.

Every claim goes its whole way, from evaluations to its family's verdicts. `pytest --run-slow` draws
5,000 ledgers, otherwise a few.
"""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from grpo_origin.analysis.evidence import Evidence
from grpo_origin.analysis.ledger import ledger
from grpo_origin.analysis.stages import with_method
from grpo_origin.config.schema import ClaimsSettings
from planting import ZERO_MASS, parts_of

SEEDS, AXES, RATIOS = 7, ("one", "two", "three", "four"), ("0", "0.1")
STAGES = ("pretrain", "sft", "grpo~id", "grpo~ood")
BAND = 2  # prompts of each kind in a cell: few, since they are no replicates
SETTINGS = ClaimsSettings(band_prompts=BAND)
# Kinds of prompts: split, task and mass before RL. The second OOD task has no mass at all.
KINDS = {
    "saturated": ("id", "trav;4;A", 0.97),
    "weak": ("ood", "trav shift;4;A", 1e-9),
    "partly": ("ood", "trav shift;4;A", 0.4),
    "without": ("ood", "shift trav;4;A", 1e-9),
    "mixed": ("mixed-1", "trav;4;A", 0.2),
}
EDGE, FAR = SETTINGS.negligible, 0.5


def frame():
    """Labels of all rows of a run, without masses."""
    rows = [
        (axis, seed, ratio, stage, split, task, kind, i)
        for axis in AXES
        for seed in range(SEEDS)
        for ratio in RATIOS
        for stage in STAGES
        for number, (kind, (split, task, _)) in enumerate(KINDS.items())
        if kind != "mixed" or axis == AXES[0]
        for i in range(number * BAND, (number + 1) * BAND)
    ]
    columns = ["axis", "seed", "ood_ratio", "stage", "split", "task", "kind", "prompt_index"]
    return pd.DataFrame(rows, columns=columns)


ROWS = frame()
SIGNAL = with_method(ROWS[["axis", "seed", "ood_ratio", "stage"]].drop_duplicates())
SIGNAL = SIGNAL[SIGNAL["method"].notna()].reset_index(drop=True)


def where(**labels):
    """Rows that carry these labels."""
    chosen = np.ones(len(ROWS), bool)
    for name, value in labels.items():
        chosen &= (ROWS[name] == value).to_numpy()
    return chosen


CELL = ROWS.groupby(["axis", "seed", "ood_ratio"], sort=False).ngroup().to_numpy()
MASS_BEFORE = ROWS["kind"].map({name: mass for name, (*_, mass) in KINDS.items()}).to_numpy()


def smooth(draws, mean, spread, low=-1.0):
    """A number a cell of this mean; near `low`, which it may not cross, a lopsided one."""
    cells = CELL.max() + 1
    if mean - low > 4 * spread:
        return draws.normal(mean, spread, cells)
    return low + draws.gamma(2, (mean - low) / 2, cells)


def all_or_none(draws, share, height):
    """A number a cell: `height` in this share of cells, about 0 in the others."""
    cells = CELL.max() + 1
    return (draws.random(cells) < share) * height + draws.normal(0, 1e-9, cells)


def nothing_gained(draws, lumpy):
    """A run in which what claims of presence speak of lies at their edge on average."""
    mass = MASS_BEFORE.copy()
    rise = all_or_none(draws, EDGE / FAR, FAR) if lumpy else smooth(draws, EDGE, 0.03)
    own = where(stage="grpo~ood", split="ood")
    mass += np.where(own, rise[CELL], 0)
    floor = all_or_none(draws, EDGE / FAR, FAR) if lumpy else smooth(draws, EDGE, 0.03, low=0.0)
    without = own & (MASS_BEFORE < ZERO_MASS)
    mass[without] = np.abs(floor[CELL[without]])
    # Foreign tokens take `broken` of a mass of 0.97: sometimes all of it, sometimes nothing.
    left = 0.97 - SETTINGS.broken
    taken = all_or_none(draws, left / 0.97, 0.97) if lumpy else smooth(draws, left, 0.1)
    mass[where(split="mixed-1")] = taken[CELL[where(split="mixed-1")]]
    return mass, np.full(len(SIGNAL), 0.001), ("present", "outside")


def half_of_seeds_rise(draws, lumpy):
    """A run in which what claims of absence speak of happens in half of the seeds."""
    mass = MASS_BEFORE.copy()

    def change(mean, height, low=-1.0):
        if lumpy:
            return np.abs(all_or_none(draws, 0.5, height))[CELL]
        return smooth(draws, mean, min(0.03, (mean - low) / 5), low)[CELL]

    after = ROWS["stage"].isin(STAGES[2:]).to_numpy()
    for kind, rise in (
        ("saturated", change(EDGE, 0.029, EDGE - 0.03)),
        ("weak", change(2 * EDGE, FAR, 0.0)),
        ("without", change(2 * EDGE, FAR, 0.0)),
        ("mixed", change((1 - SETTINGS.broken) * 0.77, 0.7)),
    ):
        mass += np.where(after & where(kind=kind), rise, 0)
    chances = np.where(draws.random(len(SIGNAL)) < 0.5, 0.5, 0.001)
    return mass, chances, ("absent", "few")


# Statements by what they claim, as the ledger's claims declare it.
KIND_OF = {
    "exposure": "present",
    "beyond pretraining": "present",
    "sweet spot": "present",
    "prompts": "outside",
    "saturation": "absent",
    "composition": "absent",
    "sharpening": "absent",
}


def kind_of(row):
    """What a row of the ledger claims."""
    if row.claim == "no exposure":
        return "few" if "cannot be sampled" in row.cells else "absent"
    if row.claim == "transfer":
        return "absent" if "do not rise" in row.statement else "present"
    if row.claim == "foreign tokens":
        return "absent" if "gives back" in row.statement else "present"
    return KIND_OF.get(row.claim)


def simulated(mass, chances):
    """The ledger of a run with these masses and chances of a success at ratio 0."""
    log_mass = np.log(np.clip(mass, 1e-12, 1))
    table = ROWS.assign(log_mass=log_mass, greedy_correct=mass > 0.5, **parts_of(log_mass))
    signal = SIGNAL.assign(
        completions=7680,
        rewarded=np.where(chances > SETTINGS.chance, 5, 0),
        contrast_share=0.01,
        expected_successes=-np.log1p(-chances),
        any_success=chances,
        gold_tokens=0,
        moved=True,
    )
    # The certificate is refuted by a stage that moved; here such stages are those with a chance.
    signal["moved"] = (chances > SETTINGS.chance) | (signal["trained_on"] == "id")
    return ledger(Evidence(with_method(table), SETTINGS, ZERO_MASS, signal=signal))


@pytest.mark.parametrize("lumpy", [False, True], ids=["smooth seeds", "all or none"])
@pytest.mark.parametrize("world", [nothing_gained, half_of_seeds_rise])
def test_families_of_whole_ledgers_are_falsely_supported_in_one_of_twenty_at_most(
    world, lumpy, request
):
    ledgers = 1250 if request.config.getoption("--run-slow") else 15
    draws, false, judged = np.random.default_rng(7), Counter(), Counter()
    for _ in range(ledgers):
        mass, chances, kinds = world(draws, lumpy)
        table = simulated(mass, chances)
        tested = table[[kind_of(row) in kinds for row in table.itertuples()]]
        assert (tested["seeds"] == SEEDS).any()
        for statement, rows in tested[tested["seeds"] > 0].groupby("statement"):
            judged[statement] += 1
            false[statement] += (rows["verdict"] == "supported").any()
    for statement, number in judged.items():
        print(f"{false[statement]} of {number} falsely supported: {statement}")
        assert false[statement] <= stats.binom.isf(1e-4, number, SETTINGS.significance), statement
    names = {row.claim for row in table.itertuples() if kind_of(row) in kinds}
    wanted = {
        nothing_gained: {"exposure", "beyond pretraining", "transfer", "foreign tokens", "prompts"},
        half_of_seeds_rise: {"no exposure", "saturation", "composition", "sharpening", "transfer"},
    }
    assert wanted[world] <= names
