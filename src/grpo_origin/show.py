"""`grpo-origin show`: what the models of a cell write on a test prompt, stage by stage, as text."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import Paths
from grpo_origin.study import Study

if TYPE_CHECKING:
    from grpo_origin.evaluation.completions import Shown, Written

SAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `grpo-origin show`, but for those that name a cell."""
    parser.add_argument(
        "--stage", nargs="+", metavar="STAGE", help="stages to show (default: all of the cell)"
    )
    parser.add_argument("--split", default="ood", help="split of the test prompt (default: ood)")
    parser.add_argument("--prompt", type=int, default=0, help="its prompt_index (default: 0)")
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, help=f"completions sampled (default: {SAMPLES})"
    )


def show(
    study: Study,
    paths: Paths,
    place: tuple[str, int, str],
    stages: Iterable[str],
    split: str,
    number: int,
    samples: int,
) -> str:
    """What stages of a cell (axis, seed, ratio) write on one test prompt, as text.

    Raises ConfigError for a split or prompt that there isn't, ArtefactError if files are missing.
    """
    from grpo_origin.data.prompt_sets import read_prompts
    from grpo_origin.evaluation.completions import shown
    from grpo_origin.tasks.tokenizer import Vocabulary
    from grpo_origin.training.model import load_model
    from grpo_origin.training.numerics import choose_device

    axis, seed, ratio = place
    splits = study.settings.axes[axis].splits
    if split not in splits:
        raise ConfigError(f"--split: axis {axis} has no {split!r} (it has: {', '.join(splits)})")
    prompts = read_prompts(paths.data(axis, seed, "test"), split)
    if not 0 <= number < prompts.num_rows:
        raise ConfigError(f"--prompt: {split} has prompts 0 to {prompts.num_rows - 1}")
    if samples < 0:
        raise ConfigError(f"--samples: must be at least 0, not {samples}")
    row = prompts.slice(number, 1).to_pylist()[0]
    prompt, gold = row["prompt_ids"], row["completion_ids"]
    names = Vocabulary(study.settings.world.nodes).tokens
    device = choose_device(study.settings.numerics, study.settings.runtime.threads)
    lines = [
        f"{axis}, seed {seed}, OOD ratio {ratio}, {split} prompt {number}: {row['task']}",
        f"prompt   {_text(prompt, names)}",
        f"right    {_text(gold, names)}",
    ]
    for stage in stages:
        model = load_model(paths.stage(axis, seed, ratio, stage))
        found = shown(model, prompt, gold, samples, device, seed)
        lines += ["", *_stage(stage, found, gold, names)]
    return "\n".join(lines)


def _stage(stage: str, found: Shown, gold: Sequence[int], names: Sequence[str]) -> list[str]:
    """A stage's lines: masses, the right completion's probabilities, what it writes."""
    lines = [
        f"{stage}: correct mass Q {found.mass:.4g} "
        f"(markers {found.markers:.4g} x content {found.content:.4g})",
        *_with_chances("right", gold, found.gold, names, ""),
        *_written("greedy", found.greedy, gold, names),
    ]
    for i, sample in enumerate(found.samples, start=1):
        lines += _written(f"sample {i}", sample, gold, names)
    return lines


def _written(label: str, text: Written, gold: Sequence[int], names: Sequence[str]) -> list[str]:
    return _with_chances(label, text.tokens, text.probabilities, names, _verdict(text, gold, names))


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
    from grpo_origin.evaluation.completions import kind_of

    if text.wrong is None:
        return "right"
    wrote, wanted = (
        names[tokens[text.wrong]] if text.wrong < len(tokens) else "nothing"
        for tokens in (text.tokens, gold)
    )
    kind = kind_of(text.tokens, gold, text.wrong)
    return f"wrong at token {text.wrong + 1}: {wrote} for {wanted} ({kind})"


def _chance(value: float) -> str:
    return f"{value:.2f}" if value >= 0.005 or value == 0 else f"{value:.0e}"


def _text(tokens: Sequence[int], names: Sequence[str]) -> str:
    return " ".join(names[token] for token in tokens)
