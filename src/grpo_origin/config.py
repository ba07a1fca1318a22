"""Settings: what a run is, checked once before any job starts.

Every number of the study lives in a YAML file and passes through these models; the rest of the package receives
plain, validated objects. Knows nothing about files or training.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from grpo_origin.method import Method, parse
from grpo_origin.sections import (
    ALPHABETS,
    NAME,
    NAME_LENGTH,
    OPERATIONS,
    PROMPTS,
    AxisSettings,
    ClaimsSettings,
    EvaluationSettings,
    GRPOSettings,
    ModelSettings,
    OptimiserSettings,
    PretrainSettings,
    PromptSplits,
    Ratios,
    ResourceSettings,
    RuntimeSettings,
    Section,
    Seeds,
    SFTSettings,
    StageResources,
    TaskSpec,
    TheorySettings,
    WorldSettings,
)

__all__ = [
    "ALPHABETS",
    "OPERATIONS",
    "PROMPTS",
    "AxisSettings",
    "ClaimsSettings",
    "ConfigError",
    "EvaluationSettings",
    "GRPOSettings",
    "ModelSettings",
    "OptimiserSettings",
    "PretrainSettings",
    "ResourceSettings",
    "RuntimeSettings",
    "SFTSettings",
    "Section",
    "Settings",
    "StageResources",
    "TaskSpec",
    "TheorySettings",
    "WorldSettings",
    "load_settings",
    "ood_count",
]


class ConfigError(ValueError):
    """A setting that can't be used; its message is one line that names the key and what is allowed."""


class Settings(Section):
    """A run of the study."""

    run: str = Field(
        max_length=NAME_LENGTH,
        pattern=f"^{NAME}$",
        description=f"Name of the run, at most {NAME_LENGTH} characters: results go to results/{{run}}.",
    )
    seeds: Seeds = Field(description="Seeds: each is a world, its data and its models.")
    ratios: Ratios = Field(description="OOD ratios of pretraining, for axes without a list of their own.")
    axes: dict[Annotated[str, Field(max_length=NAME_LENGTH, pattern=f"^{NAME}$")], AxisSettings] = Field(
        min_length=1, description="Axes by name; set one to null to leave it out."
    )
    world: WorldSettings = Field(WorldSettings(), description="Graph and split.")
    model: ModelSettings = Field(ModelSettings(), description="Architecture.")
    pretrain: PretrainSettings = Field(PretrainSettings(), description="Pretraining.")
    sft: SFTSettings = Field(SFTSettings(), description="Supervised fine-tuning.")
    grpo: GRPOSettings = Field(GRPOSettings(), description="GRPO.")
    methods: Annotated[dict[str, SerializeAsAny[Method]], BeforeValidator(parse)] = Field(
        ("grpo",), validate_default=True, description="RL methods, each a name or `{name: {setting: value}}`; see docs/methods.md."
    )
    prompts: PromptSplits = Field(("id", "ood"), description="Prompts that the RL stages train on: a stage for each method and split.")
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="Evaluation.")
    theory: TheorySettings = Field(TheorySettings(), description="Theory against practice.")
    claims: ClaimsSettings = Field(ClaimsSettings(), description="Claims ledger.")
    runtime: RuntimeSettings = Field(RuntimeSettings(), description="Devices, threads, checkpoints.")
    resources: ResourceSettings = Field(ResourceSettings(), description="What jobs ask a cluster for.")

    @model_validator(mode="after")
    def _check(self) -> Settings:
        for name, method in self.methods.items():
            try:
                method.settings(self.grpo)
            except ValidationError as error:
                raise ValueError(f"methods: {name} can't run with this grpo section: {_one_line(error)}") from None
        for name, axis in self.axes.items():
            for ratio in self.axis_ratios(name):
                if Decimal(ratio) > Decimal(self.pretrain.ood_pool):
                    raise ValueError(f"axes.{name}.ratios: {ratio} is larger than pretrain.ood_pool ({self.pretrain.ood_pool})")
                if Decimal(ratio) > 0 and not ood_count(ratio, self.pretrain.samples):
                    raise ValueError(
                        f"axes.{name}.ratios: {ratio} of {self.pretrain.samples} samples rounds to none: use 0 or a larger ratio"
                    )
            if self.evaluation.prompts < max(len(axis.id), len(axis.ood)):
                raise ValueError(
                    f"evaluation.prompts: {self.evaluation.prompts} can't cover the {max(len(axis.id), len(axis.ood))} tasks of axes.{name}"
                )
            for task in (*axis.id, *axis.ood):
                lengths = task.prompt_tokens, task.completion_tokens
                tokens, method = max((m.tokens(*lengths), f" under {n}" * (n != "grpo")) for n, m in self.methods.items())
                if max(sum(lengths), tokens) > self.model.context:
                    method = method if sum(lengths) <= self.model.context else ""
                    raise ValueError(
                        f"axes.{name}: task '{task}' needs {tokens} tokens{method}, more than model.context ({self.model.context})"
                    )
        return self

    @property
    def rl_prompts(self) -> int:
        """Distinct prompts a split that the RL methods need at most."""
        return max(self.grpo.prompts, *(method.count(self.grpo) for method in self.methods.values()))

    @property
    def main_method(self) -> str:
        """The method that tables and figures of one method show: plain GRPO, or the first where it is not among them."""
        return "grpo" if "grpo" in self.methods else next(iter(self.methods))

    def axis_ratios(self, axis: str) -> tuple[str, ...]:
        """OOD ratios of an axis: its own list, else the run's."""
        return self.axes[axis].ratios or self.ratios

    def theory_ratios(self, axis: str) -> tuple[str, ...]:
        """Ratios of an axis at which RL is run to convergence: those it names that it has."""
        return tuple(ratio for ratio in self.axes[axis].theory if ratio in self.axis_ratios(axis))

    def sampled_ratio(self, axis: str) -> str:
        """Ratio at which sampling is checked: the second largest of the axis, where masses are neither all 0 nor all 1."""
        return sorted(self.axis_ratios(axis), key=Decimal)[-2:][0]


