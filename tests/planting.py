"""Evaluations with planted masses, their ledger's verdicts, and runs to convergence."""

import numpy as np
import pandas as pd

from grpo_origin.analysis.evidence import Evidence
from grpo_origin.analysis.ledger import ledger
from grpo_origin.analysis.stages import with_method
from grpo_origin.config.schema import ClaimsSettings

SETTINGS = ClaimsSettings()
ZERO_MASS = 1.3e-6  # 60 steps of 16 prompts and 8 completions find it with a chance of 1 %
SEEDS = 8
PROMPTS = 64
TASKS = {
    "id": ("trav;4;A", "shift;4;A"),
    "ood": ("trav shift;4;A", "shift trav;4;A"),
    "mixed-1": ("trav;4;A", "shift;4;A"),
}
STAGES = ("sft", "grpo~id", "grpo~ood")


def spread(mean, seeds, width=0.002):
    """One value a seed, evenly from mean - width to mean + width."""
    places = np.linspace(-1, 1, seeds) if seeds > 1 else [0.0]
    return {seed: mean + width * place for seed, place in enumerate(places)}


def parts_of(log_mass):
    """A made-up split of the mass into its two factors."""
    return {"log_mass_markers": log_mass * 0.25, "log_mass_content": log_mass * 0.75}


def labelled(columns, axis, seed, ratio, stage, split, task):
    """Rows of one stage and task with the labels of an evaluation."""
    return pd.DataFrame(columns).assign(
        axis=axis, seed=seed, ood_ratio=ratio, stage=stage, split=split, task=task
    )


def plant(
    mass,
    *,
    axis="any name",
    seeds=SEEDS,
    ratios=("0", "0.1"),
    splits=("id", "ood"),
    stages=STAGES,
    tasks=TASKS,
):
    """Evaluations whose masses are mass(seed, ratio, stage, split, task, prompt numbers).

    They are clipped to [0, 1].
    """
    parts = []
    for seed in range(seeds):
        for ratio in ratios:
            for stage in stages:
                for split in splits:
                    for number, task in enumerate(tasks[split]):
                        prompts = np.arange(PROMPTS)
                        values = np.clip(
                            mass(seed, ratio, stage, split, task, prompts), 0, 1
                        ) + np.zeros(PROMPTS)
                        with np.errstate(divide="ignore"):
                            columns = {"log_mass": np.log(values), "greedy_correct": values >= 0.5}
                        columns |= parts_of(columns["log_mass"])
                        columns["prompt_index"] = prompts + number * PROMPTS
                        parts.append(labelled(columns, axis, seed, ratio, stage, split, task))
    return with_method(pd.concat(parts, ignore_index=True))


def shifted(base, changes, seeds=SEEDS, width=0.002):
    """Masses `base` (a number or an array of prompts) plus changes[(ratio, stage, split)].

    Changes differ a little between seeds. A key may be shorter: (stage, split) or (stage,).
    """

    def mass(seed, ratio, stage, split, task, prompts):
        keys = [key for key in ((ratio, stage, split), (stage, split), (stage,)) if key in changes]
        change = spread(changes[keys[0]], seeds, width)[seed] if keys else 0.0
        return (base[prompts % len(base)] if isinstance(base, np.ndarray) else base) + change

    return mass


def evaluations(
    masses,
    greedy=None,
    *,
    axis="depth",
    seed=0,
    ratio="0.1",
    stage="sft",
    split="ood",
    task="trav;4;A",
):
    """Rows of one stage; `greedy` defaults to mass >= 0.5."""
    masses = np.atleast_1d(np.asarray(masses, dtype=float))
    greedy = masses >= 0.5 if greedy is None else np.asarray(greedy, dtype=bool)
    with np.errstate(divide="ignore"):
        log_mass = np.log(masses)
    columns = {"log_mass": log_mass, **parts_of(log_mass), "greedy_correct": greedy}
    columns["prompt_index"] = np.arange(len(masses))
    return with_method(
        labelled(columns, axis, seed, ratio, stage, split, task).assign(variant="base")
    )


def covered(intervals, truth):
    low, high = intervals
    return np.mean((low <= truth) & (truth <= high))


def theory(above, beta=1.0, seeds=SEEDS, width=0.0, start=0.2):
    """Converged runs in which a share of the prompts ends above the bound."""
    parts = []
    for seed in range(seeds):
        share = np.clip(spread(above, seeds, width)[seed], 0, 1)
        for pool in ("train", "heldout"):
            before = np.full(200, start)
            bound = np.minimum(before * np.exp(1 / beta), 1)
            after = np.where(np.arange(200) < round(200 * share), bound + 0.05, before * 1.2)
            names = {"method": "rloo", "beta": beta, "axis": "depth", "seed": seed, "pool": pool}
            parts.append(
                pd.DataFrame(
                    {"prompt_index": np.arange(200), "mass_before": before, "mass_after": after}
                ).assign(**names)
            )
    return pd.concat(parts)


def confidences(over, *, axis="any name", ratio="0.1", seeds=SEEDS):
    """Rows of the table `seed_calibration`: overconfidence by stage, the same of both splits."""
    rows = [
        {"axis": axis, "ood_ratio": ratio, "stage": stage, "split": split, "seed": seed}
        | {"metric": "overconfidence", "mean": value, "prompts": PROMPTS}
        for stage, mean in over.items()
        for split in ("id", "ood")
        for seed, value in spread(mean, seeds).items()
    ]
    return with_method(pd.DataFrame(rows))


def judged(table, settings=SETTINGS, **more):
    """The ledger of plain GRPO; `more` is the rest of the evidence."""
    return ledger(Evidence(table, settings, ZERO_MASS, **more))


def signal(chances, *, axis="any name", ratio="0", stage="grpo~ood", moved=False):
    """What stages of an axis sampled, a chance of any success a seed; rewarded if they moved."""
    rows = [
        {
            "axis": axis,
            "seed": seed,
            "ood_ratio": ratio,
            "stage": stage,
            "completions": 7680,
            "rewarded": 5 * moved,
            "contrast_share": 0.01 * moved,
            "expected_successes": -np.log1p(-chance),
            "any_success": chance,
            "gold_tokens": 0,
            "moved": moved,
        }
        for seed, chance in enumerate(chances)
    ]
    return with_method(pd.DataFrame(rows))


def heads(after, seeds=8, without=100):
    """Rows of heads: mass after GRPO on OOD prompts of those without, by kind."""
    rows = [
        {"axis": "any name", "seed": seed, "ood_ratio": ratio, "head": kind, "split": "ood"}
        | {"trained_on": trained_on, "without": without, "guess": 0.04}
        | {"without_after": value + 0.001 * seed if trained_on == "ood" else 0.9}
        for seed in range(seeds)
        for ratio in ("0", "0.1")
        for kind, value in after.items()
        for trained_on in ("id", "ood")
    ]
    return pd.DataFrame(rows)


def rows(table, claim, *, axis="", cells="", **evidence):
    """The ledger's rows of a claim whose axis and cells hold these texts."""
    chosen = judged(table, **evidence)
    chosen = chosen[chosen["claim"] == claim]
    chosen = chosen[chosen["axis"].str.contains(axis, regex=False)]
    return chosen[chosen["cells"].str.contains(cells, regex=False)]


def verdict(table, claim, **where):
    chosen = rows(table, claim, **where)
    assert len(chosen) == 1, chosen
    return chosen.iloc[0]["verdict"]
