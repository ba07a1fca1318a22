"""Files that are whole or absent: atomic writes, guarded reads, provenance, fingerprints of code.

Knows nothing of what is stored.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import write_json

PACKAGES = ("torch", "transformers", "trl", "accelerate", "numpy", "pyarrow", "snakemake")


def content_fingerprint(path: str | Path) -> str:
    """Digest of a file's size, first and last MiB: tells data sets and weights apart without reading them whole.

    The statistics of a parquet file are at its end, the weights of a model differ everywhere. Raises ArtefactError if
    the file can't be read.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(f"{size} ".encode() + file.read(2**20))
            file.seek(max(size - 2**20, 0))
            digest.update(file.read())
    except OSError as error:
        raise ArtefactError(path, f"can't be read ({error.strerror})") from None
    return digest.hexdigest()[:12]


def _git_commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Provenance:
    """How an artefact came to be: settings, versions, git commit, wall seconds, device, peak memory in MiB."""

    def __init__(self, settings: dict[str, Any], device: str) -> None:
        self.started = time.time()
        self.settings, self.device = settings, device

    def write(self, path: str | Path, **more: Any) -> None:
        """Write the record as JSON."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        record = {
            "settings": self.settings,
            "versions": {"python": platform.python_version()}
            | {name: _version(name) for name in PACKAGES},
            "git_commit": _git_commit(),
            "device": self.device,
            "seconds": round(time.time() - self.started, 3),
            "peak_memory_mib": round(peak, 1),
            **more,
        }
        if self.device.startswith("cuda"):
            torch = sys.modules["torch"]
            record["device_name"] = torch.cuda.get_device_name()
            record["peak_device_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        write_json(path, record)
