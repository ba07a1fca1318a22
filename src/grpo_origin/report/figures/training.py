"""Figures of the course of RL training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.report import plotting
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

LOGGED = {
    "reward_mean": "mean reward",
    "zero_variance_share": "groups of equal reward",
    "kl": "KL to SFT (nats a token)",
}
EVALUATED = {"ood": "mean OOD mass Q", "id": "mean ID mass Q"}


@figure(
    "learning",
    per="axis",
    category="Training",
    title="{{ axis }}: learning curves of {{ method }}",
    caption="""
    Mean exact mass of OOD and ID test prompts while {{ method }} trains, every few optimiser steps
    from before the first. A colour an OOD ratio: thick the mean of {{ n }}, thin every seed.
    """,
)
def learning_figure(learning_curves: pd.DataFrame, axis: str) -> Figure:
    """OOD and ID mass by step, a column a stage."""
    keys = ["ood_ratio", "stage", "seed", "step"]
    table = plotting.pick(learning_curves, axis=axis)
    wide = table.pivot(index=keys, columns="split", values="mass").reset_index()
    figure, panels = _by_step(wide, EVALUATED)
    for axes in panels.flat:
        axes.set_ylim(*plotting.UNIT)
    return figure


@figure(
    "training",
    per="axis",
    category="Training",
    title="{{ axis }}: {{ method }} training curves",
    caption="""
    Mean reward of the rollouts (share of completions that are right), share of groups whose rewards
    are all equal (they give no policy gradient), and KL to the SFT model in nats a token, by
    optimiser step. A colour an OOD ratio: thick the mean of {{ n }}, thin every seed.
    """,
)
def training_figure(training: pd.DataFrame, axis: str) -> Figure:
    """Reward, share of groups without signal and KL by step, a column a stage."""
    return _by_step(plotting.pick(training, axis=axis), LOGGED)[0]


def _by_step(table: pd.DataFrame, shown: dict[str, str]) -> tuple[Figure, np.ndarray]:
    """Columns of a table (name -> label) by optimiser step: a row each, a column a stage."""
    ratios, stages = plotting.ordered(table["ood_ratio"]), plotting.stages_of(table)
    palette = plotting.colours(len(ratios), "viridis")
    shared = {"sharex": True, "sharey": "row"}
    figure, panels = plotting.panels_of(len(shown), len(stages), width=3.4, height=1.9, **shared)
    for column, stage in enumerate(stages):
        for i, ratio in enumerate(ratios):
            part = plotting.pick(table, stage=stage, ood_ratio=ratio)
            line = plotting.LINES[i % len(plotting.LINES)]
            for axes, name in zip(panels[:, column], shown, strict=True):
                seeds = part.pivot(index="step", columns="seed", values=name)
                mean = seeds.mean(axis=1)
                axes.plot(seeds.index, seeds, color=palette[i], linewidth=0.5, alpha=0.5)
                axes.plot(mean.index, mean, color=palette[i], linestyle=line, label=ratio)
        panels[0, column].set_title(plotting.stage_label(stage))
        panels[-1, column].set_xlabel("optimiser step")
    for axes, label in zip(panels[:, 0], shown.values(), strict=True):
        axes.set_ylabel(label)
    plotting.legend(figure, columns=8, title=plotting.EXPOSURE)
    return figure, panels
