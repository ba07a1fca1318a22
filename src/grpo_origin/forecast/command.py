"""`grpo-origin forecast`: its options, their checks, and the way from files to words.

All else is imported where used, so that help is answered at once.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from grpo_origin.config.fields import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `grpo-origin forecast`."""
    parser.add_argument(
        "passes",
        nargs="+",
        metavar="FILE",
        help="pass counts (.csv, .parquet: prompt, samples, correct) or logs of "
        "lm-evaluation-harness, verl or TRL; counts of several files are added",
    )
    parser.add_argument("--group-size", type=int, default=8, help="completions a group (default 8)")
    parser.add_argument(
        "--prompts-per-step", type=int, default=64, help="groups a step (default 64)"
    )
    parser.add_argument("--steps", type=int, default=200, help="steps of RL (default 200)")
    parser.add_argument(
        "--beta", type=float, default=0.001, help="KL weight, 0 for none (default 0.001)"
    )
    parser.add_argument(
        "--right-above",
        type=float,
        default=0.5,
        metavar="X",
        help="in logs a completion is right if its score is above X (default 0.5)",
    )
    parser.add_argument("--reward", metavar="NAME", help="score column or metric of a log")
    parser.add_argument("--filter", metavar="NAME", help="filter of lm-evaluation-harness")
    parser.add_argument(
        "--dead-below",
        type=float,
        default=0.05,
        metavar="X",
        help="a prompt is dead if its groups teach with a chance below X (default 0.05)",
    )
    parser.add_argument("--out", metavar="FILE", help="write a page (.html) or its figure (.png)")
    parser.add_argument("--drop", metavar="FILE", help="write the dead prompts to this CSV file")


def run(options: argparse.Namespace) -> None:
    """Print the forecast and write the files asked for; raises ConfigError, one line."""
    _check(options)
    from grpo_origin.forecast import page, words
    from grpo_origin.forecast.outlook import Budget, outlook
    from grpo_origin.forecast.passes import read_passes
    from grpo_origin.forecast.posterior import posterior_of

    if options.out is not None:
        page.check_suffix(options.out)
    budget = Budget(options.group_size, options.prompts_per_step, options.steps, options.beta)
    passes = read_passes(
        options.passes,
        right_above=options.right_above,
        reward=options.reward,
        filtered_by=options.filter,
    )
    posterior = posterior_of(passes)
    found = outlook(passes, posterior, budget, options.dead_below)
    text = words.lines(passes, posterior, budget, found)
    print(words.terminal(text))
    if options.drop is not None:
        page.write_dead(options.drop, passes, found)
        print(f"dead prompts: {options.drop}")
    if options.out is not None:
        page.write(options.out, text, posterior, budget, found)
        print(f"written: {options.out}")


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError for an option that can't be."""
    least = {"group_size": 2, "prompts_per_step": 1, "steps": 1}
    for name, bound in least.items():
        if getattr(options, name) < bound:
            raise ConfigError(f"{_option(name)}: must be at least {bound}, {_not(options, name)}")
    if not (math.isfinite(options.beta) and options.beta >= 0):
        raise ConfigError(f"--beta: must be positive, or 0 for no KL term, {_not(options, 'beta')}")
    if not math.isfinite(options.right_above):
        raise ConfigError(f"--right-above: must be a number, {_not(options, 'right_above')}")
    if not 0 <= options.dead_below <= 1:
        raise ConfigError(f"--dead-below: must lie in [0, 1], {_not(options, 'dead_below')}")
    named = [Path(x).resolve() for x in options.passes]
    for name in ("out", "drop"):
        file = getattr(options, name)
        if file is not None and Path(file).resolve() in named:
            raise ConfigError(f"--{name} {file}: named already; write to another file")
        named += [] if file is None else [Path(file).resolve()]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _not(options: argparse.Namespace, name: str) -> str:
    return f"not {getattr(options, name):g}"
