"""Exact evaluation against the definition: every completion enumerated, sampled, or decoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from grpo_origin.config.notation import TaskSpec
from grpo_origin.config.stages import ModelSettings
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.mass import evaluate, exact_mass, exact_parts, gold_log_probs
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.tasks.task import Task
from grpo_origin.tasks.tokenizer import EOS, PAD, Vocabulary
from grpo_origin.tasks.world import World
from grpo_origin.training.model import build_model, load_model
from helpers import read, rows_table, strings, tiny

CPU = torch.device("cpu")


@torch.no_grad()
def enumerate_completions(
    model, prompt: list[int], longest: int, vocabulary: int
) -> dict[tuple, float]:
    """Probability of every completion that ends with <eos> or has `longest` tokens."""
    done: dict[tuple, float] = {}
    frontier = [((), 1.0)]
    for depth in range(longest):
        ids = torch.tensor([[*prompt, *prefix] for prefix, _ in frontier])
        probabilities = model(input_ids=ids).logits[:, -1].double().softmax(-1).tolist()
        grown = [
            ((*prefix, token), mass * row[token])
            for (prefix, mass), row in zip(frontier, probabilities, strict=True)
            for token in range(vocabulary)
        ]
        ended = [
            (prefix, mass) for prefix, mass in grown if prefix[-1] == EOS or depth == longest - 1
        ]
        done |= dict(ended)
        frontier = [(prefix, mass) for prefix, mass in grown if prefix[-1] != EOS]
    return done


@pytest.mark.parametrize("positions", ["rope", "none", "alibi"])
@pytest.mark.parametrize("text", ["trav;1;A", "shift;2;B"])
def test_exact_mass_equals_brute_force_over_all_completions(text, positions):
    world = World(2, 0)
    vocabulary = Vocabulary(2)
    shape = ModelSettings(
        layers=2, width=16, heads=2, feed_forward=32, context=16, positions=positions
    )
    model = build_model(shape, strings(2).tokens, seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform
    task = Task(TaskSpec.model_validate(text), world)
    starts = task.in_alphabet(
        np.array([[0] * task.spec.length, [1] * task.spec.length], dtype=np.int16)
    )
    log_mass, greedy = exact_mass(model, Sequences(rows_table(vocabulary, task, starts)), 1, CPU)
    prompts, gold = vocabulary.prompts(task, starts), vocabulary.completions(task, starts)
    for i in range(len(starts)):
        tree = enumerate_completions(model, prompts[i].tolist(), gold.shape[1], len(vocabulary))
        assert sum(tree.values()) == pytest.approx(1, abs=1e-9)
        accepted = [c for c in tree if vocabulary.check(task, prompts[i : i + 1], [list(c)])[0]]
        assert accepted == [tuple(gold[i].tolist())]
        assert np.exp(log_mass[i]) == pytest.approx(tree[accepted[0]], rel=1e-4)
        assert not greedy[i] or max(tree, key=tree.get) == accepted[0]


@pytest.fixture(scope="module")
def judged(cell):
    """The SFT model of the tiny cell with its test prompts, log masses and greedy verdicts."""
    table = read_prompts(cell / "data" / "test.parquet")
    rows = Sequences(table)
    model = load_model(cell / "sft")
    return model, table.to_pylist(), *exact_mass(model, rows, 512, CPU)


def test_the_cell_is_worth_testing_on(judged):
    _, _, log_mass, greedy = judged
    assert ((np.exp(log_mass) > 0.05) & (np.exp(log_mass) < 0.95)).sum() >= 4
    assert 2 <= greedy.sum() <= len(greedy) - 2


@torch.no_grad()
def generate(model, prompt: list[int], longest: int, **how) -> list[list[int]]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=longest,
        pad_token_id=PAD,
        eos_token_id=EOS,
        **how,
    )
    return out[:, len(prompt) :].tolist()


def test_exact_mass_lies_within_the_binomial_error_of_sampled_frequencies(judged):
    model, rows, log_mass, _ = judged
    torch.manual_seed(0)
    draws = 4000
    order = np.argsort(np.abs(np.exp(log_mass) - 0.5))[
        :6
    ]  # the most uncertain prompts are the sharpest test
    for i in order:
        gold, mass = rows[i]["completion_ids"], np.exp(log_mass[i])
        how = {
            "do_sample": True,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "num_return_sequences": draws,
        }
        sampled = generate(model, rows[i]["prompt_ids"], len(gold), **how)
        share = np.mean([completion == gold for completion in sampled])
        assert abs(share - mass) < 4.5 * (mass * (1 - mass) / draws) ** 0.5


def test_greedy_correctness_equals_greedy_decoding(judged):
    model, rows, _, greedy = judged
    for row, verdict in zip(rows, greedy, strict=True):
        gold = row["completion_ids"]
        decoded = generate(model, row["prompt_ids"], len(gold), do_sample=False)[0]
        assert (decoded == gold) == verdict


def test_the_batch_size_changes_nothing(judged, cell):
    model, _, log_mass, greedy = judged
    singly = exact_mass(model, Sequences(read_prompts(cell / "data" / "test.parquet")), 1, CPU)
    assert np.allclose(singly[0], log_mass, atol=1e-4)
    assert (singly[1] == greedy).all()


def test_mass_so_small_that_it_underflows_stays_finite_as_a_logarithm():
    world = World(26, 0)
    model = build_model(
        ModelSettings(layers=1, width=16, heads=2, feed_forward=32, context=128),
        strings(26).tokens,
        seed=0,
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(2000)
    task = Task(TaskSpec.model_validate("trav trav;40;A"), world)
    rows = Sequences(rows_table(Vocabulary(26), task, np.zeros((1, 40), np.int16)))
    log_mass, greedy = exact_mass(model, rows, 8, CPU)
    assert np.isfinite(log_mass[0])
    assert log_mass[0] < -745  # exp of it is 0 in double precision
    assert not greedy[0]


COLUMNS = (
    *("axis", "seed", "ood_ratio", "variant", "stage", "method", "trained_on", "split", "task"),
    *("prompt_index", "log_mass", "log_mass_markers", "log_mass_content", "greedy_correct"),
)


def write_evaluation(cell, out) -> list[dict]:
    """Rows of the tiny cell's evaluation."""
    settings, names = tiny(), ("pretrain", "sft", "grpo~ood")
    evaluate(
        {name: cell / name for name in names},
        cell / "data" / "test.parquet",
        out,
        axis="mini",
        seed=0,
        ratio="0.25",
        tokens=strings().tokens,
        evaluation=settings.evaluation,
        numerics=settings.numerics,
        runtime=settings.runtime,
    )
    return read(out)


