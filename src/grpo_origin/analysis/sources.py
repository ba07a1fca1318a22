"""What the run's tables are made from: files and settings, each read once and when it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_origin.config.schema import ClaimsSettings

if TYPE_CHECKING:
    import pandas as pd

Files = Sequence[str | Path]
STAGE = ("axis", "seed", "ood_ratio", "stage")  # where `Sources.training` puts a folder
# What an RL stage's `signal.parquet` records of what it sampled, in one row.
SIGNAL = (
    *("completions", "rewarded", "contrast_share", "expected_successes", "any_success", "moved"),
)


@dataclass(frozen=True)
class Sources:
    """What tables are made from: files and settings; those that no wanted table needs may lack.

    `training` is (axis, seed, ood_ratio, stage, model folder) of every RL stage, `betas` the KL
    weight of each method, in their order, 0 where the law says nothing of its objective, and
    `budget` the completions that an RL stage samples.
    """

    evaluation_files: Files = ()
    training: Sequence[tuple[str, int, str, str, str | Path]] = ()
    runs: Files = ()
    traces: Files = ()
    samples: Files = ()
    claims: ClaimsSettings = field(default_factory=ClaimsSettings)
    betas: Mapping[str, float] = field(default_factory=dict)
    budget: int = 1

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """All evaluations, a row a stage and test prompt."""
        from grpo_origin.analysis.evaluations import read_evaluations

        return read_evaluations(self.evaluation_files)

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Mass before and after RL, a row a stage and test prompt."""
        from grpo_origin.analysis.statistics import prompt_gains

        return prompt_gains(self.evaluations)

    @cached_property
    def converged(self) -> pd.DataFrame | None:
        """Runs to convergence, a row a prompt; None if the run has none."""
        from grpo_origin.analysis.theory import read_prompts_table

        return read_prompts_table(self.runs) if self.runs else None

    @property
    def zero_mass(self) -> float:
        """Mass below which the budget has at most the chance `claims.chance` of a success."""
        from grpo_origin.evaluation.exploration import budget_mass

        return budget_mass(self.budget, self.claims.chance)

    @cached_property
    def signal(self) -> pd.DataFrame | None:
        """What RL stages sampled, a row a stage: SIGNAL and where; None if none recorded it."""
        import pandas as pd

        from grpo_origin.analysis.stages import with_method
        from grpo_origin.jobs.files import read_table

        rows = []
        for *place, folder in self.training:
            path = Path(folder) / "signal.parquet"
            if path.exists():
                row = read_table(path, SIGNAL).to_pandas()[[*SIGNAL]]
                rows.append(row.assign(**dict(zip(STAGE, place, strict=True))))
        if not rows:
            return None
        return with_method(pd.concat(rows, ignore_index=True)[[*STAGE, *SIGNAL]])
