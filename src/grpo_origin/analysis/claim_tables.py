"""Tables of the group `claims`: the ledger and what stands beside it.

Part of the registry in `tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from grpo_origin.analysis.sources import STAGE, Sources
from grpo_origin.analysis.stages import of_base, start_of
from grpo_origin.analysis.table_entry import NUMBER, TEXT, WHOLE, YES_NO, Table, columns
from grpo_origin.config.paths import BASE
from grpo_origin.config.schema import main_method
from grpo_origin.evaluation import table as evaluation_file

if TYPE_CHECKING:
    import pandas as pd


def _claims(sources: Sources) -> pd.DataFrame:
    return sources.ledger


def _agreement(sources: Sources) -> pd.DataFrame:
    import pandas as pd

    from grpo_origin.analysis.agreement import COLUMNS, agreement
    from grpo_origin.jobs.files import read_table

    if not sources.reference:
        return pd.DataFrame(columns=[*COLUMNS])
    return agreement(sources.ledger, of_base(read_table(sources.reference).to_pandas()))


def _transcend(variants: Mapping[str, Sources]) -> pd.DataFrame:
    """Of all variants together, since the control of one is the control of all."""
    import pandas as pd

    from grpo_origin.analysis.transcend import assay, transcend

    parts = []
    for variant, own in variants.items():
        demonstrated = own.demonstrations > 0
        table = transcend(own.evaluations, own.claims, own.zero_masses, demonstrated)
        shown = pd.MultiIndex.from_frame(own.informed)
        cells = pd.MultiIndex.from_frame(table[list(own.informed.columns)])
        informed = cells.isin(shown) | demonstrated
        parts.append(table.assign(variant=variant, informed=informed))
    table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    return table.assign(assay=assay(table, variants[BASE].claims.negligible))


def _pairs(own: Sources, base: Sources) -> pd.DataFrame:
    """A variant against the run's own settings, a row a seed."""
    import pandas as pd

    from grpo_origin.analysis.answers import answer_quantities
    from grpo_origin.analysis.contrasts import differences, equal_completions

    parts = [differences(own.quantities, base.quantities, ["stage"])]
    if own.curves is not None and base.curves is not None:
        parts.append(equal_completions(own.curves, base.curves, ["stage"]))
    if own.answers is not None and base.answers is not None:
        sampled, others = map(answer_quantities, (own.answers, base.answers))
        parts.append(differences(sampled, others, ["stage"]))
    return pd.concat(parts, ignore_index=True)


def _of_variants(
    name: str, variants: Mapping[str, Sources], make: Callable[[Sources], pd.DataFrame]
) -> pd.DataFrame:
    """What `make` gives of every variant but the base, as the table of that name."""
    import pandas as pd

    parts = [make(own).assign(variant=of) for of, own in variants.items() if of != BASE]
    return pd.concat(parts) if parts else pd.DataFrame(columns=[*CLAIM_TABLES[name].columns])


def _seed_contrasts(variants: Mapping[str, Sources]) -> pd.DataFrame:
    base = variants[BASE]
    return _of_variants("seed_contrasts", variants, lambda own: _pairs(own, base))


def _contrasts(variants: Mapping[str, Sources]) -> pd.DataFrame:
    from grpo_origin.analysis.contrasts import contrasts

    base = variants[BASE]
    return _of_variants(
        "contrasts", variants, lambda own: contrasts(_pairs(own, base), base.claims)
    )


def _method_seed_contrasts(sources: Sources) -> pd.DataFrame:
    """Every other method against the main one, a row a seed."""
    import pandas as pd

    from grpo_origin.analysis.contrasts import differences, equal_completions

    main = main_method(sources.betas)
    parts = []
    masses = sources.quantities[sources.quantities["method"].notna()]
    for table, pair in ((masses, differences), (sources.curves, equal_completions)):
        if table is not None:
            same = table["method"] == main
            parts.append(pair(table[~same], table[same], ["trained_on"]))
    return pd.concat(parts, ignore_index=True)


