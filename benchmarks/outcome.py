"""The forecast of where RL ends: fitted to a run's RL stages, checked on stages left out.

    python benchmarks/outcome.py reference            # held-out errors and orderings, as Markdown
    python benchmarks/outcome.py reference --write    # also the shipped model
    python benchmarks/outcome.py reference --anchors  # orderings and the recursion alone, no fit

Reads what is there of `results/{run}`: its settings, and of every finished cell the evaluation, the
RL stages' files and, for the likelihood of single tokens, the model that RL started from.
Candidates are compared by errors on whole axes, and on blocks of seeds, that were left out; the one
of CHOSEN is then fitted to all stages and written to src/grpo_origin/shipped/outcome.json with what
it was fitted on.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd

from grpo_origin.analysis.outcome import SHIPPED
from grpo_origin.analysis.outcome_check import (
    QUANTILES,
    errors,
    folds,
    held_out,
    naive_forecasts,
    orderings,
)
from grpo_origin.analysis.outcome_fit import CANDIDATES, Candidate, Prepared, fit
from grpo_origin.analysis.outcome_stages import STAGE, Ran, of_methods
from grpo_origin.analysis.recursion import ahead, errors_ahead
from grpo_origin.analysis.sources import Sources
from grpo_origin.analysis.stages import start_of
from grpo_origin.config.paths import LEARNING_CURVE, Paths
from grpo_origin.jobs.files import atomic
from grpo_origin.partial import evaluated_cells, sources_of
from grpo_origin.study import Study, read_study

CHOSEN = Candidate("overdispersion", by_task=True)  # docs/forecast.md says why
# Axes and seeds whose stages had been seen when it was chosen, by errors on axes left out.
PILOT = {
    *(("composition", seed) for seed in (100, 101, 106, 107)),
    *(("depth", seed) for seed in (102, 103, 108, 109)),
    *(("length", seed) for seed in (104, 109)),
    *(("token", seed) for seed in (100, 105)),
}
TOKEN_PROMPTS = 128  # of a stage, whose tokens are looked at: a quantile needs no more
FITTED = ("exponent", "log_rate", "slope", "scatter", "margin")
METHOD = "grpo"
TRAINED_ON = "ood"  # what the model is fitted on; stages on ID prompts start near the ceiling


def provenance(study: Study, stages: list[Ran]) -> dict[str, Any]:
    """What a model was fitted on."""
    settings = study.settings
    return {
        "run": settings.run,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "stages": len(stages),
        "in_doubt": sum(ran.in_doubt for ran in stages),
        "axes": sorted({ran.axis for ran in stages}),
        "seeds": len({ran.seed for ran in stages}),
        "method": METHOD,
        "trained_on": TRAINED_ON,
        "steps": settings.rl.steps,
        "prompts_per_step": settings.rl.prompts_per_step,
        "group_size": settings.rl.group_size,
        "learning_rate": settings.rl.learning_rate,
        "beta": settings.rl.beta,
    }


def worst_tokens(study: Study, paths: Paths, ran: Ran) -> np.ndarray:
    """The least probability of a gold token, given those before it, of TOKEN_PROMPTS prompts.

    Shape (prompts,): of the first prompts of the stage, by the model that RL started from.
    """
    import torch

    from grpo_origin.data.prompt_sets import read_prompts
    from grpo_origin.data.rows import Sequences
    from grpo_origin.evaluation.mass import gold_log_probs
    from grpo_origin.training.model import load_model

    prompts = read_prompts(paths.data(ran.axis, ran.seed, "grpo"))
    own = np.array(prompts["split"].to_pylist()) == ran.trained_on
    rows = Sequences(prompts.filter(own).slice(0, TOKEN_PROMPTS))
    start = paths.stage(ran.axis, ran.seed, ran.ood_ratio, study.previous(ran.stage))
    found = gold_log_probs(load_model(start), rows, TOKEN_PROMPTS, torch.device("cpu"))
    sums = np.array([values.sum() for values in found])
    if not np.allclose(sums, ran.log_mass[: len(sums)], rtol=1e-3, atol=1e-3):
        raise ValueError(f"{start}: not the model whose masses the RL stage has kept")
    return np.exp([values.min() for values in found])


def further(
    study: Study, paths: Paths, sources: Sources, stages: list[Ran]
) -> list[dict[str, float]]:
    """Summaries of each stage that need more than the mass of its training prompts.

    Markers and content: of test prompts before RL. The token-level likelihood quantile is that of
    the least probable gold token of a prompt (Mousavi-Hosseini and Erdogdu, arXiv 2603.06957).
    """
    table = sources.evaluations
    table = table[table["stage"] == start_of(table["stage"])]
    keys = ["axis", "seed", "ood_ratio", "split"]
    means = table.groupby(keys)[["log_mass_markers", "log_mass_content"]].mean()
    mean_of = dict(zip(means.index, means.to_numpy(), strict=True))
    found = []
    for ran in stages:
        markers, content = mean_of[ran.axis, ran.seed, ran.ood_ratio, ran.trained_on]
        worst = worst_tokens(study, paths, ran)
        quantiles = {f"token LQ at {x:g}": float(np.quantile(worst, x)) for x in QUANTILES}
        found.append({"mean ln markers": markers, "mean ln content": content} | quantiles)
    return found


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, numbers with three digits."""
    digits = [
        {
            name: f"{value:.3f}" if isinstance(value, float) else str(value)
            for name, value in row.items()
        }
        for row in table.to_dict("records")
    ]
    lines = [
        list(table.columns),
        ["---"] * len(table.columns),
        *(list(row.values()) for row in digits),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def anchors(
    study: Study, paths: Paths, sources: Sources, stages: list[Ran], takeoff: float
) -> None:
    """Print which summaries order the outcomes, and Mroueh's recursion beside learning curves."""
    more = further(study, paths, sources, stages)
    doubt = [ran.in_doubt for ran in stages]
    for name, kept in {"all stages": [True] * len(stages), "stages in doubt": doubt}.items():
        table = orderings([*compress(stages, kept)], takeoff, [*compress(more, kept)])
        print(f"\n## orderings: {name}\n\n{markdown(table)}", flush=True)
    curves = sources.of_stages(LEARNING_CURVE)
    curves = curves[curves["split"] == curves["trained_on"]]
    places = {tuple(getattr(ran, key) for key in STAGE) for ran in compress(stages, doubt)}
    own = [place in places for place in curves[STAGE].itertuples(index=False, name=None)]
    table = ahead(curves[own], sources.betas[METHOD])
    print(f"\n## the recursion a point ahead, in doubt: errors\n\n{markdown(errors_ahead(table))}")
    means = table.groupby(["axis", "step"])[["measured", "recursion", "fitted"]].mean()
    print(f"\n## the same: means\n\n{markdown(means.reset_index())}", flush=True)


def report(prepared: Prepared, sources: Sources) -> None:
    """Print held-out errors by what is left out."""
    naive = naive_forecasts({METHOD: sources.betas[METHOD]})
    for by in ("axis", "seeds"):
        table = held_out(prepared, by, CANDIDATES, naive)
        print(f"\n## {by} left out: all stages\n\n{markdown(errors(table))}")
        print(f"\n## {by} left out: stages in doubt\n\n{markdown(errors(table[table['doubt']]))}")
        own = table[table["forecast"] == CHOSEN.name]
        print(f"\n## {by} left out, {CHOSEN.name}, by axis\n\n{markdown(errors(own, ['axis']))}")
        own = own[own["doubt"]]
        print(f"\n## the same, in doubt\n\n{markdown(errors(own, ['axis']))}", flush=True)
        later = table[
            [
                (axis, seed) not in PILOT
                for axis, seed in zip(table["axis"], table["seed"], strict=True)
            ]
        ]
        print(f"\n## {by} left out: seeds that came after the choice\n\n{markdown(errors(later))}")
        print(f"\n## the same, in doubt\n\n{markdown(errors(later[later['doubt']]))}", flush=True)
    everything, rows = np.arange(len(prepared.stages)), []
    for left in folds(prepared.stages, "axis"):
        model = dataclasses.asdict(fit(prepared, CHOSEN, np.setdiff1d(everything, left)))
        rows.append({"axis left out": prepared.axes[left[0]]} | {x: model[x] for x in FITTED})
    print(f"\n## what is fitted as axes are left out\n\n{markdown(pd.DataFrame(rows))}", flush=True)


def main() -> None:
    """Read, check, fit, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="name of a run below the folder of results")
    parser.add_argument("--results", default="results", help="that folder (default results)")
    parser.add_argument("--write", action="store_true", help="replace the shipped model")
    parser.add_argument("--anchors", action="store_true", help="orderings and recursion alone")
    options = parser.parse_args()
    paths = Paths(options.run, options.results)
    study = read_study(paths.settings)
    sources = sources_of(study, paths, evaluated_cells(study, paths))
    ran = of_methods(sources.ran, [METHOD])
    stages = [stage for stage in ran if stage.trained_on == TRAINED_ON]
    print(f"{len(stages)} RL stages of {options.run} on {TRAINED_ON.upper()} prompts")
    anchors(study, paths, sources, stages, study.settings.claims.takeoff)
    if options.anchors:
        return
    prepared = Prepared(stages)
    report(prepared, sources)
    everything = np.arange(len(prepared.stages))
    model = fit(prepared, CHOSEN, everything, provenance(study, prepared.stages))
    print(f"\n## the model\n\n{model.as_json()}")
    others = Prepared(
        [x for x in ran if x.trained_on != TRAINED_ON], [model.exponent], [model.by_task]
    )
    found = others.forecasts(model, np.arange(len(others.stages)))
    within = (others.after >= found[:, 0]) & (others.after <= found[:, 2])
    off = np.abs(found[:, 1] - others.after)
    print(f"stages on ID prompts, not fitted on: MAE {off.mean():.3f}, within {within.mean():.3f}")
    if options.write:
        with atomic(SHIPPED) as temporary:
            temporary.write_text(model.as_json(), encoding="utf-8")
        print(f"written: {SHIPPED.name}")


if __name__ == "__main__":
    main()
