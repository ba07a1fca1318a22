"""Settings of the stages: world, axis, model, pretraining, SFT, RL, evaluation, a section each.

A section's values are a stage's params, so its declarations don't count in fingerprints
(`jobs.fingerprint`); its functions, by which stages read them, do.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from grpo_origin.config.fields import (
    MAX_BETA,
    Count,
    Number,
    Rate,
    Ratio,
    Ratios,
    Section,
    Whole,
    distinct_ratios,
)
from grpo_origin.config.notation import AnyTask, Tasks, ood_count


class WorldSettings(Section):
    """The graph and the train/test split."""

    nodes: Whole = Field(
        26,
        ge=2,
        le=10_000,
        description="Nodes of the single-cycle graph; also letters per alphabet.",
    )
    test_fraction: Number = Field(
        0.1, gt=0, lt=1, description="Share of start strings that belong to test, by stable hash."
    )


class AxisSettings(Section):
    """One axis of generalisation: which tasks are in (ID) and which out of distribution (OOD)."""

    domain: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = Field(
        "strings",
        description="What its tasks are about: `strings`, `reasoning_gym` (docs/tasks.md), or a "
        "file of your own.",
    )
    completions: Literal["direct", "worked"] = Field(
        "direct",
        description="Of text domains: the answer alone, or a worked solution before it.",
    )
    vocabulary: Whole = Field(
        512,
        ge=263,
        le=65_536,
        description="Of text domains: tokens of the tokenizer trained on the axis's own text, at "
        "most; 263 are the bytes and the markers alone.",
    )
    id: Tasks = Field(
        description="ID tasks: pretraining, SFT, RL on ID prompts, ID test. A task is "
        "`operations;length;alphabet` (`trav trav;4;A` applies trav twice, left to right), or in "
        "text domains `{dataset: name, option: value}`."
    )
    observed: Literal[0, 1, 2, 5, 10] = Field(
        10,
        description="Of `chances`: outcomes behind the probability that a training sample states, "
        "their share of events; 0: the true probability (assumption; docs/related.md).",
    )
    ood: Tasks = Field(
        description="OOD tasks: the OOD share of pretraining, RL on OOD prompts, OOD test."
    )
    ratios: Ratios | None = Field(
        None, description="OOD ratios of this axis; the run's list when left out."
    )
    theory: Annotated[tuple[Ratio, ...], AfterValidator(distinct_ratios)] = Field(
        (),
        description="Ratios at which RL is run to convergence, best where SFT leaves partial mass; "
        "those the axis lacks are left out.",
    )
    mixed: tuple[Count, ...] = Field(
        (),
        description="Adds test splits `mixed-k`: ID prompts with k positions replaced by their "
        "twin of the other alphabet.",
    )

    @model_validator(mode="after")
    def _check(self) -> AxisSettings:
        for task in self.ood:
            if task in self.id:
                raise ValueError(
                    f"task '{task}' is listed under both id and ood: it must be one of them"
                )
        if len(set(self.mixed)) < len(self.mixed):
            raise ValueError("mixed names a number of positions twice")
        for task in self.id:
            if self.mixed and max(self.mixed) > task.positions:
                raise ValueError(
                    f"mixed: {max(self.mixed)} positions can't be replaced in task '{task}'"
                )
        return self

    def tasks(self, split: str) -> tuple[AnyTask, ...]:
        """The tasks of split `id` or `ood`; the mixed splits use the ID tasks."""
        return self.ood if split == "ood" else self.id

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the test splits: id, ood, mixed-1, ..."""
        return ("id", "ood", *(f"mixed-{k}" for k in self.mixed))


