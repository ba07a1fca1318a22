"""`grpo-origin show`: what the models of a cell write on a test prompt, stage by stage, as text."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import Paths
from grpo_origin.config.places import CELL_FORM, cell_at
from grpo_origin.study import Study

if TYPE_CHECKING:
    from grpo_origin.evaluation.completions import Shown, Written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `grpo-origin show`, but for those that name a cell by its parts."""
    parser.add_argument(
        "cell",
        nargs="?",
        metavar="CELL",
        help=f"a cell's folder, {CELL_FORM}; or give --axis, --seed and --ratio",
    )
    parser.add_argument(
        "--stage", nargs="+", metavar="STAGE", help="stages to show (default: all of the cell)"
    )
    parser.add_argument("--split", default="ood", help="split of the test prompt (default: ood)")
    parser.add_argument("--prompt", type=int, default=0, help="its prompt_index (default: 0)")
    parser.add_argument(
        "--samples", type=int, help="completions sampled (default: those of table `completions`)"
    )


def take_cell(options: argparse.Namespace) -> str | None:
    """Options of `show` with the parts of its CELL filled in; the run's name, if CELL has one.

    Raises ConfigError if CELL is no cell's folder, or if there is none and parts are missing.
    """
    if options.cell is None:
        missing = [f"--{name}" for name in ("axis", "seed", "ratio") if not getattr(options, name)]
        if missing:
            raise ConfigError(f"which cell? name its folder, {CELL_FORM}, or {', '.join(missing)}")
        return None
    place = cell_at(options.cell)
    options.axis, options.seed, options.ratio = place.axis, place.seed, place.ratio
    options.variant, options.results = place.variant, place.results
    return place.run


def show(
    study: Study,
    paths: Paths,
    place: tuple[str, int, str],
    stages: Iterable[str],
    split: str,
    number: int,
    samples: int | None = None,
) -> str:
    """What stages of a cell (axis, seed, ratio) write on one test prompt, as text.

    Raises ConfigError for a split or prompt that there isn't, ArtefactError if files are missing.
    """
    from grpo_origin.data.prompt_sets import read_prompts
    from grpo_origin.evaluation.completions import SAMPLES, shown
    from grpo_origin.training.model import load_model
    from grpo_origin.training.numerics import choose_device

    axis, seed, ratio = place
    splits = study.settings.axes[axis].splits
    if split not in splits:
        raise ConfigError(f"--split: axis {axis} has no {split!r} (it has: {', '.join(splits)})")
    prompts = read_prompts(paths.data(axis, seed, "test"), split)
    if not 0 <= number < prompts.num_rows:
        raise ConfigError(f"--prompt: {split} has prompts 0 to {prompts.num_rows - 1}")
    samples = SAMPLES if samples is None else samples
    if samples < 0:
        raise ConfigError(f"--samples: must be at least 0, not {samples}")
    row = prompts.slice(number, 1).to_pylist()[0]
    prompt, gold = row["prompt_ids"], row["completion_ids"]
    tokens = study.source(axis, seed, paths).domain.tokens
    names = tokens.names
    device = choose_device(study.settings.numerics, study.settings.runtime.threads)
    lines = [
        f"{axis}, seed {seed}, OOD ratio {ratio}, {split} prompt {number}: {row['task']}",
        f"prompt   {_text(prompt, names)}",
        f"right    {_text(gold, names)}",
    ]
    for stage in stages:
        model = load_model(paths.stage(axis, seed, ratio, stage))
        found = shown(model, prompt, gold, samples, device, seed, tokens)
        lines += ["", *_stage(stage, found, gold, names)]
    return "\n".join(lines)


def _stage(stage: str, found: Shown, gold: Sequence[int], names: Sequence[str]) -> list[str]:
    """A stage's lines: masses and where they are lost, what it writes."""
    mass, markers, content = (
        math.exp(value)
        for value in (found.log_mass, found.log_mass_markers, found.log_mass_content)
    )
    lines = [
        f"{stage}: correct mass Q {mass:.4g} (markers {markers:.4g} x content {content:.4g})",
        *_written("right", found.gold, names, _lost(found, names)),
    ]
    for kind, text in found.by_kind.items():
        if text is not found.gold:
            lines += _written(kind.replace("-", " "), text, names, _verdict(text, gold, names))
    return lines


def _lost(found: Shown, names: Sequence[str]) -> str:
    """Where the right completion loses most of its mass."""
    chances = found.gold.log_probs
    place = min(range(len(chances)), key=chances.__getitem__)
    share = chances[place] / found.log_mass if found.log_mass else 0.0
    token = names[found.gold.tokens[place]]
    return f"least likely: token {place + 1}, {token} ({share:.0%} of -ln Q)"


def _written(label: str, text: Written, names: Sequence[str], verdict: str) -> list[str]:
    chances = [math.exp(value) for value in text.log_probs]
    return _with_chances(label, text.tokens, chances, names, verdict)


def _with_chances(
    label: str,
    tokens: Sequence[int],
    chances: Sequence[float],
    names: Sequence[str],
    verdict: str,
) -> list[str]:
    """Tokens above their probabilities, in columns."""
    cells = [(names[token], _chance(chance)) for token, chance in zip(tokens, chances, strict=True)]
    widths = [max(map(len, cell)) for cell in cells]
    above, below = (
        " ".join(f"{cell[row]:{width}}" for cell, width in zip(cells, widths, strict=True))
        for row in (0, 1)
    )
    return [f"  {label:9}{above}  {verdict}".rstrip(), f"  {'':9}{below}".rstrip()]


def _verdict(text: Written, gold: Sequence[int], names: Sequence[str]) -> str:
    """Whether it is right, else its first mistake: which token, in whose place, of what kind."""
    if text.wrong is None:
        return "right"
    wrote, wanted = (
        names[tokens[text.wrong]] if text.wrong < len(tokens) else "nothing"
        for tokens in (text.tokens, gold)
    )
    return f"wrong at token {text.wrong + 1}: {wrote} for {wanted} ({text.failure})"


def _chance(value: float) -> str:
    return f"{value:.2f}" if value >= 0.005 or value == 0 else f"{value:.0e}"


def _text(tokens: Sequence[int], names: Sequence[str]) -> str:
    return " ".join(names[token] for token in tokens)
