"""Where what no stage is trained from lies, and which cell a folder is: the rest of `paths`.

Apart from it since `paths` counts as code of every trained stage, and nothing here may: a new file
of this kind must not make models again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import BASE, Paths

CELL_FORM = "such as results/laptop/depth/seed~0/ood~0.003"
_CELL = re.compile(
    r"(?P<root>.+?)(?:/variants/(?P<variant>[^/]+))?/(?P<axis>[^/]+)/seed~(?P<seed>\d+)"
    r"/ood~(?P<ratio>[^/]+)"
)


@dataclass(frozen=True)
class CellPlace:
    """A cell as its folder names it; seed and ratio are text."""

    results: str
    run: str
    variant: str
    axis: str
    seed: str
    ratio: str


def cell_at(folder: str | Path) -> CellPlace:
    """The cell whose folder this is, by name alone; raises ConfigError if it is none's."""
    found = _CELL.fullmatch(Path(folder).as_posix())
    if not found:
        raise ConfigError(f"{folder}: not a cell's folder, {CELL_FORM}")
    run = Path(found["root"])
    return CellPlace(
        results=str(run.parent),
        run=run.name,
        variant=found["variant"] or BASE,
        axis=found["axis"],
        seed=found["seed"],
        ratio=found["ratio"],
    )


def run_at(folder: str | Path) -> Paths:
    """The paths of the run whose folder this is."""
    place = Path(folder)
    return Paths(place.name, str(place.parent))


def completions_of(paths: Paths, axis: str, seed: int | str, ratio: str) -> str:
    """What the models of a cell write on some test prompts."""
    return f"{paths.cell(axis, seed, ratio)}/completions.parquet"


def calibration_of(paths: Paths, axis: str, seed: int | str, ratio: str) -> str:
    """What the models of a cell answer where answers are probabilities, beside the true ones."""
    return f"{paths.cell(axis, seed, ratio)}/calibration.parquet"


def faithfulness_of(paths: Paths, axis: str, seed: int | str, ratio: str) -> str:
    """Whether the answers of a cell's models follow from their traces."""
    return f"{paths.cell(axis, seed, ratio)}/faithfulness.parquet"


def probes_of(paths: Paths, axis: str, seed: int | str, ratio: str) -> str:
    """What linear probes read off the stages of a cell."""
    return f"{paths.cell(axis, seed, ratio)}/probes.parquet"


def representation_of(paths: Paths, axis: str, seed: int | str, ratio: str) -> str:
    """Heads over a fixed set on the pretrained model of a cell."""
    return f"{paths.cell(axis, seed, ratio)}/representation.parquet"


def run_readme(paths: Paths) -> str:
    """What each folder and file of the run is."""
    return f"{paths.root}/README.md"


def progress_log(paths: Paths) -> str:
    """How far the run is, a line whenever a job ends."""
    return paths.log("progress")