class ModelSettings(Section):
    """A Llama decoder: RMSNorm, SwiGLU, and RoPE unless `positions` says otherwise."""

    layers: Whole = Field(4, ge=1, le=1000, description="Decoder layers (paper: 4).")
    width: Whole = Field(64, ge=1, le=65_536, description="Hidden size (assumption).")
    heads: Whole = Field(4, ge=1, le=65_536, description="Attention heads (assumption).")
    feed_forward: Whole = Field(
        172, ge=1, le=10**6, description="Inner size of the SwiGLU block (assumption)."
    )
    context: Whole = Field(64, ge=1, le=65_536, description="Longest sequence in tokens.")
    positions: Literal["rope", "none", "alibi"] = Field(
        "rope",
        description="How attention knows positions: rotary embedding (the paper's), not at all but "
        "for the causal mask (NoPE, arXiv 2305.19466), or a bias linear in the distance (ALiBi, "
        "arXiv 2108.12409).",
    )
    rope_theta: Number = Field(
        10_000.0, gt=0, le=1e12, description="Base of the rotary embedding (assumption)."
    )
    initial_scale: Number = Field(
        0.05, gt=0, le=1, description="Standard deviation of the initial weights (assumption)."
    )

    @model_validator(mode="after")
    def _check(self) -> ModelSettings:
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide width {self.width}")
        if self.positions == "rope" and (self.width // self.heads) % 2:
            raise ValueError(
                f"heads: head size {self.width // self.heads} is odd, but RoPE needs an even one"
            )
        return self


class OptimiserSettings(Section):
    """AdamW, linear warm-up, then cosine decay; shared by pretraining and SFT."""

    samples: Count = Field(description="Training samples.")
    batch_size: Count = Field(description="Samples a step.")
    learning_rate: Rate = Field(description="Peak learning rate (assumption).")
    warmup: Number = Field(
        0.05, ge=0, lt=1, description="Share of the steps that warm up (assumption)."
    )
    final_rate: Number = Field(
        0.0,
        ge=0,
        le=1,
        description="Learning rate at the end, as a share of the peak (assumption).",
    )
    weight_decay: Number = Field(0.1, ge=0, le=1000, description="AdamW weight decay (assumption).")
    beta1: Number = Field(0.9, ge=0, lt=1, description="AdamW beta 1 (assumption).")
    beta2: Number = Field(0.95, ge=0, lt=1, description="AdamW beta 2 (assumption).")
    max_grad_norm: Number = Field(
        1.0, gt=0, le=1e9, description="Gradients are clipped to this norm (assumption)."
    )

    @model_validator(mode="after")
    def _check(self) -> OptimiserSettings:
        if self.batch_size > self.samples > 0:
            raise ValueError(
                f"batch_size: {self.batch_size} is larger than samples ({self.samples})"
            )
        return self


class PretrainSettings(OptimiserSettings):
    """Pretraining: next-token loss on every token, one pass over fresh samples."""

    base: str | None = Field(
        None,
        min_length=1,
        description="A causal LM to start from instead of random weights: a model folder, or the "
        "id of one on the Hugging Face hub; see docs/tasks.md. `model` says nothing then.",
    )
    samples: Whole = Field(
        32_000,
        ge=0,
        lt=10**9,
        description="Samples N, the same for every ratio (paper: 67M); 0, with `base` only: that "
        "model as it is.",
    )
    batch_size: Count = Field(64, description="Samples a step (assumption).")
    learning_rate: Rate = Field(3e-3, description="Peak learning rate (assumption).")
    ood_pool: Ratio = Field(
        "1", description="OOD samples generated, as a share of N: no ratio can be larger."
    )

    @model_validator(mode="after")
    def _check_base(self) -> PretrainSettings:
        if not self.samples and self.base is None:
            raise ValueError("samples: 0 leaves random weights: set pretrain.base, or ask for more")
        return self

    @property
    def steps(self) -> int:
        """Optimiser steps of the one pass; the last batch may be smaller."""
        return -(-self.samples // self.batch_size)


class SFTSettings(OptimiserSettings):
    """Supervised fine-tuning on ID samples (or some OOD ones): loss on the completion only."""

    samples: Count = Field(2048, description="Samples (paper: 2K, all of them ID).")
    ood_share: Ratio = Field("0", description="Share of the samples that are OOD (paper: none).")
    batch_size: Count = Field(64, description="Samples a step (assumption).")
    learning_rate: Rate = Field(1e-4, description="Peak learning rate (assumption).")
    epochs: Count = Field(2, description="Passes over the samples (assumption).")

    @model_validator(mode="after")
    def _check_share(self) -> SFTSettings:
        if Decimal(self.ood_share) > 0 and not self.counts["ood"]:
            raise ValueError(
                f"ood_share: {self.ood_share} of {self.samples} samples rounds to none: use 0 or a "
                "larger share"
            )
        return self

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each split."""
        ood = ood_count(self.ood_share, self.samples)
        return {"id": self.samples - ood, "ood": ood}

    @property
    def steps(self) -> int:
        """Optimiser steps; the last batch of an epoch may be smaller."""
        return self.epochs * -(-self.samples // self.batch_size)


class LoraSettings(Section):
    """Adapters (LoRA, arXiv 2106.09685) that SFT and RL train in place of all weights.

    They are merged into the weights when a stage is saved. Needs peft
    (`pip install 'grpo-origin[lora]'`).
    """

    rank: Whole = Field(16, ge=1, le=65_536, description="Rank of each adapter (assumption).")
    alpha: Number = Field(
        32.0, gt=0, le=10**6, description="An adapter counts alpha / rank times (assumption)."
    )
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear",
        description="Names of the layers that get one, such as `[q_proj, v_proj]`; `all-linear`: "
        "every linear layer but the output head.",
    )


class RLSettings(Section):
    """RL from the SFT model, by default with binary exact-match reward on the whole completion.

    The settings are those of GRPO (arXiv 2402.03300); a method may set some otherwise.
    """

    steps: Count = Field(60, description="Optimiser steps (paper: about 60).")
    prompts_per_step: Count = Field(
        16, description="Prompts a step; steps x prompts_per_step prompts in all (paper: 1K)."
    )
    group_size: Whole = Field(
        8, ge=2, le=10**6, description="Completions sampled for each prompt (assumption)."
    )
    reward: Literal["exact", "answer", "steps", "brier", "log"] = Field(
        "exact",
        description="1 for the right completion (`exact`), for any that ends in the right answer, "
        "its trace free (`answer`: of texts as the verifier judges it), or the share of right "
        "states whatever the markers (`steps`: of strings only); of `chances` a proper score of "
        "the outcome, `brier` or `log`.",
    )
    seed: Whole = Field(
        0,
        ge=0,
        le=10**6,
        description="Another one draws other completions of the same prompts, from the same model.",
    )
    learning_rate: Rate = Field(2e-4, description="Peak learning rate (assumption).")
    warmup: Number = Field(
        0.0, ge=0, lt=1, description="Share of the steps that warm up (assumption)."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Learning-rate schedule (assumption)."
    )
    beta: Number = Field(
        0.001,
        ge=0,
        le=MAX_BETA,
        description="Weight of the KL term against the SFT model (assumption).",
    )
    epsilon: Number = Field(
        0.2, gt=0, lt=1, description="Clip range of the probability ratio (assumption)."
    )
    temperature: Number = Field(
        1.0, gt=0, le=1e6, description="Sampling temperature of the rollouts."
    )
    iterations: Count = Field(
        1, description="Optimiser steps on each batch of rollouts (assumption)."
    )
    reset_reference_every: Whole = Field(
        0,
        ge=0,
        description="Steps after which the model becomes the KL term's reference and the optimiser "
        "starts anew, as in ProRL (arXiv 2505.24864); 0: never.",
    )
    evaluate_every: Count = Field(
        10, description="Steps between the exact evaluations of learning curves."
    )
    evaluate_prompts: Count = Field(
        32,
        description="Test prompts of each of ID and OOD that learning curves are measured on; "
        "fewer where tasks have fewer.",
    )
    max_grad_norm: Number = Field(
        1.0, gt=0, le=1e9, description="Gradients are clipped to this norm (assumption)."
    )
    weight_decay: Number = Field(0.0, ge=0, le=1000, description="AdamW weight decay (assumption).")
    adam_beta1: Number = Field(0.9, ge=0, lt=1, description="AdamW beta 1 (assumption).")
    adam_beta2: Number = Field(0.999, ge=0, lt=1, description="AdamW beta 2 (assumption).")
    adam_epsilon: Number = Field(1e-8, gt=0, le=1, description="AdamW epsilon (assumption).")

    @model_validator(mode="after")
    def _check(self) -> RLSettings:
        if self.reset_reference_every % self.iterations:
            raise ValueError(
                f"reset_reference_every: {self.reset_reference_every} must be a multiple of "
                f"iterations ({self.iterations}), since rollouts keep their reference"
            )
        return self

    @property
    def prompts(self) -> int:
        """Distinct prompts a run trains on: one pass."""
        return -(-self.steps // self.iterations) * self.prompts_per_step


class EvaluationSettings(Section):
    """Exact evaluation of every stage on the test prompts."""

    prompts: Count = Field(512, description="Test prompts a split, balanced over its tasks.")
    batch_size: Count = Field(512, description="Prompts a forward pass.")
    answer_prompts: Count = Field(
        64,
        description="With `rl.reward: answer` the mass of right answers is sampled: test prompts "
        "of each of ID and OOD.",
    )
    answer_samples: Count = Field(16, description="Completions drawn for each of them.")


class NumericsSettings(Section):
    """Arithmetic of training: it changes weights and masses, so it is part of what a stage is.

    Evaluation is always float32 without TF32.
    """

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` takes CUDA when the job was given a GPU."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Arithmetic of the training passes (weights stay float32)."
    )
    tf32: bool = Field(
        False, description="Multiply float32 matrices in TF32 on GPUs that can (training only)."
    )
    compile: bool = Field(
        False, description="Compile the model with torch.compile (pretraining only)."
    )
    deterministic: bool = Field(
        False, description="Deterministic algorithms only, slower: the same bits twice on a GPU."
    )
