"""The parts of a configuration as models: the notation of tasks and ratios, and one section a stage.

This module knows the names of the operations and the notation of a task, not what they do (that is `tasks`), and nothing
about files or training.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Operation = Literal["trav", "shift"]
Alphabet = Literal["A", "B"]
Prompts = Literal["id", "ood"]
OPERATIONS: tuple[str, ...] = get_args(Operation)
ALPHABETS: tuple[str, ...] = get_args(Alphabet)
PROMPTS: tuple[str, ...] = get_args(Prompts)
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
NAME_LENGTH = 100  # names become folders, whose names file systems limit to 255 bytes
DIGITS = 30  # of a number that names a folder or file
MAX_BETA = 1_000_000


class Section(BaseModel):
    """Base of all settings: immutable, and a key that isn't declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _number(value: Any) -> Any:
    """Refuse YAML's yes and no, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "Input should be a number")
    return value


def _whole(value: Any) -> Any:
    """Make 1.0e+23 a whole number, which pydantic can't, so that the bounds answer it."""
    return int(value) if isinstance(value, float) and value.is_integer() else _number(value)


def _decimal_text(value: Any) -> str:
    """A number as the text that names its files: strings as written, numbers without exponent; "" for anything else."""
    text = value.strip() if isinstance(value, str) else format(Decimal(repr(value)), "f") if type(value) in (int, float) else ""
    plain = text.isascii() and text.replace(".", "", 1).isdigit() and not text.startswith(".") and not text.endswith(".")
    return text if plain and len(text) <= DIGITS else ""


def _ratio_text(value: Any) -> str:
    """A ratio as the text that names its folder; raises ValueError unless it is a decimal number in [0, 1]."""
    text = _decimal_text(value)
    if not text:
        raise ValueError(f"{value!r} is not a ratio: write a decimal number from 0 to 1 of at most {DIGITS} characters, such as 0.03")
    if Decimal(text) > 1:
        raise ValueError(f"ratio {text} lies outside [0, 1]")
    return text


def _distinct_ratios(ratios: tuple[str, ...]) -> tuple[str, ...]:
    seen: dict[Decimal, str] = {}
    for text in ratios:
        other = seen.setdefault(Decimal(text), text)
        if other is not text or ratios.count(text) > 1:
            raise ValueError(f"ratio {text} is listed twice (as {other} and {text}): name each ratio once")
    return ratios


def _distinct_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        repeated = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise ValueError(f"seed {repeated} is listed twice: name each seed once")
    return seeds


def _distinct_splits(splits: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(splits)) < len(splits):
        raise ValueError("a split is listed twice: name each of id and ood at most once")
    return splits


def _beta_text(value: Any) -> str:
    """A KL weight as the text that names its files; raises ValueError unless it is a positive decimal number."""
    text = _decimal_text(value)
    if not text or not 0 < Decimal(text) <= MAX_BETA:
        raise ValueError(
            f"{value!r} is not a KL weight: write a positive decimal number up to {MAX_BETA} of at most {DIGITS} characters, such as 0.3"
        )
    return text


def _distinct_betas(betas: tuple[str, ...]) -> tuple[str, ...]:
    if len({Decimal(text) for text in betas}) < len(betas):
        raise ValueError("a KL weight is listed twice: name each once")
    return betas


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Ratio = Annotated[str, BeforeValidator(_ratio_text)]
Ratios = Annotated[tuple[Ratio, ...], Field(min_length=1), AfterValidator(_distinct_ratios)]
Seeds = Annotated[tuple[Annotated[Whole, Field(ge=0, lt=2**32)], ...], Field(min_length=1), AfterValidator(_distinct_seeds)]
Betas = Annotated[tuple[Annotated[str, BeforeValidator(_beta_text)], ...], Field(min_length=1), AfterValidator(_distinct_betas)]
PromptSplits = Annotated[tuple[Prompts, ...], Field(min_length=1, max_length=len(PROMPTS)), AfterValidator(_distinct_splits)]
Rate = Annotated[Number, Field(gt=0, lt=1)]
Count = Annotated[Whole, Field(ge=1, le=10**9)]


