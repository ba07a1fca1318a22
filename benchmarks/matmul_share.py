"""Pretraining speed of our loop as a share of the machine's matrix-multiplication rate.

The rate is measured in the same run, in turn with the training steps: the multiplications of the
model's linear layers at the shapes, block by block, and in the dtype that training uses, forward (X
W) and backward (dY W^T, X^T dY), nothing between them. For M tokens: q, k, v, o (M, d) x (d, d);
gate, up (M, d) x (d, f); down (M, f) x (f, d) in each layer; lm_head (M, d) x (d, V) once.
Floating-point operations of a step, no part left out for the causal mask:

    6 N tokens + 12 layers d sum(T^2),  N = layers (4 d^2 + 3 d f) + V d, T tokens in a sequence

(2 a multiplication forward, 4 backward; attention: scores and weighted values, 2 T^2 d each). share
= operations a second of the step over those of the multiplications; the goal is 50 % at width 960
and 30 % at width 64. On CUDA mfu divides by the rate of a large square bfloat16 product instead.
Everything is a median; writes matmul_share_<width>.json beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from grpo_origin.config.load import read_settings
from grpo_origin.config.stages import ModelSettings
from grpo_origin.cost import matmul_parameters
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import Pool, write_pool
from grpo_origin.data.source import Source
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.training.loop import Block, Checkpoint, train
from grpo_origin.training.model import build_model
from grpo_origin.training.numerics import FiniteGuard, choose_device

CONFIG = Path(__file__).parents[1] / "config"
FILES = {64: ["config.yaml"], 960: ["config.yaml", "paper.yaml"]}
CPU_BATCH = 64  # at any width: the paper's batch of 4096 takes a CPU minutes a step
SKIPPED = 2  # first steps of a run, which allocate, and compile on CUDA
SQUARE = 8192


def layers(model: ModelSettings, vocabulary: int) -> list[tuple[int, int, int]]:
    """Linear layers as (inputs, outputs, how often)."""
    d, f, n = model.width, model.feed_forward, model.layers
    return [(d, d, 4 * n), (d, f, 2 * n), (f, d, n), (d, vocabulary, 1)]


def operations(model: ModelSettings, vocabulary: int, shapes: list[tuple[int, int]]) -> float:
    """Floating-point operations of a step on blocks of shapes (B, T)."""
    tokens, squares = sum(b * t for b, t in shapes), sum(b * t * t for b, t in shapes)
    return (
        6 * matmul_parameters(model, vocabulary) * tokens
        + 12 * model.layers * model.width * squares
    )


def now(device: torch.device) -> float:
    """The time when all work given to the device so far is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def multiplication_rate(
    model: ModelSettings,
    vocabulary: int,
    shapes: list[tuple[int, int]],
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
) -> float:
    """Operations a second of a step's multiplications, one after the other: median of `repeats`."""
    operands = []
    for b, t in shapes:
        for inputs, outputs, count in layers(model, vocabulary):
            x, w, dy = (
                torch.randn(*size, device=device, dtype=dtype)
                for size in ((b * t, inputs), (outputs, inputs), (b * t, outputs))
            )
            operands += [(x, w, dy)] * count
    work, seconds = 6 * matmul_parameters(model, vocabulary) * sum(b * t for b, t in shapes), []
    for _ in range(repeats + 1):
        started = now(device)
        for x, w, dy in operands:
            _ = x @ w.T
            _ = dy @ w
            _ = dy.T @ x
        seconds.append(now(device) - started)
    return work / statistics.median(seconds[1:])


