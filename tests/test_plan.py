"""What the workflow runs again, as `snakemake -n` tells, and what it runs at once.

Changed settings and code, deleted and copied results; a machine with a GPU.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import yaml

from grpo_origin import lineage
from helpers import (
    CODE,
    REPO,
    copy_code,
    environment,
    planned,
    snakemake,
    tiny_study,
    write_config,
)

CELL = Path("results/tiny/mini/seed~0/ood~0.25")
CONFIG = ("--configfile", "tiny.yaml")
DATA = {"pretraining_data": 1, "prompts": 3, "data_summary": 1}
TRAINING = {"pretrain": 2, "sft": 2, "rl": 4, "evaluate": 2}
CORE = (*DATA, *TRAINING)  # data to evaluations, without tables and figures
WROTE = {"completions": 2}  # what the models of both cells write
AFTER = dict.fromkeys(("tables", "claims", "figures", "report"), 1)  # what follows evaluations
SAMPLED = {"sampling": 1, "theory_tables": 1}  # what follows SFT beside RL


def core(plan: dict[str, int]) -> dict[str, int]:
    return {rule: count for rule, count in plan.items() if rule in CORE}


def replanned(tree: Path, **changes) -> dict[str, int]:
    return planned(tree, "--configfile", write_config(tree, "changed.yaml", **changes))


@contextmanager
def edited(path: Path, start: str, end: str) -> Iterator[None]:
    """A file that is opened by a docstring, with text put in at its start and its end."""
    text = path.read_text()
    path.write_text(text.replace('"""', '"""' + start, 1) + end)
    try:
        yield
    finally:
        path.write_text(text)


@pytest.fixture
def copy(sweep, tmp_path) -> Path:
    """A copy of the finished sweep, Snakemake's own record included, to be changed."""
    return shutil.copytree(sweep, tmp_path / "copy", symlinks=True)


# --- settings


def test_a_finished_sweep_has_nothing_to_do(sweep):
    assert planned(sweep, *CONFIG) == {}


RERUNS = {
    "RL rate": ({"rl": {"learning_rate": 1e-4}}, {"rl": 4, "evaluate": 2}),
    "SFT rate": ({"sft": {"learning_rate": 1e-4}}, {"sft": 2, "rl": 4, "evaluate": 2}),
    "pretraining rate": ({"pretrain": {"learning_rate": 1e-3}}, TRAINING),
    "model": ({"model": {"layers": 2}}, TRAINING),
    "precision": ({"numerics": {"precision": "bfloat16"}}, TRAINING),
    "test prompts": (
        {"evaluation": {"prompts": 6}},
        {"prompts": 1, "data_summary": 1, "evaluate": 2},
    ),
    "SFT samples": (
        {"sft": {"samples": 44}},
        {"prompts": 2, "data_summary": 1, "sft": 2, "rl": 4, "evaluate": 2},
    ),  # RL avoids SFT's
    "pretraining samples": (
        {"pretrain": {"samples": 6400}},
        {"pretraining_data": 1, "data_summary": 1, **TRAINING},
    ),
    "world": ({"world": {"nodes": 9}}, DATA | TRAINING),
    "tasks of the axis": ({"axes": {"mini": {"ood": ["shift trav shift;2;A"]}}}, DATA | TRAINING),
    "mixed splits": (
        {"axes": {"mini": {"mixed": [1]}}},
        {"prompts": 1, "data_summary": 1, "evaluate": 2},
    ),
    "threshold of a claim": ({"claims": {"learnt": 0.7}}, {}),
    "runtime": ({"runtime": {"threads": 2, "checkpoint_seconds": 7}}, {}),
    "cluster resources": ({"resources": {"rl": {"mem_mb": 3000, "minutes": 9}}}, {}),
    "another method": ({"methods": ["grpo", "dr_grpo"]}, {"rl": 4, "evaluate": 2}),
    "a method's setting": ({"methods": [{"grpo": {"beta": 0.5}}]}, {"rl": 4, "evaluate": 2}),
    "prompts of one split": ({"trained_on": ["ood"]}, {"evaluate": 2}),
    "another ratio": (
        {"ratios": ["0", "0.25", "0.5"]},
        {"data_summary": 1, "pretrain": 1, "sft": 1, "rl": 2, "evaluate": 1},
    ),
    "one ratio less": ({"ratios": ["0"]}, {"data_summary": 1}),
    "another seed": ({"seeds": [0, 1]}, DATA | TRAINING),
    "another axis": (
        {"axes": {"other": {"id": ["shift;2;A"], "ood": ["trav;2;B"], "ratios": ["0.5"]}}},
        DATA | {"pretrain": 1, "sft": 1, "rl": 2, "evaluate": 1},
    ),
}


