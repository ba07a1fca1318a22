"""Figures: tables in, matplotlib figures out, all in one style (`plotting`).

Every figure of means shows its 95 % intervals and every seed as a point. Knows tables, not how they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from grpo_origin.evaluation.law import mass_bound, optimal_mass
from grpo_origin.jobs.files import read_table
from grpo_origin.report.plotting import (
    LINES,
    METRICS,
    draw_series,
    legend,
    looks_of,
    methods_of,
    ordered,
    panels_of,
    ratio_axis,
    split_label,
    stage_label,
    stage_lines,
    stages_of,
)


def axis_figure(summary: pd.DataFrame, seed_means: pd.DataFrame, axis: str) -> Figure:
    """Accuracy and mean mass against the OOD ratio of an axis, ID and OOD, a line a stage."""
    mean, seeds = (
        table[(table["axis"] == axis) & (table["task"] == "all")] for table in (summary, seed_means)
    )
    ratios, stages = ordered(mean["ood_ratio"]), stages_of(mean)
    figure, panels = panels_of(2, 2, sharex=True, sharey=True)
    for row, (metric, label) in enumerate(METRICS.items()):
        for column, split in enumerate(("id", "ood")):
            axes = panels[row, column]
            one = [
                table[(table["metric"] == metric) & (table["split"] == split)]
                for table in (mean, seeds)
            ]
            stage_lines(axes, *one, "ood_ratio", ratios, stages)
            ratio_axis(axes, ratios, label=row == 1)
            axes.set_ylim(-0.03, 1.03)
            axes.set_ylabel(label if column == 0 else "")
            if row == 0:
                axes.set_title(split_label(split))
    legend(figure, panels[0, 0])
    return figure


def tasks_figure(summary: pd.DataFrame, seed_means: pd.DataFrame, axis: str) -> Figure:
    """Mean mass of every task of an axis against its OOD ratio: one task may be learnt and another not."""
    keep = [
        table[
            (table["axis"] == axis)
            & (table["task"] != "all")
            & (table["metric"] == "mass")
            & table["split"].isin(["id", "ood"])
        ]
        for table in (summary, seed_means)
    ]
    mean, seeds = keep
    ratios, stages = ordered(mean["ood_ratio"]), stages_of(mean)
    tasks = list(
        mean[["split", "task"]]
        .drop_duplicates()
        .sort_values(["split", "task"])
        .itertuples(index=False)
    )
    columns = min(3, len(tasks))
    figure, panels = panels_of(
        -(-len(tasks) // columns), columns, width=2.6, height=2.2, sharex=True, sharey=True
    )
    for axes in panels.flat[len(tasks) :]:
        axes.set_visible(False)
    for axes, (split, task) in zip(panels.flat, tasks, strict=False):
        one = [
            table[(table["task"] == task) & (table["split"] == split)] for table in (mean, seeds)
        ]
        stage_lines(axes, *one, "ood_ratio", ratios, stages)
        ratio_axis(axes, ratios)
        axes.set_ylim(-0.03, 1.03)
        axes.set_title(f"{split.upper()}: {task}")
    for axes in panels[:, 0]:
        axes.set_ylabel(METRICS["mass"])
    legend(figure, panels[0, 0])
    return figure


def mixing_figure(summary: pd.DataFrame, seed_means: pd.DataFrame, axis: str) -> Figure:
    """Mean mass of ID prompts against how many of their tokens are foreign, a panel an OOD ratio."""
    mean, seeds = (
        table[
            (table["axis"] == axis)
            & (table["task"] == "all")
            & (table["metric"] == "mass")
            & (table["split"] != "ood")
        ]
        for table in (summary, seed_means)
    )
    mean, seeds = (
        table.assign(
            foreign=table["split"].map(
                lambda split: 0 if split == "id" else int(split.removeprefix("mixed-"))
            )
        )
        for table in (mean, seeds)
    )
    ratios, stages, order = (
        ordered(mean["ood_ratio"]),
        stages_of(mean),
        sorted(mean["foreign"].unique()),
    )
    figure, panels = panels_of(1, len(ratios), width=2.1, height=2.5, sharey=True)
    for axes, ratio in zip(panels.flat, ratios, strict=True):
        one = [table[table["ood_ratio"] == ratio] for table in (mean, seeds)]
        stage_lines(axes, *one, "foreign", order, stages)
        axes.set_xticks(range(len(order)), order)
        axes.set_xlabel("foreign tokens")
        axes.set_title(f"OOD ratio {ratio}")
        axes.set_ylim(-0.03, 1.03)
    panels[0, 0].set_ylabel(METRICS["mass"])
    legend(figure, panels[0, 0])
    return figure


def gain_figure(binned: pd.DataFrame, seed_binned: pd.DataFrame, beta: float) -> Figure:
    """Gain of GRPO over SFT against the starting mass of the prompt, in bins, a panel a test split, a line an RL stage.

    The law and its bound at the run's KL weight `beta` (none if that is 0) are drawn at the bins' mean starting mass.
    """
    tables = [
        table.assign(
            bin=[
                _bin_label(*edges)
                for edges in zip(table["bin_low"], table["bin_high"], strict=True)
            ]
        )
        for table in (binned, seed_binned)
    ]
    order = list(dict.fromkeys(tables[0].sort_values("bin_low")["bin"]))
    figure, panels = panels_of(1, 2, width=3.6, height=2.8, sharey=True)
    for axes, split in zip(panels.flat, ("id", "ood"), strict=True):
        one = [table[table["split"] == split] for table in tables]
        stage_lines(axes, *one, "bin", order, stages_of(binned))
        if beta > 0:
            start = one[0].groupby("bin")["mass_before"].mean().reindex(order).dropna()
            places = [order.index(label) for label in start.index]
            axes.plot(
                places,
                optimal_mass(start, beta) - start,
                color="0.35",
                linestyle="--",
                linewidth=1,
                label=f"law at beta {beta:g}",
            )
            bound = np.minimum(mass_bound(start, beta), 1) - start
            axes.plot(
                places,
                bound,
                color="0.35",
                linestyle=":",
                linewidth=1.6,
                label="its bound, at most 1 - Q",
            )
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_xticks(range(len(order)), order, rotation=45, ha="right")
        axes.set_xlabel("starting mass Q of the prompt (after SFT)")
        axes.set_title(split_label(split))
    panels[0, 0].set_ylabel("gain in mass against SFT")
    legend(figure, panels[0, 0])
    return figure


def _bin_label(low: float, high: float) -> str:
    return f"{low:g}–{high:g}" if low else f"< {high:g}"


def saturation_figure(seed_means: pd.DataFrame, seed_gains: pd.DataFrame) -> Figure:
    """Gain in ID mass of every cell and seed against its ID mass after SFT: what is nearly full can hardly gain."""
    keys = ["axis", "seed", "ood_ratio", "split", "task", "metric"]
    start = seed_means[(seed_means["stage"] == "sft")][[*keys, "mean"]].rename(
        columns={"mean": "start"}
    )
    points = seed_gains.merge(start, on=keys)
    points = points[
        (points["split"] == "id") & (points["task"] == "all") & (points["metric"] == "mass")
    ]
    names, stages = sorted(points["axis"].unique()), stages_of(points)
    looks = looks_of(names)
    figure, panels = panels_of(1, len(stages), width=3.6, height=2.8, sharex=True, sharey=True)
    for axes, stage in zip(panels.flat, stages, strict=True):
        for name in names:
            one = points[(points["stage"] == stage) & (points["axis"] == name)]
            look = looks[name]
            axes.scatter(
                one["start"],
                one["mean"],
                s=22,
                color=look["color"],
                marker=look["marker"],
                alpha=0.8,
                label=name,
                linewidths=0,
            )
        edge = np.linspace(*axes.get_xlim(), 50)
        axes.plot(
            edge, 1 - edge, color="0.4", linewidth=0.9, linestyle=":", label="room left, 1 - Q"
        )
        axes.axhline(0, color="0.3", linewidth=0.8)
        axes.set_title(stage_label(stage))
        axes.set_xlabel("ID mass after SFT (a point a cell and seed)")
    panels[0, 0].set_ylabel("gain in ID mass by GRPO")
    legend(figure, panels[0, 0], columns=6)
    return figure


def forgetting_figure(gains: pd.DataFrame, seed_gains: pd.DataFrame) -> Figure:
    """What GRPO on one distribution does to the mass of both: change against SFT, a panel an axis."""
    mean, seeds = (
        table[
            (table["task"] == "all")
            & (table["metric"] == "mass")
            & table["split"].isin(["id", "ood"])
        ]
        for table in (gains, seed_gains)
    )
    names, stages = list(dict.fromkeys(mean["axis"])), stages_of(mean)
    series = [(stage, split) for stage in stages for split in ("id", "ood")]
    looks = looks_of([f"{stage}/{split}" for stage, split in series])
    figure, panels = panels_of(1, len(names), width=2.7, height=2.6, sharey=True)
    for axes, name in zip(panels.flat, names, strict=True):
        ratios = ordered(mean[mean["axis"] == name]["ood_ratio"])
        for i, (stage, split) in enumerate(series):
            one = [
                table[
                    (table["axis"] == name) & (table["stage"] == stage) & (table["split"] == split)
                ]
                for table in (mean, seeds)
            ]
            offset = (i - (len(series) - 1) / 2) * 0.12
            draw_series(
                axes,
                *one,
                "ood_ratio",
                ratios,
                offset,
                looks[f"{stage}/{split}"],
                f"{stage_label(stage)}: {split.upper()} mass",
            )
        axes.axhline(0, color="0.3", linewidth=0.8)
        ratio_axis(axes, ratios)
        axes.set_title(name)
    panels[0, 0].set_ylabel("change of mean mass against SFT")
    legend(figure, panels[0, 0], columns=2)
    return figure


def methods_figure(
    gains: pd.DataFrame, seed_gains: pd.DataFrame, summary: pd.DataFrame, axis: str
) -> Figure:
    """Change of mean mass against SFT by every method, OOD and ID test prompts, a column an OOD ratio, a row a kind of prompts."""
    picked = [
        table[(table["axis"] == axis) & (table["task"] == "all") & (table["metric"] == "mass")]
        for table in (gains, seed_gains, summary)
    ]
    mean, seeds, levels = picked
    methods, ratios = methods_of(mean), ordered(mean["ood_ratio"])
    trained = [
        prompts for prompts in ("id", "ood") if mean["stage"].str.endswith(f"~{prompts}").any()
    ]
    height = 0.8 + 0.19 * len(methods)
    figure, panels = panels_of(
        len(trained), len(ratios), width=2.9, height=height, sharex=True, sharey=True
    )
    colours = dict(zip(("ood", "id"), sns.color_palette("colorblind", 2), strict=True))
    for (row, prompts), (column, ratio) in product(enumerate(trained), enumerate(ratios)):
        axes = panels[row, column]
        for split, colour in colours.items():
            for table, dots in ((seeds, True), (mean, False)):
                own = table[(table["ood_ratio"] == ratio) & (table["split"] == split)].set_index(
                    "stage"
                )
                own = own[own.index.str.endswith(f"~{prompts}")]
                place = own.index.str.split("~").str[0].map(methods.index).to_numpy(float) + (
                    0.16 if split == "id" else -0.16
                )
                if dots:
                    axes.scatter(own["mean"], place, s=7, color=colour, alpha=0.4, linewidths=0)
                    continue
                error = np.clip(
                    np.array([own["mean"] - own["low"], own["high"] - own["mean"]]), 0, None
                )
                face = colour if split == "ood" else "white"
                look = {
                    "fmt": "o",
                    "color": colour,
                    "markerfacecolor": face,
                    "markersize": 4,
                    "capsize": 2,
                    "elinewidth": 0.9,
                }
                axes.errorbar(own["mean"], place, xerr=error, label=f"{split.upper()} mass", **look)
        start = levels[
            (levels["ood_ratio"] == ratio) & (levels["split"] == "ood") & (levels["stage"] == "sft")
        ]["mean"].item()
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.axvline(1 - start, color=colours["ood"], linestyle="--", linewidth=0.8)
        mass = f"{start:.2g}" if start >= 1e-4 else "below 0.0001"
        axes.set_title(
            f"OOD ratio {ratio}\nOOD mass after SFT {mass}\ntrained on {prompts.upper()} prompts"
        )
        if row == len(trained) - 1:
            axes.set_xlabel("change of mean mass against SFT")
    panels[0, 0].set_yticks(range(len(methods)), methods)
    panels[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    panels[0, 0].set_xlim(-1.05, 1.05)
    legend(figure, panels[0, 0])
    return figure


def pass_at_k_figure(summary: pd.DataFrame, seed_means: pd.DataFrame, split: str = "ood") -> Figure:
    """Exact pass@k on OOD prompts before and after GRPO: a row an axis, a panel an OOD ratio."""
    mean, seeds = (
        table[
            (table["split"] == split)
            & (table["task"] == "all")
            & table["metric"].str.match(r"mass|pass@")
            & (table["stage"] != "pretrain")
        ]
        for table in (summary, seed_means)
    )
    mean, seeds = (
        table.assign(
            k=table["metric"].replace("mass", "pass@1").str.removeprefix("pass@").astype(int)
        )
        for table in (mean, seeds)
    )
    names, stages, order = (
        list(dict.fromkeys(mean["axis"])),
        stages_of(mean),
        sorted(mean["k"].unique()),
    )
    columns = max(mean[mean["axis"] == name]["ood_ratio"].nunique() for name in names)
    figure, panels = panels_of(len(names), columns, width=1.9, height=1.8, sharex=True, sharey=True)
    for row, name in enumerate(names):
        ratios = ordered(mean[mean["axis"] == name]["ood_ratio"])
        for axes in panels[row, len(ratios) :]:
            axes.set_visible(False)
        for axes, ratio in zip(panels[row], ratios, strict=False):
            one = [
                table[(table["axis"] == name) & (table["ood_ratio"] == ratio)]
                for table in (mean, seeds)
            ]
            stage_lines(axes, *one, "k", order, stages)
            axes.set_xticks(range(len(order)), order)
            axes.set_ylim(-0.03, 1.03)
            axes.set_title(f"{name}, OOD ratio {ratio}", fontsize="small")
        panels[row, 0].set_ylabel("exact pass@k")
    for axes in panels[-1]:
        axes.set_xlabel("k")
    legend(figure, panels[0, 0])
    return figure


def training_figure(training: pd.DataFrame, axis: str) -> Figure:
    """GRPO training curves of an axis: reward, share of groups without signal, KL; a line a ratio, thin lines the seeds."""
    table = training[training["axis"] == axis]
    columns = {
        "reward_mean": "mean reward",
        "zero_variance_share": "groups of equal reward",
        "kl": "KL to SFT (nats a token)",
    }
    ratios, stages = ordered(table["ood_ratio"]), stages_of(table)
    colours = dict(zip(ratios, sns.color_palette("viridis", len(ratios)), strict=True))
    figure, panels = panels_of(
        len(columns), len(stages), width=3.4, height=1.9, sharex=True, sharey="row"
    )
    for column, stage in enumerate(stages):
        for i, ratio in enumerate(ratios):
            one = table[(table["stage"] == stage) & (table["ood_ratio"] == ratio)]
            for row, name in enumerate(columns):
                wide = one.pivot(index="step", columns="seed", values=name)
                panels[row, column].plot(
                    wide.index, wide, color=colours[ratio], linewidth=0.5, alpha=0.5
                )
                mean = wide.mean(axis=1)
                panels[row, column].plot(
                    mean.index,
                    mean,
                    color=colours[ratio],
                    linestyle=LINES[i % len(LINES)],
                    label=ratio,
                )
        panels[0, column].set_title(stage_label(stage))
        panels[-1, column].set_xlabel("step")
    for row, label in enumerate(columns.values()):
        panels[row, 0].set_ylabel(label)
    legend(figure, panels[0, 0], columns=8, title="OOD share of pretraining")
    return figure


METHODS = {"rloo": "RLOO, exact objective", "grpo": "GRPO as practised"}


def theory_figure(prompts: pd.DataFrame) -> Figure:
    """Mass after RL to convergence against the mass before, with the law and the bound: a row a method, a column a beta."""
    methods, betas = (
        [name for name in METHODS if name in set(prompts["method"])],
        sorted(prompts["beta"].unique()),
    )
    figure, panels = panels_of(
        len(methods), len(betas), width=2.7, height=2.5, sharex=True, sharey=True
    )
    before, trained, heldout, dark = *sns.color_palette("colorblind", 3), "0.25"
    start = np.linspace(0, 1, 400)
    for row, method in enumerate(methods):
        for column, beta in enumerate(betas):
            axes, one = (
                panels[row, column],
                prompts[(prompts["method"] == method) & (prompts["beta"] == beta)],
            )
            axes.plot(start, start, color="0.7", linewidth=0.8, label="unchanged")
            axes.plot(start, optimal_mass(start, beta), color=dark, label="law")
            axes.plot(
                start,
                np.minimum(mass_bound(start, beta), 2),
                color=dark,
                linestyle=":",
                label="bound",
            )
            for pool, colour, face in (("heldout", heldout, "none"), ("train", trained, trained)):
                part = one[one["pool"] == pool]
                label = {"train": "pool prompts", "heldout": "held-out prompts"}[pool]
                size = 26 if pool == "train" else 9
                axes.scatter(
                    part["mass_before"],
                    part["mass_after"],
                    s=size,
                    facecolors=face,
                    edgecolors=colour,
                    linewidths=0.6,
                    label=label,
                )
            if method == "grpo":
                part = one[one["pool"] == "train"]
                axes.scatter(
                    part["mass_before"],
                    part["mass_fixed_point"],
                    s=30,
                    marker="x",
                    color=before,
                    linewidths=1,
                    label="GRPO's fixed point",
                )
            axes.set_title(f"{METHODS[method]}, beta {beta:g}", fontsize="small")
            axes.set_xlim(-0.03, 1.03)
            axes.set_ylim(-0.03, 1.03)
        panels[row, 0].set_ylabel("mass after training")
    for axes in panels[-1]:
        axes.set_xlabel("mass before, Q")
    legend(figure, panels[-1, 0], columns=3 if len(betas) < 3 else 6)
    return figure


def convergence_figure(trace: pd.DataFrame, prompts: pd.DataFrame) -> Figure:
    """Mean mass of pool and held-out prompts while RL converges, with the mean the law predicts: a panel a method."""
    methods, betas = (
        [name for name in METHODS if name in set(trace["method"])],
        sorted(trace["beta"].unique()),
    )
    colours = dict(zip(betas, sns.color_palette("colorblind", len(betas)), strict=True))
    figure, panels = panels_of(1, len(methods), width=3.6, height=2.6, sharey=True)
    cell = ["axis", "seed", "ood_ratio"]
    law = prompts[prompts["pool"] == "train"].groupby(["method", "beta", *cell])["law"].mean()
    for axes, method in zip(panels.flat, methods, strict=True):
        for beta in betas:
            own = trace[(trace["method"] == method) & (trace["beta"] == beta)]
            for i, (key, course) in enumerate(own.groupby(cell)):
                axes.plot(
                    course["step"],
                    course["train_mass"],
                    color=colours[beta],
                    label=None if i else f"beta {beta:g}",
                )
                axes.plot(
                    course["step"],
                    course["heldout_mass"],
                    color=colours[beta],
                    linestyle="--",
                    linewidth=1,
                )
                axes.axhline(
                    law[method, beta, *key], color=colours[beta], linestyle=":", linewidth=1.2
                )
        axes.set_ylim(-0.03, 1.03)
        axes.set_title(METHODS[method])
        axes.set_xlabel("step")
    panels[0, 0].set_ylabel(METRICS["mass"])
    legend(figure, panels[0, 0])
    return figure


def read_tables(paths: Mapping[str, str | Path]) -> dict[str, pd.DataFrame]:
    """Tables by name; raises ArtefactError if a file can't be used."""
    return {name: read_table(path).to_pandas() for name, path in paths.items()}