def ood_count(ratio: str, samples: int) -> int:
    """Number of OOD samples among `samples` at this ratio: round(ratio * samples), computed in decimals."""
    return round(Decimal(ratio) * samples)


def _one_line(error: ValidationError) -> str:
    """The first problem of a pydantic error as `key: what is wrong (what is allowed)`."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _known_keys(where[:-1])
        close = difflib.get_close_matches(where[-1], known, n=1)
        message = f"unknown key{f', did you mean {close[0]!r}?' if close else ''} (allowed: {', '.join(known)})"
    elif first["type"] == "missing":
        message = "missing: it must be set"
    elif not first["msg"].startswith("Value error"):
        message += f", not {first['input']!r}"
    more = len(error.errors()) - 1
    key = ".".join(where)
    return f"{key + ': ' if key else ''}{message}{f' (and {more} more)' if more else ''}".replace("\n", " ")


def _known_keys(path: list[str]) -> list[str]:
    section: type[BaseModel] = Settings
    for i, part in enumerate(path):
        if part == "axes":
            section = AxisSettings
        elif i and path[i - 1] == "axes":
            continue
        else:
            annotation = section.model_fields[part].annotation
            if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
                return []
            section = annotation
    return list(section.model_fields)


def load_settings(config: Mapping[str, Any]) -> Settings:
    """Validate a merged configuration (a mapping as read from YAML).

    Raises ConfigError, one line that names the key and what is allowed.
    """
    config = dict(config)
    if isinstance(config.get("axes"), Mapping):
        config["axes"] = {name: axis for name, axis in config["axes"].items() if axis is not None}
    try:
        return Settings.model_validate(config)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None