def test_the_evaluation_file(cell, tmp_path):
    rows = write_evaluation(cell, tmp_path / "evaluation.parquet")
    prompts = read(cell / "data" / "test.parquet")
    assert tuple(rows[0]) == COLUMNS
    keys = [(row["stage"], row["split"], row["task"], row["prompt_index"]) for row in rows]
    assert keys == [
        (stage, row["split"], row["task"], row["prompt_index"])
        for stage in ("pretrain", "sft", "grpo~ood")
        for row in prompts
    ]
    assert {(row["ood_ratio"], row["variant"]) for row in rows} == {("0.25", "base")}
    expected, _ = exact_mass(
        load_model(cell / "sft"), Sequences(read_prompts(cell / "data" / "test.parquet")), 8, CPU
    )
    assert [row["log_mass"] for row in rows if row["stage"] == "sft"] == expected.tolist()


def test_stage_method_and_training_prompts_are_columns(cell, tmp_path):
    rows = write_evaluation(cell, tmp_path / "evaluation.parquet")
    assert {(row["stage"], row["method"], row["trained_on"]) for row in rows} == {
        ("pretrain", None, None),
        ("sft", None, None),
        ("grpo~ood", "grpo", "ood"),
    }


def test_log_mass_is_the_sum_of_markers_and_content(judged, cell):
    """Markers are `<think>`, `<answer>` and `<eos>`, whatever their place."""
    model, table, log_mass, _ = judged
    rows = Sequences(read_prompts(cell / "data" / "test.parquet"))
    parts = exact_parts(model, rows, 512, CPU, strings().tokens)
    assert parts["log_mass"].tolist() == log_mass.tolist()
    total = parts["log_mass_markers"] + parts["log_mass_content"]
    assert np.allclose(total, log_mass, rtol=1e-12, atol=1e-12)
    tokens = gold_log_probs(model, rows, 512, CPU)
    names = Vocabulary(8).tokens
    for i, row in enumerate(table):
        assert log_mass[i] == tokens[i].sum()
        marker = [names[t] in ("<think>", "<answer>", "<eos>") for t in row["completion_ids"]]
        assert 2 <= sum(marker) < len(marker)
        assert parts["log_mass_markers"][i] == pytest.approx(tokens[i][marker].sum())


