"""The grid of a run: its groups, cells, stages and jobs, from the settings alone.

The workflow's rules and the cost plan count the same jobs because both take them from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from grpo_origin.config.paths import Stage, rl_stage, stage_of
from grpo_origin.config.schema import Settings

DATA_FILES = ("pretrain-id", "pretrain-ood", "sft", "grpo", "test")
PROMPT_SETS = ("sft", "grpo", "test")
CONVERGED_METHODS = ("rloo", "grpo")  # the law's own objective, and GRPO as practised

Cell = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """What a run consists of; every cell is keyword arguments for `Paths`."""

    settings: Settings
    tokenized: tuple[str, ...] = ()
    """Axes whose tokenizer is a file of the data."""
    many_right: tuple[str, ...] = ()
    """Axes on which more than the reference completion may be right: answers are sampled."""
    stochastic: tuple[str, ...] = ()
    """Axes whose answers are probabilities: their calibration is measured."""

    @cached_property
    def groups(self) -> list[Cell]:
        """Axes and seeds: what shares data."""
        return [
            {"axis": axis, "seed": seed}
            for axis in self.settings.axes
            for seed in self.settings.seeds
        ]

    @cached_property
    def cells(self) -> list[Cell]:
        """Axes, seeds and OOD ratios: what shares a pretrained model."""
        return [
            group | {"ratio": ratio}
            for group in self.groups
            for ratio in self.settings.axis_ratios(group["axis"])
        ]

    @cached_property
    def rl_stages(self) -> list[Stage]:
        """The RL stages of a cell."""
        return [
            stage_of(rl_stage(split, method))
            for method in self.settings.methods
            for split in self.settings.trained_on
        ]

    @cached_property
    def stages(self) -> list[Stage]:
        """All trained stages of a cell, in order."""
        return [*map(stage_of, self.settings.before_rl), *self.rl_stages]

    @cached_property
    def theory_runs(self) -> list[Cell]:
        """Runs of RL to convergence."""
        settings = self.settings
        return [
            {"axis": axis, "seed": seed, "ratio": ratio, "method": method, "beta": beta}
            for axis in settings.axes
            for ratio in settings.theory_ratios(axis)
            for seed in settings.seeds[: settings.theory.seeds]
            for method in CONVERGED_METHODS
            for beta in settings.theory.betas
        ]

    @cached_property
    def sampled_cells(self) -> list[Cell]:
        """Cells in which sampling is held against exact masses: one an axis."""
        settings = self.settings
        return [
            {"axis": axis, "seed": settings.seeds[0], "ratio": settings.sampled_ratio(axis)}
            for axis in settings.axes
        ]

    @cached_property
    def shown_cells(self) -> list[Cell]:
        """Cells of which the report shows what models write: two an axis, of the first seed.

        Those of the lowest ratio and of the second largest, or the largest if there are but two.
        """
        cells = []
        for axis in self.settings.axes:
            ratios = sorted(self.settings.axis_ratios(axis), key=Decimal)
            shown = dict.fromkeys((ratios[0], ratios[-2:][0] if len(ratios) > 2 else ratios[-1]))
            place = {"axis": axis, "seed": self.settings.seeds[0]}
            cells += [place | {"ratio": ratio} for ratio in shown]
        return cells

    @cached_property
    def shown_stages(self) -> list[str]:
        """Their stages: those before RL and those of the main method."""
        kinds = (None, self.settings.main_method)
        return [stage.name for stage in self.stages if stage.method in kinds]

    @cached_property
    def jobs(self) -> dict[str, list[Cell]]:
        """The jobs of the whole run by rule, each as the wildcards of its outputs.

        The workflow plans by it, the cost plan counts it.
        """
        rl = [
            cell | {"method": stage.method, "trained_on": stage.trained_on}
            for cell in self.cells
            for stage in self.rl_stages
        ]
        sampled = tuple(self.settings.axes) if self.settings.rl.reward == "answer" else ()
        sampled += self.many_right
        with_wildcards = {
            "tokenizer": [group for group in self.groups if group["axis"] in self.tokenized],
            "pretraining_data": self.groups,
            "prompts": [group | {"set": name} for group in self.groups for name in PROMPT_SETS],
            "data_summary": self.groups,
            "pretrain": self.cells,
            "sft": self.cells if self.settings.sft else [],
            "rl": rl,
            "evaluate": self.cells,
            "completions": self.shown_cells,
            "answers": [cell for cell in self.cells if cell["axis"] in sampled],
            "probes": self.cells if self.settings.probes else [],
            "representation": self.cells if self.settings.representation else [],
            "faithfulness": self.cells if self.settings.faithfulness else [],
            "calibration": [cell for cell in self.cells if cell["axis"] in self.stochastic],
            "converge": self.theory_runs,
            "sampling": self.sampled_cells,
        }
        run_level = ("theory_tables", "tables", "claims", "figures", "report")
        return with_wildcards | {rule: [{}] for rule in run_level}
