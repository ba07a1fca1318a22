"""`grpo-origin report`: tables, figures and page of the part of a run that is there so far.

The workflow makes a run's own report when all is done. This makes the same of the cells that are
evaluated, in a folder of its own beside them, while a sweep runs or after one that was stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import PROVENANCE, Paths
from grpo_origin.config.places import (
    calibration_of,
    completions_of,
    faithfulness_of,
    probes_of,
    representation_of,
)
from grpo_origin.study import Study

if TYPE_CHECKING:
    from grpo_origin.analysis.sources import Sources
    from grpo_origin.config.grid import Cell
    from grpo_origin.config.schema import Settings


def report_so_far(study: Study, paths: Paths) -> str:
    """Report of the evaluated cells of a run's own settings; says where it is and of how much.

    Runs to convergence and variants are left out. Raises ConfigError if no cell is evaluated yet,
    ArtefactError if a file can't be used.
    """
    from grpo_origin.analysis.stages import of_base
    from grpo_origin.analysis.table_files import write_readme, write_tables
    from grpo_origin.analysis.tables import names_of
    from grpo_origin.jobs.files import read_table
    from grpo_origin.report.draw import by_name, draw_figures
    from grpo_origin.report.figures import figures_of
    from grpo_origin.report.page import write_captions, write_report

    cells = evaluated_cells(study, paths)
    if not cells:
        raise ConfigError(f"{paths.root}: no cell of this run is evaluated yet")
    settings = limited(study.settings, cells, len(study.grid.cells))
    sources = sources_of(study, paths, cells)
    groups = ("evaluation", "claims", *(["theory"] if sources.samples else []))
    names = [name for group in groups for name in names_of(group, converged=False)]
    there = Paths("partial", paths.root)
    write_tables(there.table_files(names), sources)
    write_readme(there.tables_readme, names)
    tables = {name: there.table(name, "parquet") for name in names}
    drawn = {
        name: (drawing.entry.name, drawing.axis) for name, drawing in figures_of(settings).items()
    }
    files = {x: [there.figure(name, x) for name in drawn] for x in ("png", "pdf", "rst")}
    beta = study.betas[settings.main_method]
    how: dict[str, Any] = {"method": settings.main_method, "beta": beta}
    equivalent = settings.claims.equivalent
    draw_figures(drawn, tables.values(), files["png"], files["pdf"], equivalent=equivalent, **how)
    write_captions(settings, beta, by_name(files["rst"]))
    write_report(
        there.report,
        settings=settings,
        beta=beta,
        figures=by_name(files["png"]),
        tables={name: of_base(read_table(file).to_pandas()) for name, file in tables.items()},
        provenance=_provenance(study, paths, cells),
    )
    return f"{there.report}: {len(cells)} of {len(study.grid.cells)} cells"


def limited(settings: Settings, cells: list[Cell], planned: int) -> Settings:
    """Settings of the part of a run that these cells are, of so many planned."""
    axes = {}
    for name, axis in settings.axes.items():
        found = {cell["ratio"] for cell in cells if cell["axis"] == name}
        ratios = tuple(ratio for ratio in settings.axis_ratios(name) if ratio in found)
        if ratios:
            axes[name] = axis.model_copy(update={"ratios": ratios, "theory": ()})
    seeds = tuple(seed for seed in settings.seeds if seed in {cell["seed"] for cell in cells})
    run = f"{settings.run}, so far: {len(cells)} of {planned} cells"
    return settings.model_copy(update={"run": run, "axes": axes, "seeds": seeds, "variants": {}})


def evaluated_cells(study: Study, paths: Paths) -> list[Cell]:
    """Cells of a run's own settings that are evaluated."""
    return [cell for cell in study.grid.cells if Path(paths.evaluation(**cell)).exists()]


def sources_of(study: Study, paths: Paths, cells: list[Cell]) -> Sources:
    """What the tables of these cells are made from; all of them are evaluated."""
    from grpo_origin.analysis.sources import Sources

    def there(files: list[str]) -> list[str]:
        return [file for file in files if Path(file).exists()]

    return Sources(
        evaluation_files=[paths.evaluation(**cell) for cell in cells],
        answer_files=there([paths.answers(**cell) for cell in cells]),
        faithfulness_files=there([faithfulness_of(paths, **cell) for cell in cells]),
        calibration_files=there([calibration_of(paths, **cell) for cell in cells]),
        completion_files=there(
            [completions_of(paths, **cell) for cell in study.grid.shown_cells if cell in cells]
        ),
        probe_files=there([probes_of(paths, **cell) for cell in cells]),
        head_files=there([representation_of(paths, **cell) for cell in cells]),
        samples=there([paths.sampling(**cell) for cell in study.grid.sampled_cells]),
        training=[
            (
                cell["axis"],
                cell["seed"],
                cell["ratio"],
                stage.name,
                paths.stage(**cell, stage=stage.name),
            )
            for cell in cells
            for stage in study.grid.rl_stages
        ],
        claims=study.settings.claims,
        betas=study.betas,
        budget=study.budget,
        demonstrations=study.demonstrations,
        gold_tokens=study.gold_tokens,
    )


def _provenance(study: Study, paths: Paths, cells: list[Cell]) -> list[dict[str, Any]]:
    """Records of the stages of these cells."""
    records = []
    for cell in cells:
        for stage in study.grid.stages:
            file = Path(paths.stage(**cell, stage=stage.name)) / PROVENANCE
            record = json.loads(file.read_text(encoding="utf-8"))
            records.append({"stage": stage.name} | record)
    return records