def test_the_log_tells_the_mean_id_mass_of_every_stage(cell, tmp_path, capsys):
    rows = write_evaluation(cell, tmp_path / "evaluation.parquet")
    lines = capsys.readouterr().out.splitlines()
    for stage, line in zip(("pretrain", "sft", "grpo~ood"), lines, strict=True):
        known = [r["log_mass"] for r in rows if r["stage"] == stage and r["split"] == "id"]
        assert line.startswith(f"{stage}: mean mass ")
        assert f"(ID {np.exp(known).mean():.4f})" in line


def test_evaluation_never_uses_tf32_or_autocast(judged, cell):
    """Whatever training has switched on, the forward pass is plain float32, and then it is back."""
    model, _, log_mass, _ = judged
    seen = []
    hook = model.register_forward_hook(
        lambda *_: seen.append((torch.get_float32_matmul_precision(), autocast_on()))
    )
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rows = Sequences(read_prompts(cell / "data" / "test.parquet"))
            again, _ = exact_mass(model, rows, 512, CPU)
            assert autocast_on()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        hook.remove()
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {("highest", False)}
    assert again.tolist() == log_mass.tolist()


def autocast_on() -> bool:
    return torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    "damage", ["truncated", "text", "missing", "no config", "empty config", "tensor missing"]
)
def test_an_unusable_model_folder_is_named(cell, tmp_path, damage):
    folder = tmp_path / "sft"
    folder.mkdir()
    weights = (cell / "sft" / "model.safetensors").read_bytes()
    if damage != "missing":
        content = {"truncated": weights[:-100], "text": b"hello, world"}.get(damage, weights)
        (folder / "model.safetensors").write_bytes(content)
    if damage == "tensor missing":
        tensors = load_file(folder / "model.safetensors")
        save_file(
            {name: tensor for name, tensor in tensors.items() if "o_proj" not in name},
            folder / "model.safetensors",
            {"format": "pt"},
        )
    if damage != "no config":
        config = "{}" if damage == "empty config" else (cell / "sft" / "config.json").read_text()
        (folder / "config.json").write_text(config)
    with pytest.raises(ArtefactError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("shape", [{"layers": 1, "width": 48}, {"layers": 2, "width": 32}])
def test_weights_of_another_architecture_are_refused(cell, tmp_path, shape):
    folder = tmp_path / "sft"
    other = build_model(
        ModelSettings(heads=2, feed_forward=64, context=32, **shape), strings().tokens, seed=0
    )
    other.save_pretrained(folder)
    (folder / "config.json").write_bytes((cell / "sft" / "config.json").read_bytes())
    with pytest.raises(ArtefactError, match="sft"):
        load_model(folder)
