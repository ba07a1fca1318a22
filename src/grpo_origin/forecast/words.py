"""The outlook in plain words: a line a number, each labelled by what it rests on.

`exact`: counting, or mathematics without a prior. `posterior`: follows exactly from every prompt's
Q, averaged over what the counts say of Q. `model`: needs more than that, here that RL reaches its
optimum on every prompt by itself, or what RL runs of small models did. Knows neither files nor
figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from grpo_origin.forecast.outlook import MOST_STEPS, Budget, Estimate, Outlook
from grpo_origin.forecast.posterior import Posterior, single_bounds
from grpo_origin.forecast.tally import Passes

ASSUMED = (
    "Exact: given each prompt's Q, the chance that one completion is right, what a budget finds "
    "before the model changes follows by calculation. Until the first group with right and wrong "
    "completions no weight moves, so that these numbers need no model of training.",
    "From counts: Q itself is known only through samples. Prompts are taken to be drawn from one "
    "Beta distribution, whose two numbers are fitted to all counts and averaged over. If a part of "
    "your prompts is impossible (Q = 0) and the rest is not, a Beta distribution bends to fit "
    "both, and prompts without a success look better than they are.",
    "Assumed: samples are drawn as RL will draw them (temperature, prompt, length limit); prompts "
    "are visited in shuffled epochs; the KL ceiling is that of a policy free at every prompt.",
    "Fitted: where the mean pass rate ends. Prompts share parameters, so that one without mass may "
    "rise when others have some; how fast depends on model, task and learning rate, which counts "
    "don't tell. The curve is that of small string models, its interval what differs among them: "
    "read it as an example, not as a promise.",
)


class Line(NamedTuple):
    """A line for the user: `label` is exact, posterior, model or empty (how it was read)."""

    label: str
    text: str


def lines(passes: Passes, posterior: Posterior, budget: Budget, found: Outlook) -> list[Line]:
    """What the terminal and the page say, in order."""
    size, prompts = budget.group_size, len(passes.prompts)
    samples, correct = int(passes.samples.sum()), int(passes.correct.sum())
    never = int((passes.correct == 0).sum())
    always = int((passes.correct == passes.samples).sum())
    low, middle, high = map(_steps, found.first)
    a, b = posterior.fitted
    text = [
        Line(
            "exact",
            f"{_count(prompts, 'prompt')}, {_count(samples, 'sample')}, "
            f"{share(correct / samples)} right; never right: {_count(never, 'prompt')}, "
            f"always: {_count(always, 'prompt')}",
        ),
        Line(
            "posterior",
            posterior.stated
            or f"Q over prompts: Beta({a:.2g}, {b:.2g}) fits the counts best; its uncertainty "
            "is averaged over",
        ),
        Line(
            "posterior",
            f"expected right completions among the {budget.completions:,} of the budget, without "
            "learning: "
            f"{_number(found.rewarded.value)} ({_range(found.rewarded, _number)})",
        ),
        Line(
            "posterior",
            "chance that the whole budget sees none, so that no weight moves: "
            + ("less than 1e-10 %" if found.silent < 1e-12 else share(found.silent)),
        ),
        Line(
            "posterior",
            f"first right completion: by step {middle} with a chance of one half "
            f"(90 %: step {low} to {high})",
        ),
        Line(
            "posterior",
            f"groups of {size} with right and wrong completions, the only ones that teach: "
            f"{share(found.contrast.value)} ({_range(found.contrast, share)})",
        ),
        Line(
            "posterior",
            f"rollouts spent on groups that can't teach: {share(1 - found.contrast.value)} "
            f"(all wrong {share(found.all_wrong)}, all right {share(found.all_right)})",
        ),
        Line(
            "posterior",
            f"dead prompts, which almost never give such a group: "
            f"{int((found.dead == 0).sum())} at 0, {int((found.dead == 1).sum())} at 1",
        ),
        *_unseen(passes, found),
        *_ceilings(budget, found),
        _end(passes, budget, found),
    ]
    return [*text, *(Line("", note) for note in passes.notes)]


def _unseen(passes: Passes, found: Outlook) -> list[Line]:
    """What the samples can't tell of prompts without a success, if there are any."""
    if found.unseen is None or found.needed is None:
        return []
    never = passes.samples[passes.correct == 0]
    typical = int(np.quantile(never, 0.5, method="lower"))
    bound = float(single_bounds(np.array([typical]))[0])
    expected = float(found.mean[passes.correct == 0].mean())
    misfit = Line(
        "posterior",
        f"doubtful: the Beta distribution expects {share(expected)} of prompts without success, "
        "more than that bound; part of them may be impossible, and teach less than is said here",
    )
    return [
        Line(
            "exact",
            f"0 of {typical} is not 0: a prompt without success may have a Q of up to "
            f"{share(bound)}; all of them together have a mean of at most {share(found.unseen)} "
            "(95 % bounds)",
        ),
        Line(
            "exact",
            f"to see 95 % of prompts with a Q of {share(found.unseen)} succeed once, take "
            f"{_count(found.needed, 'sample')} of each",
        ),
        *([misfit] if expected > found.unseen else []),
    ]


def _ceilings(budget: Budget, found: Outlook) -> list[Line]:
    others = ", ".join(
        f"{share(estimate.value)} at {beta:g}"
        for beta, estimate in found.ceilings.items()
        if beta != budget.beta
    )
    if not budget.beta:
        return [Line("model", f"beta 0: no KL term, so no ceiling; with one: {others}")]
    asked = found.ceilings[budget.beta]
    return [
        Line(
            "model",
            f"KL ceiling of the mean pass rate at beta {budget.beta:g}: {share(asked.value)} "
            f"({_range(asked, share)}); {others}. Near 100 % it is sampling that limits, not the "
            "KL term",
        )
    ]


def _end(passes: Passes, budget: Budget, found: Outlook) -> Line:
    """Where the mean pass rate ends by the fitted model, and what that was fitted on."""
    of, most = found.model.provenance, found.model.provenance["steps"]
    kinds = len(set(passes.tasks))
    tasks = f", {_count(kinds, 'task')} apart" if kinds > 1 else ", all prompts as one task"
    beyond = f"; its {most} steps were fewer" if budget.steps > most else ""
    return Line(
        "model",
        f"mean pass rate after the budget: {share(found.end.value)} "
        f"({_range(found.end, share, level=80)}){tasks}, by a model fitted on {of['stages']} RL "
        f"runs of small string models at a learning rate of {of['learning_rate']:g}{beyond}: a "
        "guess for any other",
    )


def terminal(text: list[Line]) -> str:
    """Lines with their labels in front."""
    width = max(len(line.label) for line in text)
    return "\n".join(f"{line.label:{width}}  {line.text}" for line in text)


def share(value: float) -> str:
    """A probability or share in percent, never 0 or 100 % by rounding alone."""
    percent = 100 * value
    if value in (0.0, 1.0):
        return f"{percent:.0f} %"
    if percent < 0.01:
        return f"{percent:.1e} %"
    if percent >= 99.95:
        return f"{percent:.2f} %" if percent < 99.995 else "more than 99.99 %"
    return f"{percent:.3g} %"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _range(estimate: Estimate, write: Callable[[float], str], level: int = 90) -> str:
    return f"{level} %: {write(estimate.low)} to {write(estimate.high)}"


def _steps(steps: int | None) -> str:
    return f"{steps:,}" if steps is not None else f"later than {MOST_STEPS:,}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