@pytest.mark.parametrize(("changes", "expected"), RERUNS.values(), ids=RERUNS)
def test_a_changed_setting_runs_exactly_what_it_affects(sweep, changes, expected):
    assert core(replanned(sweep, **changes)) == expected


def test_a_run_of_other_settings_under_the_same_name_is_warned_of_once(sweep):
    def warning(**changes):
        config = write_config(sweep, "changed.yaml", **changes)
        said = snakemake(sweep, "-n", "--configfile", config)
        return re.findall(r"^results/tiny: settings .*$", said.stdout + said.stderr, re.MULTILINE)

    assert warning() == []
    assert warning(runtime={"threads": 2}) == []
    (line,) = warning(seeds=[0, 1], rl={"learning_rate": 1e-4})
    assert line.endswith(": seeds, rl.learning_rate")
    assert len(warning(seeds=[0, 1])) == 1  # a dry run replaces nothing, so it is said again
    settings = json.loads((sweep / "results/tiny/settings.json").read_text())
    assert settings["seeds"] == [0]


# --- code


@pytest.mark.parametrize(
    "module",
    ["tasks/task", "data/pools", "training/loop", "rl/trainer", "evaluation/mass", "config/schema"],
)
def test_a_docstring_or_comment_runs_nothing(sweep, module):
    path = sweep / "src" / "grpo_origin" / f"{module}.py"
    with edited(path, "Reworded: ", "\n# A remark.\n"):
        assert planned(sweep, *CONFIG) == {}


EDITS = {
    "src/grpo_origin/rl/methods/grpo.py": {"rl": 4, "evaluate": 2} | WROTE | AFTER,
    "src/grpo_origin/rl/methods/dapo.py": {},  # not of this run
    "src/grpo_origin/tasks/task.py": DATA | TRAINING | WROTE | AFTER | SAMPLED,
    "workflow/scripts/evaluate.py": {"evaluate": 2} | WROTE | AFTER,
    "workflow/scripts/completions.py": WROTE | dict.fromkeys(("tables", "figures", "report"), 1),
    "workflow/scripts/report.py": {"report": 1},
}


@pytest.mark.parametrize(("path", "expected"), EDITS.items(), ids=EDITS)
def test_an_edited_statement_runs_what_depends_on_it_and_a_touched_file_nothing(
    sweep, path, expected
):
    with edited(sweep / path, "", "\nEDITED = True\n"):
        assert planned(sweep, *CONFIG) == expected
    assert planned(sweep, *CONFIG) == {}  # as it was, but written anew


# --- deleted results


@pytest.mark.parametrize(
    ("deleted", "expected"),
    [
        ("sft", {"sft": 1, "rl": 2, "evaluate": 1, "completions": 1} | AFTER),
        ("grpo~id", {"rl": 1, "evaluate": 1, "completions": 1} | AFTER),
        ("evaluation.parquet", {"evaluate": 1, "completions": 1} | AFTER),
        ("../data/summary.json", {"data_summary": 1}),
        ("../data/sft.parquet", {}),  # nothing needs it
    ],
)
def test_deleted_results_are_made_anew(copy, deleted, expected):
    path = copy / CELL / deleted
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert planned(copy, *CONFIG) == expected


def test_deleted_data_are_made_anew_when_a_stage_needs_them(copy):
    (copy / CELL.parent / "data" / "sft.parquet").unlink()
    shutil.rmtree(copy / CELL / "sft")
    plan = planned(copy, *CONFIG)
    assert core(plan) == {"prompts": 1, "data_summary": 1, "sft": 2, "rl": 4, "evaluate": 2}


# --- copied results


def test_a_fresh_checkout_with_the_results_copied_has_nothing_to_do(sweep, tmp_path):
    copy_code(tmp_path)
    for name in CODE:
        for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
            os.utime(path)  # as a clone does
    write_config(tmp_path)
    shutil.copytree(sweep / "results", tmp_path / "results", symlinks=True)  # keeps times, as cp -a
    assert planned(tmp_path, *CONFIG) == {}


