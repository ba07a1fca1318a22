"""Figures of RL run to convergence, against the law of KL-regularised RL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpo_origin.config.grid import CONVERGED_METHODS
from grpo_origin.report.plotting import METRICS, UNIT, colours, legend, panels_of, pick
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CATEGORY = "Theory against practice"
CURVES = ("pool prompts", "held-out prompts", "law for the pool")
LABELS = {"rloo": "RLOO, exact objective", "grpo": "GRPO as practised"}


@figure(
    "theory",
    per="run with theory",
    category=CATEGORY,
    title="Observed against predicted mass",
    caption="""
    RL with a KL term run to convergence on a fixed pool of {{ pool }} prompts, a column a KL weight
    beta: correct mass Q of every prompt after training against its mass before. Filled: prompts of
    the pool; open: {{ prompts }} held-out test prompts. The line is the law Q e^(1/beta) / (1 - Q +
    Q e^(1/beta)), the dotted line the bound Q + (e^(1/beta) - 1) Q. Top: RLOO, which optimises the
    objective of the law; bottom: GRPO as practised (advantages divided by the group's standard
    deviation, KL by token), with the mass at which it should come to rest by its own fixed point
    (crosses, pool prompts). {{ theory_n }}, a point a prompt and run, so without intervals;
    docs/theory.md has the derivations.
    """,
    all_methods=True,
)
def theory_figure(theory_prompts: pd.DataFrame) -> Figure:
    """Mass after RL to convergence against the mass before: a row a method, a column a beta."""
    methods = _methods_of(theory_prompts)
    betas = sorted(theory_prompts["beta"].unique())
    shared: dict[str, Any] = {"sharex": True, "sharey": True}
    figure, panels = panels_of(len(methods), len(betas), width=2.7, height=2.5, **shared)
    for row, method in enumerate(methods):
        for column, beta in enumerate(betas):
            axes = panels[row, column]
            _draw_law(axes, beta)
            prompts = pick(theory_prompts, method=method, beta=beta)
            _draw_prompts(axes, prompts, fixed_point=method == "grpo")
            axes.set_title(f"{LABELS[method]}, beta {beta:g}", fontsize="small")
            axes.set_xlim(*UNIT)
            axes.set_ylim(*UNIT)
        panels[row, 0].set_ylabel("mass after training")
    for axes in panels[-1]:
        axes.set_xlabel("mass before, Q")
    legend(figure, columns=3 if len(betas) < 3 else 6)
    return figure


def _methods_of(table: pd.DataFrame) -> list[str]:
    return [name for name in CONVERGED_METHODS if name in set(table["method"])]


def _draw_law(axes: Axes, beta: float) -> None:
    import numpy as np

    from grpo_origin.evaluation.law import mass_bound, optimal_mass

    start = np.linspace(0, 1, 400)
    bound = np.minimum(mass_bound(start, beta), 2)
    axes.plot(start, start, color="0.7", linewidth=0.8, label="unchanged")
    axes.plot(start, optimal_mass(start, beta), color="0.25", label="law")
    axes.plot(start, bound, color="0.25", linestyle=":", label="bound")


def _draw_prompts(axes: Axes, prompts: pd.DataFrame, fixed_point: bool) -> None:
    rest, pool, heldout = colours(3)
    parts = {
        "heldout": ("held-out prompts", {"s": 9, "facecolors": "none", "edgecolors": heldout}),
        "train": ("pool prompts", {"s": 26, "facecolors": pool, "edgecolors": pool}),
    }
    for name, (label, look) in parts.items():
        part = pick(prompts, pool=name)
        before, after = part["mass_before"], part["mass_after"]
        axes.scatter(before, after, linewidths=0.6, label=label, **look)
    if fixed_point:
        part = pick(prompts, pool="train")
        crosses: dict[str, Any] = {"s": 30, "marker": "x", "color": rest, "linewidths": 1}
        before, after = part["mass_before"], part["mass_fixed_point"]
        axes.scatter(before, after, label="GRPO's fixed point", **crosses)


@figure(
    "convergence",
    per="run with theory",
    category=CATEGORY,
    title="Convergence of the runs",
    caption="""
    Exact mean correct mass Q of the {{ pool }} prompts of the pool (full) and of {{ prompts }}
    held-out prompts (broken) while training, by optimiser step, a colour a KL weight, with the mean
    that the law predicts for the pool (dotted). A line a run: {{ theory_n }} an axis and OOD ratio.
    """,
    all_methods=True,
)
def convergence_figure(theory_trace: pd.DataFrame, theory_prompts: pd.DataFrame) -> Figure:
    """Mean mass of pool and held-out prompts while RL converges, a panel a method."""
    methods, betas = _methods_of(theory_trace), sorted(theory_trace["beta"].unique())
    palette = dict(zip(betas, colours(len(betas)), strict=True))
    figure, panels = panels_of(1, len(methods), width=3.6, height=2.6, sharey=True)
    cell = ["axis", "seed", "ood_ratio"]
    pool = pick(theory_prompts, pool="train")
    law = pool.groupby(["method", "beta", *cell])["law"].mean()
    for axes, method in zip(panels.flat, methods, strict=True):
        for line, text in zip(("-", "--", ":"), CURVES, strict=True):
            axes.plot([], [], color="0.3", linestyle=line, label=text)  # for the legend
        for beta in betas:
            runs = pick(theory_trace, method=method, beta=beta)
            look: dict[str, Any] = {"color": palette[beta]}
            for i, (key, run) in enumerate(runs.groupby(cell)):
                label = None if i else f"beta {beta:g}"
                axes.plot(run["step"], run["train_mass"], label=label, **look)
                thin = look | {"linestyle": "--", "linewidth": 1}
                axes.plot(run["step"], run["heldout_mass"], **thin)
                dots = look | {"linestyle": ":", "linewidth": 1.2}
                axes.axhline(law.loc[(method, beta, *key)], **dots)
        axes.set_ylim(*UNIT)
        axes.set_title(LABELS[method])
        axes.set_xlabel("optimiser step")
    panels[0, 0].set_ylabel(METRICS["mass"])
    legend(figure, columns=6)
    return figure
