"""What a model writes: greedy and sampled completions of one prompt, and where they go wrong.

`grpo-origin show` prints it, the job `completions` keeps it for some prompts (`written`). Knows no
run and no stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from grpo_origin.data.rows import IDS, Sequences
from grpo_origin.evaluation.mass import exact_parts, gold_log_probs
from grpo_origin.tasks.domain import Tokens
from grpo_origin.training.numerics import exact_arithmetic

if TYPE_CHECKING:
    import pyarrow as pa

    from grpo_origin.training.model import Decoder

SAMPLES = 3  # completions sampled of a prompt: enough to see whether a mistake is the usual one


@dataclass(frozen=True)
class Written:
    """A completion: its tokens, up to `<eos>` or the longest length, and ln p of each (nats).

    p is the probability given the tokens before. `wrong` is the first place at which it is not the
    right completion, None if it is that; a place past its end if it stops too early. `failure` is
    what kind of mistake that is (`kind_of`).
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    wrong: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Shown:
    """One prompt under one model: ln Q and its parts (nats), and what the model writes.

    `gold` is the right completion with the probabilities that the model gives its tokens.
    """

    log_mass: float
    log_mass_markers: float
    log_mass_content: float
    gold: Written
    greedy: Written
    samples: tuple[Written, ...]

    @property
    def by_kind(self) -> dict[str, Written]:
        """The completions by what they are: `gold`, `greedy`, `sample-1`, ..."""
        drawn = {f"sample-{i}": sample for i, sample in enumerate(self.samples, start=1)}
        return {"gold": self.gold, "greedy": self.greedy} | drawn


def shown(
    model: Decoder,
    prompt: Sequence[int],
    gold: Sequence[int],
    samples: int,
    device: torch.device,
    seed: int,
    tokens: Tokens,
) -> Shown:
    """What a model makes of a prompt (token ids) whose right completion is `gold` (token ids).

    Samples are drawn at temperature 1 from the full softmax; the same seed gives the same ones.
    """
    drawn = _drawn(model, prompt, len(gold), samples, device, seed, tokens.eos)
    completions = [[*gold], *drawn]
    rows = _rows(prompt, completions)
    scored = gold_log_probs(model, Sequences(rows), len(completions), device)
    written = []
    for ids, log_probs in zip(completions, scored, strict=True):
        wrong = first_wrong(ids, gold)
        failure = None if wrong is None else kind_of(ids, gold, wrong, tokens)
        written.append(Written(tuple(ids), tuple(log_probs.tolist()), wrong, failure))
    parts = exact_parts(model, Sequences(rows.slice(0, 1)), 1, device, tokens)
    return Shown(
        log_mass=float(parts["log_mass"][0]),
        log_mass_markers=float(parts["log_mass_markers"][0]),
        log_mass_content=float(parts["log_mass_content"][0]),
        gold=written[0],
        greedy=written[1],
        samples=tuple(written[2:]),
    )


@torch.no_grad()
def _drawn(
    model: Decoder,
    prompt: Sequence[int],
    longest: int,
    samples: int,
    device: torch.device,
    seed: int,
    eos: int,
) -> list[list[int]]:
    """The greedy completion and sampled ones, each up to its `<eos>` (`eos`)."""
    model.to(device).eval()  # type: ignore[arg-type]
    start = torch.tensor([list(prompt)], device=device)
    how: dict[str, Any] = {"attention_mask": torch.ones_like(start), "max_new_tokens": longest}
    free: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    torch.manual_seed(seed)
    with exact_arithmetic(device):
        drawn = [model.generate(start, do_sample=False, **how)]  # type: ignore[misc]
        if samples:
            many = model.generate(  # type: ignore[misc]
                start, num_return_sequences=samples, **how, **free
            )
            drawn.append(many)
    rows = [row for part in drawn for row in part[:, len(prompt) :].tolist()]
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


def _rows(prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> pa.Table:
    """Completions of one prompt as the table that `Sequences` reads."""
    import pyarrow as pa

    kind, columns = pa.list_(pa.int32()), ([[*prompt]] * len(completions), completions)
    return pa.table({name: pa.array(x, kind) for name, x in zip(IDS, columns, strict=True)})


def first_wrong(written: Sequence[int], gold: Sequence[int]) -> int | None:
    """The first place at which a completion is not the right one; None if it is."""
    for place, right in enumerate(gold):
        if place >= len(written) or written[place] != right:
            return place
    return None if len(written) == len(gold) else len(gold)


def kind_of(written: Sequence[int], gold: Sequence[int], wrong: int, tokens: Tokens) -> str:
    """What kind of mistake the first one is.

    `length` where it ends too early or not at all, `marker` where a marker is wrong, missing or too
    many (so the steps are), `content` where it is an element of a state.
    """
    pair = [ids[wrong] if wrong < len(ids) else tokens.eos for ids in (written, gold)]
    if tokens.eos in pair:
        return "length"
    return "marker" if {*pair} & {*tokens.markers} else "content"
