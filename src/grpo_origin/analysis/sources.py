"""What the run's tables are made from: files and settings, each read once and when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_origin.config.paths import (
    BASE,
    LEARNING_CURVE,
    PROMPT_MASS,
    SIGNAL,
    TRAINING_LOG,
    variant_of,
)
from grpo_origin.config.schema import ClaimsSettings
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import read_table

if TYPE_CHECKING:
    import pandas as pd

    from grpo_origin.analysis.outcome_stages import Ran

Files = Sequence[str | Path]
STAGE = ("axis", "seed", "ood_ratio", "stage")  # where `Sources.training` puts a folder


@dataclass(frozen=True)
class Sources:
    """What tables are made from: files and settings; those that no wanted table needs may lack.

    `training` is (axis, seed, ood_ratio, stage, model folder) of every RL stage, `betas` the KL
    weight of each method, in their order, 0 where the law says nothing of its objective, `budget`
    the completions that an RL stage samples, `demonstrations` the OOD samples that SFT is shown,
    `gold_tokens` those that the stages before RL are trained on, by axis, ratio and stage, and
    `reference` the ledger that the run's is compared with, none if empty.
    """

    evaluation_files: Files = ()
    answer_files: Files = ()
    completion_files: Files = ()
    probe_files: Files = ()
    head_files: Files = ()
    faithfulness_files: Files = ()
    calibration_files: Files = ()
    training: Sequence[tuple[str, int, str, str, str | Path]] = ()
    runs: Files = ()
    traces: Files = ()
    samples: Files = ()
    claims: ClaimsSettings = field(default_factory=ClaimsSettings)
    betas: Mapping[str, float] = field(default_factory=dict)
    budget: int = 1
    demonstrations: int = 0
    gold_tokens: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    reference: str | Path = ""

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """All evaluations, a row a stage and test prompt."""
        from grpo_origin.analysis.evaluations import read_evaluations

        return read_evaluations(self.evaluation_files)

    @cached_property
    def answers(self) -> pd.DataFrame | None:
        """Sampled right answers, a row a stage and test prompt; None if none were sampled."""
        import pandas as pd

        if not self.answer_files:
            return None
        return pd.concat(read_table(file).to_pandas() for file in self.answer_files)

    @cached_property
    def heads(self) -> pd.DataFrame | None:
        """Heads over a fixed set, a row a head and split; None if the run has none."""
        import pandas as pd

        if not self.head_files:
            return None
        parts = [read_table(file).to_pandas() for file in self.head_files]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def faithfulness(self) -> pd.DataFrame | None:
        """Measures of faithful traces, a row a stage, split, seed and measure; None if not taken.

        Columns as `analysis.faithfulness.seed_measures` gives them.
        """
        import pandas as pd

        from grpo_origin.analysis.faithfulness import seed_measures

        tables = [read_table(file).to_pandas() for file in self.faithfulness_files]
        rows = pd.concat(tables) if tables else pd.DataFrame()
        return seed_measures(rows) if len(rows) else None

    @cached_property
    def calibration(self) -> pd.DataFrame | None:
        """Measures of calibration, a row a seed's stage, split and measure; None without any."""
        from grpo_origin.analysis.calibration import seed_calibration

        return self.of_calibration(seed_calibration) if self.calibration_files else None

    def of_calibration(self, make: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
        """What `make` gives of the answers of each cell, as one table."""
        import pandas as pd

        files = (read_table(file).to_pandas() for file in self.calibration_files)
        return pd.concat([make(answers) for answers in files], ignore_index=True)

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Mass before and after RL, a row a stage and test prompt."""
        from grpo_origin.analysis.statistics import prompt_gains

        return prompt_gains(self.evaluations)

    @cached_property
    def signal(self) -> pd.DataFrame | None:
        """What could be sampled in each RL stage and what was rewarded, a row a stage.

        Columns as in `tables.TABLES["signal"]`. None if no stages are given.
        """
        return self.of_stages(SIGNAL) if self.training else None

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """Learning curves of all RL stages, a row a step and split; None if no stages are given."""
        return self.of_stages(LEARNING_CURVE) if self.training else None

    def of_stages(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A file of every RL stage's folder as one table, with columns that say which stage it is.

        Raises ArtefactError if it can't be read, ValueError if no stages are given.
        """
        import pandas as pd

        from grpo_origin.analysis.stages import with_method

        if not self.training:
            raise ValueError("no RL stages given")
        parts = []
        for axis, seed, ratio, stage, folder in self.training:
            if Path(folder).is_dir() and not (Path(folder) / name).exists():
                raise ArtefactError(folder, f"holds no {name}, as made by an older version")
            place = pd.DataFrame([{"axis": axis, "seed": seed, "ood_ratio": ratio, "stage": stage}])
            rows = read_table(Path(folder) / name, columns).to_pandas()
            parts.append(place.merge(rows, how="cross"))
        return with_method(pd.concat(parts, ignore_index=True))

    @cached_property
    def quantities(self) -> pd.DataFrame:
        """What is contrasted between variants and methods, a row a cell, seed and stage each."""
        from grpo_origin.analysis.contrasts import quantities

        return quantities(self.evaluations)

    @cached_property
    def first_successes(self) -> pd.DataFrame:
        """The first success of each RL stage beside its forecast; none if no stages are given."""
        import pandas as pd

        from grpo_origin.analysis.first_success import COLUMNS, first_successes

        if self.signal is None:
            return pd.DataFrame(columns=[*COLUMNS])
        masses = self.of_stages(PROMPT_MASS, ["log_mass", "step", "samples"])
        logs = self.of_stages(TRAINING_LOG, ["step", "reward_mean"])
        # Where anything but exact matches is rewarded, weights may move before the first of them.
        of_the_law = [name for name, beta in self.betas.items() if beta]
        return first_successes(masses, logs, self.signal[self.signal["method"].isin(of_the_law)])

    @cached_property
    def ran(self) -> list[Ran]:
        """The RL stages that the forecast of outcomes is about; none if no stages are given."""
        from grpo_origin.analysis.outcome_stages import stages_that_ran

        if self.signal is None:
            return []
        masses = self.of_stages(PROMPT_MASS, ["log_mass", "task", "step", "samples"])
        steps = self.of_stages(TRAINING_LOG, ["step"])
        of_the_law = [name for name, beta in self.betas.items() if beta]
        signal = self.signal[self.signal["method"].isin(of_the_law)]
        return stages_that_ran(masses, steps, signal, self.gains)

    @cached_property
    def converged(self) -> pd.DataFrame | None:
        """Runs to convergence, a row a prompt; None if the run has none."""
        from grpo_origin.analysis.theory import read_prompts_table

        return read_prompts_table(self.runs) if self.runs else None

    @cached_property
    def zero_masses(self) -> dict[str, float]:
        """By method the mass of which its stages find a success with at most `claims.chance`.

        From the completions that the longest of its stages sampled (some methods sample again),
        from `budget` where that was not recorded.
        """
        from grpo_origin.evaluation.exploration import budget_mass

        budgets = dict.fromkeys(self.betas, self.budget)
        if self.signal is not None:
            sampled = self.signal.groupby("method")["completions"].max()
            budgets |= {name: int(sampled[name]) for name in budgets if name in sampled}
        return {name: budget_mass(count, self.claims.chance) for name, count in budgets.items()}

    @cached_property
    def informed(self) -> pd.DataFrame:
        """Methods whose stages were shown gold tokens: columns axis, ood_ratio, method."""
        import pandas as pd

        keys = ["axis", "ood_ratio", "method"]
        if self.signal is None:
            return pd.DataFrame(columns=keys)
        return self.signal.loc[self.signal["gold_tokens"] > 0, keys].drop_duplicates()

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """The claims ledgers of all methods."""
        from grpo_origin.analysis.ledger import ledgers

        return ledgers(
            self.evaluations,
            self.claims,
            self.zero_masses,
            self.betas,
            self.converged,
            self.signal,
            self.heads,
            self.faithfulness,
            self.calibration,
        )


def by_variant(
    inputs: Any,
    params: Any,
    betas: Mapping[str, Mapping[str, float]] | None = None,
    budgets: Mapping[str, int] | None = None,
    demonstrations: Mapping[str, int] | None = None,
    gold_tokens: Mapping[str, Any] | None = None,
    **of_the_run: Any,
) -> dict[str, Sources]:
    """What the tables of a run and its variants are made from, as a job of the workflow has it.

    `inputs` have evaluations, answers, faithfulness, calibration and training (folders), `params`
    places, and answer_places, faithfulness_places and calibration_places (whose each of these is),
    trained (variant, axis, seed, ood_ratio, stage of each folder) and claims (settings); `betas`,
    `budgets`, `demonstrations` and `gold_tokens` are by variant; what else there is, is of the run
    itself.
    """
    claims = ClaimsSettings(**params.claims)
    stages = list(zip(params.trained, inputs.training, strict=True))
    evaluations = _by_owner(inputs.evaluations, params.places)
    answers = _by_owner(inputs.answers, params.answer_places)
    faithfulness = _by_owner(inputs.faithfulness, params.faithfulness_places)
    calibration = _by_owner(inputs.calibration, params.calibration_places)
    return {
        name: Sources(
            evaluation_files=files,
            answer_files=answers.get(name, ()),
            faithfulness_files=faithfulness.get(name, ()),
            calibration_files=calibration.get(name, ()),
            training=[
                (axis, seed, ratio, stage, folder)
                for (owner, axis, seed, ratio, stage), folder in stages
                if owner == name
            ],
            claims=claims,
            betas=(betas or {}).get(name, {}),
            budget=(budgets or {}).get(name, 1),
            demonstrations=(demonstrations or {}).get(name, 0),
            gold_tokens=(gold_tokens or {}).get(name, {}),
            **(of_the_run if name == BASE else {}),
        )
        for name, files in evaluations.items()
    }


def _by_owner(files: Files, places: Sequence[str]) -> dict[str, list[str | Path]]:
    """Files by the variant whose place they lie in, in the order of the first of each."""
    owned: dict[str, list[str | Path]] = {}
    for file, place in zip(files, places, strict=True):
        owned.setdefault(variant_of(place), []).append(file)
    return owned
