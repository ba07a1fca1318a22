"""A cell as one would write it with stock tools, to be timed by cell.py: text in, text out.

Pretraining with transformers' Trainer, SFT with TRL's SFTTrainer, GRPO on ID and on OOD prompts
with TRL's GRPOTrainer, then every stage evaluated by sampling: temperature 1, 8 completions a
prompt. Data, model, step counts, batch sizes and learning rates are those of the configuration;
everything else (collators, loss variant, schedules, logging, threads) is the tools' default, but
for saves of optimiser states, which are off. The data come from this package, so that both sides
train on the same strings; their cost is in both. Uses no training or evaluation code of the
package.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error"
)

import pyarrow as pa
import torch
from datasets import Dataset, concatenate_datasets, disable_progress_bars
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from grpo_origin.config.load import read_settings
from grpo_origin.config.notation import ood_count
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import SFTSettings
from grpo_origin.data.pools import ROW_GROUP, training_chunk
from grpo_origin.data.prompt_sets import read_prompts, write_grpo, write_sft, write_test
from grpo_origin.data.source import Source
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.training.model import build_model

SAMPLES, PROMPTS_A_BATCH = 8, 64
CPU = not torch.cuda.is_available()
# What a CPU needs, and what would only slow the stock side down.
COMMON: dict[str, Any] = {
    "use_cpu": CPU,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}
TRL: dict[str, Any] = COMMON | {"bf16": not CPU, "gradient_checkpointing": False}


def texts(table: pa.Table, vocabulary: Vocabulary) -> Dataset:
    """Rows as text: columns `prompt` and `completion`."""
    words = vocabulary.tokens
    rows = {
        name: [" ".join(words[i] for i in ids) for ids in table[f"{name}_ids"].to_pylist()]
        for name in ("prompt", "completion")
    }
    return Dataset.from_dict(rows)


def pretraining_text(
    source: Source, settings: Settings, ratio: str, vocabulary: Vocabulary
) -> Dataset:
    """The samples that our pretraining sees at this ratio, as text."""
    samples = settings.pretrain.samples
    counts = {"id": samples - ood_count(ratio, samples), "ood": ood_count(ratio, samples)}
    parts = []
    for split, count in counts.items():
        rng = source.generator("pretrain", split)
        chunks = [
            training_chunk(source, split, rng, min(ROW_GROUP, samples - start))
            for start in range(0, samples, ROW_GROUP)
        ]
        parts.append(texts(pa.concat_tables(chunks).slice(0, count), vocabulary))
    return concatenate_datasets(parts)


def pretrain(
    model: PreTrainedModel,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    folder: Path,
) -> None:
    """Next-token training on prompt and completion."""
    tokens = dataset.map(
        lambda rows: tokenizer(
            [f"{p} {c}" for p, c in zip(rows["prompt"], rows["completion"], strict=True)]
        ),
        batched=True,
        remove_columns=dataset.column_names,
    )
    section = settings.pretrain
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=section.batch_size,
        num_train_epochs=1,
        learning_rate=section.learning_rate,
        warmup_steps=round(section.warmup * section.steps),
        weight_decay=section.weight_decay,
        bf16=not CPU,
        **COMMON,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=tokens,
        data_collator=collator,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(folder))


def sft(start: Path, dataset: Dataset, settings: Settings, folder: Path) -> None:
    """Fine-tuning on completions."""
    spaced = dataset.map(
        lambda row: {"completion": " " + row["completion"]}
    )  # prompt and completion are joined as text
    section = settings.sft or SFTSettings()
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=section.batch_size,
        num_train_epochs=section.epochs,
        learning_rate=section.learning_rate,
        **TRL,
    )
    trainer = SFTTrainer(model=str(start), args=arguments, train_dataset=spaced)
    trainer.train()
    trainer.save_model(str(folder))


def exact_match(completions: list[str], gold: list[str], **_: object) -> list[float | None]:
    """Reward 1 for the right text; `<eos>` is not part of decoded text."""
    return [
        float(given.split() == right.split()[:-1])
        for given, right in zip(completions, gold, strict=True)
    ]


def grpo(start: Path, dataset: Dataset, settings: Settings, folder: Path) -> None:
    """GRPO with a reward function on text."""
    section = settings.rl
    arguments = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=section.prompts_per_step * section.group_size,
        num_generations=section.group_size,
        max_steps=section.steps,
        max_completion_length=max(len(text.split()) for text in dataset["completion"]),
        learning_rate=section.learning_rate,
        beta=section.beta,
        temperature=section.temperature,
        **TRL,
    )
    trainer = GRPOTrainer(
        model=str(start),
        reward_funcs=exact_match,
        args=arguments,
        train_dataset=dataset.rename_column("completion", "gold"),
    )
    trainer.train()
    trainer.save_model(str(folder))


@torch.no_grad()
def evaluate(folder: Path, dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of right completions among those sampled."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.to("cpu" if CPU else "cuda").eval()
    right = 0.0
    for start in range(0, len(dataset), PROMPTS_A_BATCH):
        rows = dataset[start : start + PROMPTS_A_BATCH]
        inputs = tokenizer(rows["prompt"], return_tensors="pt", padding=True).to(model.device)
        longest = max(len(text.split()) for text in rows["completion"])
        drawn = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=SAMPLES,
            max_new_tokens=longest,
        )
        found = tokenizer.batch_decode(
            drawn[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        right += sum(
            filter(
                None,
                exact_match(found, [gold for gold in rows["completion"] for _ in range(SAMPLES)]),
            )
        )
    return right / (len(dataset) * SAMPLES)


def main() -> None:
    """Run the cell in a temporary folder; print seconds and accuracies as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", nargs="+", required=True)
    parser.add_argument("--axis", default="depth")
    parser.add_argument("--ratio", required=True)
    options = parser.parse_args()
    disable_progress_bars()
    settings = read_settings(*options.configfile)
    source = Source(settings.world, settings.axes[options.axis], 0)
    vocabulary, tokenizer = Vocabulary(settings.world.nodes), source.domain.build_tokenizer()
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = time.perf_counter() - clock, time.perf_counter()

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        counts = (settings.sft or SFTSettings()).counts
        write_sft(source, counts, root / "sft.parquet")
        write_grpo(source, settings.rl.prompts, counts, root / "grpo.parquet")
        write_test(source, settings.evaluation.prompts, root / "test.parquet")
        samples = pretraining_text(source, settings, options.ratio, vocabulary)
        lap("data")
        pretrain(
            build_model(settings.model, source.domain.tokens, 0),
            samples,
            tokenizer,
            settings,
            root / "pretrain",
        )
        lap("pretrain")
        sft(
            root / "pretrain",
            texts(read_prompts(root / "sft.parquet"), vocabulary),
            settings,
            root / "sft",
        )
        lap("sft")
        for split in ("id", "ood"):
            prompts = texts(read_prompts(root / "grpo.parquet", split), vocabulary)
            grpo(root / "sft", prompts, settings, root / f"grpo~{split}")
            lap(f"grpo~{split}")
        accuracy = {
            f"{stage} {split}": evaluate(
                root / stage,
                texts(read_prompts(root / "test.parquet", split), vocabulary),
                tokenizer,
            )
            for stage in ("pretrain", "sft", "grpo~id", "grpo~ood")
            for split in ("id", "ood")
        }
        lap("evaluate")
    print(json.dumps({"seconds": seconds, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
