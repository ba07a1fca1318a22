"""GRPO for a representation: a head over a fixed set of outputs instead of sampled sequences.

After GRPO-RM (arXiv 2511.15256): the pretrained decoder is the representation model, what it holds
at the end of the prompt is the representation, and the outputs are the nodes that may stand at one
position of the answer. From one linear head, fitted on ID prompts with the decoder frozen, decoder
and head are trained on: by cross-entropy, by GRPO-RM, whose group is the whole set, and by the same
rewards on groups sampled from the head. The job `representation` calls `write_heads`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from grpo_origin.config.notation import SPLITS
from grpo_origin.config.representation import HEADS, RepresentationSettings
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.data.source import Source
from grpo_origin.evaluation.geometry import alignment, uniformity
from grpo_origin.evaluation.states import prompt_blocks, states_of, train_prompts
from grpo_origin.jobs.files import write_table
from grpo_origin.tasks.states import state_values
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device, exact_arithmetic

if TYPE_CHECKING:
    import pyarrow as pa

    from grpo_origin.training.model import Decoder

LINEAR = "linear"  # the head that all training starts from


def rewards(probabilities: torch.Tensor, gold: torch.Tensor, weight: float) -> torch.Tensor:
    """Reward of every output of the set, shape (b, C), from the head's probabilities and (b,) gold.

    Accuracy: 1 for the right output. Uniformity: a wrong one loses `weight` times its probability,
    so that the mass left to wrong outputs spreads evenly.
    """
    right = functional.one_hot(gold, probabilities.shape[1]).to(probabilities)
    return right - weight * (1 - right) * probabilities


def advantages(values: torch.Tensor) -> torch.Tensor:
    """Rewards (b, G) relative to their group: less its mean, over its standard deviation.

    0 throughout where all are equal.
    """
    centred = values - values.mean(1, keepdim=True)
    spread = values.std(1, correction=0, keepdim=True)
    return torch.where(spread > 0, centred / spread.clamp_min(torch.finfo(values.dtype).tiny), 0.0)


def loss_of(
    kind: str,
    logits: torch.Tensor,
    gold: torch.Tensor,
    settings: RepresentationSettings,
    draws: torch.Generator,
) -> torch.Tensor:
    """Loss of a kind of training, one of HEADS, from the head's logits (b, C) and gold (b,).

    Each group is used once, so the ratio of GRPO's objective is 1 and only its gradient counts:
    clipping would do nothing. There is no KL term, as in the paper.
    """
    log_probs = logits.log_softmax(1)
    if kind == "cross_entropy":
        return functional.nll_loss(log_probs, gold)
    probabilities = log_probs.detach().exp()
    scores = rewards(probabilities, gold, settings.uniformity)
    if kind == "grpo_rm_sampled":
        group = torch.multinomial(
            probabilities, settings.group_size, replacement=True, generator=draws
        )
        scores, log_probs = scores.gather(1, group), log_probs.gather(1, group)
    ratio = (log_probs - log_probs.detach()).exp()
    return -(advantages(scores) * ratio).mean()


class Head(torch.nn.Module):
    """A decoder with a linear head over the nodes, read at the last token of a prompt."""

    def __init__(self, decoder: Decoder, nodes: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = torch.nn.Linear(decoder.get_output_embeddings().weight.shape[1], nodes)

    def represent(self, rows: Sequences, chosen: np.ndarray, device: torch.device) -> torch.Tensor:
        """Representations (b, d) of chosen rows: what the decoder's output layer would read."""
        places, parts = [], []
        for where, ids in prompt_blocks(rows, chosen, len(chosen)):
            hidden = self.decoder.base_model(input_ids=ids.to(device), use_cache=False)
            parts.append(hidden.last_hidden_state[:, -1])
            places.append(where)
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        return torch.cat(parts)[order.to(device)]


@dataclass(frozen=True)
class Examples:
    """Prompts and their right outputs, the nodes at the position asked for, (rows,)."""

    rows: Sequences
    gold: torch.Tensor

    @classmethod
    def of(cls, table: pa.Table, source: Source, position: int) -> Examples:
        """Of a table of prompts; the position counts from 1."""
        answers = states_of(table, source.domain)[:, -1, position - 1]
        return cls(Sequences(table), torch.from_numpy(answers))

    @property
    def all(self) -> np.ndarray:
        """Numbers of all rows."""
        return np.arange(self.rows.size)


