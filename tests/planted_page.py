"""The page of a made-up run, for the tests of report and explorer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from grpo_origin.report.page import write_report

RECORD = {
    "device": "cpu",
    "git_commit": "abc",
    "numerics": {"precision": "float32", "tf32": False, "cpu_capability": "AVX2", "threads": 1},
    "peak_memory_mib": 300.0,
    "seconds": 1.5,
    "stage": "sft",
    "versions": {"torch": "2.13.0", "numpy": None},
}
CLAIM = {
    "method": "grpo",
    "claim": "no OOD, no gain",
    "axis": "many",
    "statement": "It stays.",
    "kind": "absent",
    "edge": 0.01,
    "cells": "OOD ratio 0; c; seeds 0",
    "effect": 0.001,
    "low": -0.002,
    "high": 0.004,
    "seeds": 3,
    "look": "1 of 1, alpha 0.05",
    "seeds_needed": np.nan,
    "p_adjusted": 0.5,
    "verdict": "supported",
    "note": "",
}


def written(folder, settings, figures, *, claims=(CLAIM,), provenance=(RECORD,), beta=0.5, **more):
    tables = {"claims": pd.DataFrame(claims)} | more
    how = {"beta": beta, "figures": figures, "tables": tables, "provenance": provenance}
    write_report(folder / "report.html", settings=settings, **how)
    return (folder / "report.html").read_text(encoding="utf-8")
