"""What the models of a cell write on a few of its test prompts, token by token, as a file.

The job `completions` calls `write_completions`; the table of that name is made from such files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_origin.config.paths import stage_of
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.evaluation.completions import SAMPLES, Shown, shown
from grpo_origin.jobs.files import read_table, write_table
from grpo_origin.tasks.domain import Domain, Tokens
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device

if TYPE_CHECKING:
    import pandas as pd

JUDGED = "ood"  # the split by whose gains prompts are chosen


def chosen_prompts(evaluation: pd.DataFrame, before: str, after: str) -> dict[tuple[str, int], str]:
    """Split and prompt_index of the prompts to look at, with why: the same rule for every cell.

    OOD prompts whose mass rose most, in the middle and least from stage `before` to `after`, and
    the first prompt of every task of every split. `evaluation` has the rows of one cell.
    """
    table = evaluation[evaluation["stage"].isin([before, after])]
    table = table.assign(mass=np.exp(table["log_mass"].clip(upper=0.0)))
    judged = table[table["split"] == JUDGED]
    masses = judged.pivot(index="prompt_index", columns="stage", values="mass").sort_index()
    order = (masses[after] - masses[before]).sort_values(kind="stable").index
    picks = {"best gain": order[-1], "median gain": order[len(order) // 2], "worst gain": order[0]}
    reasons: dict[tuple[str, int], list[str]] = {}
    for why, number in picks.items():
        reasons.setdefault((JUDGED, int(number)), []).append(why)
    firsts = table.groupby(["split", "task"], sort=False)["prompt_index"].min().reset_index()
    for split, number in zip(firsts["split"], firsts["prompt_index"], strict=True):
        reasons.setdefault((split, int(number)), []).append("first of its task")
    return {place: ", ".join(why) for place, why in reasons.items()}


def write_completions(
    stages: Mapping[str, str | Path],
    test: str | Path,
    evaluation: str | Path,
    output: str | Path,
    *,
    axis: str,
    ratio: str,
    domain: Domain,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Write what model folders (stage name -> folder) make of chosen test prompts of a cell.

    Prompts are chosen by the gain from the last stage before RL to the one trained on OOD prompts,
    or to the last if there is none; the cell's exact evaluation says what they gained. A row a
    stage, prompt, completion and token, columns as in the table `completions` but `variant`.
    Samples are drawn with the cell's seed, those that `grpo-origin show` prints.
    """
    import pandas as pd
    import pyarrow as pa

    names = [*stages]
    before = [name for name in names if not stage_of(name).method][-1]
    after = next((name for name in names if stage_of(name).trained_on == JUDGED), names[-1])
    chosen = chosen_prompts(read_table(evaluation).to_pandas(), before, after)
    rows = {(row["split"], row["prompt_index"]): row for row in read_prompts(test).to_pylist()}
    device, tokens = choose_device(numerics, runtime.threads), domain.tokens
    cell = {"axis": axis, "seed": domain.seed, "ood_ratio": ratio}
    lines: list[dict[str, Any]] = []
    for name, folder in stages.items():
        model, stage = load_model(folder), stage_of(name)
        labels = {"stage": name, "method": stage.method, "trained_on": stage.trained_on}
        for (split, number), why in chosen.items():
            row = rows[split, number]
            gold = row["completion_ids"]
            found = shown(model, row["prompt_ids"], gold, SAMPLES, device, domain.seed, tokens)
            place = {"split": split, "task": row["task"], "prompt_index": number, "chosen": why}
            place["prompt"] = " ".join(tokens.names[i] for i in row["prompt_ids"])
            lines += token_rows(found, gold, tokens, cell | labels | place)
        print(f"{name}: {len(chosen)} prompts", flush=True)
    write_table(output, pa.Table.from_pandas(pd.DataFrame(lines), preserve_index=False))


def token_rows(
    found: Shown, gold: Sequence[int], tokens: Tokens, labels: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A row for each token of each completion of a prompt, `labels` in front.

    Places count from 1.
    """
    masses = {name: getattr(found, name) for name in vars(found) if name.startswith("log_mass")}
    lines = []
    for kind, text in found.by_kind.items():
        first_wrong = None if text.wrong is None else text.wrong + 1.0
        about = {"kind": kind, "first_wrong": first_wrong, "failure": text.failure}
        for place, (token, log_prob) in enumerate(zip(text.tokens, text.log_probs, strict=True)):
            line = {
                "position": place + 1,
                "token": tokens.names[token],
                "part": "marker" if token in tokens.markers else "content",
                "probability": float(np.exp(log_prob)),
                "right": place < len(gold) and token == gold[place],
            }
            lines.append({**labels, **masses, **about, **line})
    return lines
