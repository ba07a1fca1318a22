"""Linear probes: which states of a trace can be read off a model before it writes anything?

A probe is a closed-form ridge classifier of nodes, from the hidden state at the last token of the
prompt, for one step of the trace and one position of the string. Fitted on prompts of train
strings, tested on test prompts. Successors are a bijection, so within one task whoever can read the
string can read every later state as well: a probe says something new only where it reads tasks of
which one needs another readout than the next. So probes are fitted over tasks together, and each
accuracy stands beside that of the same probe on the prompt's tokens. The job `probes` calls
`write_probes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import stage_of
from grpo_origin.config.representation import ProbeSettings
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.data.source import Source
from grpo_origin.evaluation.states import (
    NONE,
    end_states,
    prompt_blocks,
    states_of,
    train_prompts,
)
from grpo_origin.jobs.files import write_table
from grpo_origin.tasks.domain import Tokens
from grpo_origin.tasks.states import state_values
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device

FITS = {"id": ("id",), "both": SPLITS}  # splits of the prompts that a probe is fitted on
ANSWER = "answer"  # the step of every task's last state, beside `1`, `2`, ...
STILL = 1e-9  # standard deviation below which a feature is constant and says nothing

Place = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """A linear readout of several labels: features (n, d) to nodes (n, labels)."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    base: np.ndarray

    @classmethod
    def fitted(cls, features: np.ndarray, labels: np.ndarray, nodes: int, ridge: float) -> Probe:
        """Ridge regression on one-hot labels (n, t), of features (n, d) scaled to unit variance.

        Least squares over the n rows, their mean, plus `ridge` times the squared weights.
        """
        mean, spread = features.mean(0), features.std(0)
        scale = np.where(spread > STILL, 1 / np.maximum(spread, STILL), 0.0)
        scaled, count = (features - mean) * scale, len(features)
        targets = np.eye(nodes)[labels]
        base = targets.mean(0)
        moments = scaled.T @ scaled / count + ridge * np.eye(features.shape[1])
        weights = np.linalg.solve(moments, scaled.T @ (targets - base).reshape(count, -1) / count)
        return cls(mean, scale, weights, base)

    def read(self, features: np.ndarray) -> np.ndarray:
        """The node of the highest score of each label, shape (n, labels)."""
        scores = ((features - self.mean) * self.scale) @ self.weights
        return (scores.reshape(len(features), *self.base.shape) + self.base).argmax(-1)


@dataclass(frozen=True)
class Asked:
    """Prompts, their states (rows, steps, positions) as `states_of` has them, splits (rows,)."""

    rows: Sequences
    labels: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, tables: list[Any], source: Source) -> Asked:
        """Prompts of several tables."""
        import pyarrow as pa

        table = pa.concat_tables(tables).unify_dictionaries()
        splits = np.array(table["split"].to_pylist())
        return cls(Sequences(table), states_of(table, source.domain), splits)

    def tokens(self, width: int, known: Tokens) -> np.ndarray:
        """Which token stands where in each prompt, one-hot, float64 (rows, width x tokens)."""
        ids = np.full((self.rows.size, width), known.pad)
        for places, prompts in prompt_blocks(self.rows, np.arange(self.rows.size), self.rows.size):
            ids[places, : prompts.shape[1]] = prompts.numpy()
        return np.eye(len(known))[ids].reshape(self.rows.size, -1)


