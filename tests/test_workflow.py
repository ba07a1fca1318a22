"""The workflow through the real `snakemake` command: what it plans, makes and refuses.

What it runs again is in test_plan.py.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from grpo_origin.config.paths import stage_of
from grpo_origin.rl.trainer import LOGGED
from helpers import (
    assert_same_results,
    copy_code,
    kill_again_and_again,
    planned,
    read,
    snakemake,
    tiny,
    write_config,
)

CORE = (
    "pretraining_data",
    "prompts",
    "data_summary",
    "pretrain",
    "sft",
    "rl",
    "evaluate",
)  # data to evaluations, without figures
CELL = Path("results/tiny/mini/seed~0/ood~0.25")
CONFIG = ("--configfile", "tiny.yaml")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A fresh tree without results."""
    tree = copy_code(tmp_path_factory.mktemp("tree"))
    write_config(tree)
    return tree


@contextmanager
def processor_seconds() -> Iterator[list[float]]:
    """Processor time of the commands run inside, in seconds; not the clock's, on a busy machine."""
    spent: list[float] = []
    before = os.times()
    yield spent
    after = os.times()
    spent.append(
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def core(plan: dict[str, int]) -> dict[str, int]:
    return {rule: count for rule, count in plan.items() if rule in CORE}


def cells(groups: int, cells: int) -> dict[str, int]:
    """Jobs of some axes and seeds with some cells in all."""
    jobs = {"pretraining_data": groups, "prompts": 3 * groups, "data_summary": groups}
    return jobs | {"pretrain": cells, "sft": cells, "rl": 2 * cells, "evaluate": cells}


# --- plans


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), cells(28, 84)),
        (("--configfile", "config/smoke.yaml"), cells(4, 8)),
        (CONFIG, cells(1, 2)),
    ],
    ids=["laptop", "smoke", "tiny"],
)
def test_job_counts_of_a_dry_run(tree, arguments, expected):
    assert core(planned(tree, *arguments)) == expected


def test_the_paper_scale_can_be_planned_quickly(tree):
    settings = yaml.safe_load((tree / "config" / "paper.yaml").read_text())
    with processor_seconds() as spent:
        plan = core(planned(tree, "--configfile", "config/paper.yaml"))
    assert plan["pretrain"] == plan["evaluate"] == 7 * 4 * len(settings["ratios"])
    assert spent[0] < 30


def test_a_single_cell(tree):
    plan = planned(tree, "results/laptop/depth/seed~0/ood~0.01/evaluation.parquet")
    assert plan == {rule: n for rule, n in cells(1, 1).items() if rule != "data_summary"}


def test_a_stage_folder_is_a_target(tree):
    assert core(planned(tree, "results/laptop/token/seed~2/ood~0.1/sft")) == {
        "pretraining_data": 1,
        "prompts": 1,
        "pretrain": 1,
        "sft": 1,
    }


@pytest.mark.parametrize(
    "target",
    [
        "depth/seed~0/ood~0.7",
        "depth/seed~9/ood~0.01",
        "breadth/seed~0/ood~0",
        "depth/seed~0/ood~0.010",
    ],
)
def test_a_cell_that_is_not_in_the_grid_is_no_target(tree, target):
    result = snakemake(tree, "--dry-run", f"results/laptop/{target}/evaluation.parquet")
    assert result.returncode != 0
    assert "MissingRuleException" in result.stderr + result.stdout


# --- bad input

PREFACE = (
    "Using workflow specific profile",
    "Config file config/config.yaml is extended",
)  # Snakemake's, before it reads any
BAD_CONFIGS = {
    "misspelt key": ("sedes: [0]", "sedes"),
    "ratio": ('ratios: ["0", "1.5"]', "ratios"),
    "run with a slash": ("run: a/b", "run"),
    "string space": ("rl: {steps: 100000}", "rl"),
    "a key of an earlier version": ("grpo: {steps: 3}", "rl"),
    "a key set twice": ("run: a\nrun: b", "bad.yaml"),
    "not YAML": ("run: [tiny\nseeds: }", "bad.yaml"),
    "not text": ("\x00\x01\udcff", "bad.yaml"),
    "not a mapping": ("just words", "bad.yaml"),
    "missing": (None, "bad.yaml"),
}