def test_the_reference_run_is_compared_with_by_its_content(copy):
    results, reference = copy / "results" / "tiny", copy / "reference"
    reference.mkdir()
    shutil.copy(results / "tables" / "claims.parquet", reference)
    assert planned(copy, *CONFIG) == {}  # not without its settings
    shutil.copy(results / "settings.json", reference)
    follows = {"claims": 1, "figures": 1, "report": 1}
    assert planned(copy, *CONFIG) == follows
    assert snakemake(copy, "--cores", "2", *CONFIG).returncode == 0
    agreement = pd.read_parquet(results / "tables" / "agreement.parquet")
    assert (agreement["verdict"] == agreement["reference_verdict"]).all()
    assert len(agreement) == len(pd.read_parquet(reference / "claims.parquet"))
    assert "Agreement with the reference run" in (results / "report.html").read_text()
    os.utime(reference / "claims.parquet")  # as a fresh checkout does
    assert planned(copy, *CONFIG) == {}
    table = pd.read_parquet(reference / "claims.parquet")
    table.assign(verdict="supported").to_parquet(reference / "claims.parquet")
    assert planned(copy, *CONFIG) == follows


@pytest.mark.parametrize("metadata", [True, False], ids=["with .snakemake", "without .snakemake"])
def test_a_copied_run_does_not_pass_for_one_of_other_settings(copy, metadata):
    shutil.copytree(copy / "results" / "tiny", copy / "results" / "b", symlinks=True)
    if not metadata:
        shutil.rmtree(copy / ".snakemake")
    assert replanned(copy, run="b") == {"report": 1}  # it shows the name of the run
    other = {"run": "b", "rl": {"learning_rate": 1e-4}}
    assert replanned(copy, **other) == {"rl": 4, "evaluate": 2} | WROTE | AFTER
    config = write_config(copy, "changed.yaml", **other)
    said = snakemake(copy, "-n", "--configfile", config)
    (line,) = re.findall(r"^results/b holds results .*$", said.stdout + said.stderr, re.MULTILINE)
    assert line.endswith("made again: 4 rl, 1 report")


@pytest.mark.parametrize("with_record", [True, False])
def test_a_stage_replaced_by_that_of_another_cell_is_made_again(copy, with_record):
    target = copy / CELL / "sft"
    source = copy / CELL.parent / "ood~0" / "sft"
    shutil.rmtree(target)
    shutil.copytree(source, target)
    if with_record:
        shutil.copy2(source.parent / ".records" / "sft", target.parent / ".records")
    assert planned(copy, *CONFIG) == {"sft": 1, "rl": 2, "evaluate": 1, "completions": 1} | AFTER


def test_tables_of_other_cells_do_not_pass_for_these(copy):
    """Fewer ratios leave every file older than what it is made from; only the records tell."""
    shutil.rmtree(copy / ".snakemake")
    plan = replanned(copy, ratios=["0.25"])
    assert plan == {"data_summary": 1} | AFTER | dict.fromkeys(("sampling", "theory_tables"), 1)


def test_every_result_without_a_record_is_made_again(copy):
    for folder in (copy / "results").rglob(".records"):
        shutil.rmtree(folder)
    shutil.rmtree(copy / ".snakemake")
    jobs = {rule: len(jobs) for rule, jobs in lineage.jobs(tiny_study()).items() if jobs}
    assert planned(copy, *CONFIG) == jobs


def test_only_what_is_asked_for_is_made_again(copy):
    shutil.rmtree(copy / ".snakemake")
    config = write_config(copy, "changed.yaml", rl={"learning_rate": 1e-4})
    assert planned(copy, str(CELL / "sft"), "--configfile", config) == {}
    assert planned(copy, str(CELL / "grpo~id"), "--configfile", config) == {"rl": 1}


def test_make_clean_keeps_the_results_up_to_date(copy):
    shutil.copy(REPO / "Makefile", copy)
    subprocess.run(["make", "clean"], cwd=copy, check=True, capture_output=True)
    assert planned(copy, *CONFIG) == {}
    assert core(replanned(copy, rl={"learning_rate": 1e-4})) == {"rl": 4, "evaluate": 2}