def fit_linear(
    model: Head, examples: Examples, settings: RepresentationSettings, device: torch.device
) -> None:
    """Fit the head by cross-entropy on all examples, the decoder as it is."""
    with torch.no_grad():
        features = model.represent(examples.rows, examples.all, device)
    gold = examples.gold.to(device)
    optimiser = torch.optim.Adam(model.head.parameters(), lr=settings.linear_rate)
    for _ in range(settings.linear_steps):
        optimiser.zero_grad()
        functional.cross_entropy(model.head(features), gold).backward()
        optimiser.step()


def train(
    model: Head,
    kind: str,
    examples: Examples,
    settings: RepresentationSettings,
    device: torch.device,
    seed: int,
) -> None:
    """Train decoder and head by a kind of HEADS, each example once."""
    draws = torch.Generator(device).manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    for start in range(0, examples.rows.size, settings.prompts_per_step):
        chosen = examples.all[start : start + settings.prompts_per_step]
        logits = model.head(model.represent(examples.rows, chosen, device))
        gold = examples.gold[chosen].to(device)
        optimiser.zero_grad()
        loss_of(kind, logits, gold, settings, draws).backward()
        optimiser.step()


@dataclass(frozen=True)
class Judged:
    """What a head makes of examples: masses of the right output and correctness (rows,), and the
    representations (rows, d)."""

    mass: np.ndarray
    correct: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, model: Head, examples: Examples, device: torch.device) -> Judged:
        """Of one model."""
        with torch.no_grad():
            points = model.represent(examples.rows, examples.all, device)
            log_probs = model.head(points).log_softmax(1).cpu()
        mass = log_probs.gather(1, examples.gold[:, None])[:, 0].exp()
        correct = log_probs.argmax(1) == examples.gold
        return cls(mass.double().numpy(), correct.numpy(), points.double().cpu().numpy())


def measures(now: Judged, before: Judged, gold: np.ndarray, no_mass: float) -> dict[str, Any]:
    """A row of the table `representation` without its labels, from a head and the linear one."""
    without = before.mass < no_mass
    some = without.any()
    return {
        "prompts": len(gold),
        "accuracy": float(now.correct.mean()),
        "mass": float(now.mass.mean()),
        "alignment": alignment(now.points, gold),
        "uniformity": uniformity(now.points),
        "without": int(without.sum()),
        "without_before": float(before.mass[without].mean()) if some else np.nan,
        "without_after": float(now.mass[without].mean()) if some else np.nan,
    }


def write_heads(
    folder: str | Path,
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    ratio: str,
    source: Source,
    representation: RepresentationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Fit and train heads on the model in `folder`, and judge them on test prompts of a cell.

    Writes a row a head and split, columns as in the table `representation`. The linear head is
    fitted on ID prompts; each kind of training goes on from it, on ID and on OOD prompts. Seconds
    of work, so all or nothing: a killed job starts anew. Float32 whatever `numerics` says.
    """
    import pandas as pd
    import pyarrow as pa

    settings, device = representation, choose_device(numerics, runtime.threads)
    position, count = settings.position, settings.steps * settings.prompts_per_step
    asked = {split: Examples.of(read_prompts(test, split), source, position) for split in SPLITS}
    lines: list[dict[str, Any]] = []

    def drawn(split: str, prompts: int, purpose: str) -> Examples:
        return Examples.of(train_prompts(source, split, prompts, purpose), source, position)

    nodes = state_values(source.domain)
    with exact_arithmetic(device):
        torch.manual_seed(source.seed)
        linear = Head(load_model(folder), nodes).to(device).eval()
        fit_linear(linear, drawn("id", settings.linear_prompts, "head"), settings, device)
        start = {split: Judged.of(linear, part, device) for split, part in asked.items()}

        def judge(model: Head, kind: str, trained_on: str) -> None:
            label = {"axis": axis, "seed": source.seed, "ood_ratio": ratio}
            label |= {"head": kind, "trained_on": trained_on, "guess": 1 / nodes}
            for split, part in asked.items():
                now, gold = Judged.of(model, part, device), part.gold.numpy()
                found = measures(now, start[split], gold, settings.no_mass)
                lines.append(label | {"split": split} | found)
            print(f"{kind}~{trained_on}: {lines[-1]['mass']:.4f} OOD mass", flush=True)

        judge(linear, LINEAR, "id")
        for trained_on in SPLITS:
            examples = drawn(trained_on, count, "representation")
            for kind in HEADS:
                model = copy.deepcopy(linear)
                train(model, kind, examples, settings, device, source.seed)
                judge(model, kind, trained_on)
    write_table(output, pa.Table.from_pandas(pd.DataFrame(lines), preserve_index=False))