@pytest.mark.parametrize(("text", "key"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_bad_configuration_is_refused_at_once_in_one_line(tree, text, key):
    path = tree / "bad.yaml"
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with processor_seconds() as spent:
        result = snakemake(
            tree,
            "--cores",
            "1",
            *(("--configfile", "bad.yaml") if text else ("--configfile=bad.yaml",)),
        )
    assert spent[0] < 10
    assert result.returncode != 0
    lines = [
        line
        for line in (result.stdout + result.stderr).splitlines()
        if line and not line.startswith(PREFACE)
    ]
    assert len(lines) == 1, lines
    assert key in lines[0]
    assert "Traceback" not in lines[0]
    assert not (tree / "results").exists()


# --- the tiny sweep, for real


def names_in(folder: Path) -> list[str]:
    """What lies in a folder, hidden records aside."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_the_sweep_leaves_the_promised_files(sweep):
    stages = ["completions.parquet", "evaluation.parquet", "grpo~id", "grpo~ood", "pretrain", "sft"]
    for ratio, more in (
        ("0", ["theory"]),
        ("0.25", []),
    ):  # sampling is checked at the second largest ratio
        cell = sweep / CELL.parent / f"ood~{ratio}"
        assert names_in(cell) == [*stages, *more]
    data = sweep / CELL.parent / "data"
    names = [
        "grpo.parquet",
        "pretrain-id.parquet",
        "pretrain-ood.parquet",
        "sft.parquet",
        "summary.json",
        "test.parquet",
    ]
    assert names_in(data) == names
    assert not [path for path in (sweep / "results").rglob("*.tmp")]
    left = [
        path
        for path in (sweep / "results" / "tiny").rglob("checkpoints/**/*")
        if path.is_file() and not path.name.endswith(".lease")
    ]
    assert not left


def test_the_evaluation_of_the_sweep(sweep):
    names = ("axis", "ood_ratio", "variant", "stage", "method", "trained_on", "split", "task")
    schema = dict.fromkeys(names, "string") | {"seed": "int64", "prompt_index": "int64"}
    schema |= dict.fromkeys(("log_mass", "log_mass_markers", "log_mass_content"), "double")
    schema |= {"greedy_correct": "bool"}
    for ratio in ("0", "0.25"):
        table = pq.read_table(sweep / CELL.parent / f"ood~{ratio}" / "evaluation.parquet")
        assert {field.name: str(field.type) for field in table.schema} == schema
        rows = table.to_pylist()
        assert {row["stage"] for row in rows} == {"pretrain", "sft", "grpo~id", "grpo~ood"}
        assert {row["split"] for row in rows} == {"id", "ood", "mixed-1", "mixed-2"}
        assert len(rows) == 4 * 4 * 8
        assert {(row["axis"], row["seed"], row["ood_ratio"]) for row in rows} == {
            ("mini", 0, ratio)
        }
        assert all(row["log_mass"] <= 0 for row in rows)
    stages = {
        stage: [row["log_mass"] for row in rows if row["stage"] == stage]
        for stage in ("pretrain", "sft", "grpo~id", "grpo~ood")
    }
    assert len({tuple(values) for values in stages.values()}) == 4  # four different models


def test_model_folders_open_offline_with_the_auto_classes(sweep, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for stage in ("pretrain", "sft", "grpo~id", "grpo~ood"):
        model = AutoModelForCausalLM.from_pretrained(sweep / CELL / stage)
        tokenizer = AutoTokenizer.from_pretrained(sweep / CELL / stage)
        assert model.config.vocab_size == len(tokenizer)
        assert (model.config.pad_token_id, model.config.eos_token_id) == (
            tokenizer.pad_token_id,
            tokenizer.eos_token_id,
        )
        ids = tokenizer("<bos> A B <trav> <solve>", return_tensors="pt", add_special_tokens=False)[
            "input_ids"
        ]
        answer = tokenizer.decode(model.generate(ids, max_new_tokens=4, do_sample=False)[0, 5:])
        assert answer.startswith("<answer>")
        assert not list((sweep / CELL / stage).glob("*.bin"))


def test_training_logs_and_provenance(sweep):
    settings = tiny()
    for stage, steps in (("pretrain", 250), ("sft", 6), ("grpo~id", 12), ("grpo~ood", 12)):
        log = read(sweep / CELL / stage / "training_log.parquet")
        rl = stage_of(stage).method
        names = list(LOGGED) if rl else ["loss", "learning_rate", "grad_norm", "seconds"]
        assert list(log[0]) == ["step", *names]
        assert [row["step"] for row in log] == list(range(1, steps + 1))
        record = json.loads((sweep / CELL / stage / "provenance.json").read_text())
        assert {
            "settings",
            "versions",
            "git_commit",
            "device",
            "seconds",
            "peak_memory_mib",
            "steps",
        } <= set(record)
        assert {"torch", "transformers", "trl"} <= set(record["versions"])
        assert record["device"] == "cpu"
        section = "rl" if rl else stage
        assert record["settings"][section] == getattr(settings, section).model_dump()
        assert min(record["seconds"], record["peak_memory_mib"]) > 0


def test_the_sweep_makes_tables_figures_and_a_report(sweep):
    run = sweep / "results" / "tiny"
    for suffixes, folder in ((("csv", "parquet"), "tables"), (("png", "pdf"), "figures")):
        names = [{path.stem for path in (run / folder).glob(f"*.{suffix}")} for suffix in suffixes]
        assert names[0] == names[1]
        assert names[0]
    assert (run / "report.html").stat().st_size > 10_000


def test_the_console_has_one_line_a_job_and_says_where_the_results_are(sweep):
    lines = (sweep / "console.txt").read_text().splitlines()
    for label in (
        "pretrain mini seed~0 ood~0.25:",
        "grpo mini seed~0 ood~0 on id:",
        "evaluate mini seed~0 ood~0:",
    ):
        assert sum(label in line for line in lines) == 1, label
    assert any("results/tiny/figures/" in line for line in lines)
    assert any("results/tiny/report.html" in line for line in lines)
    jobs = lines[lines.index(next(line for line in lines if line.startswith("total"))) + 2 :]
    assert sum(line.startswith("[") for line in jobs) == 23
    assert all(line.startswith("[") or "jobs done" in line for line in jobs[:-2]), jobs
    log = (sweep / "results/tiny/logs/pretrain/mini/seed~0/ood~0.25.log").read_text()
    assert "step 250/250" in log
    assert "s left" in log


# --- damage and repetition, for real


def test_damaged_weights_are_named_and_whole_ones_give_the_same_results(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    target = str(CELL / "evaluation.parquet")
    before = (copy / target).read_bytes()
    (copy / target).unlink()
    weights = copy / CELL / "sft" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    result = snakemake(copy, target, "--cores", "1", *CONFIG)
    said = result.stdout + result.stderr
    assert result.returncode != 0
    folder = str(CELL / "sft")
    lines = [line for line in said.splitlines() if f"error: {folder}" in line]
    assert lines, said
    assert "delete it and run again" in lines[0]
    assert "Traceback" not in said
    assert not (copy / target).exists()

    weights.write_bytes(whole)
    result = snakemake(copy, target, "--cores", "1", *CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (copy / target).read_bytes() == before


def test_damaged_data_are_made_again_before_anything_reads_them(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    test = copy / CELL.parent / "data" / "test.parquet"
    whole, times = test.read_bytes(), (test.stat().st_atime, test.stat().st_mtime)
    test.write_bytes(whole[: len(whole) // 2])
    os.utime(test, times)
    result = snakemake(copy, str(CELL / "evaluation.parquet"), "--cores", "1", *CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    assert test.read_bytes() == whole


def test_a_stage_made_again_has_the_same_weights(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    weights = copy / CELL / "grpo~ood" / "model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(weights.parent)
    result = snakemake(copy, str(CELL / "grpo~ood"), "--cores", "1", *CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    assert weights.read_bytes() == before


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_with_the_same_results(sweep, tmp_path):
    copy_code(tmp_path)
    write_config(tmp_path, runtime={"checkpoint_seconds": 0})
    kill_again_and_again(tmp_path, (4, 7, 9, 11, 13, 15), *CONFIG)
    assert_same_results(sweep / "results" / "tiny", tmp_path / "results" / "tiny")