# --- a machine with a GPU


@pytest.fixture
def gpu_machine(tmp_path, monkeypatch) -> Path:
    """A tree on a machine whose nvidia-smi lists a GPU."""
    tree = copy_code(tmp_path)
    command = tmp_path / "bin" / "nvidia-smi"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\necho "GPU 0: Made-up (UUID: GPU-0)"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tree


def gpu_rules(tree: Path, *arguments: str) -> set[str]:
    """Rules whose jobs ask for a GPU."""
    plan = snakemake(tree, "--dry-run", "--quiet", "progress", *arguments)
    assert plan.returncode == 0, plan.stdout + plan.stderr
    pattern = r"^(?:local)?rule (\w+):$.*?^    resources: (.*?)$"
    jobs = re.findall(pattern, plan.stdout, re.MULTILINE | re.DOTALL)
    assert len(jobs) > 20
    return {rule for rule, asked in jobs if "gpu=1" in asked}


def test_jobs_that_would_take_the_gpu_ask_for_it(gpu_machine, monkeypatch):
    config = write_config(gpu_machine, numerics={"device": "auto"})
    takers = {"pretrain", "sft", "rl", "evaluate", "completions", "sampling"}
    assert gpu_rules(gpu_machine, "--configfile", config) == takers
    cpu = write_config(gpu_machine, "cpu.yaml")
    assert gpu_rules(gpu_machine, "--configfile", cpu) == set()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_rules(gpu_machine, "--configfile", config) == set()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PATH", os.environ["PATH"].partition(os.pathsep)[2])  # no nvidia-smi
    assert gpu_rules(gpu_machine, "--configfile", config) == takers


def test_the_example_of_a_gpu_partition_names_every_rule_that_asks_for_a_gpu(sweep):
    profile = (sweep / "profiles/slurm/config.yaml").read_text()
    example = re.search(r"^# set-resources:\n((#  .*\n)+)", profile, re.MULTILINE)[1]
    named = yaml.safe_load(example.replace("# ", ""))
    assert set(named) == gpu_rules(sweep, "--configfile", "config/paper.yaml")


def test_one_job_at_a_time_uses_the_gpu_and_none_is_forked(gpu_machine):
    config = write_config(gpu_machine, numerics={"device": "auto"}, pretrain={"samples": 3200})
    ratios = ("0", "0.25")
    stages = [f"results/tiny/mini/seed~0/ood~{ratio}/pretrain" for ratio in ratios]
    command = [sys.executable, "-m", "snakemake", *stages, "--cores", "2", "--configfile", config]
    variables = environment() | {"PYTHONPATH": ""}
    with open(gpu_machine / "console.txt", "wb") as console:
        child = subprocess.Popen(
            command, cwd=gpu_machine, env=variables, stdout=console, stderr=console
        )
    forks = False
    while child.poll() is None:
        forks = forks or prefork_runs(child.pid)
        time.sleep(0.2)
    assert child.returncode == 0, (gpu_machine / "console.txt").read_text()
    assert not forks
    spans = []
    for stage in stages:
        file = gpu_machine / stage / "provenance.json"
        ended = file.stat().st_mtime
        spans.append((ended - json.loads(file.read_text())["seconds"], ended))
    first, second = sorted(spans)
    assert first[1] <= second[0]


def prefork_runs(controller: int) -> bool:
    """Whether there is a process that jobs of this controller are forked from."""
    name = f"grpo-origin-{controller}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if name in (process / "cmdline").read_bytes():
                return True
        except OSError:  # it has ended
            continue
    return False


# --- Snakemake's scheduler


def test_the_controller_looks_at_the_queue_about_once_a_job(tmp_path):
    """The workaround in common.smk: else looks add up, to twenty times as many here."""
    tree = copy_code(tmp_path)
    axes = ("depth", "length", "token", "composition")
    sets = ("sft", "grpo", "test")
    targets = [f"results/smoke/{axis}/seed~0/data/{name}.parquet" for axis in axes for name in sets]
    options = ("--cores", "1", "--verbose", "--configfile", "config/smoke.yaml")
    result = snakemake(tree, *targets, *options)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert len(targets) <= said.count("Ready jobs: ") <= 2 * len(targets)
