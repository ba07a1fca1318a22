"""The forecast as files: a page that opens anywhere, its figure, the list of dead prompts.

Plotting libraries are imported where used. Knows the words (`forecast.words`) and numbers, not how
they are computed.
"""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grpo_origin.config.fields import ConfigError
from grpo_origin.forecast.outlook import Budget, Outlook, contrast_share, dead_mass, silence
from grpo_origin.forecast.posterior import Posterior
from grpo_origin.forecast.tally import Passes
from grpo_origin.forecast.words import ASSUMED, Line, share
from grpo_origin.jobs.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("page.html.j2")
SUFFIXES = (".html", ".png")
GROUP_SIZES = (2, 4, 8, 16, 32, 64, 128)  # that trainers use
CURVE = 60  # points of the curve of first successes, evenly spaced in log steps
BINS = 24  # of the histogram
FARTHEST = 1 - 1e-9  # of the histogram; masses beyond it are drawn there
TICKS = (1e-9, 1e-7, 1e-5, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.99999)


def check_suffix(path: str | Path) -> None:
    """Raise ConfigError unless a page or figure can be written under this name."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {path}: must end in {' (page) or '.join(SUFFIXES)} (figure)")


def write(
    path: str | Path, text: list[Line], posterior: Posterior, budget: Budget, found: Outlook
) -> None:
    """Write the page (.html) or its figure alone (.png), whole or not at all.

    Raises ConfigError for another suffix.
    """
    check_suffix(path)
    picture = _png(posterior, budget, found)
    if Path(path).suffix.lower() == ".png":
        content = picture
    else:
        content = _html(picture, text, alt_text(posterior, budget, found)).encode()
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_dead(path: str | Path, passes: Passes, found: Outlook) -> None:
    """Write the dead prompts as CSV, those at 0 first, whole or not at all.

    Columns prompt, samples, correct, dead_at (0 or 1), mean_q (posterior mean of Q),
    chance_of_contrast (expected chance that a group holds right and wrong completions).
    """
    columns = ["prompt", "samples", "correct", "dead_at", "mean_q", "chance_of_contrast"]
    rows = sorted(np.flatnonzero(found.dead >= 0), key=lambda i: (found.dead[i], i))
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for i in rows:
            counts = [passes.samples[i], passes.correct[i], found.dead[i]]
            chances = [f"{found.mean[i]:.6g}", f"{found.chance[i]:.6g}"]
            writer.writerow([passes.prompts[i], *counts, *chances])


def alt_text(posterior: Posterior, budget: Budget, found: Outlook) -> str:
    """What the figure shows, for those who can't see it."""
    sizes = ", ".join(
        f"{share(contrast_share(posterior, size))} at {size}" for size in (2, 8, 32, 128)
    )
    alive = int((found.dead < 0).sum())
    return (
        f"Four panels. First: histogram of the posterior mean Q of {len(found.mean)} prompts, "
        f"{int((found.dead == 0).sum())} of them dead at 0, {int((found.dead == 1).sum())} dead at "
        f"1, {alive} between. Second: share of groups with right and wrong completions by group "
        f"size: {sizes}. Third: chance of a first right completion by step, rising from "
        f"{share(1 - silence(posterior, budget, 1))} at step 1 to {share(1 - found.silent)} at "
        f"step {budget.steps}. Fourth: mean pass rate by step, by a model fitted on small string "
        f"models, from {share(found.course[0, 1])} to {share(found.end.value)} (80 %: "
        f"{share(found.end.low)} to {share(found.end.high)}) at the end."
    )


def _html(picture: bytes, text: list[Line], alt: str) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    data = base64.b64encode(picture).decode()
    page = template.render(
        lines=[line for line in text if line.label],
        notes=[line.text for line in text if not line.label],
        picture=data,
        alt=alt,
        assumed=ASSUMED,
    )
    return page + "\n"


def _png(posterior: Posterior, budget: Budget, found: Outlook) -> bytes:
    """The figure as PNG; the same counts and options give the same bytes."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context():
        figure = _figure(posterior, budget, found)
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def _figure(posterior: Posterior, budget: Budget, found: Outlook) -> Figure:
    import seaborn as sns
    from matplotlib.figure import Figure

    sns.set_theme("paper", "whitegrid", "colorblind")
    figure = Figure(figsize=(14.5, 3.4), layout="constrained")
    masses, groups, steps, ends = figure.subplots(1, 4)
    _draw_masses(masses, found, budget.group_size)
    sizes = sorted({*GROUP_SIZES, budget.group_size})
    groups.plot(sizes, [contrast_share(posterior, size) for size in sizes], "o-", clip_on=False)
    groups.axvline(budget.group_size, color="0.5", linestyle=":", label="asked for")
    groups.set(xscale="log", ylim=(0, 1), xlabel="group size", ylabel="share of groups that teach")
    groups.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    groups.set_xticks([], minor=True)
    groups.legend(loc="lower right")
    last = max(2, budget.steps)
    at = np.unique(np.geomspace(1, last, CURVE).round().astype(int))
    chances = [1 - silence(posterior, budget, int(step)) for step in at]
    steps.plot(at, chances, ".-", clip_on=False)
    steps.set(xscale="log", ylim=(0, 1), xlim=(1, last))
    steps.set(xlabel="step", ylabel="chance of a right completion so far")
    ends.fill_between(found.at, found.course[:, 0], found.course[:, 2], alpha=0.25, lw=0)
    ends.plot(found.at, found.course[:, 1], clip_on=False)
    ends.set(ylim=(0, 1), xlim=(0, last), xlabel="step")
    ends.set(ylabel="mean pass rate (model, 80 %)")
    return figure


def _draw_masses(axes: Axes, found: Outlook, group_size: int) -> None:
    """Histogram of the posterior means in log-odds; shaded where a mass itself would be dead."""
    from scipy.special import logit

    places = np.clip(logit(found.mean), -logit(FARTHEST), logit(FARTHEST))
    ends = (min(-logit(0.99), places.min()) - 0.5, max(logit(0.99), places.max()) + 0.5)
    dead = found.dead >= 0
    at_0, at_1 = (int((found.dead == end).sum()) for end in (0, 1))
    axes.hist(
        [places[~dead], places[dead]],
        bins=BINS,
        range=ends,
        stacked=True,
        color=["C0", "0.75"],
        hatch=["", "//"],
        edgecolor="white",
        label=["teach", f"dead: {at_0} at 0, {at_1} at 1"],
    )
    edge = float(logit(dead_mass(group_size, found.dead_below)))
    axes.axvspan(ends[0], max(ends[0], edge), color="0.5", alpha=0.15, label="dead zones", lw=0)
    axes.axvspan(min(ends[1], -edge), ends[1], color="0.5", alpha=0.15, lw=0)
    ticks = [x for x in TICKS if ends[0] <= logit(x) <= ends[1]]
    axes.set_xticks(logit(ticks), [f"{x:g}" for x in ticks])
    axes.set(xlim=ends, xlabel="posterior mean of Q (log-odds)", ylabel="prompts")
    axes.legend(loc="best", fontsize="small")
