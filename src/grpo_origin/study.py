"""A run, checked by every room.

The workflow, the command line and the cost plan start from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.grid import Grid
from grpo_origin.config.load import load_settings, read_config
from grpo_origin.config.notation import ood_count
from grpo_origin.config.paths import BASE, TOKENIZER, Paths, place_of
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import SFTSettings
from grpo_origin.config.variants import CHANGED, spelled_out, variant_config
from grpo_origin.data.source import Source
from grpo_origin.rl.method import Method, load_methods, prompts_needed
from grpo_origin.tasks.domain import check_axes, domain_of
from grpo_origin.tasks.states import check_states
from grpo_origin.training.base import Base, find_base
from grpo_origin.training.lora import check_peft

# Modules that take seconds to import and that jobs need: local jobs are forked with them imported.
PRELOADED = ("grpo_origin.rl.trainer", "grpo_origin.evaluation.mass", "snakemake.script", "pandas")


@dataclass(frozen=True)
class Study:
    """Settings that can run, with their RL methods; of a run or of one of its variants.

    `variants` are those of the run, in their order; a variant has none itself. `sft_counts` are
    the samples of each split in the SFT set, whether there is an SFT stage or not, `least_prompts`
    those of the run's RL prompt set, which a variant that needs no more shares. `base` is the model
    from outside that pretraining starts from, if any.
    """

    settings: Settings
    methods: dict[str, Method]
    variant: str = BASE
    sft_counts: Mapping[str, int] = field(default_factory=dict)
    least_prompts: int = 0
    variants: tuple[Study, ...] = ()
    base: Base | None = None

    @cached_property
    def grid(self) -> Grid:
        """Cells, stages, jobs."""
        domains = {axis: domain_of(self.settings, axis) for axis in self.settings.axes}
        tokenized = (axis for axis, domain in domains.items() if domain.trains_tokenizer)
        many_right = (axis for axis, domain in domains.items() if not domain.unique)
        stochastic = (axis for axis, domain in domains.items() if domain.stochastic)
        return Grid(self.settings, tuple(tokenized), tuple(many_right), tuple(stochastic))

    @cached_property
    def paths(self) -> Paths:
        """Where everything of it lives."""
        return Paths(self.settings.run, place=place_of(self.variant))

    def source(self, axis: str, seed: int, paths: Paths) -> Source:
        """What the data of an axis and seed are made from, which lie where `paths` says."""
        made = paths.data(axis, seed, TOKENIZER) if axis in self.grid.tokenized else None
        return Source(self.settings.world, self.settings.axes[axis], seed, made)

    def previous(self, stage: str) -> str:
        """The stage whose model a stage starts from."""
        names = self.settings.before_rl
        return names[names.index(stage) - 1] if stage in names else names[-1]

    @property
    def betas(self) -> dict[str, float]:
        """KL weight of each method, 0 where the law says nothing of its objective."""
        return {name: method.kl_weight(self.settings.rl) for name, method in self.methods.items()}

    @property
    def budget(self) -> int:
        """Completions that an RL stage samples: what a mass must be to count as more than zero."""
        return self.settings.rl.prompts * self.settings.rl.group_size

    @property
    def demonstrations(self) -> int:
        """OOD samples that SFT is shown."""
        return self.settings.sft.counts["ood"] if self.settings.sft else 0

    @property
    def gold_tokens(self) -> dict[str, dict[str, dict[str, float]]]:
        """Tokens of right completions of OOD prompts that the stages before RL are trained on.

        By axis, ratio and stage, each as often as it is seen; a sample has the mean of its axis'
        OOD tasks, which have equal shares, each by its longest completion.
        """
        settings = self.settings
        again = self.demonstrations * settings.sft.epochs if settings.sft else 0
        found = {}
        for axis in settings.axes:
            domain = domain_of(settings, axis, self.base.folder if self.base else None)
            lengths = [domain.lengths(task)[1] for task in settings.axes[axis].tasks("ood")]
            length = sum(lengths) / len(lengths)
            found[axis] = {
                ratio: {
                    "pretrain": ood_count(ratio, settings.pretrain.samples) * length,
                    "sft": again * length,
                }
                for ratio in settings.axis_ratios(axis)
            }
        return found

    @property
    def rl_prompts(self) -> int:
        """Prompts a split in the RL prompt set: what the most demanding method needs."""
        return max(self.least_prompts, prompts_needed(self.settings, self.methods))


def open_study(config: Mapping[str, Any]) -> Study:
    """Check a merged configuration; raises ConfigError, one line that names the key."""
    config = spelled_out(config)
    study = _open(config)
    variants: list[Study] = []
    for name, changes in study.settings.variants.items():
        variant = variant_config(config, study.settings, name, changes)
        try:
            opened = _open(variant, name, study)
        except ConfigError as error:
            raise ConfigError(f"variants.{name}: {error}") from None
        for other in (study, *variants):
            if _same(opened, other):
                raise ConfigError(f"variants.{name}: it changes nothing, it is {other.variant}")
        variants.append(opened)
    return replace(study, variants=tuple(variants))


def _open(config: Mapping[str, Any], variant: str = BASE, run: Study | None = None) -> Study:
    settings = load_settings(config)
    base = _checked_base(settings) if settings.pretrain.base else None
    methods = load_methods(settings, base)
    for name, method in methods.items():
        if settings.lora and method.settings(settings.rl).reset_reference_every:
            raise ConfigError(
                f"methods: {name} makes the policy its reference, which with lora is the model "
                "without its adapters and can't change: leave its rounds out, or set lora to null"
            )
    # Without an SFT stage its samples, those of the run for a variant, still are not RL's.
    own = settings.sft.counts if settings.sft else None
    counts = own or (run.sft_counts if run else SFTSettings().counts)
    least = run.rl_prompts if run else 0
    study = Study(settings, methods, variant, counts, least, base=base)
    if settings.lora:
        check_peft()
    check_axes(settings, study.rl_prompts, counts)
    check_states(settings)
    return study


def _checked_base(settings: Settings) -> Base:
    """The base of the settings, which can be opened and knows the tokens of all axes."""
    base = find_base(str(settings.pretrain.base), fetch=True)
    base.check()
    for axis in settings.axes:
        domain = domain_of(settings, axis)
        if not domain.trains_tokenizer:
            base.check_tokens(domain.tokens.names, axis)
    return base


def _same(variant: Study, other: Study) -> bool:
    """Whether two studies train alike wherever they have the same cells."""
    first, second = (
        study.settings.model_dump(include={*CHANGED}) | {"methods": study.methods}
        for study in (variant, other)
    )
    return first == second


def read_study(*files: str | Path) -> Study:
    """The study of YAML files, each merged over those before it; raises ConfigError."""
    return open_study(read_config(*files))
