"""State of an unfinished training stage: saved by time and at a signal, resumed by the same job.

Every training stage runs in `stage`. A save is a folder that is put in place in one step, so a job
killed at any moment leaves the last whole one. Knows nothing of what is trained.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from grpo_origin.config.paths import PROVENANCE
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.jobs.files import atomic, remove_leftovers
from grpo_origin.jobs.fingerprint import code_fingerprint
from grpo_origin.jobs.lease import STOP_SIGNALS, lease
from grpo_origin.jobs.provenance import content_fingerprint

STATE, LOG = "state.safetensors", "log.json"  # of a save of tensors
CONTENTS = "about.json"  # identity and file sizes of any save


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether the job was told to stop; the block decides when it does.

    By Ctrl-C (SIGINT), SIGTERM, or SIGUSR1 (a cluster's warning before a limit). Further ones
    change nothing, so a second Ctrl-C doesn't disturb the save.
    """
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: arrived.append(n)) for number in STOP_SIGNALS
    }
    try:
        yield lambda: bool(arrived)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Checkpoint:
    """The state of an unfinished stage, in a folder that vanishes when the stage is done.

    `identity` describes the job (settings, code, inputs): the state of a different job is
    discarded, not resumed. `check` raises if this job may no longer write; it is called before
    anything is put in place.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: dict[str, Any],
        every: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.every, self.check = Path(folder), every, check
        self.identity = json.loads(json.dumps(identity))
        self.saved = time.monotonic()

    def due(self) -> bool:
        """Whether the interval has passed."""
        return time.monotonic() - self.saved >= self.every

    def load(self) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]] | None:
        """Tensors and log rows of the last `save`; None if there is no whole one of this job."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = self.load_folder()
        if folder is None:
            return None
        try:
            log = json.loads((folder / LOG).read_text(encoding="utf-8"))
            return load_file(folder / STATE), log
        except (OSError, ValueError, SafetensorError) as error:
            print(f"{folder}: unreadable ({error}); starting afresh", flush=True)
            return None

    def save(self, tensors: dict[str, torch.Tensor], log: list[dict[str, float]]) -> None:
        """Replace the last save by tensors and a row a step. Raises OSError if the disk is full."""
        from safetensors.torch import save_file

        def fill(folder: Path) -> None:
            folder.mkdir()
            whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(whole, folder / STATE)
            (folder / LOG).write_text(json.dumps(log), encoding="utf-8")

        self._replace(len(log), fill)

    def load_folder(self) -> Path | None:
        """The folder of the last save, or None; damaged and foreign ones count as none."""
        for folder in sorted(self.folder.glob("step-*"), key=_step, reverse=True):
            try:
                contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
                if contents == {"identity": self.identity, "files": _sizes(folder)}:
                    return folder
                print(
                    f"{folder}: damaged, or of other settings, inputs or code; left out", flush=True
                )
            except (OSError, ValueError) as error:
                print(f"{folder}: unreadable ({error}); left out", flush=True)
        return None

    def save_folder(self, source: str | Path, step: int) -> None:
        """Replace the last save by a folder that a trainer wrote, which is removed.

        Raises OSError if the disk is full.
        """
        self._replace(step, lambda folder: shutil.copytree(source, folder))
        shutil.rmtree(source, ignore_errors=True)

    def _replace(self, step: int, fill: Callable[[Path], Any]) -> None:
        """Put a new folder in place and remove the others; `fill` makes it and writes into it."""
        target = self.folder / f"step-{step}"
        with atomic(target) as temporary:
            fill(temporary)
            contents = {"identity": self.identity, "files": _sizes(temporary)}
            (temporary / CONTENTS).write_text(json.dumps(contents), encoding="utf-8")
            for path in temporary.iterdir():
                _to_disk(path)
            self.check()
        for other in self.folder.glob("step-*"):
            if other != target:
                shutil.rmtree(other, ignore_errors=True)
        self.saved = time.monotonic()

    def clear(self) -> None:
        """Forget the state: the stage is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != CONTENTS
    }


def _to_disk(path: Path) -> None:
    """Flush a file: a node that loses power after the rename must not leave an empty one."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def stage_identity(
    settings: dict[str, Any], inputs: list[str | Path], *entries: str | Path
) -> dict[str, Any]:
    """What a stage makes: settings, contents of its input files, code of its entry points."""
    return {
        "settings": settings,
        "inputs": [content_fingerprint(path) for path in inputs],
        "code": code_fingerprint(*entries),
    }


@contextmanager
def stage(
    output: str | Path, checkpoint: str | Path, identity: dict[str, Any], runtime: RuntimeSettings
) -> Iterator[Checkpoint | None]:
    """Hold the lease of a stage and yield its checkpoint.

    Yields None if another job made this very stage while this one waited. Raises LeaseError if the
    lease can't be had.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    with lease(
        f"{checkpoint}.lease", digest, stale=runtime.lease_seconds, wait=runtime.lease_wait_seconds
    ) as held:
        if held.waited and _made(output) == json.loads(json.dumps(identity)):
            print(f"{output}: made by the job that this one waited for", flush=True)
            yield None
            return
        remove_leftovers(output)
        remove_leftovers(Path(checkpoint) / "step-*")
        yield Checkpoint(checkpoint, identity, runtime.checkpoint_seconds, held.check)


def _made(output: str | Path) -> Any:
    """The identity that a finished stage was made with."""
    try:
        return json.loads((Path(output) / PROVENANCE).read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, KeyError):
        return None
