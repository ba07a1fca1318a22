"""The README of a run's folder: what each folder and file is, and the columns of each table file.

Written by the job `report`; the words are those of the registry of tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from grpo_origin.analysis.table_entry import SHARED, Column, column_lines
from grpo_origin.analysis.tables import TABLES
from grpo_origin.config.schema import Settings
from grpo_origin.evaluation.table import COLUMNS
from grpo_origin.jobs.files import atomic

# What says whose a row is; a file of one stage has none of these.
LABELS = ("variant", "axis", "seed", "ood_ratio", "stage", "method", "trained_on")
PROMPT_MASS = {
    "split": Column("text", "split of the prompt, id or ood"),
    "prompt_index": Column("whole number", "number of the prompt in its split of the file"),
    "task": Column("text", "task of the prompt, as configured"),
    "log_mass": Column("number", "ln Q of the prompt before RL; nats"),
    "step": Column("whole number", "optimiser step whose rollouts follow the prompt"),
    "samples": Column("whole number", "how many these are"),
}
SECONDS = {"seconds": Column("number", "seconds that the step took")}


def _of_stage(table: str) -> dict[str, Column]:
    """The columns of a table that a stage's own file has."""
    return {name: x for name, x in TABLES[table].columns.items() if name not in LABELS}


def run_readme(settings: Settings) -> str:
    """The README of a run, in Markdown."""
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: Settings) -> Iterator[str]:
    ratios = {axis: ", ".join(settings.axis_ratios(axis)) for axis in settings.axes}
    yield f"# Run {settings.run}"
    yield ""
    yield "Made by grpo-origin. A cell is an axis, a seed and an OOD ratio (the share of OOD"
    yield "samples in pretraining):"
    yield ""
    yield from (f"- {axis}: OOD ratios {listed}" for axis, listed in ratios.items())
    yield f"- seeds: {', '.join(map(str, settings.seeds))}"
    yield ""
    yield from _table("file or folder", "what it is", _places(settings))
    for title, columns in described_files():
        yield from ("", f"## {title}", "", *column_lines(columns))


def _places(settings: Settings) -> dict[str, str]:
    """What lies where, by its path below the run's folder."""
    group, stages = "{axis}/seed~{seed}", [*settings.before_rl, "{method}~{split}"]
    cell = f"{group}/ood~{{ratio}}"
    places = {
        "report.html": "everything on one page, which opens offline",
        "figures/": "figures as PNG and PDF, the caption of each as text (.rst)",
        "tables/": "tables of the whole run as CSV and parquet; `tables/README.md` has the columns",
        "settings.json": "the settings that the run was last started with",
        "logs/": "what each job printed; `logs/progress.log`: how far the run was when",
        f"{group}/data/": "pretraining pools, SFT samples, RL and test prompts; `summary.json`",
        f"{cell}/{{stage}}/": f"a Hugging Face model folder, of {', '.join(stages)}; with "
        "`training_log.parquet` and `provenance.json` (settings, versions, seconds)",
        f"{cell}/{{method}}~{{split}}/": "of RL also `signal.parquet`, `prompt_mass.parquet`, "
        "`learning_curve.parquet`; `{split}` are the prompts it trained on",
        f"{cell}/evaluation.parquet": "what every model can do, exactly",
        f"{cell}/completions.parquet": "of two cells an axis: what their models write",
        f"{cell}/answers.parquet": "where more than the reference is right: sampled answers",
        f"{cell}/calibration.parquet": "where answers are probabilities: those that models give",
        f"{cell}/faithfulness.parquet": "with `faithfulness`: whether answers follow from traces",
        f"{cell}/probes.parquet": "with `probes`: what linear probes read off the models",
        f"{cell}/representation.parquet": "with `representation`: heads over a fixed set",
        f"{cell}/theory/": "of some cells: RL to convergence, sampling as a check",
        "variants/{variant}/": "what a variant does not share with the run, at the same paths",
        "checkpoints/": "states of stages in training; empty when all are done",
        "partial/": "a report of a part of the run (`grpo-origin report`), if one was asked for",
    }
    return {f"`{place}`": meaning for place, meaning in places.items()}


def described_files() -> Iterator[tuple[str, Mapping[str, Column]]]:
    """Parquet files below a cell with their columns."""
    training = _of_stage("training")
    before_rl = ("step", "loss", "learning_rate", "grad_norm")
    own = TABLES["completions"].columns
    yield "evaluation.parquet: a stage and test prompt", {name: SHARED[name] for name in COLUMNS}
    yield (
        "completions.parquet: a token of what a stage writes on a test prompt",
        {name: column for name, column in own.items() if name != "variant"},
    )
    yield (
        "training_log.parquet of pretrain and sft: an optimiser step",
        {name: training[name] for name in before_rl} | SECONDS,
    )
    yield "training_log.parquet of RL: an optimiser step", training | SECONDS
    yield "learning_curve.parquet: an evaluated step and split", _of_stage("learning_curves")
    yield "signal.parquet: one row, of the stage", _of_stage("signal")
    yield "prompt_mass.parquet: a prompt that RL trained on", PROMPT_MASS


def _table(first: str, second: str, rows: Mapping[str, str]) -> Iterable[str]:
    yield f"| {first} | {second} |"
    yield "|---|---|"
    yield from (f"| {name} | {meaning} |" for name, meaning in rows.items())


def write_readme(path: str | Path, settings: Settings) -> None:
    """Write `run_readme` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(run_readme(settings), encoding="utf-8")
