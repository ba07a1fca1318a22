"""Calibration of answers that are probabilities: measures of a seed, over seeds, by answer.

Where the true probability p of an event is known, all are exact: k are the answers 0, 0.1 .. 1,
pi(k) their probabilities under the model after the right trace, scaled to sum to 1, and the
confidence of a prompt is their mean. Called by the registry of tables, by `calibration_claims`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from grpo_origin.analysis.contrasts import STAGE
from grpo_origin.analysis.intervals import over_seeds

PLACE = ["axis", "ood_ratio", *STAGE, "split"]
# What is measured of each seed; sums over k are weighted by pi(k), means are over test prompts.
MEASURES = {
    "ece": "expected calibration error of answers: sum over k of |mean pi(k) (p - k)|",
    "confidence_ece": "the same of confidences, in bins of width 0.1 about the answers",
    "brier": "expected Brier score: mean of the sum of (k - p)^2, plus p (1 - p)",
    "bias": "mean of confidence minus p",
    "overconfidence": "mean of |confidence - 0.5| - |p - 0.5|",
    "answer_overconfidence": "mean of the sum of |k - 0.5|, minus |p - 0.5|",
    "entropy": "mean entropy of pi; nats",
    "answered": "mean probability of any answer, before scaling",
}
RARELY = 1e-3  # an answer given to fewer prompts than one in a thousand has no bin


def measures(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """MEASURES of prompts: true probabilities (n,), those of the answers (n, answers)."""
    p, k = np.asarray(truth, dtype=float), np.linspace(0, 1, probabilities.shape[1])
    pi = probabilities / probabilities.sum(1, keepdims=True)
    confidence = pi @ k
    bins = np.round(confidence * (len(k) - 1)).astype(int)
    off = np.bincount(bins, confidence - p, len(k))
    away = np.abs(p - 0.5)
    logs = np.log(pi, out=np.zeros_like(pi), where=pi > 0)
    return {
        "ece": float(np.abs((pi * (p[:, None] - k)).mean(0)).sum()),
        "confidence_ece": float(np.abs(off).sum() / len(p)),
        "brier": float(((pi * (p[:, None] - k) ** 2).sum(1) + p * (1 - p)).mean()),
        "bias": float((confidence - p).mean()),
        "overconfidence": float((np.abs(confidence - 0.5) - away).mean()),
        "answer_overconfidence": float((pi @ np.abs(k - 0.5) - away).mean()),
        "entropy": float(-(pi * logs).sum(1).mean()),
        "answered": float(probabilities.sum(1).mean()),
    }


def seed_calibration(answers: pd.DataFrame) -> pd.DataFrame:
    """Measures of every seed, a row each: columns PLACE, seed, metric, mean, prompts."""
    rows = []
    for place, part in answers.groupby([*PLACE, "seed"], sort=False, dropna=False):
        found = measures(part["truth"].to_numpy(), np.stack(part["probabilities"].tolist()))
        where = dict(zip([*PLACE, "seed"], place, strict=True))
        rows += [where | {"metric": name, "mean": value} for name, value in found.items()]
        for row in rows[-len(found) :]:
            row["prompts"] = len(part)
    return pd.DataFrame(rows)


def calibration_table(seeds: pd.DataFrame) -> pd.DataFrame:
    """Measures over seeds: columns PLACE, metric, mean, low, high, seeds, prompts."""
    by = [*PLACE, "metric"]
    prompts = seeds.groupby(by, sort=False, dropna=False)["prompts"].sum().to_numpy()
    return over_seeds(seeds, by).assign(prompts=prompts)


def seed_reliability(answers: pd.DataFrame) -> pd.DataFrame:
    """What is true where an answer is given, in every seed: a row an answer that is.

    Columns PLACE, seed, answer, share (of prompts that it is given to), mean (true probability
    there).
    """
    rows = []
    for place, part in answers.groupby([*PLACE, "seed"], sort=False, dropna=False):
        pi = np.stack(part["probabilities"].tolist())
        pi /= pi.sum(1, keepdims=True)
        share, true = pi.mean(0), (pi * part["truth"].to_numpy()[:, None]).mean(0)
        where = dict(zip([*PLACE, "seed"], place, strict=True))
        for i in np.flatnonzero(share > RARELY):
            answer = {"answer": i / (len(share) - 1), "share": share[i]}
            rows.append(where | answer | {"mean": true[i] / share[i]})
    return pd.DataFrame(rows)


def reliability_table(seeds: pd.DataFrame) -> pd.DataFrame:
    """The same over seeds: columns PLACE, answer, share, mean, low, high, seeds."""
    by = [*PLACE, "answer"]
    share = seeds.groupby(by, sort=False, dropna=False)["share"].mean().to_numpy()
    return over_seeds(seeds, by).assign(share=share)
