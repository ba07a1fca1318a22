"""What a model writes: greedy and sampled completions of one prompt, and where they go wrong.

The command `grpo-origin show` prints it. Knows no run and no stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from grpo_origin.evaluation.mass import MARKERS
from grpo_origin.tasks.tokenizer import EOS
from grpo_origin.training.numerics import exact_arithmetic

if TYPE_CHECKING:
    from grpo_origin.training.model import Decoder


@dataclass(frozen=True)
class Written:
    """A completion: its tokens, up to `<eos>` or the longest length, and each one's probability.

    `wrong` is the first place at which it is not the right completion, None if it is that; a place
    past its end if it stops too early.
    """

    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]
    wrong: int | None


@dataclass(frozen=True)
class Shown:
    """One prompt under one model: Q and its factors, and what the model writes.

    `gold` are the probabilities of the right completion's tokens given those before.
    """

    mass: float
    markers: float
    content: float
    gold: tuple[float, ...]
    greedy: Written
    samples: tuple[Written, ...]


@torch.no_grad()
def shown(
    model: Decoder,
    prompt: Sequence[int],
    gold: Sequence[int],
    samples: int,
    device: torch.device,
    seed: int,
) -> Shown:
    """What a model makes of a prompt (token ids) whose right completion is `gold` (token ids)."""
    model.to(device).eval()  # type: ignore[arg-type]
    right = _probabilities(model, prompt, gold, device)
    marker = np.isin(gold, MARKERS)
    with exact_arithmetic(device):
        start = torch.tensor([list(prompt)], device=device)
        how: dict[str, Any] = {
            "attention_mask": torch.ones_like(start),
            "max_new_tokens": len(gold),
        }
        torch.manual_seed(seed)
        drawn = [model.generate(start, do_sample=False, **how)]  # type: ignore[misc]
        for _ in range(samples):
            free: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
            drawn.append(model.generate(start, **how, **free))  # type: ignore[misc]
    written = []
    for row in drawn:
        tokens = row[0, len(prompt) :].tolist()
        chances = _probabilities(model, prompt, tokens, device)
        written.append(Written(tuple(tokens), tuple(chances), first_wrong(tokens, gold)))
    return Shown(
        float(np.prod(right)),
        float(np.prod(right[marker])),
        float(np.prod(right[~marker])),
        tuple(right),
        written[0],
        tuple(written[1:]),
    )


def first_wrong(written: Sequence[int], gold: Sequence[int]) -> int | None:
    """The first place at which a completion is not the right one; None if it is."""
    for place, right in enumerate(gold):
        if place >= len(written) or written[place] != right:
            return place
    return None if len(written) == len(gold) else len(gold)


def kind_of(written: Sequence[int], gold: Sequence[int], wrong: int) -> str:
    """What kind of mistake the first one is.

    `length` where it ends too early or not at all, `marker` where a marker is wrong, missing or too
    many (so the steps are), `content` where it is an element of a state.
    """
    pair = [tokens[wrong] if wrong < len(tokens) else EOS for tokens in (written, gold)]
    if EOS in pair:
        return "length"
    return "marker" if {*pair} & {*MARKERS} else "content"


def _probabilities(
    model: Decoder, prompt: Sequence[int], completion: Sequence[int], device: torch.device
) -> np.ndarray:
    """Probability of each token of a completion given those before it, shape (T,)."""
    ids = torch.tensor([[*prompt, *completion]], device=device)
    with exact_arithmetic(device):
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        chances = logits.softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0]
    return chances.double().cpu().numpy()
