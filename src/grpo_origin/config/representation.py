"""Settings of what is asked of representations: linear probes, heads over a fixed set (GRPO-RM).

Both are off unless a run sets them. They count as values, as those of `stages` do.
"""

from __future__ import annotations

from pydantic import Field

from grpo_origin.config.fields import Count, Number, Rate, Section, Whole
from grpo_origin.config.notation import SPLITS

# Kinds of training of a head, in their order; the first is what the others are held against.
HEADS = ("cross_entropy", "grpo_rm", "grpo_rm_sampled")


class ProbeSettings(Section):
    """Linear probes of the states of a trace, from what a model holds when the prompt ends."""

    prompts: Whole = Field(
        1024,
        ge=100,
        le=10**6,
        description="Prompts of train strings that probes are fitted on, of each task.",
    )
    ridge: Number = Field(
        1e-3,
        gt=0,
        le=1e6,
        description="Weight of the ridge penalty, for features of unit variance and the mean "
        "squared error of a prompt (assumption).",
    )


class RepresentationSettings(Section):
    """GRPO-RM (arXiv 2511.15256): a head over the nodes on the pretrained representation."""

    position: Count = Field(
        1, description="The head says which node stands at this position of the answer, from 1."
    )
    linear_prompts: Whole = Field(
        2048,
        ge=100,
        le=10**6,
        description="ID prompts that the linear head is fitted on, the decoder frozen.",
    )
    linear_steps: Count = Field(300, description="Steps of that fit, each on all of them.")
    linear_rate: Rate = Field(0.01, description="Learning rate of that fit (assumption).")
    steps: Count = Field(120, description="Optimiser steps of every kind of training from there.")
    prompts_per_step: Count = Field(64, description="Prompts a step, each used once.")
    group_size: Whole = Field(
        8, ge=2, le=10**6, description="Outputs drawn a prompt where groups are sampled."
    )
    learning_rate: Rate = Field(3e-4, description="Learning rate, constant (assumption).")
    uniformity: Number = Field(
        0.5,
        ge=0,
        le=10,
        description="Weight of the uniformity reward: a wrong output loses that times its "
        "probability (assumption: the paper's formula was not at hand).",
    )
    no_mass: Rate = Field(
        0.001,
        description="A prompt to whose right output the linear head gives less has no correct "
        "mass: a group of 8 holds it with a chance below 1 %.",
    )

    @property
    def shown(self) -> int:
        """Prompts that the linear head and all kinds of training on each split are shown."""
        return self.linear_prompts + len(HEADS) * len(SPLITS) * self.steps * self.prompts_per_step
