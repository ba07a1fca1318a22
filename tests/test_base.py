"""Base models from outside: what is read of a folder, and what is refused before any job."""

from __future__ import annotations

import fnmatch
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bases import ARCHITECTURES, string_base, text_base, text_tokenizer, tiny_model, with_config
from grpo_origin.cell import make_data, run_cell, train_stage
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.load import merged
from grpo_origin.config.paths import Paths
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.kept import stage_is_kept
from grpo_origin.tasks.domain import Tokens
from grpo_origin.tasks.given import open_tokenizer
from grpo_origin.training.base import find_base
from grpo_origin.training.model import load_model, open_base
from helpers import read, tiny_study

TOKENS = Tokens(names=("<pad>", "<unk>", "<bos>", "<eos>"), bos=2, eos=3, pad=0)
IDS = torch.tensor([[9, 10, 11, 12, 6]])


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {kind: string_base(root / kind, kind) for kind in ARCHITECTURES}


def refused(name: str | Path) -> str:
    """The one line by which a base is refused, which never asks to delete anything."""
    with pytest.raises(ConfigError) as caught:
        find_base(str(name), fetch=True).check()
    text = str(caught.value)
    assert text.startswith(f"pretrain.base: {name}")
    assert len(text.splitlines()) == 1
    assert "delete" not in text
    return text


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_base_is_opened_as_transformers_does(bases, kind):
    base = find_base(str(bases[kind]))
    base.check()
    model, tokenizer = open_base(base, TOKENS), open_tokenizer(base.folder)
    theirs = AutoModelForCausalLM.from_pretrained(bases[kind], dtype=torch.float32)
    assert torch.equal(model(input_ids=IDS).logits, theirs(input_ids=IDS).logits)
    assert base.parameters == sum(p.numel() for p in theirs.parameters())
    embedding = 0 if kind == "qwen2" else theirs.get_input_embeddings().weight.numel()
    assert base.matmul_parameters == base.parameters - embedding
    assert base.context == 64
    names = [*base.vocabulary]
    assert tokenizer.convert_tokens_to_ids(names) == [*base.vocabulary.values()]