def _method_contrasts(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.contrasts import contrasts

    return contrasts(_method_seed_contrasts(sources), sources.claims)


def _exploration(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.first_success import law_tests

    return law_tests(sources.first_successes)


def _takeoff(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.takeoff import takeoff_table

    return takeoff_table(sources.gains, sources.claims.takeoff, sources.betas)


def _transfer(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.transfer import transfer_table

    return transfer_table(sources.gains, sources.zero_masses)


def _crossings(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.crossings import crossings_table

    return crossings_table(sources.gains)


def _warnings(sources: Sources) -> pd.DataFrame:
    import numpy as np

    learnt, table = sources.claims.learnt, sources.evaluations
    if sources.calibration is not None:  # where chance decides, mass is not what is to be learnt
        table = table[~table["axis"].isin(sources.calibration["axis"])]
    table = table[(table["stage"] == start_of(table["stage"])) & (table["split"] == "id")]
    mass = np.exp(table["log_mass"].clip(upper=0.0)).groupby([table[name] for name in STAGE])
    low = mass.mean().rename("mass").reset_index().query("mass < @learnt")
    texts = [evaluation_file.low_mass_warning(value, learnt) for value in low["mass"]]
    return low.drop(columns="stage").assign(warning=texts)


# What a row of the ledger is about.
_JUDGED = {
    "method": (TEXT, "RL method that is judged"),
    "claim": (TEXT, "name of the claim"),
    "axis": (TEXT, "axis that is judged; `all`: all together"),
    "statement": (TEXT, "what is claimed; rows of one statement are a family"),
    "cells": (TEXT, "ratios, prompts, stages and seeds that it is judged by"),
}

_CONTRAST = (
    "axis ood_ratio stage method trained_on quantity seeds reference value difference low high "
    "spread p_value verdict seeds_needed"
)
_CONTRASTED = {
    "quantity": (
        TEXT,
        "what is compared: a mass, a gain of OOD mass, or a mass on learning curves",
    ),
    "seeds": (WHOLE, "seeds that both have"),
    "difference": (NUMBER, "value minus reference, mean over seeds"),
    "low": (NUMBER, "lower bound of the difference; both bounds share the error of the look"),
    "high": (NUMBER, "upper bound of the difference"),
    "spread": (NUMBER, "standard deviation of the difference over seeds"),
    "p_value": (NUMBER, "of the verdict, the smaller one if inconclusive; not adjusted"),
    "verdict": (TEXT, "equivalent, differs or inconclusive, each row by itself"),
    "seeds_needed": (NUMBER, "about how many seeds would decide an inconclusive row"),
}

_PAIR = "axis ood_ratio seed stage method trained_on quantity reference value difference"
_PAIRED = {
    "quantity": _CONTRASTED["quantity"],
    "reference": (NUMBER, "its mean by what it is compared with"),
    "value": (NUMBER, "its mean here"),
    "difference": (NUMBER, "value minus reference"),
}

CLAIM_TABLES: dict[str, Table] = {
    "claims": Table(
        "claims",
        "a claim on an RL method, judged for an axis or for all",
        columns(
            "method claim axis statement kind edge cells effect low high closure spread seeds "
            "p_value p_adjusted look verdict seeds_needed note",
            **_JUDGED,
            kind=(
                TEXT,
                "how it is tested: present (the mean exceeds the edge), absent (it stays below, in "
                "most seeds too), outside (of +- edge), few (seeds exceed the edge)",
            ),
            edge=(NUMBER, "the edge of that test"),
            effect=(NUMBER, "mean over seeds of what is judged: a mass, its change, or a share"),
            low=(NUMBER, "lower bound of the mean at the error of the look, one-sided"),
            high=(NUMBER, "upper bound, likewise; a two-sided claim has half the error each"),
            closure=(NUMBER, "sum of gains / sum of room (1 - mass before), mean over seeds"),
            spread=(NUMBER, "standard deviation of the effect over seeds"),
            seeds=(WHOLE, "seeds that the row is judged by"),
            p_value=(NUMBER, "of the verdict, the smaller one if inconclusive; empty if too few"),
            p_adjusted=(NUMBER, "the same, adjusted by Holm for the rows of its family"),
            look=(TEXT, "planned look that the run's seeds reach, and the error it may spend"),
            verdict=(TEXT, "supported, contradicted or inconclusive"),
            seeds_needed=(NUMBER, "about how many seeds would decide an inconclusive row"),
            note=(TEXT, "what else to know"),
        ),
        _claims,
    ),
    "agreement": Table(
        "claims",
        "a row of `claims` beside the same row of the reference run",
        columns(
            "method claim axis statement cells verdict seeds effect reference_verdict "
            "reference_seeds reference_effect agreement",
            **_JUDGED,
            verdict=(TEXT, "this run's"),
            seeds=(WHOLE, "seeds that this run judges by"),
            effect=(NUMBER, "mean over this run's seeds of what is judged"),
            reference_verdict=(TEXT, "the reference run's; empty if it has no such row"),
            reference_seeds=(NUMBER, "seeds that the reference run judges by"),
            reference_effect=(NUMBER, "mean over the reference run's seeds"),
            agreement=(
                TEXT,
                "agrees, differs, too few seeds (here), undecided here, undecided there, not there",
            ),
        ),
        _agreement,
    ),
    "transcend": Table(
        "claims",
        "an RL stage, axis and OOD ratio: OOD prompts that started from about no mass",
        columns(
            "method trained_on axis ood_ratio informed seeds prompts hidden before after gain low "
            "high raised raised_at_most transcends assay",
            method=(TEXT, "RL method"),
            trained_on=(TEXT, "split of the prompts that RL trained on"),
            informed=(YES_NO, "whether RL or SFT was shown right completions of OOD prompts"),
            hidden=(WHOLE, "prompts left out: the pretrained model had mass that SFT took"),
            before=(
                NUMBER,
                "mass after SFT, before it if SFT saw OOD samples; mean over seeds of their means",
            ),
            after=(NUMBER, "mass after RL, mean over seeds of the seeds' means"),
            gain=(NUMBER, "after minus before"),
            low=(NUMBER, "lower one-sided bound of the gain, at the error of the look"),
            high=(NUMBER, "upper one-sided bound of the gain"),
            raised=(NUMBER, "share of prompts that end at least partly right, mean over seeds"),
            raised_at_most=(NUMBER, "upper one-sided bound of `raised`"),
            transcends=(TEXT, "yes, no or unclear: whether the gain is more than negligible"),
            assay=(
                TEXT,
                "sensitive: something informed rises here, so `no` counts; not shown: nothing "
                "informed does; no control: nothing informed ran",
            ),
        ),
        contrast=_transcend,
    ),
    "contrasts": Table(
        "claims",
        "a variant, axis, OOD ratio, stage and quantity: against the run's own settings, in pairs",
        columns(
            _CONTRAST,
            reference=(NUMBER, "its mean over these seeds with the run's own settings"),
            value=(NUMBER, "its mean in the variant"),
            **_CONTRASTED,
        ),
        contrast=_contrasts,
    ),
    "method_contrasts": Table(
        "claims",
        "an RL stage of another method than the main one, and quantity: against that, in pairs",
        columns(
            _CONTRAST,
            reference=(NUMBER, "its mean over these seeds by the main method"),
            value=(NUMBER, "its mean by this method"),
            **_CONTRASTED,
        ),
        _method_contrasts,
    ),
    "seed_contrasts": Table(
        "claims",
        "a seed behind a row of `contrasts`",
        columns(_PAIR, **_PAIRED),
        contrast=_seed_contrasts,
    ),
    "method_seed_contrasts": Table(
        "claims",
        "a seed behind a row of `method_contrasts`",
        columns(_PAIR, **_PAIRED),
        _method_seed_contrasts,
    ),
    "first_success": Table(
        "claims",
        "an RL stage that samples each prompt once: its first success, and the forecast of it",
        columns(
            "axis seed ood_ratio stage method trained_on steps first median before by any surest "
            "moved",
            first=(NUMBER, "step of the first rewarded completion; empty if there was none"),
            median=(NUMBER, "step by which one had a chance of one half; empty if none had"),
            before=(NUMBER, "forecast chance of one before that step, or in all if none came"),
            by=(NUMBER, "forecast chance of one by that step, 1 if none came"),
            any=(NUMBER, "forecast chance of one in all steps"),
            surest=(
                NUMBER,
                "forecast chance of what was likeliest: a certain step, or none at all",
            ),
            moved=(YES_NO, "whether any weight differs from the SFT model's, bit for bit"),
        ),
        lambda sources: sources.first_successes,
    ),
    "exploration": Table(
        "claims",
        "a method: its first successes against their forecast distribution (exploration law)",
        columns(
            "method stages in_doubt none none_expected moved_without statistic p_value",
            stages=(WHOLE, "RL stages"),
            in_doubt=(
                WHOLE,
                "those in which it was not all but certain what would come: the tested",
            ),
            none=(WHOLE, "stages without a success"),
            none_expected=(NUMBER, "their forecast number"),
            moved_without=(WHOLE, "stages whose weights moved without a success; the law says 0"),
            statistic=(NUMBER, "distance of Kolmogorov and Smirnov from the forecast"),
            p_value=(NUMBER, "of a distance at least as large if the law holds"),
        ),
        _exploration,
    ),
    "takeoff": Table(
        "claims",
        "an axis, positive OOD ratio and RL stage: seeds whose OOD prompts take off",
        columns(
            "axis ood_ratio method trained_on seeds taken_off low high gain",
            taken_off=(NUMBER, "share of seeds whose mean gain exceeds `claims.takeoff`"),
            low=(NUMBER, "lower end of its 95 % exact interval, one-sided if all or none"),
            high=(NUMBER, "upper end of it"),
            gain=(NUMBER, "gain in OOD mass, mean over seeds"),
        ),
        _takeoff,
    ),
    "transfer": Table(
        "claims",
        "a method, cell and OOD task with prompts without mass, RL on OOD prompts",
        columns(
            "axis seed ood_ratio stage method trained_on task task_mass_before prompts before "
            "after",
            task_mass_before=(NUMBER, "mean mass of all prompts of the task after SFT"),
            prompts=(WHOLE, "its prompts without mass, after pretraining and after SFT"),
            before=(NUMBER, "their mean mass after SFT"),
            after=(NUMBER, "their mean mass after RL"),
        ),
        _transfer,
    ),
    "crossings": Table(
        "claims",
        "an RL stage, seed and test split: where its curve of pass@k crosses that of SFT",
        columns(
            "axis seed ood_ratio stage method trained_on split k pass_at_k ahead",
            k=(NUMBER, "first k up to 1e6 at which mean pass@k is equal; empty if never"),
            pass_at_k=(NUMBER, "mean pass@k there"),
            ahead=(TEXT, "who has more mass, that is pass@1: RL, SFT or neither"),
        ),
        _crossings,
    ),
    "warnings": Table(
        "claims",
        "a cell that calls for a warning; none in a good run",
        columns(
            "axis seed ood_ratio mass warning",
            mass=(NUMBER, "mean ID mass after SFT"),
            warning=(TEXT, "what is wrong and what to do"),
        ),
        _warnings,
    ),
}
