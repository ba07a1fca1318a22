"""Speed at the paper's model: a part of gpu.py.

Operations of a training step are 6 N tokens + 12 layers d sum(T^2), N the parameters that multiply
(`matmul_share.operations`); MFU is their rate over that of a large square product of the same
arithmetic (bfloat16, TF32 or float32), measured on the spot: no vendor's figure enters. A pass of
evaluation counts a third of that. What `grpo-origin cost` needs comes first, the rest as time
allows.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from gpu_part import CONFIG, Part
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import NumericsSettings, PretrainSettings
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import Pool, write_pool
from grpo_origin.data.prompt_sets import read_prompts, write_test
from grpo_origin.data.rows import Sequences
from grpo_origin.data.source import Source
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.jobs.checkpoint import Checkpoint
from grpo_origin.tasks.tokenizer import BOS, EOS, PAD, Vocabulary
from grpo_origin.training.loop import Block, train
from grpo_origin.training.model import build_model
from grpo_origin.training.numerics import FiniteGuard, training_arithmetic, training_passes
from matmul_share import operations, square_rate

RATIO = "0.1"
POOL = 2**18  # samples of the pretraining pools, read again and again
SKIPPED = 4  # first steps, which allocate, and compile for other shapes
BATCHES = (1024, 2048, 4096, 8192, 16384)
# Arithmetic of the training passes: precision, TF32, and the peak that MFU divides by.
ARITHMETIC = {
    "bf16": ("bfloat16", True, "bf16"),
    "tf32": ("float32", True, "tf32"),
    "float32": ("float32", False, "float32"),
}
# Ways to sample. The first is TRL's; a static cache has the dtype of the weights and refuses what
# autocast makes, so the others have a copy of the weights in the dtype of the passes.
GENERATION: dict[str, dict[str, Any]] = {
    "dynamic, autocast": {"disable_compile": True},
    "dynamic": {"disable_compile": True},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "continuous batching": {},
    "static compiled": {"cache_implementation": "static"},
}


class Enough(Exception):
    """Raised by a batch function to end the training loop."""


def speed(part: Part) -> None:
    """All measurements, those that rates are made of first."""
    settings = part.study().settings
    usual = settings.pretrain.batch_size

    def pretrain(kind: str, batch: int, compiled: bool, cudnn: bool, least: float) -> float:
        name = f"pretraining {kind} {'compiled' if compiled else 'eager'} {batch}"
        found = part.attempt(
            name + ("" if cudnn else ", cuDNN off"),
            lambda: pretraining(part, settings, kind, batch, compiled, cudnn),
            least,
        )
        return found["samples_per_s"] if found else 0.0

    part.attempt("peaks", lambda: peaks(part))
    # cuDNN's attention makes a plan for every new shape, and each batch brings new ones.
    plain = pretrain("bf16", usual, False, True, 5)
    cudnn = not part.cuda or plain > pretrain("bf16", usual, False, False, 5)
    pretrain("bf16", usual, True, cudnn, 20)
    part.attempt("rates", lambda: rates(part, settings), 20)
    if part.rl:
        few = settings.rl.prompts_per_step
        part.attempt(f"GRPO step {few} x {settings.rl.group_size}", lambda: grpo(part, few), 20)
        many = 4 * few
        part.attempt(f"GRPO step {many} x {settings.rl.group_size}", lambda: grpo(part, many), 25)
    for batch in (512, 4096, 16384)[: 1 if part.tiny else 3]:
        part.attempt(f"evaluation {batch}", partial(evaluation, part, settings, batch), 4)
    others = [batch for batch in BATCHES if batch != usual and not part.tiny]
    for batch in others:
        pretrain("bf16", batch, False, cudnn, 6)
    for kind in ("tf32", "float32"):
        pretrain(kind, usual, False, True, 6)  # cuDNN has no attention for these
    for kind in GENERATION if part.rl else ():
        if kind == "continuous batching" and not part.cuda:
            continue  # on a CPU it takes minutes
        least = 30 if "compiled" in kind else 8
        part.attempt(f"generation {kind}", partial(generation, part, settings, kind), least)
    for batch in others:
        pretrain("bf16", batch, True, cudnn, 15)


def peaks(part: Part) -> dict[str, float]:
    """TFLOP/s of large square products, and GB/s of a copy, read and written bytes counted."""
    size, repeats = int(part.scale(8192, 256)), int(part.scale(30, 8))
    found = {}
    for name, (precision, tf32, _) in ARITHMETIC.items():
        with training_arithmetic(NumericsSettings(tf32=tf32), part.device):
            rate = square_rate(part.device, getattr(torch, precision), size, repeats)
        found[f"{name}_tflops"] = rate / 1e12
    source = torch.empty(int(part.scale(2**31, 2**22)), dtype=torch.uint8, device=part.device)
    target, seconds = torch.empty_like(source), []
    for _ in range(8):
        began = part.now()
        target.copy_(source)
        seconds.append(part.now() - began)
    return found | {"copy_gb_per_s": 2 * source.numel() / statistics.median(seconds[2:]) / 1e9}


@cache
def pools(part: Part) -> Mixture:
    """Pretraining samples, written once."""
    settings, samples = part.study().settings, int(part.scale(POOL, 1024))
    files = {split: part.folder / f"speed-{split}.parquet" for split in ("id", "ood")}
    source = Source(settings.world, settings.axes["depth"], 0)
    for split, file in files.items():
        write_pool(source, split, samples, file)
    return Mixture(Pool(files["id"]), Pool(files["ood"]), samples, RATIO, 0)


def steps_for(
    part: Part, seconds: float, make: Callable[[int], list[Block]]
) -> tuple[Callable[[int], list[Block]], list[float], list[float]]:
    """A batch function that ends the loop after some seconds of steps that count.

    With the times at which steps began and the seconds that making each batch took; these lists
    fill as it is called. A step ends with its loss on the CPU, so no other waiting is needed.
    """
    began: list[float] = []
    making: list[float] = []

    def batch(step: int) -> list[Block]:
        began.append(time.perf_counter())
        spent = began[-1] - began[min(SKIPPED, step)]
        if step >= SKIPPED + 3 and (spent >= seconds or part.left < 0):
            raise Enough
        found = make(step)
        making.append(time.perf_counter() - began[-1])
        return found

    return batch, began, making


def training_loop(
    part: Part,
    settings: Settings,
    numerics: NumericsSettings,
    section: PretrainSettings,
    batch: Callable[[int], list[Block]],
) -> None:
    """Run the loop of pretraining on a new model until `batch` says that it is enough."""
    source = Source(settings.world, settings.axes["depth"], 0)
    model = build_model(settings.model, source.domain.tokens, 0)
    none, guard = Checkpoint(part.folder / "none", {}, 1e9), FiniteGuard("speed")
    with training_arithmetic(numerics, part.device), contextlib.suppress(Enough):
        train(
            model,
            batch,
            10**6,
            section,
            numerics,
            part.device,
            none,
            guard,
            compiled=numerics.compile,
        )


def pretraining(
    part: Part, settings: Settings, kind: str, size: int, compiled: bool, cudnn: bool
) -> dict[str, Any]:
    """The loop at a batch size: medians over some seconds of steps."""
    precision, tf32, peak = ARITHMETIC[kind]
    numerics = NumericsSettings(precision=precision, tf32=tf32, compile=compiled)
    mixture, shapes = pools(part), []
    places = max(int(part.scale(POOL, 1024)) // size, 1)

    def make(step: int) -> list[Block]:
        start = step % places * size
        found = mixture.blocks(start, start + size)
        shapes.append([tokens.shape for tokens, _ in found])
        return [Block(tokens, 1) for tokens, _ in found]

    batch, began, making = steps_for(part, part.scale(2.5, 0.1), make)
    torch.compiler.reset()
    if part.cuda:
        torch.cuda.reset_peak_memory_stats()
    with cudnn_attention(cudnn):
        training_loop(part, settings, numerics, settings.pretrain, batch)
    whole = slice(SKIPPED, len(began) - 1)
    seconds = [b - a for a, b in pairwise(began)][SKIPPED:]
    counted = shapes[whole]
    vocabulary = len(Vocabulary(settings.world.nodes))
    tflops = statistics.median(
        operations(settings.model, vocabulary, step) / second / 1e12
        for step, second in zip(counted, seconds, strict=True)
    )
    tokens = sum(b * t for step in counted for b, t in step)
    return {
        "batch_size": size,
        "cudnn": cudnn,
        "samples_per_s": size / statistics.median(seconds),
        "tokens_per_s": tokens / len(counted) / statistics.median(seconds),
        "step_ms": statistics.median(seconds) * 1e3,
        "tflops": tflops,
        "mfu": share_of_peak(part, tflops, peak),
        "data_share": sum(making[whole]) / sum(seconds),
        "first_steps_s": began[SKIPPED] - began[0],
        "steps": len(seconds),
        "peak_memory_gib": peak_memory(part),
    }


@contextlib.contextmanager
def cudnn_attention(allowed: bool) -> Iterator[None]:
    """Whether attention may be cuDNN's, which torch prefers for bfloat16 on Hopper GPUs."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(before and allowed)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def peak_memory(part: Part) -> float | None:
    """GiB that tensors took at most; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if part.cuda else None


def share_of_peak(part: Part, tflops: float, peak: str) -> float | None:
    """A rate over the measured peak of an arithmetic; None if there is none."""
    best = part.known()[part.name].get("peaks", {}).get(f"{peak}_tflops")
    return tflops / best if best else None


def rates(part: Part, settings: Settings) -> dict[str, float]:
    """SFT, evaluation, data, start-up, as `rates.py` measures them for a configuration."""
    from rates import Measure

    with tempfile.TemporaryDirectory(dir=part.folder) as name:
        measure = Measure(settings, int(part.scale(20, 4)), Path(name))
        found: dict[str, float] = {}
        with training_arithmetic(settings.numerics, part.device):
            found |= measure.sft()
        found |= measure.evaluate()
        if not part.tiny:
            found |= measure.data()
    began = time.perf_counter()
    stage = "rl.trainer" if part.rl else "training.loop"
    code = f"import torch, grpo_origin.{stage}; torch.zeros(1, device={part.device.type!r})"
    command = [sys.executable, "-c", "import grpo_origin.cost" if part.tiny else code]
    path = os.pathsep.join([str(CONFIG.parent / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path})
    return found | {"startup_s": time.perf_counter() - began}


def grpo(part: Part, prompts: int) -> dict[str, Any]:
    """A GRPO step as it is, then split up, with the device waited for at every border."""
    from grpo_step import Setting, ours, parts

    settings = part.study({"rl": {"prompts_per_step": prompts}}).settings
    if part.cuda:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory(dir=part.folder) as name:
        at = Setting(settings, int(part.scale(10, 4)), Path(name), part.device)
        with training_arithmetic(settings.numerics, part.device):
            found = {"step_s": ours(at)}
            split = {f"{name}_s": seconds for name, seconds in parts(at).items()}
    return found | split | {"peak_memory_gib": peak_memory(part)}


def generation(part: Part, settings: Settings, kind: str) -> dict[str, float]:
    """Completions of a GRPO step's prompts by `generate`, or by continuous batching."""
    from transformers import GenerationConfig

    from grpo_step import Setting

    rl, numerics = settings.rl, settings.numerics
    with tempfile.TemporaryDirectory(dir=part.folder) as name:
        at = Setting(settings, 1, Path(name), part.device)
        asked = [row for row in at.dataset["prompt"][: rl.prompts_per_step]]
    prompts = [ids for ids in asked for _ in range(rl.group_size)]
    wide = max(map(len, prompts))
    padded = [[PAD] * (wide - len(ids)) + list(ids) for ids in prompts]
    tokens = torch.tensor(padded, device=part.device)
    how = {"max_new_tokens": at.longest, "do_sample": True, "top_k": 0, "top_p": 1.0}
    ids = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    config = GenerationConfig(**how, **ids, **GENERATION[kind])
    model: Any = build_model(settings.model, at.domain.tokens, 0)
    model.to(part.device).eval()
    passes: Any = training_passes(numerics, part.device)
    if "autocast" not in kind:
        model.to(getattr(torch, numerics.precision))
        passes = contextlib.nullcontext()

    def once() -> float:
        began = part.now()
        with torch.no_grad(), passes:
            if kind == "continuous batching":
                model.generate_batch(prompts, generation_config=config, progress_bar=False)
            else:
                seen = (tokens != PAD).long()
                model.generate(tokens, attention_mask=seen, generation_config=config)
        return part.now() - began

    first, seconds = once(), [once() for _ in range(int(part.scale(3, 1)))]
    middle = statistics.median(seconds)
    drawn = len(prompts) * at.longest
    return {"batch_s": middle, "tokens_per_s": drawn / middle, "first_s": first}


def evaluation(part: Part, settings: Settings, batch: int) -> dict[str, Any]:
    """Exact masses of new test prompts in float32."""
    source = Source(settings.world, settings.axes["depth"], 0)
    file = part.folder / "speed-test.parquet"
    if not file.exists():
        write_test(source, int(part.scale(16384, 32)), file)
    rows = Sequences(read_prompts(file))
    shapes = [tokens.shape for _, tokens, _ in rows.blocks(torch.arange(rows.size).numpy())]
    model, seconds = build_model(settings.model, source.domain.tokens, 0), []
    for _ in range(int(part.scale(3, 2))):
        began = time.perf_counter()
        exact_mass(model, rows, batch, part.device)  # its results are on the CPU
        seconds.append(time.perf_counter() - began)
    done = operations(settings.model, len(Vocabulary(settings.world.nodes)), shapes) / 3
    least = min(seconds[1:])
    tflops = done / least / 1e12
    share = share_of_peak(part, tflops, "float32")
    return {"prompts_per_s": rows.size / least, "tflops": tflops, "share_of_peak": share}
