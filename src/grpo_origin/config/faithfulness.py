"""Settings of the measures of faithfulness, which are off unless a run sets them.

They count as values, as those of `stages` do.
"""

from __future__ import annotations

from pydantic import Field

from grpo_origin.config.fields import Count, Section


class FaithfulnessSettings(Section):
    """Whether answers follow from their traces (docs/related.md); off unless it is written."""

    prompts: Count = Field(
        64, description="Test prompts of each task that has a state to corrupt, ID and OOD."
    )
    samples: Count = Field(16, description="Completions drawn for each of them.")
    depth: Count = Field(
        1, description="Operations between the corrupted state and the answer: 1 is the last state."
    )
    positions: Count = Field(
        1, description="Elements of the state that are corrupted, all of them where it has fewer."
    )
