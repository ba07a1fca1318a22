"""The claims of the study and its terms in plain words; called by `verdicts` and the page.

A claim is known by its name and the kind of its test. One that is not here is shown by its own
statement, so that a new claim needs no entry.
"""

from __future__ import annotations

from typing import NamedTuple


class Wording(NamedTuple):
    """A claim for a reader; `{method}` is the RL method.

    `title` heads its row of the grid, `plain` says what is claimed, `paper` what the paper says of
    it (nothing where it is silent), `number` what is judged of every seed, `figures` kinds of
    figures (`registry`) that show it.
    """

    title: str
    plain: str
    number: str
    paper: str = ""
    figures: tuple[str, ...] = ()


PAPER = "arXiv 2510.15990"
_LIMIT = "Where the base model gives right answers no probability, GRPO cannot discover them."
_CHANCE = (
    "GRPO induces overconfident probabilities of stochastic outcomes; RLOO, and GRPO without the "
    "division, do not (arXiv 2508.11800)."
)
WORDINGS: dict[tuple[str, str], Wording] = {
    ("no exposure", "few"): Wording(
        "Without OOD data: nothing to find",
        "If pretraining held no OOD sample, {method} on OOD prompts has next to no chance of "
        "sampling a single right answer, and so nothing to reinforce.",
        "share of seeds with more than a slight chance of sampling one",
        _LIMIT,
        ("axis", "first_success"),
    ),
    ("no exposure", "absent"): Wording(
        "Without OOD data: no gain",
        "If pretraining held no OOD sample, {method} does not raise the mass of OOD prompts, "
        "whatever prompts it trains on.",
        "change of the mass of OOD prompts",
        "With no OOD data in pretraining, OOD accuracy stays at zero whatever the prompts.",
        ("axis",),
    ),
    ("exposure", "present"): Wording(
        "With OOD data: a gain",
        "If pretraining held some OOD samples, {method} on OOD prompts raises their mass.",
        "gain in mass over SFT, mean over all OOD ratios above 0",
        "GRPO improves OOD accuracy only where pretraining contained OOD data.",
        ("axis", "gain"),
    ),
    ("beyond pretraining", "present"): Wording(
        "Above the pretrained model",
        "If pretraining held some OOD samples, {method} on OOD prompts ends with more mass there "
        "than the pretrained model had, before SFT hid some of it.",
        "mass after RL minus mass after pretraining",
        "GRPO reweights what the base model has; it does not go beyond its origin.",
        ("axis",),
    ),
    ("transfer", "present"): Wording(
        "Prompts without mass rise with their task",
        "An OOD prompt without mass rises by {method} if other prompts of its task have mass.",
        "gain in mass of prompts that had about none",
        "",
        ("transfer",),
    ),
    ("transfer", "absent"): Wording(
        "Prompts without mass stay if their task has none",
        "An OOD prompt without mass does not rise by {method} if its whole task has none.",
        "gain in mass of prompts that had about none",
        _LIMIT,
        ("transfer",),
    ),
    ("sweet spot", "present"): Wording(
        "Partly right gains most",
        "Prompts that are partly right gain a larger share of what is left to gain than those "
        "near zero and those near one.",
        "share of the room gained, partly right minus the better of the others",
        "The gain peaks where the base model is partly right.",
        ("gain",),
    ),
    ("saturation", "absent"): Wording(
        "Saturated prompts gain nothing",
        "{method} on ID prompts adds nothing to ID prompts that are right already.",
        "gain in mass of saturated ID prompts",
        "Gains on ID tasks diminish as performance saturates.",
        ("saturation",),
    ),
    ("foreign tokens", "present"): Wording(
        "Foreign tokens break ID prompts",
        "A few tokens of the other alphabet in an ID prompt take most of its mass.",
        "mass of ID prompts minus mass of the same prompts with foreign tokens",
        "Mixing 1 to 3 foreign tokens into an ID prompt breaks the model.",
        ("mixing",),
    ),
    ("foreign tokens", "absent"): Wording(
        "{method} does not repair them",
        "{method} gives back less than half of the mass that foreign tokens took.",
        "share of the lost mass that comes back",
        "GRPO does not repair what mixed tokens broke.",
        ("mixing",),
    ),
    ("composition", "absent"): Wording(
        "No composition from parts",
        "Pretrained on operations one at a time, the model does not learn by {method} to combine "
        "them.",
        "mass of the combined task, best stage and task",
        "Pretrained on traversal only and shift only, GRPO does not produce traversal and shift.",
        ("axis", "tasks"),
    ),
    ("mass bound", "absent"): Wording(
        "The bound of theory holds",
        "RL does not take prompts above the bound that their starting mass Q sets.",
        "share of prompts above the bound",
        "The gain is at most (e^(1/beta) - 1) Q.",
        ("theory", "gain"),
    ),
    ("prompts", "outside"): Wording(
        "It matters on which prompts RL trains",
        "{method} on a split's own prompts and on the other split's do not gain the same there.",
        "gain by the split's own prompts minus gain by the other's",
        "",
        ("axis",),
    ),
    ("sharpening", "absent"): Wording(
        "It sharpens, it does not widen",
        "Where the mass was about zero, even 128 tries find no more right answers after {method}.",
        "change of pass@128 of prompts that had about no mass",
        "GRPO sharpens pretraining biases and finds no novel solutions.",
        ("pass_at_k",),
    ),
    ("faithful trace", "present"): Wording(
        "Answers keep to their traces",
        "After {method} on OOD prompts the answer follows a corrupted state no less than before.",
        "change of the causal use of the trace (0: none, 1: the answer follows it)",
        "",
        ("faithfulness",),
    ),
    ("mass of a head", "absent"): Wording(
        "A head does not learn what it gave no mass",
        "A head over a fixed set, trained by GRPO on OOD prompts, gets no further than guessing on "
        "those to whose right output it gave no probability.",
        "mass of prompts that had about none, less that of guessing",
        _LIMIT,
        ("heads",),
    ),
    ("overconfidence", "present"): Wording(
        "Overconfident about chance",
        "Where chance decides and a proper score of the outcome is the reward, {method} says "
        "probabilities that are nearer to 0 and 1 than the true ones.",
        "how much farther confidences are from one half than the true probabilities",
        _CHANCE,
        ("reliability",),
    ),
    ("overconfidence", "absent"): Wording(
        "Not overconfident without the division",
        "{method}, which does not divide by the group's standard deviation, does not say "
        "probabilities that are nearer to 0 and 1 than the true ones.",
        "how much farther confidences are from one half than the true probabilities",
        _CHANCE,
        ("reliability",),
    ),
}

