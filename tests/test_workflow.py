"""The workflow through the real `snakemake` command: what it plans, what it makes, what makes it run again, what it refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from grpo_origin.rl.trainer import LOGGED
from helpers import CODE, REPO, copy_code, environment, planned, read, snakemake, tiny, write_config

CORE = (
    "pretraining_data",
    "prompts",
    "data_summary",
    "pretrain",
    "sft",
    "grpo",
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
    """Processor time of the commands run inside, in seconds: unlike the clock's, it does not depend on what else a machine does."""
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
    return jobs | {"pretrain": cells, "sft": cells, "grpo": 2 * cells, "evaluate": cells}


# --- plans


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), cells(12, 60)),
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
    assert plan["pretrain"] == plan["evaluate"] == 3 * 4 * len(settings["ratios"])
    assert spent[0] < 30


def test_the_example_of_a_gpu_partition_names_every_rule_that_asks_for_a_gpu(tree):
    example = re.search(
        r"^# set-resources:\n((#  .*\n)+)",
        (tree / "profiles/slurm/config.yaml").read_text(),
        re.MULTILINE,
    )[1]
    named = yaml.safe_load(example.replace("# ", ""))
    plan = snakemake(
        tree, "--dry-run", "--configfile", "config/paper.yaml", "--quiet", "progress"
    ).stdout
    jobs = re.findall(
        r"^(?:local)?rule (\w+):$.*?^    resources: (.*?)$", plan, re.MULTILINE | re.DOTALL
    )
    assert set(named) == {rule for rule, asked in jobs if "gpu=" in asked}


def test_a_single_cell(tree):
    plan = planned(tree, "results/laptop/depth/seed~0/ood~0.01/evaluation.parquet")
    assert plan == cells(1, 1) | {"data_summary": 0} or plan == {
        k: v for k, v in cells(1, 1).items() if k != "data_summary"
    }


