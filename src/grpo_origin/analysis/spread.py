"""How masses are spread over the prompts of a cell, in decades: what a mean hides.

Called by the registry of tables; the report's explorer draws it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from grpo_origin.analysis.stages import with_method

# Decades below this one count as it: no sampling budget tells 1e-60 from less, and one prompt at
# 1e-300 would leave a figure of the others a line.
LOWEST = -60
QUANTITIES = {
    "mass": "log_mass",
    "markers": "log_mass_markers",
    "content": "log_mass_content",
}


def mass_spread(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Prompts of every stage, split and decade of the mass and of its two factors.

    Columns axis, seed, ood_ratio, stage, method, trained_on, split, quantity (of QUANTITIES),
    decade (-3 is 0.001 to 0.01, -1 includes 1, LOWEST all that is less), prompts.
    """
    keys = ["axis", "seed", "ood_ratio", "stage", "split"]
    parts = []
    for quantity, column in QUANTITIES.items():
        exponents = np.floor(evaluations[column].to_numpy(dtype=float) / np.log(10))
        decades = np.clip(exponents, LOWEST, -1).astype(int)
        table = evaluations[keys].assign(decade=decades)
        counts = table.groupby([*keys, "decade"], sort=False).size()
        parts.append(counts.rename("prompts").reset_index().assign(quantity=quantity))
    return with_method(pd.concat(parts, ignore_index=True))