# What decides, by kind of test; `{edge}` is the edge, `{rare}` the share of seeds.
RULES = {
    "present": "Supported if the mean over seeds lies above {edge} (one-sided t test); "
    "contradicted if it is shown to stay below, in most seeds too.",
    "absent": "Supported if the mean over seeds stays below {edge} (one-sided t test) and so do "
    "more than {rest} of seeds (exact binomial test); contradicted if the mean lies above.",
    "outside": "Supported if the mean over seeds lies outside -{edge} to {edge} (two-sided t "
    "test); contradicted if it is shown to lie inside.",
    "few": "Supported if fewer than {rare} of seeds lie above {edge} (exact binomial test); "
    "contradicted if more do.",
}

GLOSSARY = {
    "ID and OOD": "In distribution: the kind of task that most of pretraining and all of SFT "
    "consist of. Out of distribution: another kind, of which pretraining holds little or nothing.",
    "Axis": "The way in which OOD tasks differ from ID tasks, such as more steps or longer input.",
    "OOD ratio": "The share of pretraining samples that are of an OOD task; 0 is none.",
    "Stage": "A model's state: pretrained, after SFT (fine-tuned on ID samples alone), and after "
    "RL on ID or on OOD prompts.",
    "Seed": "One world, its data and its models. Only seeds count as repetitions, never prompts.",
    "Cell": "One axis, OOD ratio and seed with all its stages.",
    "Correct mass Q": "The probability that the model writes the one right completion of a "
    "prompt, known exactly. What is called mass or gain below is a mean of it or of its change.",
    "Markers and content": "The two factors of Q: the words that say how many steps there are, "
    "and the symbols between them. The smaller factor is where the mass is lost.",
    "Gain": "Mass after RL minus mass after SFT.",
    "Verdict": "Supported or contradicted if a test over seeds says so (error {error} for all "
    "axes of a claim together), else undecided. Brackets hold one-sided bounds.",
}
