"""Settings and tables of a made-up run, for the tests of figures and report.

Two axes, one with mixed splits, two OOD tasks and theory; two methods; three seeds.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pandas as pd

from grpo_origin.config.load import load_settings, merged
from grpo_origin.config.paths import stage_of
from grpo_origin.config.schema import Settings

CONFIG = {
    "run": "planted",
    "seeds": [0, 1, 2],
    "ratios": ["0", "0.02", "0.1"],
    "axes": {
        "many": {
            "id": ["trav;4;A", "shift;4;A", "trav trav;4;A"],
            "ood": ["trav shift;4;A", "shift trav;4;A"],
            "mixed": [1, 3],
            "theory": ["0.1"],
        },
        "single": {"id": ["trav;4;A"], "ood": ["trav trav;4;A"], "ratios": ["0", "0.1"]},
    },
    "methods": ["grpo", "dapo"],
    "variants": {"deep": {"model": {"layers": 5}}, "slow": {"axes": ["many"], "rl": {"steps": 9}}},
    "evaluation": {"prompts": 40},
}
BEFORE = ["pretrain", "sft"]
RL = ["grpo~id", "grpo~ood", "dapo~id", "dapo~ood"]
METRICS = ["accuracy", "mass", "markers", "content", "pass@8", "pass@128"]


def planted_settings(**changes) -> Settings:
    """The made-up run's settings, changed."""
    return load_settings(merged(CONFIG, changes))


def planted_tables(settings: Settings) -> dict[str, pd.DataFrame]:
    """Its tables by name; every value is different, intervals are lopsided."""
    draws = np.random.default_rng(0)
    tasks = _seed_rows(settings, [*BEFORE, *RL], draws, tasks=True)
    levels = _seed_rows(settings, [*BEFORE, *RL], draws)
    changes = _seed_rows(settings, RL, draws)
    changes["mean"] = 2 * changes["mean"] - 1
    bins = _seed_bins(settings, draws)
    prompts, trace = _theory(draws)
    variants, methods = _contrasts(settings, draws)
    return {
        "summary": _over_seeds(levels),
        "seed_means": levels,
        "task_summary": _over_seeds(tasks),
        "task_seed_means": tasks,
        "gains": _over_seeds(changes),
        "seed_gains": changes,
        "mass_gains": _over_seeds(bins),
        "seed_mass_gains": bins,
        "training": _training(settings, draws),
        "learning_curves": _learning(settings, draws),
        "mass_spread": _mass_spread(settings),
        "signal": _signal(settings),
        "transfer": _transfer(settings, draws),
        "first_success": _first_success(settings, draws),
        "outcome": _outcome(settings, draws),
        "seed_contrasts": variants,
        "contrasts": _bounds(variants),
        "method_seed_contrasts": methods,
        "method_contrasts": _bounds(methods),
        "theory_prompts": prompts,
        "theory_trace": trace,
    }


