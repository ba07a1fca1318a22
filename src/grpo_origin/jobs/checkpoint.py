"""The state of an unfinished training stage: saved by time and on a signal, resumed by the same job, discarded by another.

A save is put in place in one step, so a job killed at any moment leaves the last whole one. Knows nothing of what is
trained.
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

from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.jobs.files import atomic, remove_leftovers
from grpo_origin.jobs.fingerprint import code_fingerprint
from grpo_origin.jobs.lease import lease
from grpo_origin.jobs.provenance import content_fingerprint


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM or SIGUSR1 (a cluster's warning before a limit) has arrived."""
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: arrived.append(n))
        for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    try:
        yield lambda: bool(arrived)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Checkpoint:
    """The state of an unfinished stage, in a folder of its own that vanishes when the stage is done.

    `identity` describes the job (settings, code, inputs): the state of a different job is discarded, not resumed.
    `check` raises if this job may no longer write; it is called before anything is put in place.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: dict[str, Any],
        every: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.identity, self.every, self.check = (
            Path(folder),
            json.loads(json.dumps(identity)),
            every,
            check,
        )
        self.saved = time.monotonic()

    @property
    def file(self) -> Path:
        """Where `save` puts the state."""
        return self.folder / "state.safetensors"

    def due(self) -> bool:
        """Whether the interval has passed."""
        return time.monotonic() - self.saved >= self.every

    def load(self) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]] | None:
        """Tensors and log rows of the last save, or None; a damaged or foreign save counts as none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.file, framework="pt") as opened:
                about = opened.metadata()
                if json.loads(about["identity"]) == self.identity:
                    return {name: opened.get_tensor(name) for name in opened.keys()}, json.loads(
                        about["log"]
                    )  # noqa: SIM118
            print(f"{self.file}: of other settings, inputs or code; starting afresh", flush=True)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            print(f"{self.file}: unreadable ({error}); starting afresh", flush=True)
        return None

    def save(self, tensors: dict[str, torch.Tensor], log: list[dict[str, float]]) -> None:
        """Replace the last save. Raises OSError if the disk is full."""
        from safetensors.torch import save_file

        about = {"identity": json.dumps(self.identity), "log": json.dumps(log)}
        with atomic(self.file) as temporary:
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()},
                temporary,
                metadata=about,
            )
            _to_disk(temporary)
            self.check()
        self.saved = time.monotonic()

    def load_folder(self) -> Path | None:
        """The last folder put in place by `save_folder`, or None; damaged and foreign ones count as none."""
        for folder in sorted(self.folder.glob("step-*"), key=_step, reverse=True):
            try:
                about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
                if about == {"identity": self.identity, "files": _sizes(folder)}:
                    return folder
                print(
                    f"{folder}: damaged, or of other settings, inputs or code; left out", flush=True
                )
            except (OSError, ValueError) as error:
                print(f"{folder}: unreadable ({error}); left out", flush=True)
        return None

    def save_folder(self, source: str | Path, step: int) -> None:
        """Replace the last save by a folder that a trainer wrote, which is removed. Raises OSError if the disk is full."""
        target = self.folder / f"step-{step}"
        with atomic(target) as temporary:
            shutil.copytree(source, temporary)
            (temporary / "about.json").write_text(
                json.dumps({"identity": self.identity, "files": _sizes(temporary)}),
                encoding="utf-8",
            )
            for path in temporary.iterdir():
                _to_disk(path)
            self.check()
        for other in self.folder.glob("step-*"):
            if other != target:
                shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(source, ignore_errors=True)
        self.saved = time.monotonic()

    def clear(self) -> None:
        """Forget the state: the stage is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _step(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.name: path.stat().st_size
        for path in sorted(folder.iterdir())
        if path.name != "about.json"
    }


def _to_disk(path: Path) -> None:
    """Flush a file, so that a node that loses power after the rename doesn't leave an empty one under the final name."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def stage_identity(
    settings: dict[str, Any], inputs: list[str | Path], *entries: str | Path
) -> dict[str, Any]:
    """What a stage makes: its settings, the contents of its input files and the code of its entry points."""
    return {
        "settings": settings,
        "inputs": [content_fingerprint(path) for path in inputs],
        "code": code_fingerprint(*entries),
    }


@contextmanager
def stage(
    output: str | Path, checkpoint: str | Path, identity: dict[str, Any], runtime: RuntimeSettings
) -> Iterator[Checkpoint | None]:
    """Hold the lease of a stage and yield its checkpoint; None if another job made this very stage while this one waited.

    Raises LeaseError if the lease can't be had.
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
        for name in ("state.safetensors", "step-*"):
            remove_leftovers(Path(checkpoint) / name)
        yield Checkpoint(checkpoint, identity, runtime.checkpoint_seconds, held.check)


def _made(output: str | Path) -> Any:
    """The identity that a finished stage was made with."""
    try:
        return json.loads((Path(output) / "provenance.json").read_text(encoding="utf-8"))[
            "identity"
        ]
    except (OSError, ValueError, KeyError):
        return None