def of_method(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """A table without the RL stages of other methods; one without stages as it is."""
    return (
        table[~table["stage"].str.contains("~") | table["stage"].str.startswith(f"{method}~")]
        if "stage" in table
        else table
    )


Tables = Mapping[str, pd.DataFrame]


# Kind of figure -> function of the run's tables and, for figures of one axis, its name. Titles and captions:
# workflow/report/figures.yaml.
DRAW: dict[str, Callable[[Tables, str | None], Figure]] = {
    "axis": lambda tables, axis: axis_figure(tables["summary"], tables["seed_means"], axis),
    "tasks": lambda tables, axis: tasks_figure(tables["summary"], tables["seed_means"], axis),
    "mixing": lambda tables, axis: mixing_figure(tables["summary"], tables["seed_means"], axis),
    "gain": lambda tables, _: gain_figure(
        tables["mass_gains"], tables["seed_mass_gains"], tables["run"]["beta"].item()
    ),
    "saturation": lambda tables, _: saturation_figure(tables["seed_means"], tables["seed_gains"]),
    "pass_at_k": lambda tables, _: pass_at_k_figure(tables["summary"], tables["seed_means"]),
    "forgetting": lambda tables, _: forgetting_figure(tables["gains"], tables["seed_gains"]),
    "methods": lambda tables, axis: methods_figure(
        tables["gains"], tables["seed_gains"], tables["summary"], axis
    ),
    "theory": lambda tables, _: theory_figure(tables["theory_prompts"]),
    "convergence": lambda tables, _: convergence_figure(
        tables["theory_trace"], tables["theory_prompts"]
    ),
    "training": lambda tables, axis: training_figure(tables["training"], axis),
}
