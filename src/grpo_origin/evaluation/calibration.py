"""What models answer where answers are probabilities: all answers of a prompt, from one pass.

After the right trace, so that the trace is not judged: a model's probability of each answer token
of `Tokens.chances`, beside the true probability of the event, which the reference says. Exact, as
masses are. The job `calibration` calls `calibration`; `analysis.calibration` makes measures of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config.paths import stage_of
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.jobs.files import write_table
from grpo_origin.tasks.domain import Domain, Tokens
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device, exact_arithmetic

if TYPE_CHECKING:
    from grpo_origin.training.model import Decoder

BEFORE_ANSWER = -3  # of a reference's tokens: <answer>, the answer and <eos> are the last


@torch.no_grad()
def answer_probabilities(
    model: Decoder, rows: Sequences, batch_size: int, device: torch.device, tokens: Tokens
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of all answers, shape (rows, answers), and the reference's answer (rows,).

    The former sum to 1 less what the model gives to tokens that say no probability.
    """
    model.to(device).eval()  # type: ignore[arg-type]
    probabilities = np.empty((rows.size, len(tokens.chances)))
    truth = np.empty(rows.size)
    for numbers, ids, _ in rows.blocks(np.arange(rows.size)):
        truth[numbers] = np.searchsorted(tokens.chances, ids[:, -2]) / (len(tokens.chances) - 1)
        for start in range(0, len(numbers), batch_size):
            part = slice(start, start + batch_size)
            batch = torch.from_numpy(ids[part]).to(device)
            with exact_arithmetic(device):
                logits = model(input_ids=batch, use_cache=False).logits[:, BEFORE_ANSWER]
                every = logits.double().softmax(-1)
            probabilities[numbers[part]] = every[:, list(tokens.chances)].cpu().numpy()
    return probabilities, truth


def calibration(
    stages: Mapping[str, str | Path],
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    ratio: str,
    domain: Domain,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Write the answers that model folders (stage name -> folder) give to a cell's test prompts.

    A row a stage and prompt: columns axis, seed, ood_ratio, stage, method, trained_on, split, task,
    prompt_index, truth, probabilities (a list, one an answer).
    """
    import pandas as pd
    import pyarrow as pa

    device, prompts = choose_device(numerics, runtime.threads), read_prompts(test)
    asked = prompts.select(["split", "task", "prompt_index"]).to_pandas()
    rows, tables = Sequences(prompts), []
    for name, folder in stages.items():
        model, stage = load_model(folder), stage_of(name)
        given, truth = answer_probabilities(
            model, rows, evaluation.batch_size, device, domain.tokens
        )
        place = {"axis": axis, "seed": domain.seed, "ood_ratio": ratio, "stage": name}
        place |= {"method": stage.method, "trained_on": stage.trained_on}
        labels = pd.DataFrame([place]).astype({"method": "str", "trained_on": "str"})
        table = labels.merge(asked.astype({"split": "str", "task": "str"}), how="cross")
        tables.append(table.assign(truth=truth, probabilities=list(given)))
        print(f"{name}: {given.sum(1).mean():.4f} of the mass is on answers", flush=True)
    table = pd.concat(tables, ignore_index=True)
    write_table(output, pa.Table.from_pandas(table, preserve_index=False))