def square_rate(
    device: torch.device, dtype: torch.dtype = torch.bfloat16, size: int = SQUARE, repeats: int = 30
) -> float:
    """Operations a second of a large square product: a median, the first five left out."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats):
        started = now(device)
        _ = a @ b
        seconds.append(now(device) - started)
    return 2 * size**3 / statistics.median(seconds[5:])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--width",
        type=int,
        choices=list(FILES),
        default=64,
        help="64: the laptop's model; 960: the paper's",
    )
    parser.add_argument(
        "--batch",
        type=int,
        help=f"samples a step (default: the configuration's; on a CPU {CPU_BATCH})",
    )
    parser.add_argument(
        "--steps", type=int, help="steps of a repeat (default 60; 6 on a CPU at width 960)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="times training and multiplications take turns (default 3)",
    )
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        help="default: the configuration's; on a CPU float32",
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out on CUDA")
    options = parser.parse_args()
    settings = read_settings(*(CONFIG / name for name in FILES[options.width]))
    device = choose_device(settings.numerics, threads=1)
    cpu = device.type == "cpu"
    precision = options.precision or ("float32" if cpu else settings.numerics.precision)
    batch = options.batch or (CPU_BATCH if cpu else settings.pretrain.batch_size)
    steps = max(options.steps or (6 if cpu and options.width == 960 else 60), SKIPPED + 1)
    passes = 3 if cpu and options.width == 960 else 10
    numerics = settings.numerics.model_copy(
        update={
            "precision": precision,
            "compile": settings.numerics.compile and not options.no_compile,
        }
    )
    pretrain = settings.pretrain.model_copy(update={"samples": steps * batch, "batch_size": batch})
    source, words = (
        Source(settings.world, settings.axes["depth"], 0),
        len(Vocabulary(settings.world.nodes)),
    )
    model, dtype = build_model(settings.model, source.domain.tokens, 0), getattr(torch, precision)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("id", "ood"):
            write_pool(source, split, pretrain.samples, folder / f"{split}.parquet")
        mixture = Mixture(
            Pool(folder / "id.parquet"), Pool(folder / "ood.parquet"), pretrain.samples, "0.1", 0
        )
        shapes: list[list[tuple[int, int]]] = []

        def blocks(step: int) -> list[Block]:
            found = mixture.blocks(step * batch, (step + 1) * batch)
            shapes.append([tokens.shape for tokens, _ in found])
            return [Block(tokens, 1) for tokens, _ in found]

        for repeat in range(options.repeats):
            shapes.clear()
            rate = 0.0
            if repeat % 2:
                rate = multiplication_rate(
                    settings.model,
                    words,
                    [block.tokens.shape for block in blocks(0)],
                    device,
                    dtype,
                    passes,
                )
                shapes.clear()
            with contextlib.redirect_stdout(io.StringIO()):  # progress
                log = train(
                    model,
                    blocks,
                    steps,
                    pretrain,
                    numerics,
                    device,
                    Checkpoint(folder / "none", {}, 1e9),
                    FiniteGuard("pretrain"),
                    compiled=numerics.compile,
                )
            rate = rate or multiplication_rate(
                settings.model, words, shapes[0], device, dtype, passes
            )
            kept = list(zip(log, shapes, strict=True))[SKIPPED:]
            done = statistics.median(
                operations(settings.model, words, step) / row["seconds"] for row, step in kept
            )
            seconds = statistics.median(row["seconds"] for row, _ in kept)
            tokens = statistics.median(
                sum(b * t for b, t in step) / row["seconds"] for row, step in kept
            )
            rows.append(
                {
                    "samples_per_s": batch / seconds,
                    "tokens_per_s": tokens,
                    "tflops": done / 1e12,
                    "matmul_tflops": rate / 1e12,
                }
            )
            rows[-1]["share"] = done / rate
            if not cpu:
                rows[-1]["square_bf16_tflops"] = square_rate(device) / 1e12
                rows[-1]["mfu"] = rows[-1]["tflops"] / rows[-1]["square_bf16_tflops"]
    result = {
        "width": options.width,
        "batch": batch,
        "precision": precision,
        "compiled": numerics.compile and not cpu,
        "device": "1 CPU thread" if cpu else torch.cuda.get_device_name(),
        **{key: statistics.median(row[key] for row in rows) for key in rows[0]},
    }
    for key, value in result.items():
        print(f"{key:20} {f'{value:.3g}' if isinstance(value, float) else value}")
    Path(__file__).with_name(f"matmul_share_{options.width}.json").write_text(
        json.dumps(result, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
