"""Errors that a user can act on: one line each, which `jobs.job` shows without a traceback."""

from __future__ import annotations

from pathlib import Path


class ArtefactError(RuntimeError):
    """A file or folder of a run that is missing or can't be used: `path: problem; what to do`.

    `advice` is for what no run made: that is someone's own and never offered for deletion.
    """

    def __init__(self, path: str | Path, problem: str, advice: str | None = None) -> None:
        self.problem = problem
        there = Path(path).exists()
        anew = "delete it and run again to make it anew" if there else "run what makes it first"
        super().__init__(f"{path}: {problem}; {advice or anew}")


class Interrupted(RuntimeError):
    """A training job was asked to stop and has saved its state; the same command resumes it."""


class NotFinite(RuntimeError):
    """Training ran into a NaN or an infinity: nothing of it may become a checkpoint or a model."""

    def __init__(self, stage: str, step: int, quantity: str) -> None:
        super().__init__(
            f"{stage}: {quantity} not finite at step {step}; "
            "lower its learning_rate or max_grad_norm"
        )


class DeviceError(RuntimeError):
    """The device asked for is not there."""
