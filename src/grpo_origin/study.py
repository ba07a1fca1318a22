"""A run, checked by every room.

The workflow, the command line and the cost plan start from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from grpo_origin.config.grid import Grid
from grpo_origin.config.load import load_settings, read_config
from grpo_origin.config.paths import Paths
from grpo_origin.config.schema import Settings
from grpo_origin.data.strings import check_string_space
from grpo_origin.rl.method import Method, load_methods, prompts_needed

# Modules that take seconds to import and that jobs need: local jobs are forked with them imported.
PRELOADED = ("grpo_origin.rl.trainer", "grpo_origin.evaluation.mass", "snakemake.script", "pandas")


@dataclass(frozen=True)
class Study:
    """Settings that can run, with their RL methods."""

    settings: Settings
    methods: dict[str, Method]

    @cached_property
    def grid(self) -> Grid:
        """Cells, stages, jobs."""
        return Grid(self.settings)

    @cached_property
    def paths(self) -> Paths:
        """Where everything of the run lives."""
        return Paths(self.settings.run)

    @property
    def rl_prompts(self) -> int:
        """Prompts a split in the RL prompt set: what the most demanding method needs."""
        return prompts_needed(self.settings, self.methods)


def open_study(config: Mapping[str, Any]) -> Study:
    """Check a merged configuration; raises ConfigError, one line that names the key."""
    settings = load_settings(config)
    methods = load_methods(settings)
    check_string_space(settings, prompts_needed(settings, methods))
    return Study(settings, methods)


def read_study(*files: str | Path) -> Study:
    """The study of YAML files, each merged over those before it; raises ConfigError."""
    return open_study(read_config(*files))
