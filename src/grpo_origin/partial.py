"""`grpo-origin report`: tables, figures and page of the part of a run that is there so far.

The workflow makes a run's own report when all is done. This makes the same of the cells that are
evaluated, in a folder of its own beside them, while a sweep runs or after one that was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import BASE, PROVENANCE, Paths, place_of
from grpo_origin.config.places import (
    calibration_of,
    completions_of,
    faithfulness_of,
    probes_of,
    representation_of,
)
from grpo_origin.lineage import family, maker
from grpo_origin.study import Study

if TYPE_CHECKING:
    from grpo_origin.analysis.sources import Sources
    from grpo_origin.config.grid import Cell
    from grpo_origin.config.schema import Settings

LIMITED = {"axes": "axis", "ratios": "ratio", "seeds": "seed"}  # limits of a variant, by its cells


def report_so_far(study: Study, paths: Paths) -> str:
    """Report of the evaluated cells of a run; says where it is and of how much.

    Of variants it has the cells that are there of the run's own settings too, which they are held
    against. Runs to convergence are left out. Raises ConfigError if no cell of the run's own
    settings is evaluated yet, ArtefactError if a file can't be used.
    """
    from grpo_origin.analysis.table_files import write_readme, write_tables
    from grpo_origin.analysis.tables import names_of
    from grpo_origin.jobs.files import read_table
    from grpo_origin.report.draw import by_name, draw_figures
    from grpo_origin.report.figures import figures_of
    from grpo_origin.report.page import write_captions, write_report

    cells = evaluated_cells(study, paths)
    if not cells:
        raise ConfigError(f"{paths.root}: no cell of this run is evaluated yet")
    variants = {
        member.variant: [cell for cell in evaluated_cells(member, paths) if cell in cells]
        for member in study.variants
    }
    evaluated = {BASE: cells} | {name: found for name, found in variants.items() if found}
    settings = limited(study.settings, cells, len(study.grid.cells), variants)
    sources = {name: sources_of(study, paths, of, name) for name, of in evaluated.items()}
    there = Paths("partial", paths.root)
    names = [*names_of("evaluation", converged=False), *names_of("claims", converged=False)]
    write_tables(there.table_files(names), sources)
    if sources[BASE].samples:  # theory is of the run's own settings alone
        theory = names_of("theory", converged=False)
        write_tables(there.table_files(theory), sources[BASE])
        names += theory
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
        tables={name: read_table(file).to_pandas() for name, file in tables.items()},
        provenance=_provenance(study, paths, evaluated),
    )
    told = f"{len(cells)} of {len(study.grid.cells)} cells"
    if study.variants:
        planned = sum(len(member.grid.cells) for member in study.variants)
        told += f", {sum(map(len, variants.values()))} of {planned} of variants"
    return f"{there.report}: {told}"


def limited(
    settings: Settings,
    cells: list[Cell],
    planned: int,
    variants: Mapping[str, list[Cell]] | None = None,
) -> Settings:
    """Settings of the part of a run that these cells are, of so many planned.

    With those `variants` that have cells, each limited to its own.
    """
    axes = {}
    for name, axis in settings.axes.items():
        found = {cell["ratio"] for cell in cells if cell["axis"] == name}
        ratios = tuple(ratio for ratio in settings.axis_ratios(name) if ratio in found)
        if ratios:
            axes[name] = axis.model_copy(update={"ratios": ratios, "theory": ()})
    seeds = tuple(seed for seed in settings.seeds if seed in {cell["seed"] for cell in cells})
    changes: dict[str, Any] = {"axes": axes, "seeds": seeds}
    changes["run"] = f"{settings.run}, so far: {len(cells)} of {planned} cells"
    changes["variants"] = {
        name: settings.variants[name]
        | {limit: [*dict.fromkeys(cell[key] for cell in of)] for limit, key in LIMITED.items()}
        for name, of in (variants or {}).items()
        if of
    }
    return settings.model_copy(update=changes)


def evaluated_cells(study: Study, paths: Paths) -> list[Cell]:
    """Cells of a run or of a variant that are evaluated; `paths` are the run's."""
    own = replace(paths, place=place_of(study.variant))
    return [cell for cell in study.grid.cells if Path(own.evaluation(**cell)).exists()]


def sources_of(study: Study, paths: Paths, cells: list[Cell], variant: str = BASE) -> Sources:
    """What the tables of these cells of a run or of its variant are made from.

    All of them are evaluated; `study` and `paths` are the run's.
    """
    from grpo_origin.analysis.sources import Sources

    member, own = family(study)[variant], replace(paths, place=place_of(variant))

    def there(files: list[str]) -> list[str]:
        return [file for file in files if Path(file).exists()]

    return Sources(
        evaluation_files=[own.evaluation(**cell) for cell in cells],
        answer_files=there([own.answers(**cell) for cell in cells]),
        faithfulness_files=there([faithfulness_of(own, **cell) for cell in cells]),
        calibration_files=there([calibration_of(own, **cell) for cell in cells]),
        completion_files=there(
            [completions_of(own, **cell) for cell in member.grid.shown_cells if cell in cells]
        ),
        probe_files=there([probes_of(own, **cell) for cell in cells]),
        head_files=there([representation_of(own, **cell) for cell in cells]),
        samples=there([own.sampling(**cell) for cell in member.grid.sampled_cells]),
        training=[
            (
                cell["axis"],
                cell["seed"],
                cell["ratio"],
                stage.name,
                _folder(study, paths, variant, cell, stage.name),
            )
            for cell in cells
            for stage in member.grid.rl_stages
        ],
        claims=member.settings.claims,
        betas=member.betas,
        budget=member.budget,
        demonstrations=member.demonstrations,
        gold_tokens=member.gold_tokens,
    )


def _folder(study: Study, paths: Paths, variant: str, cell: Cell, stage: str) -> str:
    """The folder of a stage of a variant's cell, in that of the variant that makes it."""
    made_by = maker(study, variant, cell, stage).variant
    return replace(paths, place=place_of(made_by)).stage(**cell, stage=stage)


def _provenance(
    study: Study, paths: Paths, evaluated: Mapping[str, list[Cell]]
) -> list[dict[str, Any]]:
    """Records of the stages of these cells by variant; one that several share comes once."""
    members = family(study)
    folders = {
        _folder(study, paths, variant, cell, stage.name): stage.name
        for variant, cells in evaluated.items()
        for cell in cells
        for stage in members[variant].grid.stages
    }
    return [
        {"stage": stage} | json.loads((Path(folder) / PROVENANCE).read_text(encoding="utf-8"))
        for folder, stage in folders.items()
    ]
