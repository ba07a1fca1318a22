"""One cell of the study in plain Python, without Snakemake: data, pretraining, SFT, RL, evaluation.

`run_cell` is the whole experiment from top to bottom. The workflow's jobs call the same functions of
the rooms with the same settings, so both give the same numbers, bit for bit. The command line
(`grpo-origin cell`, `grpo-origin stage`) and the tests call what is here.
"""

from __future__ import annotations

from pathlib import Path

from grpo_origin.config.grid import DATA_FILES
from grpo_origin.config.notation import SPLITS, ood_count
from grpo_origin.config.paths import Paths, stage_of
from grpo_origin.data.pools import write_pool
from grpo_origin.data.prompt_sets import write_grpo, write_sft, write_test
from grpo_origin.data.source import Source
from grpo_origin.data.summary import write_summary
from grpo_origin.study import Study
from grpo_origin.tasks.world import World


def run_cell(study: Study, paths: Paths, axis: str, seed: int, ratio: str) -> Path:
    """Run a cell from nothing to its evaluation, whose path is returned; what is there is kept."""
    if not all(Path(paths.data(axis, seed, name)).exists() for name in DATA_FILES):
        make_data(study, paths, axis, seed)
    for stage in study.grid.stages:
        if not Path(paths.stage(axis, seed, ratio, stage.name)).exists():
            train_stage(study, paths, axis, seed, ratio, stage.name)
    evaluate_cell(study, paths, axis, seed, ratio)
    return Path(paths.evaluation(axis, seed, ratio))


def make_data(study: Study, paths: Paths, axis: str, seed: int) -> None:
    """Write all data of an axis and seed: pools, SFT samples, RL prompts, test prompts, summary."""
    settings = study.settings
    source = Source(settings.world, settings.axes[axis], seed)
    files = {name: paths.data(axis, seed, name) for name in DATA_FILES}
    samples = settings.pretrain.samples
    counts = {"id": samples, "ood": ood_count(settings.pretrain.ood_pool, samples)}
    for split in SPLITS:
        write_pool(source, split, counts[split], files[f"pretrain-{split}"])
    write_sft(source, settings.sft.samples, files["sft"])
    write_grpo(source, study.rl_prompts, settings.sft.samples, files["grpo"])
    write_test(source, settings.evaluation.prompts, files["test"])
    ratios = settings.axis_ratios(axis)
    write_summary(source, files, ratios, samples, paths.data(axis, seed, "summary"))


def train_stage(
    study: Study, paths: Paths, axis: str, seed: int, ratio: str, stage_name: str
) -> None:
    """Train one stage of a cell (`pretrain`, `sft`, `grpo~ood`, ...) from those before it.

    Raises ArtefactError if what it starts from is missing or damaged.
    """
    from grpo_origin.training.loop import pretrain, sft

    settings, stage = study.settings, stage_of(stage_name)
    world = World(settings.world.nodes, seed)
    output = paths.stage(axis, seed, ratio, stage_name)
    checkpoint = paths.checkpoint(axis, seed, ratio, stage_name)
    how = {"world": world, "numerics": settings.numerics, "runtime": settings.runtime}
    if stage_name == "pretrain":
        pools = [paths.data(axis, seed, f"pretrain-{split}") for split in SPLITS]
        sections = {"model": settings.model, "pretrain": settings.pretrain}
        pretrain(*pools, output, checkpoint, ratio=ratio, **sections, **how)
    elif stage_name == "sft":
        source, samples = paths.stage(axis, seed, ratio, "pretrain"), paths.data(axis, seed, "sft")
        sft(source, samples, output, checkpoint, sft=settings.sft, **how)
    else:
        from grpo_origin.rl.stage import train_rl

        source, prompts = paths.stage(axis, seed, ratio, "sft"), paths.data(axis, seed, "grpo")
        method = study.methods[stage.method]
        files = (source, prompts, stage.trained_on, output, checkpoint)
        train_rl(*files, rl=settings.rl, method=method, **how)


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
        evaluation=settings.evaluation,
        numerics=settings.numerics,
        runtime=settings.runtime,
    )
