"""The frame of a training stage: lease, arithmetic, checkpoint, and the finished model in place.

Pretraining, SFT and RL train inside `training_stage`. Knows nothing of how they train.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from grpo_origin.config.paths import PROVENANCE, TRAINING_LOG
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import NumericsSettings
from grpo_origin.jobs.checkpoint import Checkpoint, stage, stage_identity, stop_signals
from grpo_origin.jobs.files import atomic, write_table
from grpo_origin.jobs.provenance import Provenance
from grpo_origin.tasks.domain import Domain
from grpo_origin.training.model import save_model
from grpo_origin.training.numerics import (
    FiniteGuard,
    choose_device,
    resolved,
    training_arithmetic,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from grpo_origin.training.model import Decoder


@dataclass(frozen=True)
class TrainingStage:
    """A stage whose lease this job holds: where it computes, saves its state and ends."""

    domain: Domain
    output: str | Path
    device: torch.device
    checkpoint: Checkpoint
    guard: FiniteGuard
    provenance: Provenance

    def finish(
        self,
        model: Decoder,
        log: list[dict[str, float]],
        tables: Mapping[str, pa.Table] | None = None,
    ) -> None:
        """Put the finished stage in place, whole: model, tokenizer, log, provenance, `tables`.

        Raises NotFinite if a weight is no number, LeaseError if the stage became another job's,
        OSError if the disk is full.
        """
        import pyarrow as pa

        self.guard.weights(model, len(log))
        # A stop would lose the finished stage: it waits until that is in place.
        with stop_signals(), atomic(self.output) as temporary:
            save_model(model, self.domain, temporary)
            for name, table in {TRAINING_LOG: pa.Table.from_pylist(log), **(tables or {})}.items():
                write_table(temporary / name, table)
            identity = self.checkpoint.identity
            self.provenance.write(temporary / PROVENANCE, steps=len(log), identity=identity)
            self.checkpoint.check()
        self.checkpoint.clear()


@contextmanager
def training_stage(
    name: str,
    output: str | Path,
    checkpoint: str | Path,
    *,
    domain: Domain,
    settings: Mapping[str, Any],
    inputs: Sequence[str | Path],
    code: Sequence[str | Path],
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> Iterator[TrainingStage | None]:
    """Hold the lease of a stage, its arithmetic set, for the block that trains it.

    Settings (beside seed and numerics), input files and entry points of the code make its identity.
    Yields None if another job made this very stage while this one waited. Raises LeaseError if the
    lease can't be had, DeviceError if the device can't.
    """
    device = choose_device(numerics, runtime.threads)
    counted = {"seed": domain.seed, **settings, "numerics": resolved(numerics, device)}
    identity = stage_identity(counted, list(inputs), *code, inspect.getfile(type(domain)))
    with (
        stage(output, checkpoint, identity, runtime) as state,
        training_arithmetic(numerics, device),
    ):
        if state is None:
            yield None
            return
        provenance = Provenance(counted, str(device), numerics.model_dump())
        yield TrainingStage(domain, output, device, state, FiniteGuard(name), provenance)
