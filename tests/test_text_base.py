"""Base models from outside on text tasks, with their own tokenizers, through every stage."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bases import text_base
from grpo_origin import cell
from grpo_origin.config.fields import ConfigError
from grpo_origin.evaluation.sampling import answers
from grpo_origin.kept import data_is_kept
from grpo_origin.tasks.domain import domain_of
from grpo_origin.tasks.rewards import TaskReward
from helpers import REPO, Flat, copy_code, planned, read, snakemake, write_config
from test_text import CHANGES, LETTERS, letters, study_of  # noqa: F401  # the domain of docs/tasks.md

CELL = ("mini", 0, "0.25")


@pytest.fixture(scope="module", params=["llama, chat, lora", "gpt_neox"])
def run(tmp_path_factory, request, letters):  # noqa: F811
    """A cell from a base with or without a chat template, and the base."""
    kind, *more = request.param.split(", ")
    if "lora" in more:
        pytest.importorskip("peft")
    root = tmp_path_factory.mktemp(kind)
    base = text_base(root / "base", kind, chat="chat" in more, context=128)
    changes = {"lora": {"rank": 4}} if "lora" in more else {}
    pretrain = {"base": str(base), "samples": 128, "batch_size": 32}
    study = study_of(pretrain=pretrain, **changes)
    paths = Flat("tiny", str(root))
    cell.run_cell(study, paths, *CELL)
    return study, paths, base


def test_a_base_goes_through_every_stage_with_its_own_tokenizer(run):
    study, paths, base = run
    rows = read(paths.evaluation(*CELL))
    assert {row["stage"] for row in rows} == {"pretrain", "sft", "grpo~id", "grpo~ood"}
    assert all(row["log_mass"] < 0 for row in rows)
    original = AutoTokenizer.from_pretrained(base)
    for stage in study.grid.stages:
        folder = paths.stage(*CELL, stage.name)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.get_vocab() == original.get_vocab()
        assert tokenizer.chat_template == original.chat_template
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.config.eos_token_id == original.eos_token_id


def test_prompts_are_what_a_user_would_write(run):
    study, paths, base = run
    tokenizer = AutoTokenizer.from_pretrained(base)
    domain = study.source("mini", 0, paths).domain
    for row in read(paths.data("mini", 0, "test")):
        task = next(t for t in domain.axis.tasks(row["split"]) if str(t) == row["task"])
        problem = domain.problem(task, row["problem"])
        written = tokenizer.decode(row["completion_ids"])
        if tokenizer.chat_template:
            message = [{"role": "user", "content": problem.question}]
            asked = tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
            assert row["prompt_ids"] == asked
            assert written == f"{problem.worked}\n#### {problem.answer}<eos>"
        else:
            asked = tokenizer.decode(row["prompt_ids"])
            assert asked == f"Question: {problem.question}\nAnswer:"
            assert written == f" {problem.worked}\n#### {problem.answer}<eos>"


def test_answers_are_read_whatever_leads_to_them(run, tmp_path):
    study, paths, base = run
    tokenizer = AutoTokenizer.from_pretrained(base)
    domain = study.source("mini", 0, paths).domain
    row = read(paths.data("mini", 0, "test"))[0]
    right = tokenizer.decode(row["completion_ids"]).rpartition("#### ")[2]
    texts = [f"because\n#### {right}", right, "because\n#### ?<eos>", f"#### {right}"[:-5], ""]
    written = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    columns = {"task": [row["task"]] * 5, "problem": [row["problem"]] * 5}
    reward = TaskReward(domain, "answer")
    assert reward([row["prompt_ids"]] * 5, written, **columns) == [1, 0, 0, 0, 0]
    assert TaskReward(domain, "exact")(
        [row["prompt_ids"]],
        [row["completion_ids"]],
        **{name: values[:1] for name, values in columns.items()},
    ) == [1]


def test_a_base_without_a_token_to_fill_up_with_is_sampled_all_the_same(run, tmp_path, monkeypatch):
    """Many bases fill up with their end token; what is drawn still ends there."""
    study, paths, _ = run
    domain = study.source("mini", 0, paths).domain
    gold = read(paths.data("mini", 0, "test"))

    class Parrot:
        """Writes the right completions, filled up with the end token."""

        def to(self, *_):
            return self

        def eval(self):
            return self

        def generate(self, ids, **how):
            rows = {tuple(row["prompt_ids"]): row["completion_ids"] for row in gold}
            right = [rows[tuple(row)] for row in ids.tolist()]
            width = max(map(len, right)) + 2
            filled = [row + [domain.tokens.eos] * (width - len(row)) for row in right]
            return torch.cat([ids, torch.tensor(filled)], 1)

    object.__setattr__(domain.tokens, "pad", domain.tokens.eos)
    monkeypatch.setattr("grpo_origin.evaluation.sampling.load_model", lambda _: Parrot())
    monkeypatch.setattr(
        "grpo_origin.evaluation.sampling.exact_mass",
        lambda model, rows, *_: ([0.0] * rows.size, [True] * rows.size),
    )
    answers(
        {"sft": "somewhere"},
        paths.data("mini", 0, "test"),
        tmp_path / "answers.parquet",
        axis="mini",
        ratio="0.25",
        variant="base",
        domain=domain,
        evaluation=study.settings.evaluation,
        numerics=study.settings.numerics,
        runtime=study.settings.runtime,
    )
    assert all(row["successes"] == row["samples"] for row in read(tmp_path / "answers.parquet"))


def test_another_tokenizer_makes_the_data_anew(run, tmp_path):
    study, paths, base = run
    assert data_is_kept(study, paths, "mini", 0)
    copy = shutil.copytree(base, tmp_path / "base")
    pretrain = study.settings.pretrain.model_dump() | {"base": str(copy)}
    assert data_is_kept(study_of(pretrain=pretrain), paths, "mini", 0)
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = "<user>{{ messages[0].content }}<assistant>"
    tokenizer.save_pretrained(copy)
    assert not data_is_kept(study_of(pretrain=pretrain), paths, "mini", 0)


def test_a_text_longer_than_the_base_reads_is_refused(tmp_path):
    base = text_base(tmp_path, "llama", context=40)
    with pytest.raises(ConfigError, match=r"more than the context of pretrain.base \(40\)"):
        study_of(pretrain={"base": str(base), "samples": 128})


def test_gold_tokens_are_those_of_the_base(tmp_path):
    """A token a byte and the end, of the longest completion; 32 OOD samples."""
    base = text_base(tmp_path, "llama", context=128)
    study = study_of(pretrain={"base": str(base), "samples": 128, "batch_size": 32})
    domain, (task,) = domain_of(study.settings, "mini"), study.settings.axes["mini"].ood
    problems = [domain.problem(task, number) for number in range(500)]
    longest = max(len(f" {problem.worked}\n#### {problem.answer}") for problem in problems) + 1
    assert study.gold_tokens["mini"]["0.25"] == {"pretrain": 32 * longest, "sft": 0}


@pytest.mark.slow
def test_the_workflow_knows_a_replaced_base(tmp_path):
    tree = copy_code(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (REPO / "docs" / "tasks.md").read_text(), re.S)
    (tree / "src/grpo_origin/tasks/domains/letters.py").write_text(code)
    text_base(tree / "base", "llama", chat=True, context=128)
    axis = {name: value for name, value in LETTERS.items() if value is not ...} | {"mixed": []}
    pretrain = {"base": "base", "samples": 0}
    write_config(tree, axes={"mini": axis}, ratios=["0"], **(CHANGES | {"pretrain": pretrain}))
    target = "results/tiny/mini/seed~0/ood~0/pretrain"
    arguments = (target, "--configfile", "tiny.yaml")
    made = snakemake(tree, "--cores", "2", *arguments)
    assert made.returncode == 0, made.stdout + made.stderr
    assert planned(tree, *arguments) == {}
    text_base(tree / "base", "llama", chat=True, context=128, width=64)
    again = planned(tree, *arguments)
    assert again == {"tokenizer": 1, "pretraining_data": 1, "pretrain": 1}
