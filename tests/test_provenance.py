"""What an artefact was made from: a record that holds for what lies there, and for nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.provenance import (
    Provenance,
    is_current,
    making_of,
    record_of,
    recorded,
    stamp,
)
from helpers import environment

PARAMS = {
    "rl": {"learning_rate": 2e-4, "steps": 60},
    "counts": (1, 2),
    "code": "abc",
    "checkpoint": "results/a/checkpoints/sft",
}


@pytest.mark.parametrize(
    "same",
    [
        {"checkpoint": "results/b/checkpoints/sft"},
        {"counts": [1, 2]},
        {"rl": {"steps": 60, "learning_rate": 2e-4}},
    ],
)
def test_places_order_and_tuples_do_not_change_a_record(same):
    assert record_of(PARAMS | same) == record_of(PARAMS)
    assert len(record_of(PARAMS)) == 16


@pytest.mark.parametrize(
    "other",
    [
        {"code": "abd"},
        {"rl": {"learning_rate": 3e-4, "steps": 60}},
        {"counts": (2, 1)},
        {"more": None},
    ],
)
def test_settings_and_code_change_a_record(other):
    assert record_of(PARAMS | other) != record_of(PARAMS)


def test_params_that_would_differ_at_every_start_are_refused():
    with pytest.raises(TypeError):
        record_of({"function": lambda: None})


def run_of(root: Path, rate: float) -> Path:
    """A run with a table and a trained stage, both recorded."""
    stage, table = root / "depth" / "sft", root / "tables" / "gains.csv"
    stage.mkdir(parents=True)
    (stage / "model.safetensors").write_bytes(os.urandom(100))
    (stage / "provenance.json").write_text(json.dumps({"rate": rate, "seconds": time.time()}))
    table.parent.mkdir()
    table.write_text(f"rate\n{rate}\n")
    for path in (stage, table):
        stamp(path, record_of({"rate": rate}))
    return root


def records(root: Path) -> list[str | None]:
    return [recorded(root / "depth" / "sft"), recorded(root / "tables" / "gains.csv")]


def test_a_copied_run_keeps_its_records_and_is_known_to_be_of_its_settings(tmp_path):
    run = run_of(tmp_path / "a", 1.0)
    shutil.copytree(run, tmp_path / "b")  # `cp -a`
    assert records(tmp_path / "b") == [record_of({"rate": 1.0})] * 2
    assert records(tmp_path / "b") != [record_of({"rate": 2.0})] * 2


def test_a_new_time_changes_nothing(tmp_path):
    """Snakemake touches what a job made, after the job."""
    run = run_of(tmp_path / "a", 1.0)
    for path in run.rglob("*"):
        os.utime(path, (0, 0))
    assert records(run) == [record_of({"rate": 1.0})] * 2


def test_an_artefact_of_another_run_is_not_known(tmp_path):
    run, other = run_of(tmp_path / "a", 1.0), run_of(tmp_path / "b", 2.0)
    shutil.rmtree(run / "depth" / "sft")
    shutil.copytree(other / "depth" / "sft", run / "depth" / "sft")
    shutil.copy2(other / "tables" / "gains.csv", run / "tables" / "gains.csv")
    assert records(run) == [None, None]


@pytest.mark.parametrize("what", ["artefacts", "records", "damaged", "foreign", "half a folder"])
def test_without_artefact_or_whole_record_nothing_is_known(tmp_path, what):
    run = run_of(tmp_path / "a", 1.0)
    for path in (run / "depth" / "sft", run / "tables" / "gains.csv"):
        record = path.parent / ".records" / path.name
        if what == "artefacts":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif what == "records":
            shutil.rmtree(record.parent)
        elif what == "half a folder":
            (path / "provenance.json" if path.is_dir() else path).unlink()
        else:
            record.write_text('{"record": "0' if what == "damaged" else "[1]")
    assert records(run) == [None, None]


def test_a_large_file_is_not_read_whole(tmp_path):
    large = tmp_path / "pool.parquet"
    with open(large, "wb") as file:
        file.truncate(2**40)
    stamp(large, "0123456789abcdef")
    assert recorded(large) == "0123456789abcdef"


def test_what_is_not_there_can_not_be_stamped(tmp_path):
    with pytest.raises(ArtefactError, match="gains"):
        stamp(tmp_path / "gains.csv", "0123456789abcdef")
    assert recorded(tmp_path / "gains.csv") is None


def test_numerics_are_in_the_provenance_of_a_stage(tmp_path):
    Provenance({"seed": 0}, "cpu", {"precision": "bfloat16"}).write(tmp_path / "p.json", steps=3)
    written = json.loads((tmp_path / "p.json").read_text())
    assert written["numerics"] == {
        "precision": "bfloat16",
        "device_class": "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    assert (written["settings"], written["steps"]) == ({"seed": 0}, 3)


JOB = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from grpo_origin.jobs.job import job
folder = Path(sys.argv[1])
outputs = [folder / "gains.csv", folder / "gains.parquet"]
params = {"rate": 1.0, "checkpoint": "here"}
names = {"params": params, "input": [], "output": outputs, "wildcards": {}}
given = SimpleNamespace(log=[folder / "log"], **names)
with job(given, "tables"):
    for path in outputs:
        path.write_text(path.name)
    print("written", flush=True)
    exec(sys.argv[2])
"""


