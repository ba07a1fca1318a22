"""Settings of a run: its parts, the rules for them, and how results are judged and jobs run.

Every number of the study lives in a YAML file and passes through these models; the rest of the
package receives plain, validated objects. RL methods are checked by `rl.method`, string spaces by
`data.strings`, since this room imports neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from grpo_origin.config.faithfulness import FaithfulnessSettings
from grpo_origin.config.fields import (
    NAME,
    NAME_LENGTH,
    Betas,
    Count,
    Number,
    Rate,
    Ratios,
    Section,
    Seeds,
    Whole,
)
from grpo_origin.config.notation import SPLITS, Split, Splits, ood_count
from grpo_origin.config.paths import BASE, BEFORE_RL
from grpo_origin.config.representation import ProbeSettings, RepresentationSettings
from grpo_origin.config.stages import (
    AxisSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    NumericsSettings,
    PretrainSettings,
    RLSettings,
    SFTSettings,
    WorldSettings,
)


class TheorySettings(Section):
    """RL with a KL term to convergence on a fixed pool of prompts, and sampling as a check."""

    betas: Betas = Field(
        ("0.3", "1", "3"), description="Weights of the KL term; text as written names the files."
    )
    trained_on: Split = Field(
        "ood",
        description="Split of the held-out prompts and of the pool, which takes prompts of the "
        "other split for starting masses that it lacks.",
    )
    seeds: Count = Field(1, description="Run for the first so many seeds.")
    pool: Count = Field(
        16,
        description="Prompts trained on, their starting masses evenly spaced in log-odds over "
        "`masses`; each step uses all.",
    )
    masses: tuple[Rate, Rate] = Field(
        (0.05, 0.9), description="From and to this starting mass prompts are taken for the pool."
    )
    steps: Count = Field(100, description="Optimiser steps.")
    group_size: Whole = Field(
        16, ge=2, le=10**6, description="Completions sampled for each prompt at a step."
    )
    learning_rate: Rate = Field(
        1e-4, description="Peak learning rate; a larger one overshoots at small KL weights."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "cosine", description="Learning-rate schedule."
    )
    trace_every: Count = Field(10, description="Steps between exact evaluations while training.")
    sampled_prompts: Count = Field(
        32, description="Sampling check: test prompts of each of ID and OOD."
    )
    samples: Count = Field(256, description="Sampling check: completions drawn for a prompt.")

    @model_validator(mode="after")
    def _check(self) -> TheorySettings:
        if not self.masses[0] < self.masses[1]:
            raise ValueError("masses: both must be in rising order")
        return self


class ClaimsSettings(Section):
    """Rules of the claims ledger, fixed before the results are seen; effects are of mean mass."""

    significance: Number = Field(
        0.05, gt=0, lt=0.5, description="Total error of a family of verdicts, over all looks."
    )
    looks: tuple[tuple[Count, Rate], ...] = Field(
        (),
        description="Planned looks, each (seeds, error it may spend); none: one look, at all "
        "seeds, that spends `significance`. See docs/protocol.md.",
    )
    rare: Rate = Field(
        0.5, description="An absence is claimed of more than a share 1 - rare of seeds."
    )
    chance: Rate = Field(
        0.01,
        description="A success that a run's completions hold with at most this chance can't be "
        "sampled; sets the mass that counts as zero.",
    )
    negligible: Number = Field(0.01, gt=0, lt=1, description="A change of mass up to this is none.")
    equivalent: Rate = Field(
        0.02, description="Variants or methods whose mass differs by less than this are equivalent."
    )
    takeoff: Rate = Field(0.1, description="A seed takes off if its mean gain exceeds this.")
    partial: tuple[Rate, Rate] = Field(
        (0.1, 0.9), description="From and to this starting mass a prompt is partly right."
    )
    saturated: Rate = Field(0.95, description="From this starting mass on a prompt is saturated.")
    learnt: Rate = Field(
        0.5, description="A model whose mean ID mass after SFT is below this gets a warning."
    )
    broken: Rate = Field(
        0.5, description="Foreign tokens break a prompt if they take more than this mass from it."
    )
    band_prompts: Count = Field(
        20,
        description="A seed counts in a band of starting mass if it has this many prompts there.",
    )
    bound_tolerance: Number = Field(
        0.01, ge=0, lt=1, description="Mass above the bound by no more than this is not above it."
    )
    bound_exceptions: Rate = Field(
        0.05, description="The mass bound holds if fewer than this share of prompts end above it."
    )

    @model_validator(mode="after")
    def _check(self) -> ClaimsSettings:
        if not self.partial[0] < self.partial[1] <= self.saturated:
            raise ValueError("partial: both its ends, and saturated must be in rising order")
        seeds = [needed for needed, _ in self.looks]
        if seeds != sorted(set(seeds)):
            raise ValueError("looks: each must have more seeds than the one before")
        spent = sum(Decimal(str(alpha)) for _, alpha in self.looks)
        if spent > Decimal(str(self.significance)):
            raise ValueError(
                f"looks: they spend {spent}, more than significance ({self.significance})"
            )
        return self


class RuntimeSettings(Section):
    """How jobs run. Nothing here changes a result, so nothing here makes a stage run again."""

    prefork: bool = Field(
        True,
        description="Fork local jobs from one process with the imports done (Linux); off, each job "
        "imports by itself.",
    )
    threads: Whole = Field(
        1,
        ge=1,
        le=4096,
        description="CPU threads a training job; several one-thread jobs beat one wide job.",
    )
    checkpoint_seconds: Number = Field(
        300.0,
        ge=0,
        le=10**7,
        description="Seconds between checkpoints of a training stage; 0: at every step.",
    )
    scratch: str | None = Field(
        None,
        description="Node-local folder for temporary files, environment variables allowed "
        "(`$SLURM_TMPDIR`); TMPDIR when left out.",
    )
    lease_seconds: Number = Field(
        120.0,
        ge=5,
        le=10**6,
        description="Seconds without a sign of life after which another job takes a stage over.",
    )
    lease_wait_seconds: Number = Field(
        1800.0,
        ge=0,
        le=10**7,
        description="Seconds a job waits for another, living one to hand a training stage over.",
    )


class StageResources(Section):
    """What a job of this kind asks a cluster for; ignored by a local run."""

    gpus: Whole = Field(0, ge=0, le=1, description="GPUs: a job uses one at most.")
    mem_mb: Whole = Field(
        2000,
        ge=1,
        le=10**8,
        description="Memory in MiB at the first attempt; attempt n asks for n times as much.",
    )
    minutes: Whole = Field(
        60,
        ge=1,
        le=10**6,
        description="Time limit in minutes at the first attempt; attempt n asks for n times more.",
    )


class ResourceSettings(Section):
    """What jobs ask a cluster for; never a reason for a stage to run again."""

    data: StageResources = Field(
        StageResources(minutes=20), description="Pretraining pools and the summary of the data."
    )
    prompts: StageResources = Field(
        StageResources(mem_mb=1000, minutes=10),
        description="SFT samples, RL prompts, test prompts.",
    )
    pretrain: StageResources = Field(StageResources(), description="Pretraining.")
    sft: StageResources = Field(StageResources(minutes=20), description="SFT.")
    rl: StageResources = Field(StageResources(), description="RL.")
    evaluate: StageResources = Field(StageResources(minutes=20), description="Evaluation.")
    theory: StageResources = Field(
        StageResources(minutes=60), description="RL to convergence, and sampling as a check."
    )
    figures: StageResources = Field(
        StageResources(minutes=20), description="Tables, figures and report."
    )


# Names that would be folders of the run itself, or mean the run's own settings.
RESERVED = {
    "axes": ("variants", "checkpoints", "tables", "figures", "logs", "partial"),
    "variants": (BASE,),
}


def main_method(methods: Iterable[str]) -> str:
    """The method that figures of one method show and others are held against; "" of none.

    Plain GRPO, or the first where a run lacks it.
    """
    names = list(methods)
    return "grpo" if "grpo" in names else next(iter(names), "")


def method_entries(entries: Any) -> Any:
    """The `methods` list, each entry a name or `{name: {setting: value}}`, as settings by name.

    Raises ValueError if an entry is neither or comes twice; `rl.method` checks the settings.
    """
    if isinstance(entries, dict):  # as dumped
        return entries
    if not isinstance(entries, (list, tuple)) or not entries:
        raise ValueError("write a list of method names, such as [grpo, dapo]")
    methods: dict[str, dict[str, Any]] = {}
    for entry in entries:
        named = {entry: {}} if isinstance(entry, str) else entry
        if not isinstance(named, dict) or len(named) != 1:
            raise ValueError(f"{entry!r} is not a method: write a name, or {{name: {{...}}}}")
        ((name, settings),) = named.items()
        if not isinstance(settings := settings or {}, dict):
            raise ValueError(f"{entry!r} is not a method: write a name, or {{name: {{...}}}}")
        if name in methods:
            raise ValueError(f"method {name} is listed twice: name each once")
        methods[name] = settings
    return methods


class Settings(Section):
    """A run of the study."""

    run: str = Field(
        max_length=NAME_LENGTH,
        pattern=f"^{NAME}$",
        description=f"Name of the run, at most {NAME_LENGTH} characters: results go to "
        "results/{run}.",
    )
    seeds: Seeds = Field(description="Seeds: each is a world, its data and its models.")
    ratios: Ratios = Field(
        description="OOD ratios of pretraining, for axes without a list of their own."
    )
    axes: dict[Annotated[str, Field(max_length=NAME_LENGTH, pattern=f"^{NAME}$")], AxisSettings] = (
        Field(min_length=1, description="Axes by name; set one to null to leave it out.")
    )
    world: WorldSettings = Field(WorldSettings(), description="Graph and split.")
    model: ModelSettings = Field(ModelSettings(), description="Architecture.")
    pretrain: PretrainSettings = Field(PretrainSettings(), description="Pretraining.")
    sft: SFTSettings | None = Field(
        SFTSettings(), description="Supervised fine-tuning; null: RL starts from pretraining."
    )
    rl: RLSettings = Field(RLSettings(), description="RL.")
    lora: LoraSettings | None = Field(
        None, description="Adapters that SFT and RL train; null: they train all weights."
    )
    methods: Annotated[dict[str, dict[str, Any]], BeforeValidator(method_entries)] = Field(
        ("grpo",),
        validate_default=True,
        description="RL methods, each a name or `{name: {setting: value}}`; see docs/methods.md. "
        "`{name: {method: grpo, rl: {..}}}` is a variant of that name.",
    )
    trained_on: Splits = Field(
        SPLITS, description="Prompts that RL trains on: a stage for each method and split."
    )
    variants: dict[
        Annotated[str, Field(max_length=NAME_LENGTH, pattern=f"^{NAME}$")], dict[str, Any]
    ] = Field(
        {},
        description="The run with one thing changed, by name: changes to `model`, `pretrain`, "
        "`sft`, `rl`, `lora`, `methods`, `trained_on` or `numerics`, and lists `axes`, `ratios`, "
        "`seeds` that it is limited to.",
    )
    evaluation: EvaluationSettings = Field(EvaluationSettings(), description="Evaluation.")
    theory: TheorySettings = Field(TheorySettings(), description="Theory against practice.")
    faithfulness: FaithfulnessSettings | None = Field(
        None, description="Faithfulness of traces; null: not measured."
    )
    probes: ProbeSettings | None = Field(
        None, description="Linear probes of every stage; null: none. See docs/related.md."
    )
    representation: RepresentationSettings | None = Field(
        None, description="GRPO for a representation (GRPO-RM); null: none. See docs/related.md."
    )
    claims: ClaimsSettings = Field(ClaimsSettings(), description="Claims ledger.")
    numerics: NumericsSettings = Field(NumericsSettings(), description="Arithmetic of training.")
    runtime: RuntimeSettings = Field(RuntimeSettings(), description="Threads, checkpoints, leases.")
    resources: ResourceSettings = Field(
        ResourceSettings(), description="What jobs ask a cluster for."
    )

    @model_validator(mode="after")
    def _check(self) -> Settings:
        for key, names in (("axes", self.axes), ("variants", self.variants)):
            for name in names:
                if name in RESERVED[key]:
                    raise ValueError(f"{key}.{name}: this name is taken, use another one")
        if self.lora and self.rl.reset_reference_every:
            raise ValueError(
                "rl.reset_reference_every: with lora the reference is the model without its "
                "adapters, which can't change: set it to 0, or lora to null"
            )
        for name, axis in self.axes.items():
            for ratio in self.axis_ratios(name):
                if Decimal(ratio) > Decimal(self.pretrain.ood_pool):
                    raise ValueError(
                        f"axes.{name}.ratios: {ratio} is larger than "
                        f"pretrain.ood_pool ({self.pretrain.ood_pool})"
                    )
                if Decimal(ratio) > 0 and not self.pretrain.samples:
                    raise ValueError(
                        f"axes.{name}.ratios: {ratio} of no samples is none: pretrain.samples is "
                        "0, so the one ratio is 0"
                    )
                if Decimal(ratio) > 0 and not ood_count(ratio, self.pretrain.samples):
                    raise ValueError(
                        f"axes.{name}.ratios: {ratio} of {self.pretrain.samples} samples rounds to "
                        "none: use 0 or a larger ratio"
                    )
            tasks = max(len(axis.id), len(axis.ood))
            if self.evaluation.prompts < tasks:
                raise ValueError(
                    f"evaluation.prompts: {self.evaluation.prompts} can't cover the {tasks} tasks "
                    f"of axes.{name}"
                )
        return self

    @property
    def before_rl(self) -> tuple[str, ...]:
        """The stages before RL, in order."""
        return BEFORE_RL if self.sft else BEFORE_RL[:1]

    @property
    def main_method(self) -> str:
        """The method that figures of one method show: plain GRPO, or the first there is."""
        return main_method(self.methods)

    def axis_ratios(self, axis: str) -> tuple[str, ...]:
        """OOD ratios of an axis: its own list, else the run's."""
        return self.axes[axis].ratios or self.ratios

    def theory_ratios(self, axis: str) -> tuple[str, ...]:
        """Ratios of an axis at which RL is run to convergence: those it names that it has."""
        return tuple(ratio for ratio in self.axes[axis].theory if ratio in self.axis_ratios(axis))

    def sampled_ratio(self, axis: str) -> str:
        """Ratio at which sampling is checked: the second largest, with masses between 0 and 1."""
        return sorted(self.axis_ratios(axis), key=Decimal)[-2:][0]
