"""Pass counts from the logs of three tools, a row a completion.

lm-evaluation-harness (`--log_samples`), verl (`trainer.rollout_data_dir`,
`trainer.validation_data_dir`) and TRL (`log_completions`). Formats are those of the tools' own
writers, named at each reader. Knows neither tables of counts nor what is done with them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.forecast.tally import Tally, refused

TRL_COLUMNS = {"step", "prompt", "completion", "advantage"}
LM_EVAL_KEYS = {"doc_id", "resps", "filtered_resps"}
VERL_KEYS = {"input", "output", "score"}
MEAN_METRIC = "pass@1"  # the one metric of several completions that is their share of right ones
NEARLY_WHOLE = 1e-6  # a share times its number of completions, after rounding in the log

Row = tuple[int, dict[str, Any]]


@dataclass
class Choice:
    """What the user chose, and what has been seen: training steps, digests of TRL's batches."""

    right_above: float
    reward: str | None
    filtered_by: str | None
    steps: set[int] = field(default_factory=set)
    batches: set[bytes] = field(default_factory=set)

    def saw(self, steps: Sequence[Any]) -> None:
        """Remember the training steps that rows name."""
        self.steps.update(step for step in steps if isinstance(step, int))

    def tell_steps(self, tally: Tally) -> None:
        """Note that rows are of several steps of training, if they are."""
        steps = sorted(self.steps)
        if len(steps) > 1:
            tally.note(
                f"Rows of {len(steps)} training steps ({steps[0]} to {steps[-1]}) count together, "
                "though the model changed between them; the file of the first step alone tells of "
                "the model that training starts from."
            )


def open_table(path: Path) -> Any:
    """A parquet file as pyarrow.Table; raises ConfigError if it is not readable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as file:
            return pq.read_table(file)
    except pa.ArrowException as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"{path}: not a readable parquet file ({line})") from None


def json_rows(path: Path) -> list[Row]:
    """Objects of a JSON lines file with their line numbers; raises ConfigError for another line."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise refused(path, number, "not a JSON object", "right is one object a line")
            rows.append((number, row))
    return rows


def read_trl(path: Path, table: Any, tally: Tally, choice: Choice) -> None:
    """Add a completions_*.parquet of TRL, as `trl/trainer/grpo_trainer.py` (log) writes it.

    Columns step, prompt, completion, one a reward function, those that users log, advantage. A log
    is written at every logging step, so that a batch that is trained on for several steps is in
    several files; it is counted once.
    """
    import pyarrow as pa

    def is_number(name: str) -> bool:
        kind = table.schema.field(name).type
        return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)

    numeric = [x for x in table.column_names if x not in TRL_COLUMNS and is_number(x)]
    name = _chosen(path, choice.reward, numeric, "reward column", "--reward")
    content = repr([table.column(x).to_pylist() for x in sorted({*table.column_names} - {"step"})])
    digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()
    if digest in choice.batches:
        tally.note(f"{path}: the same batch as in a file before it; not counted again.")
        return
    choice.batches.add(digest)
    choice.saw(table.column("step").to_pylist())
    prompts, scores = (table.column(x).to_pylist() for x in ("prompt", name))
    rows = [(i, _text(prompt), scores[i - 1]) for i, prompt in enumerate(prompts, start=1)]
    _add_scores(path, name, rows, tally, choice)


def read_verl(path: Path, rows: Sequence[Row], tally: Tally, choice: Choice) -> None:
    """Add a dump of verl: `_dump_generations` of verl/trainer/ppo/ray_trainer.py.

    Keys input, output, gts, score, step and those of the reward function.
    """
    name = choice.reward or "score"
    scored = []
    for number, row in rows:
        missing = [key for key in ("input", name) if key not in row]
        if missing:
            there = ", ".join(row)
            raise refused(path, number, f"no key {missing[0]}", f"there is {there}")
        choice.saw([row.get("step")])
        scored.append((number, _text(row["input"]), row[name]))
    _add_scores(path, name, scored, tally, choice)


def _add_scores(
    path: Path, name: str, rows: Sequence[tuple[int, str, Any]], tally: Tally, choice: Choice
) -> None:
    """Add rows of number, prompt and score, a completion each; those without a score are noted."""
    unscored = 0
    for number, prompt, given in rows:
        if given is None or given != given:
            unscored += 1
            continue
        score = _score(path, number, name, given)
        tally.add(prompt, 1, int(score > choice.right_above))
    tally.note(f"A completion is right if its {name} is above {choice.right_above:g}.")
    if unscored:
        tally.note(f"{path}: {unscored} of {len(rows)} completions have no {name}; left out.")


