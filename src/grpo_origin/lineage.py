"""Which variant makes a file: what a variant does not change is made once, for all that need it.

A file's lineage is every setting that it depends on, its own and those upstream. The first of the
run and its variants that has the cell and the same lineage makes the file, the others read it
there. Called by the workflow and by `cell`.
"""

from __future__ import annotations

from typing import Any

from grpo_origin.config.grid import DATA_FILES, Cell
from grpo_origin.config.paths import BASE, TOKENIZER, place_of, rl_stage, stage_of
from grpo_origin.study import Study

# Rules whose outputs lie at a variant's place; the others are of the run alone.
PLACED = (
    "tokenizer",
    "pretraining_data",
    "prompts",
    "data_summary",
    "pretrain",
    "sft",
    "rl",
    "evaluate",
    "answers",
    "faithfulness",
    "calibration",
)


def family(study: Study) -> dict[str, Study]:
    """The run and its variants by name, in their order."""
    return {member.variant: member for member in (study, *study.variants)}


def lineage(study: Study, axis: str, name: str) -> dict[str, Any]:
    """The settings that decide a data file (`data/sft`, ...) or a stage (`sft`, ...) of an axis."""
    settings = study.settings
    left_out = {"ratios", "theory", "mixed"}
    tasks = settings.axes[axis].model_dump(exclude=left_out)
    origin: dict[str, Any] = {"world": settings.world.model_dump(), "tasks": tasks}
    if axis in study.grid.tokenized:
        origin["base"] = settings.pretrain.base  # whose tokenizer writes all data
    if name.startswith("data/"):
        return origin | _data(study, axis, name.removeprefix("data/"))
    numerics = {"numerics": settings.numerics.model_dump()}
    if name == "pretrain":
        own = {"model": settings.model.model_dump(), "pretrain": settings.pretrain.model_dump()}
        return origin | numerics | own
    before = lineage(study, axis, study.previous(name))
    if name == "sft":
        return {"from": before, "sft": settings.model_dump(include={"sft", "lora"})} | numerics
    stage = stage_of(name)
    method = study.methods[str(stage.method)]
    return {
        "from": before,
        "prompts": lineage(study, axis, "data/grpo"),
        "rl": method.settings(settings.rl).model_dump(),
        "method": {stage.method: method.model_dump()},
        "trained_on": stage.trained_on,
        "lora": settings.model_dump(include={"lora"}),
    } | numerics


def _data(study: Study, axis: str, name: str) -> dict[str, Any]:
    settings = study.settings
    if name == "sft":
        return {"counts": study.sft_counts}
    if name == "grpo":
        return {"prompts": study.rl_prompts, "sft_counts": study.sft_counts}
    if name == "test":
        return {"prompts": settings.evaluation.prompts, "mixed": settings.axes[axis].mixed}
    if name == TOKENIZER:
        return {}
    return {"samples": settings.pretrain.samples, "ood_pool": settings.pretrain.ood_pool}


def maker(study: Study, variant: str, cell: Cell, name: str) -> Study:
    """The run or variant that makes a file of a variant's cell (or group, for data)."""
    members = family(study)
    if variant == BASE:
        return members[BASE]
    wanted = lineage(members[variant], cell["axis"], name)
    for member in members.values():
        if member.variant == variant:
            return member
        if _has(member, cell, name) and lineage(member, cell["axis"], name) == wanted:
            return member
    raise KeyError(variant)


def _has(study: Study, cell: Cell, name: str) -> bool:
    if name.startswith("data/"):
        return {key: cell[key] for key in ("axis", "seed")} in study.grid.groups
    return cell in study.grid.cells and name in [stage.name for stage in study.grid.stages]


def jobs(study: Study) -> dict[str, list[Cell]]:
    """The jobs of a run with its variants by rule, each as the wildcards of its outputs.

    Of a variant only those of files that no earlier one makes, and all evaluations. Where a variant
    samples answers, its cells of the run do too, to compare with. The workflow plans by it, the
    cost plan counts it.
    """
    planned: dict[str, list[Cell]] = {rule: [] for rule in study.grid.jobs}
    for variant, member in family(study).items():
        for rule, cells in member.grid.jobs.items():
            place = {"place": place_of(variant)} if rule in PLACED else {}
            planned[rule] += [
                cell | place
                for cell in cells
                if variant == BASE or _is_own(study, variant, rule, cell)
            ]
    compared = [cell | {"place": place_of(BASE)} for cell in planned["answers"]]
    both = [*compared, *planned["answers"]]
    planned["answers"] = list({tuple(cell.values()): cell for cell in both}.values())
    return planned


def _is_own(study: Study, variant: str, rule: str, wildcards: Cell) -> bool:
    """Whether a job of a variant makes what no earlier one does."""
    cell: Cell = {key: wildcards[key] for key in ("axis", "seed", "ratio") if key in wildcards}
    names = {
        "tokenizer": [f"data/{TOKENIZER}"],
        "pretraining_data": ["data/pretrain-id"],
        "prompts": [f"data/{wildcards.get('set')}"],
        "data_summary": [f"data/{name}" for name in DATA_FILES],
        "pretrain": ["pretrain"],
        "sft": ["sft"],
        "rl": [rl_stage(str(wildcards.get("trained_on")), str(wildcards.get("method")))],
    }
    if rule not in names:
        return rule in ("evaluate", "answers", "faithfulness", "calibration")
    return any(maker(study, variant, cell, name).variant == variant for name in names[rule])