class TaskSpec(Section):
    """A task in the notation `operations;length;alphabet`, e.g. `trav trav;4;A`: operations apply left to right."""

    operations: tuple[Operation, ...] = Field(min_length=1, description="Operations, applied left to right.")
    length: int = Field(ge=1, le=64, description="Number of elements of the string.")
    alphabet: Alphabet = Field(description="Alphabet the start string is written in.")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(";")]
        if len(parts) != 3:
            raise ValueError(f"{value!r} is not a task: write 'operations;length;alphabet', such as 'trav trav;4;A'")
        operations, length, alphabet = parts
        for operation in operations.split() or [""]:
            if operation not in OPERATIONS:
                raise ValueError(f"unknown operation {operation!r} in task {value!r} (known: {', '.join(OPERATIONS)})")
        if not (length.isascii() and length.isdecimal() and 1 <= Decimal(length) <= 64):
            raise ValueError(f"length {length!r} in task {value!r} is not a whole number from 1 to 64")
        if alphabet not in ALPHABETS:
            raise ValueError(f"unknown alphabet {alphabet!r} in task {value!r} (known: {', '.join(ALPHABETS)})")
        return {"operations": operations.split(), "length": int(length), "alphabet": alphabet}

    def __str__(self) -> str:
        return f"{' '.join(self.operations)};{self.length};{self.alphabet}"

    @property
    def prompt_tokens(self) -> int:
        """Tokens of a prompt: `<bos>`, the string, one a operation."""
        return 1 + self.length + len(self.operations)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the completion: a marked state per step, then `<eos>`."""
        return len(self.operations) * (1 + self.length) + 1


def _distinct_tasks(tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
    for task in tasks:
        if tasks.count(task) > 1:
            raise ValueError(f"task '{task}' is listed twice: name each task once")
    return tasks


Tasks = Annotated[tuple[TaskSpec, ...], Field(min_length=1), AfterValidator(_distinct_tasks)]


class AxisSettings(Section):
    """One axis of generalisation: which tasks are in distribution (ID) and which out of distribution (OOD)."""

    id: Tasks = Field(description="ID tasks: pretraining, SFT, GRPO on ID prompts, ID test.")
    ood: Tasks = Field(description="OOD tasks: the OOD share of pretraining, GRPO on OOD prompts, OOD test.")
    ratios: Ratios | None = Field(None, description="OOD ratios of this axis; the run's list when left out.")
    theory: Annotated[tuple[Ratio, ...], AfterValidator(_distinct_ratios)] = Field(
        (),
        description="Ratios at which RL is run to convergence, best where SFT leaves partial mass; those the axis lacks are left out.",
    )
    mixed: tuple[Count, ...] = Field(
        (), description="Adds test splits `mixed-k`: ID prompts with k positions replaced by their twin of the other alphabet."
    )

    @model_validator(mode="after")
    def _check(self) -> AxisSettings:
        for task in self.ood:
            if task in self.id:
                raise ValueError(f"task '{task}' is listed under both id and ood: it must be one of them")
        if len(set(self.mixed)) < len(self.mixed):
            raise ValueError("mixed names a number of positions twice")
        for task in self.id:
            if self.mixed and max(self.mixed) > task.length:
                raise ValueError(f"mixed: {max(self.mixed)} positions can't be replaced in task '{task}'")
        return self

    def tasks(self, split: str) -> tuple[TaskSpec, ...]:
        """The tasks of split `id` or `ood`; the mixed splits use the ID tasks."""
        return self.ood if split == "ood" else self.id

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the test splits: id, ood, mixed-1, ..."""
        return ("id", "ood", *(f"mixed-{k}" for k in self.mixed))


class WorldSettings(Section):
    """The graph and the train/test split."""

    nodes: Whole = Field(26, ge=2, le=10_000, description="Nodes of the single-cycle graph; also letters per alphabet.")
    test_fraction: Number = Field(0.1, gt=0, lt=1, description="Share of start strings that belong to test, by stable hash.")