def start_job(folder: Path, then: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOB, folder, then]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)


def test_a_job_records_all_its_outputs(tmp_path):
    errors = start_job(tmp_path, "pass").communicate(timeout=120)[1]
    assert "tables: " in errors
    for name in ("gains.csv", "gains.parquet"):
        assert is_current(tmp_path / name, {"rate": 1.0}, [])
        assert not is_current(tmp_path / name, {"rate": 2.0}, [])


def test_records_chain_back_to_what_an_artefact_was_made_from(tmp_path):
    """A stage of another run, its own record with it, is not what would be made from this run's."""
    for name, rate in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        sft, rl = tmp_path / name / "sft.parquet", tmp_path / name / "rl.parquet"
        sft.write_text(f"sft at {rate}")
        stamp(sft, making_of({"rate": rate}, []))
        rl.write_text(f"rl from sft at {rate}")
        stamp(rl, making_of({"beta": 0.1}, [sft]))
        assert is_current(rl, {"beta": 0.1}, [sft])
    shutil.copy2(tmp_path / "b" / "rl.parquet", tmp_path / "a")
    shutil.copy2(tmp_path / "b" / ".records" / "rl.parquet", tmp_path / "a" / ".records")
    sft, rl = tmp_path / "a" / "sft.parquet", tmp_path / "a" / "rl.parquet"
    assert not is_current(rl, {"beta": 0.1}, [sft])
    assert not is_current(rl, {"beta": 0.1}, [sft, sft])
    sft.unlink()
    assert is_current(rl, {"beta": 0.1}, [sft])  # nothing to hold it against


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        ("1 / 0", "failed, see"),
        ("raise OSError('No space left')", "error: No space left"),
        (
            "from grpo_origin.jobs.errors import NotFinite as e; raise e('sft', 3, 'x')",
            "error: sft",
        ),
        ("sys.exit('stopped by SIGTERM')", "stopped by SIGTERM"),
    ],
)
def test_a_job_that_fails_records_nothing(tmp_path, then, shown):
    job = start_job(tmp_path, then)
    errors = job.communicate(timeout=120)[1]
    assert job.returncode == 1
    assert f"tables: {shown}" in errors
    assert errors.count("\n") == 1
    assert ("Traceback" in (tmp_path / "log").read_text()) == (then == "1 / 0")
    assert recorded(tmp_path / "gains.csv") is None


def test_ctrl_c_ends_a_job_in_one_line(tmp_path):
    job = start_job(tmp_path, "time.sleep(120)")
    deadline = time.monotonic() + 60
    while not ((tmp_path / "log").exists() and "written" in (tmp_path / "log").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGINT)
    job.send_signal(signal.SIGINT)
    errors = job.communicate(timeout=120)[1]
    assert job.returncode == 1
    assert "tables: interrupted" in errors
    assert errors.count("\n") == 1
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert recorded(tmp_path / "gains.csv") is None
