"""Tables of what RL stages sampled, learnt and wrote, and of methods side by side.

Part of the registry in `tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from grpo_origin.analysis.sources import STAGE, Sources
from grpo_origin.analysis.stages import METHOD_COLUMNS
from grpo_origin.analysis.table_entry import NUMBER, TEXT, WHOLE, YES_NO, Table, columns
from grpo_origin.config.paths import LEARNING_CURVE, SIGNAL, TRAINING_LOG
from grpo_origin.jobs.files import read_table

if TYPE_CHECKING:
    import pandas as pd


def _training(sources: Sources) -> pd.DataFrame:
    """Training logs of the RL stages without wall seconds: tables of a run are always the same."""
    known = ("variant", *STAGE, *METHOD_COLUMNS)
    logged = [name for name in STAGE_TABLES["training"].columns if name not in known]
    return sources.of_stages(TRAINING_LOG, logged)


def _signal_summary(sources: Sources) -> pd.DataFrame:
    """Table `signal` over seeds."""
    import numpy as np

    table = sources.of_stages(SIGNAL)
    with np.errstate(divide="ignore"):
        table["log_missed"] = np.log1p(-table["any_success"].to_numpy(dtype=float))
    groups = table.groupby(["axis", "ood_ratio", "stage", *METHOD_COLUMNS], sort=False)
    over = groups.agg(
        seeds=("seed", "nunique"),
        completions=("completions", "sum"),
        rewarded=("rewarded", "sum"),
        contrast_share=("contrast_share", "mean"),
        gold_tokens=("gold_tokens", "sum"),
        moved=("moved", "sum"),
    )
    over["expected_successes"] = groups["expected_successes"].sum(min_count=1)
    over["any_success"] = -np.expm1(groups["log_missed"].sum(min_count=1))
    return over.reset_index()


def _answers(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.answers import answer_masses

    if sources.answers is None:
        return STAGE_TABLES["answers"].empty()
    return answer_masses(sources.answers)


def _faithfulness(variants: Mapping[str, Sources], summed: bool = False) -> pd.DataFrame:
    """Of all variants, since a figure shows them beside the run's methods; or over seeds."""
    import pandas as pd

    from grpo_origin.analysis.faithfulness import over_seeds

    parts = []
    for name, own in variants.items():
        if own.faithfulness is not None:
            table = over_seeds(own.faithfulness) if summed else own.faithfulness
            parts.append(table.assign(variant=name))
    entry = STAGE_TABLES["faithfulness_summary" if summed else "faithfulness"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*entry.columns])


def _completions(sources: Sources) -> pd.DataFrame:
    import pandas as pd

    if not sources.completion_files:
        return STAGE_TABLES["completions"].empty()
    return pd.concat(read_table(file).to_pandas() for file in sources.completion_files)


def _probes(sources: Sources) -> pd.DataFrame:
    import pandas as pd

    from grpo_origin.analysis.representation import probe_means

    if not sources.probe_files:
        return STAGE_TABLES["probes"].empty()
    return probe_means(pd.concat(read_table(file).to_pandas() for file in sources.probe_files))


def _representation(sources: Sources) -> pd.DataFrame:
    return STAGE_TABLES["representation"].empty() if sources.heads is None else sources.heads


def _leaderboard(variants: Mapping[str, Sources]) -> pd.DataFrame:
    from grpo_origin.analysis.leaderboard import leaderboard

    return leaderboard(variants)


def _price(variants: Mapping[str, Sources]) -> pd.DataFrame:
    from grpo_origin.analysis.price import price

    return price(variants)


def _seed_price(variants: Mapping[str, Sources]) -> pd.DataFrame:
    from grpo_origin.analysis.price import seed_price

    return seed_price(variants)


def _outcome(sources: Sources) -> pd.DataFrame:
    from grpo_origin.analysis.outcome import read_model
    from grpo_origin.analysis.outcome_stages import outcome_table

    return outcome_table(sources.ran, read_model())


MEASURE = (
    "consistent, right_answers, wrong_traces: shares of completions; causal_use: 1 if the answer "
    "follows a corrupted state, 0 if it ignores it; gold_ and follow_ (clean, corrupted): mass of "
    "the gold answer and of the one that the corruption leads to, after either trace; "
    "gold_after_wrong: mass of the gold answer after a wrong trace; right_for_wrong_reasons: that "
    "of all completions together"
)

