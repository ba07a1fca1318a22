"""The evaluation file: its columns, defined once, and what in it calls for a warning.

`mass` writes it, `analysis` reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Name -> (type, meaning with unit). One row a stage and test prompt.
COLUMNS: dict[str, tuple[str, str]] = {
    "axis": ("string", "axis of generalisation"),
    "seed": ("int64", "seed of world, data and models"),
    "ood_ratio": ("string", "OOD share of pretraining, as written in the configuration"),
    "variant": ("string", "variant of the settings; `base` for the run's own"),
    "stage": ("string", "training stage, the name of its folder"),
    "method": ("string", "RL method of the stage; null before RL"),
    "trained_on": ("string", "split of the prompts that RL trained on; null before RL"),
    "split": ("string", "split of the test prompt: id, ood, mixed-1, ..."),
    "task": ("string", "task of the test prompt, as configured"),
    "prompt_index": ("int64", "number of the test prompt in its split"),
    "log_mass": (
        "float64",
        "ln Q, Q the probability of the reference completion: the correct one, or a lower bound "
        "where others are right too (worked solutions of text tasks); nats",
    ),
    "log_mass_markers": ("float64", "part of ln Q from <think>, <answer> and <eos>; nats"),
    "log_mass_content": ("float64", "part of ln Q from all other tokens; nats"),
    "greedy_correct": ("bool", "whether greedy decoding gives the correct completion"),
}
NULL_BEFORE_RL = ("method", "trained_on")


def evaluation_schema() -> pa.Schema:
    """The columns with their types, as parquet holds them."""
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
    }
    return pa.schema([(name, types[kind]) for name, (kind, _) in COLUMNS.items()])


def low_mass_warning(mass: float, learnt: float) -> str:
    """What it means that the mean ID mass after SFT is below `learnt`."""
    return (
        f"mean ID mass after SFT is {mass:.3f}, below claims.learnt ({learnt:g}): the model has "
        "not learnt its ID tasks, so what RL does to it says little; pretrain longer"
    )
