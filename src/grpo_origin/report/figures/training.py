"""Figures of the course of RL training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.report import plotting
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CURVES = {
    "reward_mean": "mean reward",
    "zero_variance_share": "groups of equal reward",
    "kl": "KL to SFT (nats a token)",
}


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
    table = plotting.pick(training, axis=axis)
    ratios, stages = plotting.ordered(table["ood_ratio"]), plotting.stages_of(table)
    palette = plotting.colours(len(ratios), "viridis")
    shared = {"sharex": True, "sharey": "row"}
    figure, panels = plotting.panels_of(len(CURVES), len(stages), width=3.4, height=1.9, **shared)
    for column, stage in enumerate(stages):
        for i, ratio in enumerate(ratios):
            part = plotting.pick(table, stage=stage, ood_ratio=ratio)
            line = plotting.LINES[i % len(plotting.LINES)]
            for axes, name in zip(panels[:, column], CURVES, strict=True):
                seeds = part.pivot(index="step", columns="seed", values=name)
                mean = seeds.mean(axis=1)
                axes.plot(seeds.index, seeds, color=palette[i], linewidth=0.5, alpha=0.5)
                axes.plot(mean.index, mean, color=palette[i], linestyle=line, label=ratio)
        panels[0, column].set_title(plotting.stage_label(stage))
        panels[-1, column].set_xlabel("optimiser step")
    for axes, label in zip(panels[:, 0], CURVES.values(), strict=True):
        axes.set_ylabel(label)
    plotting.legend(figure, columns=8, title=plotting.EXPOSURE)
    return figure
