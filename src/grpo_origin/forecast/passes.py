"""Pass counts from files: tables of counts, or the logs of three tools (`forecast.logs`).

The format is told from the file's columns or keys, its kind from the extension. Rows are numbered
as a spreadsheet or an editor does. Knows nothing of what is done with the counts.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.forecast import logs
from grpo_origin.forecast.tally import Passes, Tally, refused, whole

COLUMNS = {
    "prompt": ("prompt", "prompt_id"),
    "samples": ("samples", "n"),
    "correct": ("correct", "c"),
}
TASK = "task"  # a further column: prompts of one task learn together
NEEDED = "prompt, samples (or n), correct (or c)"
ACCEPTED = (
    f"accepted are a .csv or .parquet with columns {NEEDED}, a samples_*.jsonl of "
    "lm-evaluation-harness, a rollout or validation .jsonl of verl, a completions_*.parquet of TRL"
)


def read_passes(
    paths: Sequence[str | Path],
    *,
    right_above: float = 0.5,
    reward: str | None = None,
    filtered_by: str | None = None,
) -> Passes:
    """Read all files and add up their counts by prompt.

    In logs a completion is right if its score is above `right_above`; `reward` names the score's
    column or metric where there are several, `filtered_by` the filter of lm-evaluation-harness.
    Raises ConfigError, one line, for a file or row that can't be counted.
    """
    tally, choice = Tally(), logs.Choice(right_above, reward, filtered_by)
    seen: set[Path] = set()
    for path in map(Path, paths):
        if path.resolve() in seen:
            raise ConfigError(f"{path}: named twice; name each file once")
        seen.add(path.resolve())
        try:
            _read(path, tally, choice)
        except FileNotFoundError:
            raise ConfigError(f"{path}: No such file") from None
        except IsADirectoryError:
            raise ConfigError(f"{path}: is a folder; name the files in it") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not text in UTF-8; {ACCEPTED}") from None
    choice.tell_steps(tally)
    passes = tally.passes()
    if not passes.prompts:
        raise ConfigError(f"{', '.join(map(str, paths))}: no row to count")
    return passes


def _read(path: Path, tally: Tally, choice: logs.Choice) -> None:
    """Add one file's counts."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_csv(path, tally)
    if suffix == ".parquet":
        table = logs.open_table(path)
        if {*table.column_names} >= logs.TRL_COLUMNS:
            return logs.read_trl(path, table, tally, choice)
        return _read_parquet(path, table, tally)
    if suffix in (".jsonl", ".json"):
        rows = logs.json_rows(path)
        keys = {*rows[0][1]} if rows else set()
        if keys >= logs.LM_EVAL_KEYS:
            return logs.read_lm_eval(path, rows, tally, choice)
        if keys >= logs.VERL_KEYS:
            return logs.read_verl(path, rows, tally, choice)
    raise ConfigError(f"{path}: of no known format; {ACCEPTED}")


def _read_csv(path: Path, tally: Tally) -> None:
    """Add the rows of a CSV file; row 1 is its header."""
    csv.field_size_limit(sys.maxsize)  # few-shot prompts exceed the default of 128 KiB
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            places = _places(path, header)
            rows = []
            for number, row in enumerate(reader, start=2):
                if not row:
                    continue
                if len(row) > len(header):
                    raise refused(
                        path,
                        number,
                        f"{len(row)} fields where the header has {len(header)}",
                        "put a prompt that holds commas in double quotes",
                    )
                row += [""] * (len(header) - len(row))
                rows.append((number, [row[place] for place in places.values()]))
        except csv.Error as error:
            raise ConfigError(f"{path}: not a CSV file ({error})") from None
    _add_rows(path, rows, tally)


def _read_parquet(path: Path, table: Any, tally: Tally) -> None:
    """Add the rows of a parquet table (pyarrow); its first row is row 1."""
    places = _places(path, table.column_names)
    columns = [table.column(place).to_pylist() for place in places.values()]
    _add_rows(path, enumerate(map(list, zip(*columns, strict=True)), start=1), tally)


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Where the three columns are, and that of tasks if there is one, in this order.

    Raises ConfigError, naming them, if one is missing or double.
    """
    names = [name.strip().lower() for name in header]
    places = {}
    for column, aliases in COLUMNS.items():
        found = [i for i, name in enumerate(names) if name in aliases]
        if len(found) != 1:
            problem = "no column" if not found else "more than one column"
            there = ", ".join(header) or "nothing"
            raise ConfigError(
                f"{path}: {problem} {' or '.join(aliases)}; needed are {NEEDED}, there is {there}"
            )
        places[column] = found[0]
    return places | ({TASK: names.index(TASK)} if TASK in names else {})


def _add_rows(path: Path, rows: Iterable[tuple[int, list[Any]]], tally: Tally) -> None:
    """Add rows of prompt, samples, correct and maybe task by number.

    Raises ConfigError for one that is wrong.
    """
    again = 0
    for number, (prompt, samples, correct, *task) in rows:
        if prompt is None or prompt != prompt or not str(prompt).strip():
            raise refused(path, number, "prompt is missing", "write its text or a name for it")
        n, c = whole(samples), whole(correct)
        if n is None or n < 1:
            problem = _said("samples", samples)
            raise refused(path, number, problem, "right is a whole number of at least 1")
        if c is None or not 0 <= c <= n:
            problem = _said("correct", correct)
            raise refused(path, number, problem, f"right is a whole number from 0 to samples ({n})")
        again += tally.add(str(prompt), n, c)
        if task and not tally.assign(str(prompt), str(task[0] or "").strip()):
            problem = "task is another than in an earlier row of this prompt"
            raise refused(path, number, problem, "name one task for each prompt")
    if again:
        plural = "row repeats a prompt" if again == 1 else "rows repeat a prompt"
        tally.note(f"{path}: {again} {plural}; their counts are added to that prompt's.")


def _said(column: str, value: Any) -> str:
    missing = value is None or value != value or not str(value).strip()
    return f"{column} is missing" if missing else f"{column} is {str(value).strip()!r}"