def accuracies(
    known: Asked,
    asked: Asked,
    features: tuple[np.ndarray, np.ndarray],
    nodes: int,
    settings: ProbeSettings,
    shuffles: np.random.Generator,
) -> Iterator[tuple[Place, float, float]]:
    """Accuracy of every probe, and of one fitted on shuffled labels: chance, if all is well.

    `features` are of the prompts fitted on, `known`, and of those tested on, `asked`: (rows, d)
    each. A place is fitted_on, split, step, position (from 1), prompts (tested).
    """
    last = known.labels.shape[1] - 1
    for fitted_on, splits in FITS.items():
        mine = np.isin(known.splits, splits)
        for step in range(last + 1):
            for positions, rows in _alike(known.labels[:, step], mine):
                labels = known.labels[rows, step][:, positions]
                both = np.concatenate([labels, shuffles.permutation(labels)], axis=1)
                probe = Probe.fitted(features[0][rows], both, nodes, settings.ridge)
                read = probe.read(features[1])
                for i, position in enumerate(positions):
                    truth = asked.labels[:, step, position]
                    for split in SPLITS:
                        chosen = (asked.splits == split) & (truth != NONE)
                        if not chosen.any():
                            continue
                        right, control = (
                            float((read[chosen, column] == truth[chosen]).mean())
                            for column in (i, len(positions) + i)
                        )
                        name = ANSWER if step == last else str(step + 1)
                        place: Place = {"fitted_on": fitted_on, "split": split, "step": name}
                        place |= {"position": position + 1, "prompts": int(chosen.sum())}
                        yield place, right, control


def _alike(labels: np.ndarray, mine: np.ndarray) -> Iterator[tuple[list[int], np.ndarray]]:
    """Positions of labels (rows, positions) that the same of my rows (rows,) have, with those."""
    groups: dict[bytes, tuple[list[int], np.ndarray]] = {}
    for position in range(labels.shape[1]):
        rows = np.flatnonzero(mine & (labels[:, position] != NONE))
        if len(rows):
            groups.setdefault(rows.tobytes(), ([], rows))[0].append(position)
    yield from groups.values()


def write_probes(
    stages: Mapping[str, str | Path],
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    ratio: str,
    source: Source,
    probes: ProbeSettings,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Probe model folders (stage name -> folder) of a cell.

    Writes a row a stage, layer (0: embeddings), kind of fit, split, step and position; columns as
    in the table `probes`, and the position.
    """
    import pandas as pd
    import pyarrow as pa

    device, nodes = choose_device(numerics, runtime.threads), state_values(source.domain)
    # As many of each task: of unequal ones a readout of the most frequent task would do.
    counts = {split: probes.prompts * len(source.tasks(split)) for split in SPLITS}
    drawn = [train_prompts(source, split, counts[split], "probes") for split in SPLITS]
    known = Asked.of(drawn, source)
    asked = Asked.of(
        [read_prompts(test, split).select(drawn[0].column_names) for split in SPLITS], source
    )
    size, cell = evaluation.batch_size, {"axis": axis, "seed": source.seed, "ood_ratio": ratio}

    def probed(features: tuple[np.ndarray, np.ndarray]) -> list[tuple[Place, float, float]]:
        shuffles = source.generator("probes", "control")
        return [*accuracies(known, asked, features, nodes, probes, shuffles)]

    from_prompt = [right for _, right, _ in probed(_tokens(known, asked, source))]
    lines: list[Place] = []
    for name, folder in stages.items():
        model, stage = load_model(folder), stage_of(name)
        labels = {"stage": name, "method": stage.method, "trained_on": stage.trained_on}
        both = [end_states(model, part.rows, size, device) for part in (known, asked)]
        for layer, features in enumerate(zip(*both, strict=True)):
            for prompt, (place, right, control) in zip(from_prompt, probed(features), strict=True):
                found = {"accuracy": right, "control": control, "from_prompt": prompt}
                lines.append(cell | labels | {"layer": layer} | place | found)
        print(f"{name}: {len(both[0])} layers probed", flush=True)
    write_table(output, pa.Table.from_pandas(pd.DataFrame(lines), preserve_index=False))


def _tokens(known: Asked, asked: Asked, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """The prompts' own tokens as features of both, those that vary among the known ones."""
    domain = source.domain
    width = max(domain.lengths(task)[0] for split in SPLITS for task in source.tasks(split))
    first, second = (part.tokens(width, domain.tokens) for part in (known, asked))
    varied = first.std(0) > STILL
    return first[:, varied], second[:, varied]
