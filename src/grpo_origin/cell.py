"""One cell of the study in plain Python, without Snakemake: data, pretraining, SFT, RL, evaluation.

`run_cell` is the whole experiment from top to bottom. The workflow's jobs call the same functions
of the rooms with the same settings, so both give the same numbers, bit for bit. The command line
(`grpo-origin cell`, `grpo-origin stage`) and the tests call what is here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grpo_origin.config.grid import DATA_FILES
from grpo_origin.config.notation import SPLITS, ood_count
from grpo_origin.config.paths import Paths, stage_of
from grpo_origin.data.pools import write_pool
from grpo_origin.data.prompt_sets import write_grpo, write_sft, write_test
from grpo_origin.data.source import write_tokenizer
from grpo_origin.data.summary import write_summary
from grpo_origin.kept import data_is_kept, record_data, stage_inputs, stage_is_kept
from grpo_origin.study import Study


def run_cell(study: Study, paths: Paths, axis: str, seed: int, ratio: str) -> Path:
    """Run a cell from nothing to its evaluation, whose path is returned.

    Data and models that were made with these very settings and code, from these inputs, are kept.
    """
    if not data_is_kept(study, paths, axis, seed):
        make_data(study, paths, axis, seed)
    for stage in study.grid.stages:
        if not stage_is_kept(study, paths, axis, seed, ratio, stage.name):
            train_stage(study, paths, axis, seed, ratio, stage.name)
    evaluate_cell(study, paths, axis, seed, ratio)
    return Path(paths.evaluation(axis, seed, ratio))


def run_stage(study: Study, paths: Paths, axis: str, seed: int, ratio: str, name: str) -> None:
    """Run one step of a cell again, whatever is there: `data`, a trained stage, or `evaluate`."""
    if name == "data":
        make_data(study, paths, axis, seed)
    elif name == "evaluate":
        evaluate_cell(study, paths, axis, seed, ratio)
    else:
        train_stage(study, paths, axis, seed, ratio, name)


def make_data(study: Study, paths: Paths, axis: str, seed: int) -> None:
    """Write all data of an axis and seed: pools, SFT samples, RL prompts, test prompts, summary."""
    settings = study.settings
    source = study.source(axis, seed, paths)
    if source.tokenizer:
        write_tokenizer(source, source.tokenizer, study.base.folder if study.base else None)
    files: dict[str, str | Path] = {name: paths.data(axis, seed, name) for name in DATA_FILES}
    samples = settings.pretrain.samples
    counts = {"id": samples, "ood": ood_count(settings.pretrain.ood_pool, samples)}
    for split in SPLITS:
        write_pool(source, split, counts[split], files[f"pretrain-{split}"])
    write_sft(source, study.sft_counts, files["sft"])
    write_grpo(source, study.rl_prompts, study.sft_counts, files["grpo"])
    write_test(source, settings.evaluation.prompts, files["test"])
    ratios = settings.axis_ratios(axis)
    write_summary(source, files, ratios, samples, paths.data(axis, seed, "summary"))
    record_data(study, paths, axis, seed)


def train_stage(study: Study, paths: Paths, axis: str, seed: int, ratio: str, name: str) -> None:
    """Train one stage of a cell (`pretrain`, `sft`, `grpo~ood`, ...) from those before it.

    Raises ValueError for a stage that the run doesn't have, ArtefactError if what it starts from is
    missing or damaged.
    """
    names = [stage.name for stage in study.grid.stages]
    if name not in names:
        raise ValueError(f"this run has no stage {name!r} (it has: {', '.join(names)})")
    import torch

    from grpo_origin.training.loop import pretrain, sft

    if torch.cuda.is_initialized():  # by a stage before this one, whose memory is not this one's
        torch.cuda.reset_peak_memory_stats()
    settings, stage = study.settings, stage_of(name)
    inputs = stage_inputs(study, paths, axis, seed, ratio, name)
    outputs = paths.stage(axis, seed, ratio, name), paths.checkpoint(axis, seed, ratio, name)
    how: dict[str, Any] = {"numerics": settings.numerics, "runtime": settings.runtime}
    data = study.source(axis, seed, paths)
    if stage.method and stage.trained_on:
        from grpo_origin.rl.stage import train_rl

        how |= {"rl": settings.rl, "method": study.methods[stage.method], "lora": settings.lora}
        train_rl(*inputs, stage.trained_on, *outputs, data=data, **how)
    elif name == "sft" and settings.sft:
        how |= {"sft": settings.sft, "lora": settings.lora}
        sft(*inputs, *outputs, domain=data.domain, **how)
    else:
        how |= {"model": settings.model, "pretrain": settings.pretrain}
        pretrain(*inputs, *outputs, domain=data.domain, ratio=ratio, **how)


def evaluate_cell(study: Study, paths: Paths, axis: str, seed: int, ratio: str) -> None:
    """Evaluate every stage of a cell exactly on its test prompts."""
    from grpo_origin.evaluation.mass import evaluate

    settings = study.settings
    names = [stage.name for stage in study.grid.stages]
    evaluate(
        {name: paths.stage(axis, seed, ratio, name) for name in names},
        paths.data(axis, seed, "test"),
        paths.evaluation(axis, seed, ratio),
        axis=axis,
        seed=seed,
        ratio=ratio,
        tokens=study.source(axis, seed, paths).domain.tokens,
        variant=study.variant,
        evaluation=settings.evaluation,
        numerics=settings.numerics,
        runtime=settings.runtime,
    )