def _with_stage(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that say what a stage is: `method` and `trained_on`, missing before RL."""
    stages = table["stage"].map(stage_of)
    return table.assign(
        method=[stage.method for stage in stages], trained_on=[stage.trained_on for stage in stages]
    )


def _seed_rows(settings, stages, draws, tasks=False) -> pd.DataFrame:
    rows = [
        {"axis": name, "seed": seed, "ood_ratio": ratio, "stage": stage, "split": split}
        | ({"task": str(task)} if tasks else {})
        | {"metric": metric}
        for name, axis in settings.axes.items()
        for seed, ratio in product(settings.seeds, settings.axis_ratios(name))
        for stage, split, metric in product(stages, axis.splits, METRICS)
        for task in (axis.tasks(split) if tasks else [None])
    ]
    table = _with_stage(pd.DataFrame(rows))
    return table.assign(mean=draws.uniform(size=len(table)), prompts=40)


def _over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    values = ["mean", "mass_before"] if "mass_before" in table else ["mean"]
    keys = [name for name in table if name not in ("seed", "prompts", *values)]
    means = table.groupby(keys, dropna=False, sort=False)[values].mean().reset_index()
    return means.assign(low=means["mean"] - 0.03, high=means["mean"] + 0.05, seeds=3)


def _seed_bins(settings, draws) -> pd.DataFrame:
    edges = [0.0, 1e-4, 0.1, 0.5, 1.0]
    rows = [
        {"stage": stage, "split": split, "seed": seed, "bin_low": low, "bin_high": high}
        | {"bin": f"{low:g}-{high:g}", "mass_before": (low + high) / 2}
        for stage, split, seed in product(RL, ("id", "ood"), settings.seeds)
        for low, high in pairwise(edges)
    ]
    table = _with_stage(pd.DataFrame(rows))
    return table.assign(mean=draws.uniform(-1, 1, size=len(table)), prompts=40)


def _training(settings, draws) -> pd.DataFrame:
    rows = [
        {"axis": name, "seed": seed, "ood_ratio": ratio, "stage": stage, "step": step}
        for name in settings.axes
        for seed, ratio in product(settings.seeds, settings.axis_ratios(name))
        for stage, step in product(RL, (1, 2, 3))
    ]
    table = _with_stage(pd.DataFrame(rows))
    columns = ("reward_mean", "zero_variance_share", "kl")
    return table.assign(**{name: draws.uniform(size=len(table)) for name in columns})


def _learning(settings: Settings, draws) -> pd.DataFrame:
    cells = [(a, r) for a in settings.axes for r in settings.axis_ratios(a)]
    rows = [
        {"axis": axis, "seed": seed, "ood_ratio": ratio, "stage": stage, "step": step}
        | {"split": split, "completions": 10 * step}
        for axis, ratio in cells
        for seed, stage, step, split in product(settings.seeds, RL, (0, 5, 8), ("id", "ood"))
    ]
    table = _with_stage(pd.DataFrame(rows))
    return table.assign(mass=draws.uniform(size=len(table)))


def _mass_spread(settings: Settings) -> pd.DataFrame:
    """Three quarters of a cell's prompts in one decade, the others in the next."""
    cells = [
        (a, s, r) for a in settings.axes for r in settings.axis_ratios(a) for s in settings.seeds
    ]
    rows = [
        {"axis": axis, "seed": seed, "ood_ratio": ratio, "stage": stage, "split": split}
        | {"quantity": quantity, "decade": decade - seed, "prompts": prompts}
        for axis, seed, ratio in cells
        for stage, split in product([*BEFORE, *RL], settings.axes[axis].splits)
        for quantity, low in (("mass", -40), ("markers", -5), ("content", -35))
        for decade, prompts in ((low, 30), (low + 1, 10))
    ]
    return _with_stage(pd.DataFrame(rows))


def _signal(settings: Settings) -> pd.DataFrame:
    rows = [
        {"axis": axis, "seed": seed, "ood_ratio": ratio, "stage": stage, "completions": 7680}
        | {"rewarded": 0, "any_success": 1e-30, "moved": False}
        for axis in settings.axes
        for ratio in settings.axis_ratios(axis)
        for seed, stage in product(settings.seeds, RL)
    ]
    return _with_stage(pd.DataFrame(rows))


def _contrasts(settings: Settings, draws) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seeds' differences of two variants, one of them with one axis alone, and of a method."""
    cells = [(a, r) for a in settings.axes for r in settings.axis_ratios(a)]
    stages = ["sft", *RL]
    rows = [
        {"variant": variant, "axis": axis, "ood_ratio": ratio, "seed": seed, "stage": stage}
        | {"quantity": quantity}
        for variant, (axis, ratio) in product(("deep", "slow"), cells)
        if (variant, axis) != ("slow", "single")
        for seed, stage, quantity in product(settings.seeds, stages, ("ID mass", "OOD mass"))
    ]
    table = _with_stage(pd.DataFrame(rows))
    table["difference"] = draws.uniform(-1, 1, size=len(table))
    other = table[(table["variant"] == "deep") & (table["method"] == "dapo")]
    return table, other.drop(columns="variant")


def _bounds(table: pd.DataFrame) -> pd.DataFrame:
    keys = [name for name in table if name not in ("seed", "difference")]
    means = table.groupby(keys, dropna=False, sort=False)["difference"].mean().reset_index()
    return means.assign(low=means["difference"] - 0.03, high=means["difference"] + 0.05, seeds=3)


def _transfer(settings: Settings, draws) -> pd.DataFrame:
    """Prompts without mass of every OOD task, seed and positive ratio."""
    cells = product(("grpo", "dapo"), settings.axes, settings.seeds)
    rows = [
        {"method": method, "axis": axis, "seed": seed, "ood_ratio": "0.1", "task": str(task)}
        | {"stage": f"{method}~ood", "trained_on": "ood"}
        | {"task_mass_before": 10 ** draws.uniform(-30, 0), "prompts": int(draws.integers(1, 40))}
        | {"before": 1e-8, "after": draws.uniform()}
        for method, axis, seed in cells
        for task in settings.axes[axis].ood
    ]
    return pd.DataFrame(rows)


def _first_success(settings: Settings, draws) -> pd.DataFrame:
    cells = [(a, r) for a in settings.axes for r in settings.axis_ratios(a)]
    rows = [
        {"axis": axis, "seed": seed, "ood_ratio": ratio, "stage": stage, "steps": 60}
        | {"first": float(draws.integers(1, 60)), "median": 5.0, "before": 0.2, "by": 0.6}
        for axis, ratio in cells
        for seed, stage in product(settings.seeds, RL)
    ]
    return _with_stage(pd.DataFrame(rows)).assign(moved=True, any=1.0, surest=0.4)


def _outcome(settings: Settings, draws) -> pd.DataFrame:
    cells = [(a, r) for a in settings.axes for r in settings.axis_ratios(a)]
    rows = [
        {"axis": axis, "seed": seed, "ood_ratio": ratio, "stage": stage, "steps": 60}
        for axis, ratio in cells
        for seed, stage in product(settings.seeds, RL)
    ]
    table = _with_stage(pd.DataFrame(rows))
    low, middle, high, after = np.sort(draws.uniform(size=(4, len(table))), axis=0)
    table = table.assign(low=low, forecast=middle, high=high, after=after, within=False)
    return table.assign(train_mass=low, before=low)


def _theory(draws) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs to convergence: a row a prompt, and a row a step."""
    runs = [
        {"method": method, "beta": beta, "axis": "many", "seed": 0, "ood_ratio": "0.1"}
        for method, beta in product(("rloo", "grpo"), (0.3, 1.0))
    ]
    prompts = pd.DataFrame(
        run | {"pool": pool, "mass_before": before}
        for run, pool, before in product(runs, ("train", "heldout"), (0.01, 0.3, 0.9))
    )
    for name in ("mass_after", "mass_fixed_point", "law"):
        prompts[name] = draws.uniform(size=len(prompts))
    trace = pd.DataFrame(run | {"step": step} for run, step in product(runs, (0, 10, 20)))
    for name in ("train_mass", "heldout_mass"):
        trace[name] = draws.uniform(size=len(trace))
    return prompts, trace