def test_a_stage_folder_is_a_target(tree):
    assert core(planned(tree, "results/laptop/token/seed~2/ood~0.3/sft")) == {
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


def test_lint(tree):
    """Rules that keep to Snakemake's own advice; tests/lint_workflow.py holds what is let pass."""
    result = snakemake(tree, "--lint")
    assert "Traceback" not in result.stdout + result.stderr


# --- bad input

PREFACE = (
    "Using workflow specific profile",
    "Config file config/config.yaml is extended",
)  # Snakemake's, before it reads any
BAD_CONFIGS = {
    "misspelt key": ("sedes: [0]", "sedes"),
    "ratio": ('ratios: ["0", "1.5"]', "ratios"),
    "run with a slash": ("run: a/b", "run"),
    "string space": ("grpo: {steps: 100000}", "grpo"),
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


def test_the_sweep_leaves_the_promised_files(sweep):
    stages = ["evaluation.parquet", "grpo~id", "grpo~ood", "pretrain", "sft"]
    for ratio, more in (
        ("0", ["theory"]),
        ("0.25", []),
    ):  # sampling is checked at the second largest ratio
        cell = sweep / CELL.parent / f"ood~{ratio}"
        assert sorted(path.name for path in cell.iterdir()) == [*stages, *more]
    data = sweep / CELL.parent / "data"
    names = [
        "grpo.parquet",
        "pretrain-id.parquet",
        "pretrain-ood.parquet",
        "sft.parquet",
        "summary.json",
        "test.parquet",
    ]
    assert sorted(path.name for path in data.iterdir()) == names
    assert not [path for path in (sweep / "results").rglob("*.tmp")]
    left = [
        path
        for path in (sweep / "results" / "tiny").rglob("checkpoints/**/*")
        if path.is_file() and not path.name.endswith(".lease")
    ]
    assert not left


def test_the_evaluation_of_the_sweep(sweep):
    strings = dict.fromkeys(("axis", "ood_ratio", "stage", "split", "task"), "string")
    schema = strings | {
        "seed": "int64",
        "prompt_index": "int32",
        "log_mass": "double",
        "greedy_correct": "bool",
    }
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
        ids = tokenizer("<bos> A B <trav>", return_tensors="pt", add_special_tokens=False)[
            "input_ids"
        ]
        answer = tokenizer.decode(model.generate(ids, max_new_tokens=4, do_sample=False)[0, 4:])
        assert answer.startswith("<answer>")
        assert not list((sweep / CELL / stage).glob("*.bin"))


def test_training_logs_and_provenance(sweep):
    settings = tiny()
    for stage, steps in (("pretrain", 250), ("sft", 6), ("grpo~id", 12), ("grpo~ood", 12)):
        log = read(sweep / CELL / stage / "training_log.parquet")
        names = (
            ["loss", "learning_rate", "grad_norm", "seconds"] if "~" not in stage else list(LOGGED)
        )
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
        section = stage.partition("~")[0]
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
    assert sum(line.startswith("[") for line in jobs) == 21
    assert all(line.startswith("[") or "steps (" in line for line in jobs[:-2]), jobs
    log = (sweep / "results/tiny/logs/pretrain/mini/seed~0/ood~0.25.log").read_text()
    assert "step 250/250" in log
    assert "s left" in log


# --- what runs again


@contextmanager
def changed(path: Path, old: str, new: str) -> Iterator[None]:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(text)


def replanned(sweep: Path, **changes) -> dict[str, int]:
    return core(planned(sweep, "--configfile", write_config(sweep, "changed.yaml", **changes)))


def test_a_finished_sweep_has_nothing_to_do(sweep):
    assert planned(sweep, *CONFIG) == {}


ALL_TRAINING = {"pretrain": 2, "sft": 2, "grpo": 4, "evaluate": 2}
RERUNS = {
    "GRPO rate": ({"grpo": {"learning_rate": 1e-4}}, {"grpo": 4, "evaluate": 2}),
    "SFT rate": ({"sft": {"learning_rate": 1e-4}}, {"sft": 2, "grpo": 4, "evaluate": 2}),
    "pretraining rate": ({"pretrain": {"learning_rate": 1e-3}}, ALL_TRAINING),
    "model": ({"model": {"layers": 2}}, ALL_TRAINING),
    "test prompts": (
        {"evaluation": {"prompts": 6}},
        {"prompts": 1, "data_summary": 1, "evaluate": 2},
    ),
    "SFT samples": (
        {"sft": {"samples": 44}},
        {"prompts": 2, "data_summary": 1, "sft": 2, "grpo": 4, "evaluate": 2},
    ),  # GRPO avoids SFT's
    "pretraining samples": (
        {"pretrain": {"samples": 6400}},
        {"pretraining_data": 1, "data_summary": 1, **ALL_TRAINING},
    ),
    "world": ({"world": {"nodes": 9}}, cells(1, 2)),
    "tasks of the axis": ({"axes": {"mini": {"ood": ["shift trav shift;2;A"]}}}, cells(1, 2)),
    "mixed splits": (
        {"axes": {"mini": {"mixed": [1]}}},
        {"prompts": 1, "data_summary": 1, "evaluate": 2},
    ),
    "runtime": ({"runtime": {"threads": 2, "checkpoint_seconds": 7}}, {}),
    "cluster resources": ({"resources": {"grpo": {"mem_mb": 3000, "minutes": 9}}}, {}),
    "another method": ({"methods": ["grpo", "dr_grpo"]}, {"grpo": 4, "evaluate": 2}),
    "a method's setting": ({"methods": [{"grpo": {"beta": 0.5}}]}, {"grpo": 4, "evaluate": 2}),
    "prompts of one split": ({"prompts": ["ood"]}, {"evaluate": 2}),
    "another ratio": (
        {"ratios": ["0", "0.25", "0.5"]},
        {"data_summary": 1, "pretrain": 1, "sft": 1, "grpo": 2, "evaluate": 1},
    ),
    "one ratio less": ({"ratios": ["0"]}, {"data_summary": 1}),
    "another seed": ({"seeds": [0, 1]}, cells(1, 2)),
    "another axis": (
        {"axes": {"other": {"id": ["shift;2;A"], "ood": ["trav;2;B"], "ratios": ["0.5"]}}},
        cells(1, 1),
    ),
}


@pytest.mark.parametrize(("changes", "expected"), RERUNS.values(), ids=RERUNS)
def test_a_changed_setting_runs_exactly_what_it_affects(sweep, changes, expected):
    assert replanned(sweep, **changes) == expected


@pytest.mark.parametrize(
    "module", ["tasks", "data", "train", "grpo", "evaluate", "config", "figures"]
)
def test_a_docstring_or_comment_runs_nothing(sweep, module):
    path = sweep / "src" / "grpo_origin" / f"{module}.py"
    with changed(path, '"""', '"""Reworded: '):
        path.write_text(path.read_text() + "\n# A remark.\n")
        assert planned(sweep, *CONFIG) == {}


def test_changed_code_runs_the_stages_that_depend_on_it(sweep):
    source = sweep / "src" / "grpo_origin"
    with changed(source / "evaluate.py", ".eval()", ".eval().requires_grad_(False)"):
        assert core(planned(sweep, *CONFIG)) == {"evaluate": 2}
    with changed(source / "grpo.py", '"loss_type": "grpo"', '"loss_type": "dr_grpo"'):
        assert core(planned(sweep, *CONFIG)) == {"grpo": 4, "evaluate": 2}
    with changed(
        source / "methods" / "grpo.py", "class GRPO(Method):", "class GRPO(Method, frozen=True):"
    ):
        assert core(planned(sweep, *CONFIG)) == {"grpo": 4, "evaluate": 2}
    with changed(
        source / "tasks.py", "np.roll(strings, -1, axis=1)", "np.roll(strings, 1, axis=1)"
    ):
        assert core(planned(sweep, *CONFIG)) == cells(1, 2)


def test_changed_figure_code_trains_nothing(sweep):
    with changed(sweep / "src" / "grpo_origin" / "plotting.py", "figsize=", "figsize=(1, 1) or "):
        plan = planned(sweep, *CONFIG)
    assert core(plan) == {}
    assert "figures" in plan


def test_touched_scripts_run_nothing(sweep):
    for path in (
        *(sweep / "workflow" / "scripts").iterdir(),
        *(sweep / "src" / "grpo_origin").glob("*.py"),
    ):
        os.utime(path)
    assert planned(sweep, *CONFIG) == {}


def test_a_fresh_checkout_with_the_results_copied_has_nothing_to_do(sweep, tmp_path):
    copy_code(tmp_path)
    for name in CODE:
        for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
            os.utime(path)  # as a clone does
    write_config(tmp_path)
    shutil.copytree(
        sweep / "results", tmp_path / "results", symlinks=True
    )  # keeps times, as cp -a does
    assert planned(tmp_path, *CONFIG) == {}


def test_make_clean_keeps_the_record_that_a_changed_setting_is_compared_with(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    shutil.copy(REPO / "Makefile", copy)
    subprocess.run(["make", "clean"], cwd=copy, check=True, capture_output=True)
    changes, expected = RERUNS["GRPO rate"]
    assert replanned(copy, **changes) == expected


def test_a_deleted_artefact_is_made_again(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    (copy / CELL / "evaluation.parquet").unlink()
    assert core(planned(copy, *CONFIG)) == {"evaluate": 1}
    shutil.rmtree(copy / CELL / "grpo~id")
    assert core(planned(copy, *CONFIG)) == {"grpo": 1, "evaluate": 1}


# --- damage and repetition, for real


def test_a_damaged_artefact_is_named_and_a_repaired_one_gives_the_same_results(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    target = str(CELL / "evaluation.parquet")
    before = (copy / target).read_bytes()
    (copy / target).unlink()
    test = copy / CELL.parent / "data" / "test.parquet"
    whole, times = test.read_bytes(), (test.stat().st_atime, test.stat().st_mtime)
    test.write_bytes(whole[: len(whole) // 2])
    os.utime(test, times)
    result = snakemake(copy, target, "--cores", "1", *CONFIG)
    assert result.returncode != 0
    said = [
        line
        for line in (result.stdout + result.stderr).splitlines()
        if "test.parquet" in line and "error" in line
    ]
    assert said, result.stdout + result.stderr
    assert "delete it and run again" in said[0]
    assert "Traceback" not in result.stdout + result.stderr
    assert not (copy / target).exists()

    test.write_bytes(whole)
    os.utime(test, times)
    result = snakemake(copy, target, "--cores", "1", *CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (copy / target).read_bytes() == before


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
    """kill -9 of the controller at moments spread over the sweep; the same command each time."""
    copy_code(tmp_path)
    write_config(tmp_path, runtime={"checkpoint_seconds": 0})
    for seconds in (4, 7, 9, 11, 13, 15):
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *CONFIG]
        child = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        child.kill()
        child.wait()
    result = snakemake(tmp_path, "--cores", "2", *CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    for path in sorted((sweep / "results" / "tiny").rglob("*")):
        other = tmp_path / path.relative_to(sweep)
        if (
            path.name == "model.safetensors"
            or path.parent.name == "data"
            or path.name == "evaluation.parquet"
        ):
            assert other.read_bytes() == path.read_bytes(), path
        if path.suffix == ".csv":
            assert timeless(other) == timeless(path), path
    assert not list((tmp_path / "results").rglob("*.tmp"))


def timeless(path: Path) -> list[dict[str, str]]:
    """The rows of a table but for how long a step took."""
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in csv.DictReader(path.open())
    ]
