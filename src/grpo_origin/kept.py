"""What of a cell is there already, made with these settings: `cell` keeps it, makes the rest.

A stage is kept if the settings, input files and code that its provenance.json names are those it
would be made with now; data if their settings and code, recorded by `record_data`, and their files
are.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grpo_origin.config.grid import DATA_FILES
from grpo_origin.config.paths import PROVENANCE, TOKENIZER, Paths, stage_of
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import write_json
from grpo_origin.jobs.fingerprint import PACKAGE, code_fingerprint
from grpo_origin.jobs.provenance import content_fingerprint
from grpo_origin.study import Study
from grpo_origin.tasks.domain import find

DATA_WRITERS = ("pools", "prompt_sets", "source", "summary")  # modules of data that `cell` calls


def stage_inputs(
    study: Study, paths: Paths, axis: str, seed: int, ratio: str, name: str
) -> tuple[str, str]:
    """What a stage is trained from: both pools, or a model folder and a file of prompts."""
    if name == "pretrain":
        return paths.data(axis, seed, "pretrain-id"), paths.data(axis, seed, "pretrain-ood")
    prompts = "grpo" if stage_of(name).method else "sft"
    return paths.stage(axis, seed, ratio, study.previous(name)), paths.data(axis, seed, prompts)


def stage_is_kept(study: Study, paths: Paths, axis: str, seed: int, ratio: str, name: str) -> bool:
    """Whether a trained stage is there, made with these settings and code from these very inputs.

    Raises DeviceError if the device that the settings ask for is not there.
    """
    record = _read(f"{paths.stage(axis, seed, ratio, name)}/{PROVENANCE}")
    made_with, settings = record.get("settings"), _stage_settings(study, seed, ratio, name)
    if not made_with or any(settings.get(key) != value for key, value in made_with.items()):
        return False
    inputs = stage_inputs(study, paths, axis, seed, ratio, name)
    files = [path if path.endswith(".parquet") else f"{path}/model.safetensors" for path in inputs]
    identity = record.get("identity", {})
    return identity.get("inputs") == _contents(files) and identity.get("code") == _code(
        study, axis, name
    )


def data_is_kept(study: Study, paths: Paths, axis: str, seed: int) -> bool:
    """Whether the data are there, made with these settings and code and not changed since."""
    return _read(paths.data(axis, seed, "provenance")) == _data_record(study, paths, axis, seed)


def record_data(study: Study, paths: Paths, axis: str, seed: int) -> None:
    """Write down with what settings the data of an axis and seed were made."""
    record = _data_record(study, paths, axis, seed)
    write_json(paths.data(axis, seed, "provenance"), record)


def _data_record(study: Study, paths: Paths, axis: str, seed: int) -> dict[str, Any]:
    settings = study.settings
    files = [paths.data(axis, seed, name) for name in DATA_FILES]
    if axis in study.grid.tokenized:
        files.append(paths.data(axis, seed, TOKENIZER))
    return {
        "settings": {
            "seed": seed,
            "world": settings.world.model_dump(mode="json"),
            "axis": settings.axes[axis].model_dump(mode="json", exclude={"ratios", "theory"}),
            "ratios": list(settings.axis_ratios(axis)),
            "samples": settings.pretrain.samples,
            "ood_pool": settings.pretrain.ood_pool,
            "sft_counts": study.sft_counts,
            "rl_prompts": study.rl_prompts,
            "test_prompts": settings.evaluation.prompts,
            "base": study.base.digest if study.base and axis in study.grid.tokenized else None,
        },
        "code": code_fingerprint(
            *(PACKAGE / "data" / f"{name}.py" for name in DATA_WRITERS), _domain_file(study, axis)
        ),
        "files": _contents(files),
    }


def _stage_settings(study: Study, seed: int, ratio: str, name: str) -> dict[str, Any]:
    """All settings that a stage's provenance may name, under the names it uses."""
    from grpo_origin.training.numerics import choose_device, resolved

    settings, stage = study.settings, stage_of(name)
    sections = ("world", "model", "pretrain", "sft", "rl", "lora")
    values: dict[str, Any] = settings.model_dump(mode="json", include={*sections})
    values |= {"seed": seed, "ratio": ratio, "base": study.base.digest if study.base else None}
    device = choose_device(settings.numerics, settings.runtime.threads)
    values["numerics"] = resolved(settings.numerics, device)
    if stage.method:
        method = study.methods[stage.method]
        values["rl"] = method.settings(settings.rl).model_dump(mode="json")
        values["method"] = {stage.method: method.model_dump(mode="json")}
        values["trained_on"] = stage.trained_on
    return values


def _domain_file(study: Study, axis: str) -> str:
    return inspect.getfile(find(study.settings.axes[axis].domain))


def _code(study: Study, axis: str, name: str) -> str:
    """Digest of the code of a stage, as its identity holds it."""
    method, domain = stage_of(name).method, _domain_file(study, axis)
    if not method:
        return code_fingerprint(PACKAGE / "training" / "loop.py", domain)
    file = inspect.getfile(type(study.methods[method]))
    return code_fingerprint(PACKAGE / "rl" / "stage.py", file, domain)


def _contents(files: Iterable[str]) -> list[str]:
    """Fingerprints of files; of none if one is missing."""
    try:
        return [content_fingerprint(path) for path in files]
    except ArtefactError:
        return []


def _read(path: str) -> dict[str, Any]:
    """A record, or an empty one."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