def test_what_a_base_draws_and_drops_is_not_its_own(tmp_path):
    folder = text_base(tmp_path, "gpt2")
    settings = {"eos_token_id": 7, "do_sample": True, "temperature": 0.1, "top_k": 5}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    model = open_base(find_base(str(folder)), TOKENS)
    assert model.config.attn_pdrop == model.config.resid_pdrop == model.config.embd_pdrop == 0
    assert model.generation_config.eos_token_id == TOKENS.eos
    assert model.generation_config.top_k is None
    model.train()
    assert torch.equal(model(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_a_model_of_ones_own_is_never_called_broken(bases, tmp_path):
    copy = shutil.copytree(bases["qwen2"], tmp_path / "sft")
    assert load_model(copy).config.model_type == "qwen2"  # whole: it simply opens
    (copy / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ArtefactError) as caught:
        load_model(copy)
    assert "delete" not in str(caught.value)
    assert "pretrain.base" in str(caught.value)
    (copy / "provenance.json").write_text("{}")  # a stage of a run
    with pytest.raises(ArtefactError, match="delete it and run again"):
        load_model(copy)


def test_a_base_in_several_files_is_read(tmp_path):
    tokenizer = text_tokenizer()
    model = tiny_model("llama", len(tokenizer))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    tokenizer.save_pretrained(tmp_path)
    base = find_base(str(tmp_path))
    base.check()
    assert len(base.weights) > 1
    assert base.parameters == sum(p.numel() for p in model.parameters())
    assert torch.equal(open_base(base, TOKENS)(input_ids=IDS).logits, model(input_ids=IDS).logits)
    base.weights[0].unlink()
    assert base.weights[0].name in refused(tmp_path)


def test_a_changed_base_has_another_digest(bases, tmp_path):
    copy = shutil.copytree(bases["llama"], tmp_path / "copy")
    first = find_base(str(copy)).digest
    assert first == find_base(str(bases["llama"])).digest
    (copy / "README.md").write_text("about it")
    (copy / "pytorch_model.bin").write_bytes(b"a pickle")
    assert find_base(str(copy)).digest == first  # nothing that is read
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert find_base(str(copy)).digest != first


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("no config", "no config.json"),
        ("no weights", "no model.safetensors"),
        ("pickle", "pytorch_model.bin is a pickle"),
        ("truncated", "not whole"),
        ("text", "no safetensors file"),
        ("code", "auto_map"),
        ("quantised", "quantised"),
        ("no tokenizer", "no tokenizer"),
    ],
)
def test_an_unusable_base_is_refused(bases, tmp_path, damage, said):
    folder = shutil.copytree(bases["llama"], tmp_path / "base")
    weights = folder / "model.safetensors"
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage in ("no weights", "pickle"):
        weights.unlink()
        if damage == "pickle":
            (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "text":
        weights.write_bytes(b"hello, world")
    elif damage == "code":
        with_config(folder, model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    elif damage == "quantised":
        with_config(folder, quantization_config={"bits": 4})
    else:
        for path in folder.glob("*token*"):
            path.unlink()
    assert said in refused(folder)


def test_what_is_no_folder_is_refused(tmp_path):
    assert "no such folder" in refused(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(tmp_path / "file")
    said = refused("some-owner/some-model")
    assert "hf download some-owner/some-model" in said


def test_of_the_hub_neither_code_nor_pickles_are_fetched(bases, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(**how):
        asked.append(how)
        if how.get("local_files_only"):
            raise FileNotFoundError("not in the cache")
        return str(bases["llama"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ConfigError):
        find_base("owner/name")  # a job fetches nothing
    assert [how["local_files_only"] for how in asked] == [True]
    assert find_base("owner/name", fetch=True).folder == bases["llama"]
    files = ["config.json", "model-00001-of-00002.safetensors", "tokenizer.json", "vocab.txt"]
    others = ["pytorch_model.bin", "modeling_mine.py", "consolidated.safetensors", "model.gguf"]
    for name in (*files, *others):
        fetched = any(fnmatch.fnmatch(name, pattern) for pattern in asked[-1]["allow_patterns"])
        assert fetched == (name in files), name


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("qwen2", {"pretrain": {"samples": 320}}), ("gpt_neox", {"lora": {"rank": 4}})],
)
def test_a_cell_from_a_base(bases, tmp_path, kind, changes):
    """Continued pretraining or none, SFT, RL and evaluation of a base that has the tokens."""
    if "lora" in changes:
        pytest.importorskip("peft")
    settings = merged({"pretrain": {"base": str(bases[kind]), "samples": 0}}, changes)
    study = tiny_study(ratios=["0"], **settings)
    paths = Paths("tiny", str(tmp_path))
    rows = read(run_cell(study, paths, "mini", 0, "0"))
    assert {row["stage"] for row in rows} == {"pretrain", "sft", "grpo~id", "grpo~ood"}
    folders = [Path(paths.stage("mini", 0, "0", stage.name)) for stage in study.grid.stages]
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]
    assert {model.config.model_type for model in models} == {kind}
    original = AutoModelForCausalLM.from_pretrained(bases[kind])(input_ids=IDS).logits
    as_it_is = not settings["pretrain"]["samples"]
    assert torch.equal(models[0](input_ids=IDS).logits, original) == as_it_is
    assert not torch.equal(models[1](input_ids=IDS).logits, models[0](input_ids=IDS).logits)
    record = json.loads((folders[0] / "provenance.json").read_text())
    assert record["settings"]["base"] == find_base(str(bases[kind])).digest


def test_a_replaced_base_makes_its_stages_anew(bases, tmp_path):
    folder = shutil.copytree(bases["llama"], tmp_path / "base")
    settings = {"pretrain": {"base": str(folder), "samples": 0}, "ratios": ["0"]}
    paths = Paths("tiny", str(tmp_path))
    study = tiny_study(**settings)
    make_data(study, paths, "mini", 0)
    train_stage(study, paths, "mini", 0, "0", "pretrain")
    assert stage_is_kept(study, paths, "mini", 0, "0", "pretrain")
    string_base(folder, "llama", width=64)
    assert not stage_is_kept(tiny_study(**settings), paths, "mini", 0, "0", "pretrain")


def test_what_a_base_can_not_be_asked_is_refused(bases, tmp_path):
    def said(base: Path, **changes) -> str:
        pretrain = {"base": str(base), "samples": 0}
        with pytest.raises(ConfigError) as caught:
            tiny_study(**merged({"ratios": ["0"], "pretrain": pretrain}, changes))
        return str(caught.value)

    assert "samples" in said(bases["llama"], ratios=["0", "0.25"])
    with pytest.raises(ConfigError, match="random weights"):
        tiny_study(pretrain={"samples": 0}, ratios=["0"])
    text = said(text_base(tmp_path / "text", "llama"))
    assert "no token '<unk>', with which axes.mini is written" in text
    assert "text domain" in text
    more_nodes = string_base(tmp_path / "more", "llama", nodes=9)
    assert "another id for token 'a'" in said(more_nodes)
    short = string_base(tmp_path / "short", "llama", context=12)
    assert "context of pretrain.base (12)" in said(short)
