"""Text tasks: the worked example of docs/tasks.md as a domain, through a whole real cell."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from grpo_origin import cell, lineage
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import TOKENIZER
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import IGNORED, Sequences, filled
from grpo_origin.data.source import Source
from grpo_origin.evaluation.sampling import answers
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.kept import data_is_kept
from grpo_origin.tasks import domain as module
from grpo_origin.tasks import domains
from grpo_origin.tasks.domain import Padded
from grpo_origin.tasks.rewards import TaskReward
from helpers import REPO, Flat, copy_code, planned, read, snakemake, tiny_study, write_config

LETTERS = {
    "domain": "letters",
    "completions": "worked",
    "vocabulary": 300,
    "id": [{"dataset": "after", "most": 3}, {"dataset": "after", "least": 4, "most": 4}],
    "ood": [{"dataset": "after", "most": 6, "least": 5}],
    "mixed": ...,
}
CHANGES = {
    "pretrain": {"samples": 640, "batch_size": 32},
    "rl": {"steps": 2, "prompts_per_step": 3, "group_size": 2, "evaluate_prompts": 4},
    "sft": {"samples": 16, "batch_size": 8, "epochs": 1},
    "evaluation": {"prompts": 4, "answer_prompts": 2, "answer_samples": 3},
    "model": {"context": 64},
}


def code() -> str:
    """The domain in docs/tasks.md."""
    page = (REPO / "docs" / "tasks.md").read_text()
    (found,) = re.findall(r"```python\n(.*?)```", page, re.S)
    return found


@pytest.fixture(scope="module", autouse=True)
def letters(tmp_path_factory):
    """The domain that docs/tasks.md writes, found as a file of the package would be."""
    assert len(code().splitlines()) <= 60
    folder = tmp_path_factory.mktemp("domains")
    (folder / "letters.py").write_text(code())
    domains.__path__.append(str(folder))
    importlib.invalidate_caches()
    yield
    domains.__path__.remove(str(folder))


def study_of(**changes):
    return tiny_study(axes={"mini": LETTERS | changes.pop("axis", {})}, **(CHANGES | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory, letters):
    """The tiny study on letters, run by the same functions as any other."""
    study, paths = study_of(), Flat("tiny", str(tmp_path_factory.mktemp("letters")))
    cell.run_cell(study, paths, "mini", 0, "0.25")
    return study, paths


def test_a_domain_of_the_user_goes_through_every_stage(run):
    _, paths = run
    rows = pd.DataFrame(read(paths.evaluation("mini", 0, "0.25")))
    assert set(rows["stage"]) == {"pretrain", "sft", "grpo~id", "grpo~ood"}
    assert set(rows["task"]) == {"after most=3", "after least=4 most=4", "after most=6 least=5"}
    assert np.allclose(rows["log_mass"], rows["log_mass_markers"] + rows["log_mass_content"])
    assert (rows["log_mass"] < 0).all()


def test_every_model_has_the_tokenizer_of_the_data(run):
    study, paths = run
    tokens = study.source("mini", 0, paths).domain.tokens
    for stage in ("pretrain", "sft", "grpo~ood"):
        tokenizer = AutoTokenizer.from_pretrained(paths.stage("mini", 0, "0.25", stage))
        assert len(tokenizer) == len(tokens)
        assert tokenizer.eos_token_id == tokens.eos
        ids = tokenizer("Which letter is 12 after b?", add_special_tokens=False)["input_ids"]
        row = read(paths.data("mini", 0, "sft"))[0]
        asked = tokenizer.decode(row["prompt_ids"][1:-1])
        assert tokenizer(asked, add_special_tokens=False)["input_ids"] == row["prompt_ids"][1:-1]
        digits = [tokenizer.decode([i]) for i in ids if tokenizer.decode([i]).strip().isdigit()]
        assert [digit.strip() for digit in digits] == ["1", "2"]  # each by itself


def test_no_test_problem_is_in_any_training_set(run):
    study, paths = run
    domain = study.source("mini", 0, paths).domain
    for name, test in (("pretrain-id", False), ("sft", False), ("grpo", False), ("test", True)):
        for row in read(paths.data("mini", 0, name)):
            asked = Padded.of([row["prompt_ids"]])
            assert domain.count_test(row["task"], asked) == test, name


def test_a_test_problem_in_training_ends_the_summary(run, tmp_path):
    from grpo_origin.data.summary import write_summary

    study, paths = run
    names = ("pretrain-id", "pretrain-ood", "sft", "grpo", "test")
    files = {name: paths.data("mini", 0, name) for name in names}
    files["sft"] = files["test"]
    with pytest.raises(ArtefactError, match="8 samples belong to test"):
        write_summary(study.source("mini", 0, paths), files, ["0"], 640, tmp_path / "summary.json")


def test_prompts_of_two_tasks_are_counted(tmp_path):
    study = study_of(axis={"ood": [{"dataset": "after", "least": 3, "most": 4}]})
    paths = Flat("tiny", str(tmp_path))
    cell.make_data(study, paths, "mini", 0)
    summary = json.loads(Path(paths.data("mini", 0, "summary")).read_text())
    asked: dict[str, set[str]] = {}
    for name in ("pretrain-id", "pretrain-ood", "sft", "grpo", "test"):
        for row in read(paths.data("mini", 0, name)):
            asked.setdefault(str(row["prompt_ids"]), set()).add(row["task"])
    twice = sum(len(tasks) > 1 for tasks in asked.values())
    assert summary["overlap"]["prompts of more than one task"] == twice > 20


def test_data_without_their_tokenizer_are_made_again(run):
    study, paths = run
    assert data_is_kept(study, paths, "mini", 0)
    tokenizer = Path(paths.data("mini", 0, TOKENIZER))
    content = tokenizer.read_text()
    tokenizer.write_text(content + "\n")
    assert not data_is_kept(study, paths, "mini", 0)
    tokenizer.write_text(content)


def test_the_workflow_makes_the_tokenizer_first(tmp_path):
    tree = copy_code(tmp_path)
    (tree / "src" / "grpo_origin" / "tasks" / "domains" / "letters.py").write_text(code())
    axis = {key: value for key, value in LETTERS.items() if value is not ...} | {"mixed": []}
    config = write_config(tree, axes={"mini": axis}, **CHANGES)
    jobs = planned(tree, "--configfile", config)
    assert jobs["tokenizer"] == 1
    assert jobs["answers"] == 2  # a cell an OOD ratio
    target = "results/tiny/mini/seed~0/data/test.parquet"
    result = snakemake(tree, "--cores", "1", target, "--configfile", config)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tree / "results/tiny/mini/seed~0/data/tokenizer/tokenizer.json").exists()
    assert len(read(tree / target)) == 8


def test_rewards_are_those_of_reference_and_verifier(run):
    study, paths = run
    domain = study.source("mini", 0, paths).domain
    row = read_prompts(paths.data("mini", 0, "test"), "ood").to_pylist()[0]
    gold, tokens = row["completion_ids"], domain.tokens
    answer = gold.index(tokens.steps[1])
    written = [gold, gold[answer:], gold[:-1], [*gold[:answer], tokens.steps[1], tokens.eos], []]
    columns = {"task": [row["task"]] * 5, "problem": [row["problem"]] * 5}
    asked = [row["prompt_ids"]] * 5
    assert TaskReward(domain, "exact")(asked, written, **columns) == [1, 0, 0, 0, 0]
    assert TaskReward(domain, "answer")(asked, written, **columns) == [1, 1, 0, 0, 0]


def test_a_verifier_that_fails_or_hangs_counts_as_wrong_and_is_named(run, monkeypatch, capsys):
    study, paths = run
    domain = study.source("mini", 0, paths).domain
    row = read_prompts(paths.data("mini", 0, "test"), "id").to_pylist()[0]
    columns = {"task": [row["task"]], "problem": [row["problem"]]}

    def hangs(*_):
        while True:
            pass

    monkeypatch.setattr("grpo_origin.tasks.text.VERIFIER_SECONDS", 0.05)
    for broken, named in ((lambda *_: 1 / 0, "ZeroDivisionError"), (hangs, "TimeoutError")):
        monkeypatch.setattr(type(domain), "accepts", broken)
        reward = TaskReward(domain, "answer")
        assert reward([row["prompt_ids"]], [row["completion_ids"]], **columns) == [0]
        assert named in capsys.readouterr().out


def test_where_many_are_right_answers_are_sampled(run, tmp_path):
    study, paths = run
    assert [job["axis"] for job in lineage.jobs(study)["answers"]] == ["mini"] * 2
    direct = study_of(axis={"completions": "direct"})
    assert not lineage.jobs(direct)["answers"]
    assert len(lineage.jobs(direct)["tokenizer"]) == 1
    answers(
        {"sft": paths.stage("mini", 0, "0.25", "sft")},
        paths.data("mini", 0, "test"),
        tmp_path / "answers.parquet",
        axis="mini",
        ratio="0.25",
        variant="base",
        domain=study.source("mini", 0, paths).domain,
        evaluation=study.settings.evaluation,
        numerics=study.settings.numerics,
        runtime=study.settings.runtime,
    )
    rows = read(tmp_path / "answers.parquet")
    assert len(rows) == 4
    assert all(row["samples"] == 3 for row in rows)


def test_the_tokenizer_is_the_same_every_time_and_saw_no_test_text(run, tmp_path, monkeypatch):
    study, paths = run
    source = study.source("mini", 0, paths)
    source.domain.make_tokenizer(tmp_path / "again.json")
    made = (tmp_path / "again.json").read_text()
    assert made == Path(source.tokenizer).read_text()
    assert not any(source.domain._is_test(text) for text in [*source.domain._texts()][::3])


def test_a_damaged_tokenizer_is_named(run, tmp_path):
    study, _ = run
    file = tmp_path / "tokenizer.json"
    file.write_text("{")
    source = Source(study.settings.world, study.settings.axes["mini"], 0, file)
    with pytest.raises(ArtefactError, match="not a readable tokenizer"):
        _ = source.domain


def test_filled_blocks_train_on_each_sequence_and_nothing_else():
    table = [([2, 7, 6], [5, 8, 3]), ([2, 7, 7, 6], [5, 3]), ([2, 6], [5, 8, 8, 8, 3])]
    import pyarrow as pa

    columns = {"prompt_ids": [p for p, _ in table], "completion_ids": [c for _, c in table]}
    rows = Sequences(pa.table(columns))
    blocks = [(tokens, prompt) for _, tokens, prompt in rows.blocks(np.arange(3))]
    for whole in (True, False):
        block = filled(blocks, pad=0, whole=whole)
        firsts = [1 if whole else prompt for tokens, prompt in blocks for _ in tokens]
        assert block.first == min(firsts)
        sequences = [row for tokens, _ in blocks for row in tokens]
        for row, sequence in enumerate(sequences):
            assert block.tokens[row, : len(sequence)].tolist() == sequence.tolist()
            wanted = np.full(block.tokens.shape[1], IGNORED)
            wanted[firsts[row] : len(sequence)] = sequence[firsts[row] :]
            assert block.targets[row].tolist() == wanted[block.first :].tolist()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"axis": {"domain": "leters"}},
            "axes.mini: unknown domain 'leters', did you mean 'letter",
        ),
        (
            {"axis": {"id": ["trav;2;A"]}},
            "axes.mini: id: 'trav;2;A' is not a task of domain letter",
        ),
        ({"axis": {"id": [{"dataset": "afte"}]}}, "unknown data set 'afte', did you mean 'after'"),
        ({"axis": {"id": [{"dataset": "after", "mst": 3}]}}, "no option 'mst', did you mean 'mo"),
        ({"axis": {"mixed": [1]}}, "can't be replaced in task 'after most=3'"),
        ({"evaluation": {"prompts": 400}}, "it has .* test problems: ask for fewer, or widen"),
        ({"model": {"context": 16}}, "task 'after most=3' needs .* tokens under grpo, more than"),
        (
            {"rl": CHANGES["rl"] | {"reward": "steps"}},
            "rl.reward: axes.mini, of domain letters, has",
        ),
        (
            {"probes": {}},
            "probes: tasks of axes.mini, of domain letters, have no states: leave",
        ),
        ({"faithfulness": {}}, "faithfulness: tasks of axes.mini, of domain letters, have no"),
        ({"representation": {}}, "representation: tasks of axes.mini, of domain letters, have no"),
        ({"axis": {"domain": "strings"}}, "completions: strings always write their trace"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(changes, expected):
    with pytest.raises(ConfigError, match=expected) as error:
        study_of(**changes)
    assert "\n" not in str(error.value)


def test_a_verifier_that_rejects_the_reference_is_refused(monkeypatch):
    module._checked.cache_clear()
    monkeypatch.setattr(module.find("letters"), "accepts", lambda *_: False)
    with pytest.raises(
        ConfigError, match=r"'Which letter .*' is a problem, has a verifier that rej"
    ):
        study_of()
    module._checked.cache_clear()
