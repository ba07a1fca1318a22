"""Steps of pretraining and SFT against plain torch; the learning rate and the log."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from grpo_origin.config.stages import OptimiserSettings
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import Pool
from grpo_origin.tasks.world import generator
from grpo_origin.training import loop as module
from grpo_origin.training.loop import learning_rate
from grpo_origin.training.model import build_model, load_model
from helpers import (
    assert_same_weights,
    read,
    run,
    strings,
    tiny,
)


def settings(**changes) -> OptimiserSettings:
    return OptimiserSettings(
        **{
            "samples": 1,
            "batch_size": 1,
            "learning_rate": 0.01,
            "warmup": 0.1,
            "final_rate": 0.2,
            **changes,
        }
    )


def test_the_learning_rate_warms_up_linearly_and_decays_by_a_cosine():
    rates = [learning_rate(settings(), step, 110) for step in range(110)]
    assert np.allclose(rates[:11], 0.01 * np.arange(1, 12) / 11)
    assert rates[11] == pytest.approx(0.01)
    middle = 11 + 99 / 3
    assert rates[int(middle)] == pytest.approx(0.01 * (0.2 + 0.8 * 0.75))
    assert all(a > b for a, b in pairwise(rates[11:]))
    assert 0.002 < rates[-1] < 0.00201


def test_without_warm_up_the_first_rate_is_the_peak():
    assert learning_rate(settings(warmup=0), 0, 10) == 0.01
    assert learning_rate(settings(warmup=0, final_rate=1), 9, 10) == 0.01
    assert learning_rate(settings(), 0, 1) > 0


def test_the_log_has_a_row_a_step(cell):
    for stage, steps, peak in (("pretrain", 250, 0.01), ("sft", 6, 0.001)):
        log = read(cell / stage / "training_log.parquet")
        assert list(log[0]) == ["step", "loss", "learning_rate", "grad_norm", "seconds"]
        assert [row["step"] for row in log] == list(range(1, steps + 1))
        assert max(row["learning_rate"] for row in log) == pytest.approx(peak, rel=0.01)
        assert all(math.isfinite(value) for row in log for value in row.values())
    losses = [row["loss"] for row in read(cell / "pretrain" / "training_log.parquet")]
    assert losses[0] == pytest.approx(math.log(24), rel=0.1)  # uniform over 6 + 2 + 2 * 8 tokens
    assert np.mean(losses[-20:]) < 0.6 * losses[0]


def reference_step(model, rows: list[tuple[list[int], int]], options: OptimiserSettings) -> float:
    """One AdamW step written out, a row at a time; changes the model, returns the loss."""
    total, targets = 0, 0
    for tokens, first in rows:
        logits = model(input_ids=torch.tensor([tokens])).logits[0].double()
        for position in range(first, len(tokens)):
            total = total - logits[position - 1].log_softmax(-1)[tokens[position]]
            targets += 1
    loss = total / targets
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    norm = sum(gradient.double().pow(2).sum() for gradient in gradients).sqrt().item()
    clip = min(1.0, options.max_grad_norm / (norm + 1e-6))
    rate = learning_rate(options, 0, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            gradient = parameter.grad * clip
            decay = options.weight_decay if parameter.ndim > 1 else 0.0
            parameter.mul_(1 - rate * decay).sub_(
                rate * gradient / (gradient.abs() + 1e-8)
            )  # moments after one step
    return loss.item()


@pytest.mark.parametrize("grad_norm", [1.0, 0.01])
def test_one_pretraining_step_equals_a_hand_written_one(study, tmp_path, grad_norm):
    one_step = {
        "samples": 32,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "warmup": 0,
        "max_grad_norm": grad_norm,
        "weight_decay": 10,
    }
    changes = {"pretrain": one_step}
    run("pretrain", study, tmp_path / "pretrain", changes=changes)
    options = tiny(**changes)
    model = build_model(options.model, strings().tokens, 0)
    pools = [Pool(study / "data" / f"pretrain-{split}.parquet") for split in ("id", "ood")]
    blocks = Mixture(*pools, 32, "0.25", 0).blocks(0, 32)
    rows = [
        (row, 1) for tokens, _ in blocks for row in tokens.tolist()
    ]  # every token but <bos> is a target
    assert len({len(row) for row, _ in rows}) > 1
    loss = reference_step(model, rows, options.pretrain)
    log = read(tmp_path / "pretrain" / "training_log.parquet")
    assert len(log) == 1
    assert log[0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert_same_weights(tmp_path / "pretrain", model)


def test_one_sft_step_trains_the_completion_only(cell, tmp_path):
    changes = {"sft": {"batch_size": 40, "epochs": 1, "warmup": 0}}
    run("sft", cell, tmp_path / "sft", changes=changes)
    model = load_model(cell / "pretrain").train()
    rows = [
        (row["prompt_ids"] + row["completion_ids"], len(row["prompt_ids"]))
        for row in read(cell / "data" / "sft.parquet")
    ]
    loss = reference_step(model, rows, tiny(**changes).sft)
    assert read(tmp_path / "sft" / "training_log.parquet")[0]["loss"] == pytest.approx(
        loss, rel=1e-5
    )
    assert_same_weights(tmp_path / "sft", model)


def test_sft_sees_every_sample_once_an_epoch_in_a_new_order(cell, tmp_path, monkeypatch):
    seen = []
    original = module.Sequences.blocks
    monkeypatch.setattr(
        module.Sequences,
        "blocks",
        lambda rows, chosen: seen.append(chosen) or original(rows, chosen),
    )
    run("sft", cell, tmp_path / "sft")
    assert [len(chosen) for chosen in seen] == [16, 16, 8] * 2
    first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert sorted(first) == sorted(second) == list(range(40))
    assert (first != second).any()
    assert (first == generator(0, "sft order", "0").permutation(40)).all()
