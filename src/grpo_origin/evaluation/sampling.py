"""Exact evaluation: the probability of the one correct completion of every test prompt, from one forward pass.

Exactly one completion is correct, so its probability is the correct mass Q(x), and greedy decoding is right exactly
when the arg-max is the gold token at every gold-prefix position. Nothing is sampled, but for `sampling`, the check that
sampling agrees. Knows models and test prompts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config.notation import SPLITS
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import EvaluationSettings, NumericsSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.source import Sequences
from grpo_origin.jobs.files import write_table
from grpo_origin.training.model import load_model
from grpo_origin.training.numerics import choose_device

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM
from grpo_origin.evaluation.mass import exact_mass


@torch.no_grad()
def sampled_successes(
    model: LlamaForCausalLM,
    rows: Sequences,
    samples: int,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> np.ndarray:
    """How many of `samples` completions drawn at temperature 1 from the full softmax are correct, shape (rows,)."""
    model.to(device).eval()
    torch.manual_seed(seed)
    successes = np.zeros(rows.size, dtype=np.int64)
    for where, tokens, prompt in rows.blocks(np.arange(rows.size)):
        repeated = np.repeat(np.arange(len(where)), samples)
        for start in range(0, len(repeated), batch_size):
            chosen = repeated[start : start + batch_size]
            ids = torch.from_numpy(tokens[chosen, :prompt]).to(device)
            drawn = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens.shape[1] - prompt,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
            )[:, prompt:].cpu()
            gold = tokens[chosen, prompt : prompt + drawn.shape[1]]
            right = (drawn.numpy() == gold).all(1) & (drawn.shape[1] == tokens.shape[1] - prompt)
            np.add.at(successes, where[chosen], right)
    return successes


def sampling(
    folder: str | Path,
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    seed: int,
    ratio: str,
    prompts: int,
    samples: int,
    evaluation: EvaluationSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Sample completions of `prompts` ID and OOD test prompts each and write successes beside ln Q, one row a prompt."""
    import pyarrow as pa

    device, model, tables = choose_device(numerics, runtime.threads), load_model(folder), []
    for split in SPLITS:
        table = read_prompts(test, split)
        table = table.take(
            np.linspace(0, table.num_rows - 1, min(prompts, table.num_rows)).astype(int)
        )  # evenly over its tasks
        rows = Sequences(table)
        columns = {
            "axis": axis,
            "seed": seed,
            "ood_ratio": ratio,
            "split": split,
            "samples": samples,
        }
        found = {name: pa.array([value] * rows.size) for name, value in columns.items()}
        found |= {"task": table["task"].cast(pa.string()), "prompt_index": table["prompt_index"]}
        found["log_mass"] = pa.array(exact_mass(model, rows, evaluation.batch_size, device)[0])
        found["successes"] = pa.array(
            sampled_successes(model, rows, samples, evaluation.batch_size, device, seed)
        )
        tables.append(pa.table(found))
    write_table(output, pa.concat_tables(tables))
