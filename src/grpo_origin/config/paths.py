"""Where everything lives: the one place that makes paths, and takes stage names apart.

Every argument may be a value or a Snakemake wildcard such as `{axis}`, so that the rules, the
command line and the library share these functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BEFORE_RL = ("pretrain", "sft")
TOKENIZER = "tokenizer/tokenizer"  # of an axis whose domain trains one, in a folder of its own
BASE = "base"  # the variant of a run's own settings

# What the folder of an RL stage holds beside its model.
TRAINING_LOG, PROVENANCE = "training_log.parquet", "provenance.json"
PROMPT_MASS, SIGNAL = "prompt_mass.parquet", "signal.parquet"
LEARNING_CURVE = "learning_curve.parquet"


@dataclass(frozen=True)
class Stage:
    """A trained stage of a cell: what it is, and for RL by which method on which split's prompts.

    `name` is its folder and the `stage` of tables; `method` and `trained_on` are None before RL.
    """

    name: str
    method: str | None = None
    trained_on: str | None = None


# What the shipped reference run is compared by: its ledger and the settings it ran with.
REFERENCE_LEDGER, REFERENCE_SETTINGS = "reference/claims.parquet", "reference/settings.json"


def judged(folder: str | Path) -> tuple[Path, Path]:
    """Ledger and settings in a run's folder, or in one that holds just these as `reference`."""
    place = Path(folder)
    names = (Path(name).name for name in (REFERENCE_LEDGER, REFERENCE_SETTINGS))
    ledger, settings = (place / name for name in names)
    run = Paths(place.name, str(place.parent))
    return Path(run.table("claims", "parquet")) if not ledger.exists() else ledger, settings


def rl_stage(trained_on: str, method: str = "grpo") -> str:
    """Name of an RL stage: `grpo~id`, `grpo~ood`, `dapo~ood`, ..."""
    return f"{method}~{trained_on}"


def place_of(variant: str) -> str:
    """Where a variant's files lie below the folder of the run: nothing for the base."""
    return "" if variant == BASE else f"variants/{variant}/"


def variant_of(place: str) -> str:
    """The variant whose files lie at a place."""
    return place.split("/")[1] if place else BASE


def stage_of(name: str) -> Stage:
    """The stage of a name: the one place that takes such names apart."""
    method, _, trained_on = name.rpartition("~")
    return Stage(name, method, trained_on) if method else Stage(name)


@dataclass(frozen=True)
class Paths:
    """Paths of a run, as text with `/` between the parts.

    `place` is where data and cells of a variant lie below the run's folder (`place_of`).
    """

    run: str
    results: str = "results"
    place: str = ""

    @property
    def root(self) -> str:
        """Folder of the run."""
        return f"{self.results}/{self.run}"

    def group(self, axis: str, seed: int | str) -> str:
        """Folder of an axis and seed."""
        return f"{self.root}/{self.place}{axis}/seed~{seed}"

    def data(self, axis: str, seed: int | str, name: str) -> str:
        """A data file: one of DATA_FILES, summary, provenance, or the tokenizer."""
        json = ("summary", "provenance", TOKENIZER)
        suffix = ".json" if name in json else ".parquet"
        return f"{self.group(axis, seed)}/data/{name}{suffix}"

    def cell(self, axis: str, seed: int | str, ratio: str) -> str:
        """Folder of a cell: an axis, a seed and an OOD ratio."""
        return f"{self.group(axis, seed)}/ood~{ratio}"

    def stage(self, axis: str, seed: int | str, ratio: str, stage: str) -> str:
        """Model folder of a training stage."""
        return f"{self.cell(axis, seed, ratio)}/{stage}"

    def checkpoint(self, axis: str, seed: int | str, ratio: str, stage: str) -> str:
        """State of an unfinished stage: outside of every output, so that a killed job finds it."""
        return f"{self.root}/checkpoints/{self.place}{axis}/seed~{seed}/ood~{ratio}/{stage}"

    def evaluation(self, axis: str, seed: int | str, ratio: str) -> str:
        """Exact evaluation of all stages of a cell."""
        return f"{self.cell(axis, seed, ratio)}/evaluation.parquet"

    def answers(self, axis: str, seed: int | str, ratio: str) -> str:
        """Sampled right answers of all stages of a cell."""
        return f"{self.cell(axis, seed, ratio)}/answers.parquet"

    def theory(
        self, axis: str, seed: int | str, ratio: str, method: str, beta: str, trace: bool = False
    ) -> str:
        """Masses before and after RL to convergence at a KL weight, or the course of that run."""
        name = f"{method}~{beta}{'~trace' if trace else ''}"
        return f"{self.cell(axis, seed, ratio)}/theory/{name}.parquet"

    def sampling(self, axis: str, seed: int | str, ratio: str) -> str:
        """Sampled successes beside exact masses, of the cell's SFT model."""
        return f"{self.cell(axis, seed, ratio)}/theory/sampling.parquet"

    def table(self, name: str, suffix: str) -> str:
        """A run-level table, suffix `csv` or `parquet`."""
        return f"{self.root}/tables/{name}.{suffix}"

    def table_files(self, names: Iterable[str]) -> list[str]:
        """Both files of each table."""
        return [self.table(name, suffix) for name in names for suffix in ("csv", "parquet")]

    @property
    def tables_readme(self) -> str:
        """What the tables of the run hold."""
        return f"{self.root}/tables/README.md"

    def figure(self, name: str, suffix: str) -> str:
        """A figure, suffix `png` or `pdf`."""
        return f"{self.root}/figures/{name}.{suffix}"

    @property
    def settings(self) -> str:
        """Settings that the run was last started with."""
        return f"{self.root}/settings.json"

    @property
    def report(self) -> str:
        """The report of the run, one HTML page."""
        return f"{self.root}/report.html"

    def log(self, *parts: str) -> str:
        """Log file of a rule."""
        return f"{self.root}/logs/{self.place}{'/'.join(parts)}.log"
