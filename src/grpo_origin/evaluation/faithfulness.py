"""Does the answer follow from the trace? Three measures of a model on test prompts with a trace.

- Causal use, exact: one state of the gold trace is corrupted, and forced prefixes give the masses
  of the gold answer and of the answer that follows from the corrupted state, with and without the
  corruption.
- Consistency, sampled: is the answer what the last operation makes of the last state written?
- Right for wrong reasons: the mass of the gold answer after wrong traces; the traces are sampled,
  the mass after each is exact.

The job `faithfulness` calls `faithfulness`; `analysis.faithfulness` makes tables of the file. Knows
nothing of how models were trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_origin.config.faithfulness import FaithfulnessSettings
from grpo_origin.config.notation import SPLITS, TaskSpec
from grpo_origin.config.paths import stage_of
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import IDS, Sequences
from grpo_origin.evaluation.mass import exact_mass
from grpo_origin.evaluation.sampling import sampled_successes
from grpo_origin.evaluation.trace_file import AFTER_WRONG, COUNTS, MASSES, causal_use, trace_schema
from grpo_origin.jobs.files import write_table
from grpo_origin.tasks.domain import Domain
from grpo_origin.tasks.states import trace_steps
from grpo_origin.tasks.traces import is_consistent, with_wrong_state
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from grpo_origin.training.model import Decoder


def with_trace(table: pa.Table, depth: int, prompts: int) -> pa.Table:
    """The first `prompts` rows of each task that has a state `depth` operations before its answer.

    Test prompts of a task are in random order.
    """
    taken: Counter[str] = Counter()
    chosen: list[int] = []
    for row, name in enumerate(table["task"].to_pylist()):
        if trace_steps(TaskSpec.model_validate(name)) > depth and taken[name] < prompts:
            taken[name] += 1
            chosen.append(row)
    return table.take(np.array(chosen, dtype=np.int64))


def forced(
    model: Decoder,
    prefixes: Iterable[Sequence[int]],
    rests: Iterable[Sequence[int]],
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """ln mass (nats) of each rest, `<eos>` included, after its prefix, both token lists."""
    import pyarrow as pa

    kind, columns = pa.list_(pa.int32()), (list(prefixes), list(rests))
    if not columns[0]:
        return np.empty(0)
    rows = pa.table({name: pa.array(x, kind) for name, x in zip(IDS, columns, strict=True)})
    return exact_mass(model, Sequences(rows), batch_size, device)[0]


def causal_masses(
    model: Decoder,
    table: pa.Table,
    domain: Domain,
    settings: FaithfulnessSettings,
    batch_size: int,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """The ln masses of MASSES for test prompts with a trace, each of shape (rows,).

    The state corrupted lies `settings.depth` operations before the answer; a rest is all that comes
    after it: for 1 the answer alone. The same seed corrupts the same places whatever the model.
    """
    names = np.array(table["task"].to_pylist())
    masses = {name: np.empty(len(names)) for name in MASSES}
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        prompts = np.array(table.take(rows)["prompt_ids"].to_pylist())
        texts = with_wrong_state(domain, name, prompts, settings.depth, settings.positions)
        for key in MASSES:
            rest, prefix = key.split("_")
            both = texts.prefixes[prefix].tolist(), texts.rests[rest].tolist()
            masses[key][rows] = forced(model, *both, batch_size, device)
    return masses


def sampled_counts(
    model: Decoder,
    table: pa.Table,
    domain: Domain,
    samples: int,
    batch_size: int,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """The columns of COUNTS and AFTER_WRONG for test prompts with a trace, shapes (rows,).

    Completions are drawn at temperature 1, none longer than the right one. What lacks the marker of
    the answer, the last of the format, is a wrong trace, after which the gold answer has mass 0.
    """
    rows, marker, pad = table.to_pylist(), domain.tokens.steps[-1], domain.tokens.pad
    counts = {name: np.zeros(len(rows), dtype=np.int64) for name in COUNTS}
    counts["samples"][:] = samples
    wrong: Counter[tuple[int, tuple[int, ...]]] = Counter()  # row, trace up to its answer

    def judge(numbers: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Count completions (b, T) of rows (b,); whether each is consistent."""
        found = []
        for number, line in zip(numbers.tolist(), drawn.tolist(), strict=True):
            written = [token for token in line if token != pad]
            place = written.index(marker) if marker in written else len(written)
            gold = rows[number]["completion_ids"]
            answer = gold.index(marker)
            counts["right"][number] += written[place:] == gold[answer:]
            if written[:place] != gold[:answer]:
                counts["wrong_traces"][number] += 1
                if place < len(written):
                    wrong[number, tuple(written[:place])] += 1
            found.append(is_consistent(domain, rows[number]["task"], written))
        return np.array(found)

    counts["consistent"] = sampled_successes(
        model, Sequences(table), samples, batch_size, device, domain.seed, judge
    )
    log_mass = forced(
        model,
        ([*rows[number]["prompt_ids"], *trace] for number, trace in wrong),
        (gold[gold.index(marker) :] for gold in (rows[n]["completion_ids"] for n, _ in wrong)),
        batch_size,
        device,
    )
    after = np.zeros(len(rows))
    for ((number, _), times), mass in zip(wrong.items(), np.exp(log_mass), strict=True):
        after[number] += times * min(mass, 1.0)
    return counts | {AFTER_WRONG: after}


def faithfulness(
    stages: Mapping[str, str | Path],
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    ratio: str,
    variant: str,
    domain: Domain,
    settings: FaithfulnessSettings,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Measure model folders (stage name -> folder) on the ID and OOD test prompts with a trace.

    Writes a row a stage and prompt; none where no task of the axis is long enough.
    """
    import pyarrow as pa

    device, size = choose_device(numerics, runtime.threads), evaluation.batch_size
    parts = [read_prompts(test, split) for split in SPLITS]
    table = pa.concat_tables([with_trace(part, settings.depth, settings.prompts) for part in parts])
    tables = []
    for name, folder in stages.items() if table.num_rows else ():
        model, stage = load_model(folder), stage_of(name)
        columns: dict[str, Any] = dict(causal_masses(model, table, domain, settings, size, device))
        columns |= sampled_counts(model, table, domain, settings.samples, size, device)
        labels = {"axis": axis, "seed": domain.seed, "ood_ratio": ratio, "variant": variant}
        labels |= {"stage": name, "method": stage.method, "trained_on": stage.trained_on}
        known = {label: [value] * table.num_rows for label, value in labels.items()}
        for label in ("split", "task", "prompt_index"):
            known[label] = table[label].to_pylist()
        tables.append(pa.table(known | columns, schema=trace_schema()))
        use = causal_use(columns).mean()
        drawn = columns["consistent"].sum() / columns["samples"].sum()
        print(f"{name}: mean causal use {use:.4f}, {drawn:.4f} consistent", flush=True)
    write_table(output, pa.concat_tables(tables) if tables else trace_schema().empty_table())
