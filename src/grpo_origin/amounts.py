"""How much a job has to do, in samples, prompts or completions: what `cost` makes seconds of.

Each function is of a study, of the run or of a variant, and a job's wildcards.
"""

from __future__ import annotations

from grpo_origin.config.grid import Cell
from grpo_origin.config.notation import SPLITS, ood_count
from grpo_origin.study import Study
from grpo_origin.tasks.states import deep_tasks


def pool(study: Study, job: Cell) -> float:
    """Samples of the two pools of an axis and seed."""
    settings = study.settings.pretrain
    return settings.samples + ood_count(settings.ood_pool, settings.samples)


def pretraining(study: Study, job: Cell) -> float:
    """Samples that pretraining sees."""
    return study.settings.pretrain.samples


def fine_tuning(study: Study, job: Cell) -> float:
    """Samples that SFT sees, each as often as there are epochs."""
    sft = study.settings.sft
    return sft.epochs * sft.samples if sft else 0


def evaluated(study: Study, job: Cell) -> float:
    """Prompts that all models of a cell are evaluated on."""
    settings = study.settings
    splits = len(settings.axes[job["axis"]].splits)
    return splits * settings.evaluation.prompts * len(study.grid.stages)


def probed(study: Study, job: Cell) -> float:
    """Prompts that probes are fitted and tested on, of all models of a cell, twice for the fits."""
    settings, axis = study.settings, study.settings.axes[job["axis"]]
    fitted = settings.probes.prompts * len((*axis.id, *axis.ood)) if settings.probes else 0
    return 2 * (fitted + len(SPLITS) * settings.evaluation.prompts) * len(study.grid.stages)


def of_heads(study: Study, job: Cell) -> float:
    """Prompts that all kinds of training of a head are shown."""
    heads = study.settings.representation
    return heads.shown if heads else 0


def answered(study: Study, job: Cell) -> int:
    """Completions that all models of a cell draw where right answers are sampled."""
    settings = study.settings.evaluation
    completions = settings.answer_prompts * settings.answer_samples
    return len(SPLITS) * completions * len(study.grid.stages)


def drawn(study: Study, job: Cell) -> int:
    """Completions that are drawn to measure faithfulness."""
    measured = study.settings.faithfulness
    if not measured:
        return 0
    prompts = deep_tasks(study.settings.axes[job["axis"]], measured.depth) * measured.prompts
    return prompts * measured.samples * len(study.grid.stages)
