"""Figures of representations: what probes read when a prompt ends, and heads over a fixed set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_origin.config.notation import SPLITS
from grpo_origin.config.representation import HEADS
from grpo_origin.report.plotting import (
    SHIFT,
    SPLIT_LABELS,
    UNIT,
    Measured,
    draw_series,
    legend,
    looks_of,
    ordered,
    panels_of,
    pick,
    ratio_axis,
    stage_label,
    stages_of,
)
from grpo_origin.report.registry import figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PROMPT = "prompt"  # the row of a probe of the tokens, below those of the layers
HEAD_LABELS = {
    "linear": "linear head",
    "cross_entropy": "cross-entropy",
    "grpo_rm": "GRPO-RM, whole set",
    "grpo_rm_sampled": "GRPO-RM, sampled groups",
}
WHOLE, NARROWEST = 6.5, 1.4  # width of a figure of probes and of a panel in it; inches
MEASURES = ("accuracy", "mass", "alignment", "uniformity")


@figure(
    "probes",
    per="axis with probes",
    category="Representations",
    title="{{ axis }}: which states can be read before anything is written",
    caption="""
    Accuracy of linear probes at the last token of test prompts: of the node at a position after
    each step of the trace (mean over positions), by layer (0: embedding) and step; `answer` is the
    last step of each task. Fitted on ID and OOD prompts of train strings together. The lowest row
    is the same probe of the prompt's tokens without a model: since successors are a bijection,
    reading the string is reading any one state of a task, so only what lies above that row was
    computed. A row of panels a stage, a column a split and OOD ratio; mean of {{ n }}.
    """,
)
def probes_figure(probes: pd.DataFrame, axis: str) -> Figure:
    """Layer by step, colour the accuracy, a panel a stage, split and ratio."""
    table = pick(probes, axis=axis, fitted_on="both")
    ratios, stages = ordered(table["ood_ratio"]) or ["0"], stages_of(table) or ["pretrain"]
    steps = sorted(set(table["step"]), key=lambda step: (not step.isdigit(), step))
    columns = [(split, ratio) for split in SPLITS for ratio in ratios]
    shared = {"sharex": True, "sharey": True}
    width = max(WHOLE / len(columns), NARROWEST)
    figure, panels = panels_of(len(stages), len(columns), width=width, height=1.6, **shared)
    image = None
    for line, stage in zip(panels, stages, strict=True):
        for axes, (split, ratio) in zip(line, columns, strict=True):
            part = pick(table, stage=stage, split=split, ood_ratio=ratio)
            axes.grid(False)
            if not len(part):
                continue
            layers = part.groupby(["layer", "step"])["accuracy"].mean().unstack("step")
            tokens = part.groupby("step")["from_prompt"].mean()
            rows = [PROMPT, *layers.index]
            values = [tokens.reindex(steps).to_numpy()]
            values += [*layers.reindex(columns=steps).to_numpy()]
            image = axes.imshow(values, origin="lower", vmin=0, vmax=1, aspect="auto")
            axes.set_xticks(range(len(steps)), steps, rotation=90)
            axes.set_yticks(range(len(rows)), [str(row) for row in rows])
        line[0].set_ylabel(f"{stage_label(stage)}\nlayer", fontsize="small")
    for axes, (split, ratio) in zip(panels[0], columns, strict=True):
        axes.set_title(f"{split.upper()}, {ratio}")
    for axes in panels[-1]:
        axes.set_xlabel("step")
    if image is not None:
        figure.colorbar(image, ax=panels, label="accuracy", shrink=0.6)
    return figure


@figure(
    "heads",
    per="axis with heads",
    category="Representations",
    title="{{ axis }}: heads over a fixed set, trained by GRPO-RM and by cross-entropy",
    caption="""
    A head on the pretrained model's representation of a prompt says which node stands at one
    position of the answer. From a linear head, fitted on ID prompts, model and head are trained on
    by cross-entropy, by GRPO-RM (the group is the whole set of nodes), and by the same rewards on
    groups sampled from the head, on ID prompts (left) and OOD prompts (right). Accuracy, mean mass
    of the right node, and alignment and uniformity of the representations (less is better) of
    {{ prompts }} ID and OOD test prompts a seed, against the OOD share of pretraining; {{ means }}.
    """,
)
def heads_figure(representation: pd.DataFrame, axis: str) -> Figure:
    """A row a measure, a column what a head was trained on and the split it is tested on."""
    table = pick(representation, axis=axis)
    ratios = ordered(table["ood_ratio"]) or ["0"]
    names = ["linear", *HEADS]
    looks = looks_of(names)
    columns = [(trained_on, split) for trained_on in SPLITS for split in SPLITS]
    shared = {"sharex": True, "sharey": "row"}
    figure, panels = panels_of(len(MEASURES), len(columns), width=2.1, height=1.7, **shared)
    for column, (trained_on, split) in enumerate(columns):
        part = pick(table, split=split)
        for row, measure in enumerate(MEASURES):
            axes = panels[row, column]
            for place, name in enumerate(names):
                # The linear head is where both start.
                of = pick(part, head=name, trained_on="id" if name == "linear" else trained_on)
                if len(of):
                    offset = (place - (len(names) - 1) / 2) * SHIFT
                    series = _over_seeds(of, measure)
                    draw_series(
                        axes, series, "ood_ratio", ratios, offset, looks[name], HEAD_LABELS[name]
                    )
            ratio_axis(axes, ratios, label=row == len(MEASURES) - 1)
            if measure in ("accuracy", "mass"):
                axes.set_ylim(*UNIT)
        panels[0, column].set_title(
            f"trained on {trained_on.upper()} prompts,\n{SPLIT_LABELS[split]}"
        )
    for axes, measure in zip(panels[:, 0], MEASURES, strict=True):
        axes.set_ylabel(measure)
    if len(table):
        legend(figure)
    return figure


def _over_seeds(table: pd.DataFrame, measure: str) -> Measured:
    """Means of a measure over seeds by ratio, with their intervals, and the seeds."""
    from grpo_origin.analysis.intervals import over_seeds

    seeds = table.rename(columns={measure: "mean"})[["ood_ratio", "seed", "mean"]]
    return Measured(over_seeds(seeds, ["ood_ratio"]), seeds)
