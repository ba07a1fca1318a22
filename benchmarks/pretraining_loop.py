"""Pretraining: our loop over blocks of one shape against transformers' Trainer on padded batches.

Prints seconds a step and their ratio (median over alternating repetitions) and writes
pretraining_loop.json beside this file.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from grpo_origin.config.stages import (
    AxisSettings,
    ModelSettings,
    NumericsSettings,
    PretrainSettings,
    WorldSettings,
)
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import Pool, write_pool
from grpo_origin.data.rows import COLUMNS
from grpo_origin.data.source import Source
from grpo_origin.jobs.files import read_table
from grpo_origin.training.loop import Block, Checkpoint, train
from grpo_origin.training.model import build_model
from grpo_origin.training.numerics import FiniteGuard

STEPS, REPEATS = 60, 5
PRETRAIN = PretrainSettings(samples=STEPS * 64)
SOURCE = Source(
    WorldSettings(), AxisSettings(id=["trav;4;A", "trav trav;4;A"], ood=["trav trav trav;4;A"]), 0
)


def ours(folder: Path) -> float:
    """Seconds of our loop."""
    mixture = Mixture(
        Pool(folder / "id.parquet"), Pool(folder / "ood.parquet"), PRETRAIN.samples, "0.1", 0
    )
    model = build_model(ModelSettings(), SOURCE.domain.tokens, 0)

    def batch(step: int) -> list:
        return [Block(tokens, 1) for tokens, _ in mixture.blocks(step * 64, (step + 1) * 64)]

    started = time.perf_counter()
    train(
        model,
        batch,
        STEPS,
        PRETRAIN,
        NumericsSettings(),
        torch.device("cpu"),
        Checkpoint(folder / "none", {}, 1e9),
        FiniteGuard("pretrain"),
    )
    return time.perf_counter() - started


def trainer(folder: Path) -> float:
    """Seconds of transformers' Trainer at its natural settings."""
    table = read_table(folder / "id.parquet", COLUMNS)
    rows = [
        p + c
        for p, c in zip(
            table["prompt_ids"].to_pylist(), table["completion_ids"].to_pylist(), strict=True
        )
    ]
    dataset = [{"input_ids": row, "labels": row} for row in rows]
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=64,
        max_steps=STEPS,
        learning_rate=3e-3,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1000,
    )
    model = build_model(ModelSettings(), SOURCE.domain.tokens, 0)
    run = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=DataCollatorForSeq2Seq(SOURCE.domain.build_tokenizer()),
    )
    started = time.perf_counter()
    run.train()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("id", "ood"):
            write_pool(SOURCE, split, PRETRAIN.samples, folder / f"{split}.parquet")
        pairs = [(ours(folder), trainer(folder)) for _ in range(REPEATS)]
    result = {
        "steps": STEPS,
        "ours_ms_a_step": statistics.median(a for a, _ in pairs) / STEPS * 1e3,
        "trainer_ms_a_step": statistics.median(b for _, b in pairs) / STEPS * 1e3,
        "trainer_over_ours": statistics.median(b / a for a, b in pairs),
    }
    for key, value in result.items():
        print(f"{key:20} {value:.3g}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