_PRICE = {
    "entry": (TEXT, "the stage before RL or the method, or `variant: ` and these"),
    "pretrain_tokens": (NUMBER, "tokens of right completions of OOD prompts in pretraining"),
    "sft_tokens": (NUMBER, "those in SFT, as often as they are seen"),
    "rl_tokens": (NUMBER, "those that RL was shown, as often"),
    "gold_tokens": (NUMBER, "all of them"),
}
_WAY = "entry axis ood_ratio stage method trained_on"
_SEEN = "pretrain_tokens sft_tokens rl_tokens gold_tokens mass"

STAGE_TABLES: dict[str, Table] = {
    "training": Table(
        "evaluation",
        "an optimiser step of an RL stage",
        columns(
            "axis seed ood_ratio stage method trained_on step loss reward_mean reward_std "
            "zero_variance_share kl entropy completion_length clip_share grad_norm learning_rate",
            loss=(NUMBER, "loss of the method"),
            reward_mean=(NUMBER, "mean reward of the rollouts, 0 to 1"),
            reward_std=(NUMBER, "standard deviation of the rewards in a group, mean over groups"),
            zero_variance_share=(NUMBER, "share of groups whose rewards are all equal"),
            kl=(NUMBER, "estimated KL divergence from the SFT model; nats a token"),
            entropy=(NUMBER, "entropy of the next token; nats"),
            completion_length=(NUMBER, "mean length of the rollouts; tokens"),
            clip_share=(NUMBER, "share of tokens whose probability ratio was clipped"),
            grad_norm=(NUMBER, "norm of the gradient before clipping"),
            learning_rate=(NUMBER, "learning rate"),
        ),
        _training,
    ),
    "learning_curves": Table(
        "evaluation",
        "an evaluated step of an RL stage and split: exact masses on some of its test prompts",
        columns(
            "axis seed ood_ratio stage method trained_on step completions split mass "
            "log_mass_mean greedy_accuracy",
            completions=(WHOLE, "completions sampled so far"),
            mass=(NUMBER, "mean correct mass"),
            log_mass_mean=(NUMBER, "mean natural logarithm of it; nats"),
            greedy_accuracy=(NUMBER, "share of prompts that greedy decoding answers right"),
        ),
        lambda sources: sources.of_stages(LEARNING_CURVE),
    ),
    "answers": Table(
        "evaluation",
        "a cell, stage and split where right answers count whatever their trace, with samples of "
        "them: none unless `rl.reward` is `answer` here or in a variant",
        columns(
            "axis seed ood_ratio stage method trained_on split prompts samples trace_mass "
            "answer_mass low high",
            samples=(WHOLE, "completions drawn for each prompt"),
            trace_mass=(NUMBER, "mean exact mass of the right trace with its answer: lower bound"),
            answer_mass=(NUMBER, "share of completions that end in the right answer"),
            low=(NUMBER, "lower end of its 95 % exact interval (Clopper and Pearson)"),
            high=(NUMBER, "upper end of it"),
        ),
        _answers,
    ),
    "faithfulness": Table(
        "evaluation",
        "a stage of a cell, seed, split and measure of its traces: none unless `faithfulness` is "
        "set; docs/related.md has the measures",
        columns(
            "axis seed ood_ratio stage method trained_on split measure mean low high prompts",
            measure=(TEXT, MEASURE),
            mean=(NUMBER, "its value: a share of completions, or a mean over prompts"),
            low=(NUMBER, "lower end of the 95 % exact interval of a share (Clopper and Pearson)"),
            high=(NUMBER, "upper end of it; exact masses have none"),
        ),
        contrast=_faithfulness,
    ),
    "faithfulness_summary": Table(
        "evaluation",
        "as `faithfulness`, over seeds",
        columns(
            "axis ood_ratio stage method trained_on split measure mean low high interval seeds "
            "prompts",
            measure=(TEXT, MEASURE),
            mean=(NUMBER, "mean over seeds"),
            low=(NUMBER, "lower end of its interval; empty for one seed"),
            high=(NUMBER, "upper end of it"),
        ),
        contrast=lambda variants: _faithfulness(variants, summed=True),
    ),
    "completions": Table(
        "evaluation",
        "a token of what a stage writes on a test prompt: some prompts of two cells an axis",
        columns(
            "axis seed ood_ratio stage method trained_on split task prompt_index chosen prompt "
            "log_mass log_mass_markers log_mass_content kind first_wrong failure position token "
            "part probability right",
            chosen=(TEXT, "why this prompt: OOD gain best, median, worst; first of its task"),
            prompt=(TEXT, "tokens of the prompt"),
            kind=(TEXT, "`gold`: the right completion, `greedy`, `sample-1` and so on"),
            first_wrong=(NUMBER, "position of the completion's first mistake; empty if right"),
            failure=(TEXT, "kind of that mistake: marker, content, length; empty if right"),
            position=(WHOLE, "place of the token in the completion, from 1"),
            token=(TEXT, "the token"),
            part=(TEXT, "`marker`: <think>, <answer> or <eos>; `content`: any other"),
            probability=(NUMBER, "its probability under the stage's model, given those before"),
            right=(YES_NO, "whether the right completion has this token in this place"),
        ),
        _completions,
    ),
    "probes": Table(
        "evaluation",
        "a stage of a cell, layer, step of the trace, split and kind of fit: linear probes of the "
        "step's state at the prompt's last token, of the run's own settings; none unless `probes` "
        "is set",
        columns(
            "axis seed ood_ratio stage method trained_on layer fitted_on split step positions "
            "accuracy control from_prompt",
            layer=(WHOLE, "layer after which the hidden state is read; 0: the embedding"),
            fitted_on=(TEXT, "prompts that the probe is fitted on: `id`, or `both` ID and OOD"),
            step=(TEXT, "step of the trace, from 1; `answer`: the last step of each task"),
            positions=(WHOLE, "positions of the string that the means are over"),
            accuracy=(NUMBER, "share of test prompts whose node the probe reads; mean"),
            control=(NUMBER, "the same of a probe fitted on shuffled labels; mean"),
            from_prompt=(NUMBER, "the same of a probe of the prompt's tokens, no model; mean"),
        ),
        _probes,
    ),
    "representation": Table(
        "evaluation",
        "a head over a fixed set on the pretrained model of a cell, and test split, of the run's "
        "own settings; none unless `representation` is set",
        columns(
            "axis seed ood_ratio head trained_on split prompts accuracy mass guess alignment "
            "uniformity without without_before without_after",
            head=(
                TEXT,
                "`linear`, fitted on ID prompts, the decoder frozen, or how decoder and head were "
                "trained from there: `cross_entropy`, `grpo_rm`, `grpo_rm_sampled`",
            ),
            trained_on=(TEXT, "split of the prompts that it was trained on"),
            accuracy=(NUMBER, "share of prompts whose right output has the highest probability"),
            mass=(NUMBER, "mean probability of the right output"),
            guess=(NUMBER, "that of a head that knows nothing: 1 / nodes"),
            alignment=(NUMBER, "mean squared distance of representations with one right output"),
            uniformity=(NUMBER, "ln mean exp(-2 squared distance) of all pairs; nats"),
            without=(WHOLE, "prompts to which the linear head gave less than `no_mass`"),
            without_before=(NUMBER, "their mean mass in the linear head"),
            without_after=(NUMBER, "their mean mass in this one"),
        ),
        _representation,
    ),
    "signal": Table(
        "evaluation",
        "an RL stage: what could be sampled, what was rewarded, whether it learnt anything",
        columns(
            "axis seed ood_ratio stage method trained_on completions rewarded contrast_share "
            "expected_successes any_success gold_tokens moved",
            completions=(WHOLE, "completions sampled in all"),
            rewarded=(WHOLE, "those among them that got the full reward"),
            contrast_share=(NUMBER, "share of groups that held right and wrong completions"),
            expected_successes=(
                NUMBER,
                "matches expected of the SFT model, if rewarded at temperature 1",
            ),
            any_success=(NUMBER, "probability of at least one match by the SFT model; likewise"),
            gold_tokens=(WHOLE, "tokens of right completions that the method was shown"),
            moved=(YES_NO, "whether any weight differs from the SFT model's, bit for bit"),
        ),
        lambda sources: sources.of_stages(SIGNAL),
    ),
    "signal_summary": Table(
        "evaluation",
        "an axis, OOD ratio and RL stage: what its seeds had to learn from",
        columns(
            "axis ood_ratio stage method trained_on seeds completions rewarded contrast_share "
            "expected_successes any_success gold_tokens moved",
            completions=(WHOLE, "completions sampled, all seeds together"),
            rewarded=(WHOLE, "those among them that got the full reward"),
            contrast_share=(NUMBER, "share of groups that held right and wrong ones; mean"),
            expected_successes=(NUMBER, "matches expected of the SFT models, all seeds together"),
            any_success=(NUMBER, "probability of at least one match in any seed"),
            gold_tokens=(WHOLE, "tokens of right completions shown, all seeds together"),
            moved=(WHOLE, "seeds in which any weight differs from the SFT model's"),
        ),
        _signal_summary,
    ),
    "leaderboard": Table(
        "claims",
        "a method of the run or of a variant, axis, OOD ratio and split that RL trained on",
        columns(
            "entry axis ood_ratio method trained_on seeds before after after_low after_high "
            "id_change demonstrations completions gold_tokens difference low high verdict "
            "equal_difference equal_low equal_high equal_verdict",
            entry=(TEXT, "the method, or `variant: method`"),
            before=(NUMBER, "OOD mass where RL started, mean over seeds"),
            after=(NUMBER, "OOD mass after RL, mean over seeds"),
            after_low=(NUMBER, "lower end of its 95 % t interval"),
            after_high=(NUMBER, "upper end of it"),
            id_change=(NUMBER, "change of ID mass by RL, mean over seeds"),
            demonstrations=(WHOLE, "OOD samples among those of SFT"),
            completions=(NUMBER, "completions sampled in RL, mean over seeds"),
            gold_tokens=(NUMBER, "tokens of right completions that RL was shown, mean over seeds"),
            difference=(NUMBER, "`after` less that of the run's main method, in pairs of seeds"),
            low=(NUMBER, "lower bound of it; both bounds share the error of the look"),
            high=(NUMBER, "upper bound of it"),
            verdict=(TEXT, "equivalent, differs or inconclusive, each row by itself"),
            equal_difference=(NUMBER, "the same at equal numbers of completions"),
            equal_low=(NUMBER, "lower bound of it"),
            equal_high=(NUMBER, "upper bound of it"),
            equal_verdict=(TEXT, "verdict at equal numbers of completions"),
        ),
        contrast=_leaderboard,
    ),
    "price": Table(
        "claims",
        "a way to an OOD mass, of the run or of a variant: what was shown, and what was reached",
        columns(
            f"{_WAY} seeds {_SEEN} low high",
            **_PRICE,
            mass=(NUMBER, "mean OOD mass, over seeds"),
            low=(NUMBER, "lower end of its 95 % t interval"),
            high=(NUMBER, "upper end of it"),
        ),
        contrast=_price,
    ),
    "seed_price": Table(
        "claims",
        "a seed behind a row of `price`",
        columns(
            f"entry axis ood_ratio seed stage method trained_on {_SEEN}",
            **_PRICE,
            mass=(NUMBER, "mean OOD mass"),
        ),
        contrast=_seed_price,
    ),
    "outcome": Table(
        "claims",
        "an RL stage that samples each prompt once: mass after it, and the shipped forecast of it",
        columns(
            "axis seed ood_ratio stage method trained_on steps train_mass before after forecast "
            "low high within",
            train_mass=(NUMBER, "mean mass of the training prompts before RL"),
            before=(NUMBER, "mean mass of test prompts of the split trained on, before RL"),
            after=(NUMBER, "the same after RL"),
            forecast=(NUMBER, "median of what a model fitted on the reference run says of it"),
            low=(NUMBER, "lower end of its 80 % interval"),
            high=(NUMBER, "upper end of it"),
            within=(YES_NO, "whether the mass after RL lies in it"),
        ),
        _outcome,
    ),
}
