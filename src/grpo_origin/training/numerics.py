"""Arithmetic of a job: device, precision, TF32, determinism; what is not finite is refused.

Called by pretraining, SFT, RL and evaluation. What is set here while a stage trains is put back
when it ends, so evaluation in the same process sees plain float32.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from grpo_origin.config.stages import NumericsSettings
from grpo_origin.jobs.errors import DeviceError, NotFinite

GPU_VARIABLES = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")  # set by SLURM when it gave the job GPUs

Module = TypeVar("Module", bound=torch.nn.Module)


def choose_device(numerics: NumericsSettings, threads: int) -> torch.device:
    """The device of this job, threads set: CUDA when it was allocated (or asked for), else CPU.

    Of several visible GPUs the job uses the first and hides the others from every library; only
    where torch can't count them without opening CUDA (NVIDIA's management library is missing) they
    stay in sight, unused. Raises DeviceError if there is none although `numerics.device` is cuda,
    or SLURM gave the job a GPU and `numerics.device` is auto: at a scale that asks for GPUs, a CPU
    would be busy for weeks.
    """
    torch.set_num_threads(threads)
    if numerics.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.device_count() > 1:  # asks the driver's library, which leaves CUDA uninitialised
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
    if torch.cuda.is_available():
        return torch.device("cuda")
    if numerics.device == "cuda":
        raise DeviceError(
            "numerics.device is cuda, but this job sees no GPU: allocate one, or set "
            "numerics.device to auto"
        )
    if allocated := next((name for name in GPU_VARIABLES if os.environ.get(name)), None):
        raise DeviceError(
            f"SLURM gave this job a GPU ({allocated}={os.environ[allocated]}), but torch "
            f"{torch.__version__} can't use it: install a CUDA build of torch, check the node's "
            "driver, or set numerics.device to cpu"
        )
    return torch.device("cpu")


def resolved(numerics: NumericsSettings, device: torch.device) -> dict[str, Any]:
    """The section with the device class really used: what identity and provenance hold."""
    return numerics.model_dump() | {"device": device.type}


@contextmanager
def training_arithmetic(numerics: NumericsSettings, device: torch.device) -> Iterator[None]:
    """TF32 and determinism as the settings have them, for the block."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    if numerics.deterministic:
        # cuBLAS reads it when it is first used; other sizes of its workspace are not deterministic.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        tf32 = numerics.tf32 and device.type == "cuda"
        with _matmul_precision("high" if tf32 else "highest"):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)


def training_passes(numerics: NumericsSettings, device: torch.device) -> torch.autocast:
    """Context of a forward pass in training: autocast to bfloat16, or nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=numerics.precision == "bfloat16")


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Float32 without TF32 and autocast for the block, whatever training around it uses."""
    with _matmul_precision("highest"), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    """How float32 matrices are multiplied: `high` lets TF32 do it, `highest` is float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def float32_view(model: Module) -> Module:
    """The same model, sharing its weights, with the forward pass of its class.

    In a bfloat16 run accelerate gives the model a forward pass of its own, under autocast, which
    `exact_arithmetic` around it can't turn off.
    """
    view = copy.copy(model)
    view.__dict__.pop("forward", None)
    return view


@dataclass(frozen=True)
class FiniteGuard:
    """Refuses the numbers of a training stage that are not finite."""

    stage: str

    def number(self, quantity: str, value: float, step: int) -> None:
        """Raise NotFinite unless a value (loss, gradient norm) of a step (from 1) is finite."""
        if not math.isfinite(value):
            raise NotFinite(self.stage, step, quantity)

    def weights(self, model: torch.nn.Module, step: int) -> None:
        """Raise NotFinite unless all weights after a step (from 1) are finite."""
        for name, tensor in model.named_parameters():
            if not torch.isfinite(tensor).all():
                raise NotFinite(self.stage, step, f"weights {name}")
