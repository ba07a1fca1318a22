"""The leaderboard of a run as a Markdown page; called by `grpo-origin leaderboard`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from grpo_origin.report.contrasts import difference

if TYPE_CHECKING:
    import pandas as pd

INTRODUCTION = """\
# Leaderboard

Every RL method and positive control of `config/leaderboard.yaml`, from the same SFT models, worlds
and prompts, each with the learning rate that `make rates` chose for it on pilot seeds. Made by
`make leaderboard`; the numbers are those of `results/{run}/tables/leaderboard.csv`.

- *OOD mass*: mean correct mass on OOD test prompts after RL on OOD prompts, with its 95 % t
  interval over seeds.
- *ID change*: what RL did to the mass of ID prompts, mean over seeds.
- *Completions*: sampled in training, a seed. *Gold*: tokens of right completions that RL was shown,
  a seed, and OOD samples that SFT was shown. A method with either is a positive control: it says
  whether a rise would be seen.
- *Against {main}*: difference in OOD mass at as many sampled completions, in pairs of seeds, with
  bounds, and the verdict: `=` equivalent (within ±{equivalent:g}), `+` more, `-` less, `?`
  undecided. Each row by itself: of many rows some are false.

What it says in words: [methods.md](methods.md#what-came-out).

**Enter a method**: put one file into `src/grpo_origin/rl/methods/` ([methods.md](methods.md)), one
line into `config/rates.yaml` and, with its rate, `config/leaderboard.yaml`, and run `make
leaderboard`; only the new method's stages are trained.
"""


def leaderboard_page(table: pd.DataFrame, run: str, main: str, equivalent: float) -> str:
    """The page from table `leaderboard` of a run: a section an axis, a table an OOD ratio."""
    shown = table[table["trained_on"] == "ood"]
    lines = [INTRODUCTION.format(run=run, main=main, equivalent=equivalent)]
    for (axis, ratio), rows in shown.groupby(["axis", "ood_ratio"], sort=False):
        seeds = rows["seeds"].max()
        lines += [
            f"## {axis}, OOD ratio {ratio}",
            "",
            f"OOD mass before RL {rows['before'].iloc[0]:.3g}; seeds: {seeds}.",
            "",
            f"| method | OOD mass | ID change | completions | gold | against {main} |",
            "|---|---|---|---|---|---|",
            *map(_row, rows.sort_values("after", ascending=False).to_dict("records")),
            "",
        ]
    return "\n".join(lines)


def _row(values: Mapping[Hashable, Any]) -> str:
    """A line of a table from a row of the leaderboard."""
    gold = [f"{values['gold_tokens']:,.0f} tokens"] if values["gold_tokens"] > 0 else []
    gold += [f"{values['demonstrations']:,} samples"] if values["demonstrations"] else []
    against = "-"
    if isinstance(values["equal_verdict"], str):
        parts = (values[f"equal_{name}"] for name in ("verdict", "difference", "low", "high"))
        against = difference(*parts)
    after = f"{values['after']:.3f} [{values['after_low']:.3f}, {values['after_high']:.3f}]"
    cells = [
        f"`{values['entry']}`",
        after,
        f"{values['id_change']:+.3f}",
        f"{values['completions']:,.0f}",
        ", ".join(gold) or "none",
        against,
    ]
    return f"| {' | '.join(cells)} |"