class ModelSettings(Section):
    """A Llama decoder: RoPE, RMSNorm, SwiGLU."""

    layers: Whole = Field(4, ge=1, le=1000, description="Decoder layers (paper: 4).")
    width: Whole = Field(64, ge=1, le=65_536, description="Hidden size (assumption).")
    heads: Whole = Field(4, ge=1, le=65_536, description="Attention heads (assumption).")
    feed_forward: Whole = Field(172, ge=1, le=10**6, description="Inner size of the SwiGLU block (assumption).")
    context: Whole = Field(64, ge=1, le=65_536, description="Longest sequence in tokens.")
    rope_theta: Number = Field(10_000.0, gt=0, le=1e12, description="Base of the rotary embedding (assumption).")

    @model_validator(mode="after")
    def _check(self) -> ModelSettings:
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        if (self.width // self.heads) % 2:
            raise ValueError(f"heads: head size {self.width // self.heads} is odd, but RoPE needs an even one")
        return self


class OptimiserSettings(Section):
    """AdamW, linear warm-up, then cosine decay; shared by pretraining and SFT."""

    samples: Count = Field(description="Training samples.")
    batch_size: Count = Field(description="Samples a step.")
    learning_rate: Rate = Field(description="Peak learning rate (assumption).")
    warmup: Number = Field(0.05, ge=0, lt=1, description="Share of the steps that warm up (assumption).")
    final_rate: Number = Field(0.0, ge=0, le=1, description="Learning rate at the end, as a share of the peak (assumption).")
    weight_decay: Number = Field(0.1, ge=0, le=1000, description="AdamW weight decay (assumption).")
    beta1: Number = Field(0.9, ge=0, lt=1, description="AdamW beta 1 (assumption).")
    beta2: Number = Field(0.95, ge=0, lt=1, description="AdamW beta 2 (assumption).")
    max_grad_norm: Number = Field(1.0, gt=0, le=1e9, description="Gradients are clipped to this norm (assumption).")

    @model_validator(mode="after")
    def _check(self) -> OptimiserSettings:
        if self.batch_size > self.samples:
            raise ValueError(f"batch_size: {self.batch_size} is larger than samples ({self.samples})")
        return self


class PretrainSettings(OptimiserSettings):
    """Pretraining from scratch: next-token loss on prompt and completion, one pass over fresh samples."""

    samples: Whole = Field(32_000, ge=1, le=10**11, description="Samples N, the same for every ratio (paper: 67M).")
    batch_size: Count = Field(64, description="Samples a step (assumption).")
    learning_rate: Rate = Field(3e-3, description="Peak learning rate (assumption).")
    ood_pool: Ratio = Field("1", description="OOD samples generated, as a share of N: no ratio can be larger.")

    @property
    def steps(self) -> int:
        """Optimiser steps of the one pass; the last batch may be smaller."""
        return -(-self.samples // self.batch_size)


class SFTSettings(OptimiserSettings):
    """Supervised fine-tuning on ID samples: loss on the completion only."""

    samples: Count = Field(2048, description="ID samples (paper: 2K).")
    batch_size: Count = Field(64, description="Samples a step (assumption).")
    learning_rate: Rate = Field(1e-4, description="Peak learning rate (assumption).")
    epochs: Count = Field(2, description="Passes over the samples (assumption).")

    @property
    def steps(self) -> int:
        """Optimiser steps; the last batch of an epoch may be smaller."""
        return self.epochs * -(-self.samples // self.batch_size)


class GRPOSettings(Section):
    """GRPO (arXiv 2402.03300) with binary exact-match reward on the whole completion."""

    steps: Count = Field(60, description="Optimiser steps (paper: about 60).")
    prompts_per_step: Count = Field(16, description="Prompts a step; steps x prompts_per_step prompts in all (paper: 1K).")
    group_size: Whole = Field(8, ge=2, le=10**6, description="Completions sampled for each prompt (assumption).")
    learning_rate: Rate = Field(2e-4, description="Peak learning rate (assumption).")
    warmup: Number = Field(0.0, ge=0, lt=1, description="Share of the steps that warm up (assumption).")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="Learning-rate schedule (assumption).")
    beta: Number = Field(0.001, ge=0, le=MAX_BETA, description="Weight of the KL term against the SFT model (assumption).")
    epsilon: Number = Field(0.2, gt=0, lt=1, description="Clip range of the probability ratio (assumption).")
    temperature: Number = Field(1.0, gt=0, le=1e6, description="Sampling temperature of the rollouts.")
    iterations: Count = Field(1, description="Optimiser steps on each batch of rollouts (assumption).")
    max_grad_norm: Number = Field(1.0, gt=0, le=1e9, description="Gradients are clipped to this norm (assumption).")

    @property
    def prompts(self) -> int:
        """Distinct prompts a run trains on: one pass."""
        return -(-self.steps // self.iterations) * self.prompts_per_step


class EvaluationSettings(Section):
    """Exact evaluation of every stage on the test prompts."""

    prompts: Count = Field(512, description="Test prompts a split, balanced over its tasks.")
    batch_size: Count = Field(512, description="Prompts a forward pass.")


class TheorySettings(Section):
    """RL with a KL term to convergence on a fixed pool of prompts, against theory (target `theory`), and sampling as a check."""

    betas: Betas = Field(("0.3", "1", "3"), description="Weights of the KL term; text as written names the files.")
    prompts: Prompts = Field("ood", description="Split of the prompts, pool and held-out.")
    seeds: Count = Field(1, description="Run for the first so many seeds.")
    pool: Count = Field(16, description="Prompts trained on, at evenly spaced ranks of starting mass; each step uses all of them.")
    steps: Count = Field(100, description="Optimiser steps.")
    group_size: Whole = Field(16, ge=2, le=10**6, description="Completions sampled for each prompt at a step.")
    learning_rate: Rate = Field(1e-4, description="Peak learning rate; a larger one overshoots at small KL weights.")
    schedule: Literal["constant", "linear", "cosine"] = Field("cosine", description="Learning-rate schedule.")
    trace_every: Count = Field(10, description="Steps between exact evaluations while training.")
    sampled_prompts: Count = Field(32, description="Sampling check: test prompts of each of ID and OOD.")
    samples: Count = Field(256, description="Sampling check: completions drawn for a prompt.")


class ClaimsSettings(Section):
    """Rules of the claims ledger, fixed before the results are seen. Effects are changes of mean correct mass."""

    significance: Number = Field(0.05, gt=0, lt=0.5, description="Intervals of the ledger cover 1 - significance.")
    negligible: Number = Field(0.01, gt=0, lt=1, description="A change of mass up to this is none.")
    zero_mass: Number = Field(1e-4, gt=0, lt=1, description="A starting mass below this is about zero: 128 samples miss 99 % of the time.")
    partial: tuple[Rate, Rate] = Field((0.1, 0.9), description="From and to this starting mass a prompt is partly right.")
    saturated: Rate = Field(0.95, description="From this starting mass on a prompt is saturated.")
    broken: Rate = Field(0.5, description="Foreign tokens break a prompt if they take more than this mass from it.")
    band_prompts: Count = Field(20, description="A seed counts in a band or bin of starting mass if it has this many prompts there.")
    bound_tolerance: Number = Field(0.01, ge=0, lt=1, description="Mass above the bound by no more than this is not above it.")
    bound_exceptions: Rate = Field(0.05, description="The mass bound holds if fewer than this share of prompts end above it.")

    @model_validator(mode="after")
    def _check(self) -> ClaimsSettings:
        if not self.zero_mass < self.partial[0] < self.partial[1] <= self.saturated:
            raise ValueError("partial: zero_mass, both ends of partial, and saturated must be in rising order")
        return self


class RuntimeSettings(Section):
    """How jobs run. Nothing here changes a result beyond rounding, so nothing here makes a stage run again."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes CUDA when the job was given a GPU.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Arithmetic of the training passes (weights stay float32).")
    compile: bool = Field(False, description="Compile the model with torch.compile (pretraining on CUDA).")
    prefork: bool = Field(
        True, description="Fork local jobs from one process with the imports done (Linux); off, each job imports by itself."
    )
    threads: Whole = Field(1, ge=1, le=4096, description="CPU threads a training job; several one-thread jobs beat one wide job.")
    checkpoint_seconds: Number = Field(
        300.0, ge=0, le=10**7, description="Seconds between checkpoints of a training stage; 0: at every step."
    )
    scratch: str | None = Field(
        None, description="Node-local folder for temporary files, environment variables allowed (`$SLURM_TMPDIR`); TMPDIR when left out."
    )
    lease_seconds: Number = Field(
        120.0, ge=5, le=10**6, description="Seconds without a sign of life after which another job takes a training stage over."
    )
    lease_wait_seconds: Number = Field(
        1800.0, ge=0, le=10**7, description="Seconds a job waits for another, living one to hand a training stage over."
    )


class StageResources(Section):
    """What a job of this kind asks a cluster for; ignored by a local run."""

    gpus: Whole = Field(0, ge=0, le=1000, description="GPUs.")
    mem_mb: Whole = Field(2000, ge=1, le=10**8, description="Memory in MiB at the first attempt; attempt n asks for n times as much.")
    minutes: Whole = Field(
        60, ge=1, le=10**6, description="Time limit in minutes at the first attempt; attempt n asks for n times as much."
    )


class ResourceSettings(Section):
    """What jobs ask a cluster for. Nothing here changes a result, so nothing here makes a stage run again."""

    data: StageResources = Field(StageResources(minutes=20), description="Pretraining pools and the summary of the data.")
    prompts: StageResources = Field(StageResources(mem_mb=1000, minutes=10), description="SFT samples, GRPO prompts, test prompts.")
    pretrain: StageResources = Field(StageResources(), description="Pretraining.")
    sft: StageResources = Field(StageResources(minutes=20), description="SFT.")
    grpo: StageResources = Field(StageResources(), description="GRPO.")
    evaluate: StageResources = Field(StageResources(minutes=20), description="Evaluation.")
    theory: StageResources = Field(StageResources(minutes=60), description="RL to convergence, and sampling as a check.")
    figures: StageResources = Field(StageResources(minutes=20), description="Tables, figures and report.")
