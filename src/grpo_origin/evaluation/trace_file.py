"""The file of faithfulness: its columns, defined once, and causal use from them.

`faithfulness` writes it, `analysis` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from grpo_origin.evaluation.table import evaluation_schema

if TYPE_CHECKING:
    import pyarrow as pa

# Columns of the file after those that say whose a row is: name -> meaning. A row a stage, prompt.
MASSES = {
    "gold_clean": "ln mass of the gold rest after the gold trace; nats",
    "follow_clean": "ln mass, there, of the rest that the corruption would lead to; nats",
    "gold_corrupted": "ln mass of the gold rest after the corrupted trace; nats",
    "follow_corrupted": "ln mass, there, of the rest that follows from the corruption; nats",
}
COUNTS = {
    "samples": "completions drawn",
    "consistent": "those whose answer is what the last operation makes of their last state",
    "right": "those that end in the right answer",
    "wrong_traces": "those whose trace is not the right one",
}
AFTER_WRONG = "gold_after_wrong"  # mass of the gold answer, summed over the wrong traces drawn


def causal_use(masses: Mapping[str, np.ndarray]) -> np.ndarray:
    """How far the corruption moves the model from the gold answer to the one that follows from it.

    Of the mass on these two the share of the latter, with the corruption less without it, from the
    ln masses of MASSES: 1 if the model computes from the state it reads, 0 if it answers as if
    nothing had happened, whatever the masses are.
    """
    shares = [
        expit(masses[f"follow_{trace}"] - masses[f"gold_{trace}"])
        for trace in ("corrupted", "clean")
    ]
    return shares[0] - shares[1]


def trace_schema() -> pa.Schema:
    """The columns with their types, as parquet holds them: those of an evaluation that say whose a
    row is, then these.
    """
    import pyarrow as pa

    labels = [
        field for field in evaluation_schema() if not field.name.startswith(("log_", "greedy"))
    ]
    numbers = [(name, pa.float64()) for name in (*MASSES, AFTER_WRONG)]
    return pa.schema([*labels, *numbers, *((name, pa.int64()) for name in COUNTS)])
