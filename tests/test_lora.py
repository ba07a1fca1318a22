"""LoRA: adapters are trained in place of all weights, and merged into what is saved."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("peft")

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.stages import LoraSettings
from grpo_origin.training import lora as module
from grpo_origin.training.lora import adapted, merged
from grpo_origin.training.model import load_model
from helpers import environment, run, tiny_study

LORA = {"lora": {"rank": 2, "alpha": 8}}
EVERY_STEP = {"runtime": {"checkpoint_seconds": 0}}
IDS = torch.tensor([[2, 9, 10, 7, 6]])


def weights(folder):
    return load_file(folder / "model.safetensors")


def stopped_after(monkeypatch, step):
    """Let a stage be told to stop once it has saved a step."""
    from grpo_origin.jobs.checkpoint import Checkpoint

    original = Checkpoint._replace

    def replace(self, at, fill):
        original(self, at, fill)
        if at == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "_replace", replace)


@pytest.mark.parametrize("stage", ["sft", "grpo~ood", "dpo~ood"])
def test_a_stage_trains_adapters_and_saves_them_merged(cell, tmp_path, stage, monkeypatch):
    source = weights(cell / ("pretrain" if stage == "sft" else "sft"))
    whole = run(stage, cell, tmp_path / "whole", changes=LORA)
    after = weights(tmp_path / "whole")
    moved = {name for name in source if not torch.equal(source[name], after[name])}
    assert source.keys() == after.keys()  # a model folder as any
    assert moved  # and it learnt
    assert all(name.endswith("_proj.weight") for name in moved)  # by its linear layers alone
    rank = torch.linalg.matrix_rank(after[sorted(moved)[0]] - source[sorted(moved)[0]], tol=1e-6)
    assert 0 < rank <= LORA["lora"]["rank"]
    assert not list((tmp_path / "whole").glob("adapter*"))
    with monkeypatch.context() as patch:
        stopped_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run(stage, cell, tmp_path / "resumed", changes=LORA | EVERY_STEP)
    assert run(stage, cell, tmp_path / "resumed", changes=LORA) == whole  # bit for bit


def test_what_is_saved_needs_no_peft(cell, tmp_path):
    model = adapted(load_model(cell / "sft"), LoraSettings(rank=2), 0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.fill_(0.01)
    expected = model(input_ids=IDS).logits
    merged(model).save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['peft'] = None; from transformers import AutoModelForCausalLM; "
        f"AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    assert torch.allclose(load_model(tmp_path)(input_ids=IDS).logits, expected, atol=1e-5)


def test_fresh_adapters_change_nothing_and_are_of_the_seed(cell):
    plain = load_model(cell / "sft")(input_ids=IDS).logits
    first, again, other = (
        adapted(load_model(cell / "sft"), LoraSettings(rank=2), seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first(input_ids=IDS).logits, plain)
    drawn = [
        next(value for name, value in model.named_parameters() if "lora_A" in name)
        for model in (first, again, other)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_bad_settings_are_refused_in_one_line(cell, monkeypatch):
    with pytest.raises(ConfigError, match=r"lora\.targets: .*'nowhere' .*q_proj") as caught:
        adapted(load_model(cell / "sft"), LoraSettings(targets=["q_proj", "nowhere"]), 0)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="reset_reference_every"):
        tiny_study(rl={"reset_reference_every": 4}, **LORA)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install"):
        tiny_study(**LORA)