def read_lm_eval(path: Path, rows: Sequence[Row], tally: Tally, choice: Choice) -> None:
    """Add samples_<task>_<date>.jsonl of lm-evaluation-harness.

    Rows are made in lm_eval/evaluator.py (evaluate) and written in
    lm_eval/loggers/evaluation_tracker.py (save_results_samples): one a document and filter, with
    the value of every metric. A filter usually keeps one of a document's completions; where it
    keeps several, as for code, pass@1 is the share of right ones. Multiple choice and greedy
    completions are refused: nothing was sampled.
    """
    filters = list(dict.fromkeys(str(row.get("filter", "none")) for _, row in rows))
    chosen = _chosen(path, choice.filtered_by, filters, "filter", "--filter")
    rows = [(i, row) for i, row in rows if str(row.get("filter", "none")) == chosen]
    task = re.fullmatch(r"samples_(.+)_\d{4}-\d\d-\d\dT.*", path.stem)
    for number, row in rows:
        for key in sorted(LM_EVAL_KEYS):
            if key not in row or (key != "doc_id" and not isinstance(row[key], list)):
                raise refused(path, number, f"{key} is missing or no list", "right is a whole log")
        _check_sampled(path, number, row, tally)
        named = row.get("metrics")
        metrics = named if isinstance(named, list) else _metrics_of(row)
        name = _chosen(path, choice.reward, metrics, "metric", "--reward")
        if name not in row:
            raise refused(path, number, f"no metric {name}", "right is a number from 0 to 1")
        value = _score(path, number, name, row[name])
        kept = row["filtered_resps"][0] if row["filtered_resps"] else ""
        samples = len(kept) if isinstance(kept, list) else 1
        if samples == 1:
            correct = int(value > choice.right_above)
        else:
            correct = _share_count(path, number, name, value, samples)
        drawn = row["resps"][0] if row["resps"] else []
        if isinstance(drawn, list) and len(drawn) > samples:
            tally.note(
                f"{path}: {len(drawn)} completions a document, of which filter {chosen!r} scores "
                f"{samples}; the others have no score and don't count, and a majority vote among "
                "them is no sample of the model."
            )
        prompt = f"{task[1]}/{row['doc_id']}" if task else str(row["doc_id"])
        tally.add(prompt, samples, correct)
    tally.note(f"A completion is right if its {name} is above {choice.right_above:g}.")


def _check_sampled(path: Path, number: int, row: dict[str, Any], tally: Tally) -> None:
    """Raise ConfigError for multiple choice and greedy completions; note another temperature.

    lm-evaluation-harness draws greedily unless its generation arguments say otherwise.
    """
    arguments = row.get("arguments")
    request = next(iter(arguments.values()), None) if isinstance(arguments, dict) else None
    given = request.get("arg_1") if isinstance(request, dict) else None
    right = "run with --gen_kwargs do_sample=true,temperature=1 on a task that generates text"
    if isinstance(given, str):
        raise refused(path, number, "multiple choice: no completion was sampled", right)
    if not isinstance(given, dict):
        return
    temperature = given.get("temperature", 1 if given.get("do_sample") else 0)
    if given.get("do_sample") is False or temperature == 0:
        raise refused(path, number, "the completion is greedy, which is no sample", right)
    if temperature != 1:
        tally.note(
            f"{path}: completions were sampled at temperature {temperature}; the forecast is for "
            "RL that samples in the same way."
        )


def _metrics_of(row: dict[str, Any]) -> list[str]:
    """Metrics of a row that does not name them (before version 0.4.6): its own numbers."""
    return [
        name
        for name, value in row.items()
        if name != "doc_id" and isinstance(value, (bool, int, float))
    ]


def _share_count(path: Path, number: int, name: str, value: float, samples: int) -> int:
    """How many of so many completions are right, from the share of them."""
    if name != MEAN_METRIC:
        raise refused(
            path,
            number,
            f"{name} of {samples} completions is not the share of right ones",
            f"name --reward {MEAN_METRIC}, and have the task compute it",
        )
    correct = round(value * samples)
    if not 0 <= correct <= samples or abs(value * samples - correct) > NEARLY_WHOLE:
        raise refused(
            path,
            number,
            f"{name} is {value:g} of {samples} completions",
            "right is a whole number of them divided by their number",
        )
    return correct


def _score(path: Path, number: int, name: str, value: Any) -> float:
    """A score as a number; raises ConfigError for anything else."""
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        raise refused(path, number, f"{name} is {value!r}", "right is a number")
    return float(value)


def _chosen(path: Path, name: str | None, known: Sequence[str], what: str, option: str) -> str:
    """The name asked for, or the only one; raises ConfigError, naming what there is."""
    there = ", ".join(known) or "none"
    if name is not None:
        if name not in known:
            raise ConfigError(f"{path}: no {what} {name!r} (there is: {there})")
        return name
    if len(known) != 1:
        raise ConfigError(f"{path}: which {what}? Name it with {option} (there is: {there})")
    return known[0]


def _text(prompt: Any) -> str:
    """A prompt as text; conversations, lists of messages, as JSON."""
    return (
        prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, default=str)
    )
