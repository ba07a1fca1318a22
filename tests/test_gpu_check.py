"""The GPU check goes through all it does on a CPU, so that no time on a GPU is spent on a typo."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from grpo_origin.cost import find_rates
from grpo_origin.study import read_study
from helpers import REPO, environment


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Results of a tiny run, and what it printed."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, REPO / "benchmarks" / "gpu.py", "--device", "cpu", "--tiny"]
    done = subprocess.run(
        [*command, "--out", folder / "out"],
        env=environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    (folder / "out" / "console").write_text(f"{done.returncode}\n{done.stdout}\n{done.stderr}")
    return folder / "out"


@pytest.fixture(scope="module")
def results(out):
    return json.loads((out / "gpu.json").read_text())


def test_nothing_fails(out, results):
    status, *lines = (out / "console").read_text().splitlines()
    summary = next(line for line in lines if "; failed: " in line).split("failed: ")[1]
    failed = set() if summary == "nothing" else set(summary.split("; "))
    assert not failed, (out / "gpu.log").read_text()[-3000:]
    assert int(status) == bool(failed)
    assert set(results) == {"machine", "checks", "speed", "cell", "many"}


def test_evaluation_is_float32_and_the_check_would_see_it_if_not(results):
    check = results["checks"]["evaluation in float32"]
    assert check["error"] <= check["limit"] < check["planted_error"]


def test_every_measurement_has_its_number(results):
    numbers = {
        "pretraining bf16 compiled 64": "mfu",
        "GRPO step 4 x 4": "generation_s",
        "generation static": "tokens_per_s",
        "evaluation 512": "prompts_per_s",
    }
    for name, number in numbers.items():
        assert results["speed"][name][number] > 0
    assert results["many"]["2 at once"]["cells_per_hour"] > 0
    stages = {row["stage"] for row in results["cell"]["evaluation"]["rows"]}
    assert stages == {"pretrain", "sft", "grpo~id", "grpo~ood"}
    assert results["cell"]["grpo~ood"]["learning_curve"]


def test_rates_are_an_entry_that_cost_takes(out, results):
    study = read_study(REPO / "config" / "config.yaml", REPO / "config" / "paper.yaml")
    rest = dict.fromkeys(
        ("data_samples_per_s", "summary_samples_per_s", "pool_bytes_per_sample"), 1.0
    )
    rates = find_rates(rest, out / "rates.json", study.settings, "tiny")
    step = results["speed"]["GRPO step 4 x 4"]["step_s"]
    assert rates.grpo_step_s == pytest.approx(step, rel=1e-3)
    assert "| check |" in (out / "gpu.md").read_text()
