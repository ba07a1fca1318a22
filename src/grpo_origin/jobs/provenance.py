"""How artefacts came to be: a provenance file in every model folder, a record beside every output.

Stages write the former; `jobs.job` writes the latter, and the workflow compares it with the
settings before it plans. Knows nothing of what is stored.

A record is the digest of the params that a job ran with (settings and code) and one of its inputs'
records, so that records chain back to the data. It lies at `{parent}/.records/{name}` and is bound
to the content of the artefact, not to its place or times: records hold after `cp -a`, `touch` or a
move of a whole run, and say nothing of an artefact that was replaced by another. An artefact whose
record is missing, foreign or damaged is not known, so it is made again; deleting `.records`
therefore remakes all. Nothing here needs `.snakemake/metadata`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grpo_origin.config.paths import PROVENANCE
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import atomic, write_json

PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy", "pyarrow", "snakemake")
RECORDS = ".records"
UNRECORDED = frozenset({"checkpoint"})  # params that name a place, not what is made


def content_fingerprint(path: str | Path, ends: int = 2**20) -> str:
    """Digest of a file's size, first and last `ends` bytes: tells files apart without reading all.

    The statistics of a parquet file are at its end, the weights of a model differ everywhere.
    Raises ArtefactError if the file can't be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(f"{size} ".encode() + file.read(ends))
            file.seek(max(size - ends, 0))
            digest.update(file.read())
    except OSError as error:
        raise ArtefactError(path, f"can't be read ({error.strerror})") from None
    return digest.hexdigest()[:12]


def record_of(params: Mapping[str, Any]) -> str:
    """Digest (16 hex digits) of a job's params: settings and code, but no places.

    Tuples count as lists and the order of keys does not count. Raises TypeError for what JSON
    lacks.
    """
    counted = {name: value for name, value in params.items() if name not in UNRECORDED}
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"), default=os.fspath)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def making_of(params: Mapping[str, Any], inputs: Iterable[str | Path]) -> str:
    """The record of what a job makes with these params from these inputs as they are now.

    The inputs' part is empty if one of them is missing.
    """
    return f"{record_of(params)}-{_chain(inputs)}"


def is_current(path: str | Path, params: Mapping[str, Any], inputs: Iterable[str | Path]) -> bool:
    """Whether an artefact is what a job with these params would make from these inputs.

    Missing inputs don't count against it: pools may be deleted when the models are there.
    """
    settings, _, chain = (recorded(path) or "").partition("-")
    return settings == record_of(params) and _chain(inputs) in ("", chain)


def _chain(inputs: Iterable[str | Path]) -> str:
    """Digest of the inputs' own records, in order; empty if one of the inputs is missing."""
    paths = [os.fspath(path) for path in inputs]
    if not all(map(os.path.exists, paths)):
        return ""
    return hashlib.sha256(repr([recorded(path) for path in paths]).encode()).hexdigest()[:16]


def stamp(path: str | Path, record: str) -> None:
    """Put the record of a finished artefact, a file or a folder with provenance.json, beside it.

    Raises ArtefactError if the artefact can't be read.
    """
    with atomic(_place(path)) as temporary:
        temporary.write_text(json.dumps({"record": record, "of": _bound(path)}), encoding="utf-8")


def recorded(path: str | Path) -> str | None:
    """The record of an artefact; None if there is none that belongs to what lies there."""
    try:
        with open(_place(path), "rb") as file:
            content = json.loads(file.read())
        record, bound = content["record"], content["of"]
        return record if bound == _bound(path) and isinstance(record, str) else None
    except (OSError, ValueError, TypeError, KeyError, ArtefactError):
        return None


def _place(path: str | Path) -> str:
    folder, name = os.path.split(os.fspath(path).rstrip("/"))
    return os.path.join(folder, RECORDS, name)


def _bound(path: str | Path) -> str:
    """What a record holds to: the content of a file, by its ends, or of a folder's provenance."""
    path = os.path.join(path, PROVENANCE) if os.path.isdir(path) else path
    return content_fingerprint(path, 2**16)


def _git_commit() -> str | None:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Provenance:
    """How a stage came to be: settings, versions, git commit, numerics, seconds, device, memory.

    `numerics` are the settings of that section; what the machine adds to them is recorded too.
    """

    def __init__(
        self, settings: dict[str, Any], device: str, numerics: Mapping[str, Any] | None = None
    ) -> None:
        self.started = time.time()
        self.settings, self.device, self.numerics = settings, device, dict(numerics or {})

    def write(self, path: str | Path, **more: Any) -> None:
        """Write the record as JSON; memory in MiB."""
        import torch

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        machine = {
            "device_class": torch.device(self.device).type,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        }
        record = {
            "settings": self.settings,
            "numerics": self.numerics | machine,
            "versions": {"python": platform.python_version()}
            | {name: _version(name) for name in PACKAGES},
            "git_commit": _git_commit(),
            "device": self.device,
            "seconds": round(time.time() - self.started, 3),
            "peak_memory_mib": round(peak, 1),
            **more,
        }
        if self.device.startswith("cuda"):
            record["device_name"] = torch.cuda.get_device_name()
            record["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        write_json(path, record)
