"""Exact evaluation: the probability of the one correct completion of every test prompt, from one forward pass.

Exactly one completion is correct, so its probability is the correct mass Q(x), and greedy decoding is right exactly
when the arg-max is the gold token at every gold-prefix position. Nothing is sampled, but for `sampling`, the check that
sampling agrees. Knows models and test prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_origin.config import PROMPTS, EvaluationSettings, RuntimeSettings
from grpo_origin.data import Sequences, read_prompts
from grpo_origin.files import write_table
from grpo_origin.model import choose_device, load_model

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@torch.no_grad()
def exact_mass(model: LlamaForCausalLM, rows: Sequences, batch_size: int, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Log mass ln Q(x) in nats and greedy correctness of every row, shapes (rows,).

    Q is a probability under the full softmax at temperature 1, `<eos>` included.
    """
    log_mass, greedy = np.empty(rows.size), np.empty(rows.size, dtype=bool)
    for part, steps, right in _gold_steps(model, rows, batch_size, device):
        log_mass[part], greedy[part] = steps.sum(1), right
    return log_mass, greedy


@torch.no_grad()
def gold_log_probs(model: LlamaForCausalLM, rows: Sequences, batch_size: int, device: torch.device) -> list[np.ndarray]:
    """Log-probabilities in nats of every row's gold tokens, one array (T,) a row; they sum to its ln Q."""
    found: list[np.ndarray] = [np.empty(0)] * rows.size
    for part, steps, _ in _gold_steps(model, rows, batch_size, device):
        for where, row in zip(part, steps, strict=True):
            found[where] = row
    return found


def _gold_steps(
    model: LlamaForCausalLM, rows: Sequences, batch_size: int, device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (row numbers (b,), log-probability of each gold token (b, T) in float64, whether greedy is right (b,))."""
    model.to(device).eval()
    for where, tokens, prompt in rows.blocks(np.arange(rows.size)):
        for start in range(0, len(where), batch_size):
            ids = torch.from_numpy(tokens[start : start + batch_size]).to(device)
            gold = ids[:, prompt:]
            logits = model(input_ids=ids, use_cache=False).logits[:, prompt - 1 : -1].float()
            steps = logits.log_softmax(-1).gather(-1, gold[..., None])[..., 0].double()
            yield where[start : start + batch_size], steps.cpu().numpy(), (logits.argmax(-1) == gold).all(1).cpu().numpy()


@torch.no_grad()
def sampled_successes(
    model: LlamaForCausalLM, rows: Sequences, samples: int, batch_size: int, device: torch.device, seed: int
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
    runtime: RuntimeSettings,
) -> None:
    """Sample completions of `prompts` ID and OOD test prompts each and write successes beside ln Q, one row a prompt."""
    import pyarrow as pa

    device, model, tables = choose_device(runtime), load_model(folder), []
    for split in PROMPTS:
        table = read_prompts(test, split)
        table = table.take(np.linspace(0, table.num_rows - 1, min(prompts, table.num_rows)).astype(int))  # evenly over its tasks
        rows = Sequences(table)
        columns = {"axis": axis, "seed": seed, "ood_ratio": ratio, "split": split, "samples": samples}
        found = {name: pa.array([value] * rows.size) for name, value in columns.items()}
        found |= {"task": table["task"].cast(pa.string()), "prompt_index": table["prompt_index"]}
        found["log_mass"] = pa.array(exact_mass(model, rows, evaluation.batch_size, device)[0])
        found["successes"] = pa.array(sampled_successes(model, rows, samples, evaluation.batch_size, device, seed))
        tables.append(pa.table(found))
    write_table(output, pa.concat_tables(tables))


def evaluate(
    stages: dict[str, str | Path],
    test: str | Path,
    output: str | Path,
    *,
    axis: str,
    seed: int,
    ratio: str,
    evaluation: EvaluationSettings,
    runtime: RuntimeSettings,
) -> None:
    """Evaluate model folders (stage name -> folder) on the test prompts and write one row a stage and prompt."""
    import pyarrow as pa

    device = choose_device(runtime)
    prompts = read_prompts(test)
    rows = Sequences(prompts)
    tables = []
    for stage, folder in stages.items():
        log_mass, greedy = exact_mass(load_model(folder), rows, evaluation.batch_size, device)
        columns = {"axis": axis, "seed": seed, "ood_ratio": ratio, "stage": stage}
        table = pa.table({name: pa.array([value] * rows.size) for name, value in columns.items()})
        for name in ("split", "task"):
            table = table.append_column(name, prompts[name].cast(pa.string()))
        table = table.append_column("prompt_index", prompts["prompt_index"])
        table = table.append_column("log_mass", pa.array(log_mass))
        tables.append(table.append_column("greedy_correct", pa.array(greedy)))
        print(f"{stage}: mean mass {np.exp(log_mass).mean():.4f}, greedy accuracy {greedy.mean():.4f}", flush=True)
    write_table(output, pa.concat_tables(tables))
