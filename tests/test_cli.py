"""The command line: mistakes answered in one line, and a wheel that holds all it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest.mock import Mock

import pytest

from grpo_origin.cli import main
from grpo_origin.config.paths import Paths
from grpo_origin.jobs.errors import Interrupted, NotFinite
from grpo_origin.jobs.lease import LeaseError
from helpers import REPO, environment, write_config

CELL = {"--axis": "depth", "--seed": "0", "--ratio": "0.003"}
MISTAKES = {
    "axis": ("cell", {"--axis": "width"}, ["axis", "'width'", "depth, length, token"]),
    "seed": ("cell", {"--seed": "77"}, ["seed", "'77'", "0, 1, 2"]),
    "seed that is no number": ("cell", {"--seed": "one"}, ["seed", "'one'", "0, 1, 2"]),
    "ratio of another axis": ("cell", {"--ratio": "0.1"}, ["ratio", "'0.1'", "0, 0.003, 0.01"]),
    "ratio written otherwise": ("cell", {"--ratio": "0.0030"}, ["ratio", "'0.0030'"]),
    "stage": ("stage grpo", {}, ["stage", "'grpo'", "pretrain, sft, grpo~id, grpo~ood"]),
    "no file": ("cell", {"--config": "none.yaml"}, ["none.yaml: No such file"]),
    "old key": ("cell", {"--config": "old.yaml"}, ["grpo: this key is called rl now"]),
    "nothing to start from": (
        "stage sft",
        {},
        ["pretrain/model.safetensors: can't be read", "run what makes it first"],
    ),
    "config before the stage": (
        "stage --config old.yaml sft",
        {},
        ["grpo: this key is called rl now"],
    ),
}


@pytest.mark.parametrize(("command", "changes", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_in_one_line(tmp_path, monkeypatch, capsys, command, changes, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.yaml").write_text("grpo: {steps: 3}\n")
    options = [part for pair in (CELL | changes).items() for part in pair]
    with pytest.raises(SystemExit) as error:
        main([*command.split(), *options])
    message = str(error.value.code)
    assert message.startswith("error: ")
    assert len(message.splitlines()) == 1
    assert all(word in message for word in words), message
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (NotFinite("sft", 3, "loss"), "error: sft: loss not finite at step 3"),
        (LeaseError("sft.lease: held by another job"), "error: sft.lease: held by another job"),
        (Interrupted("stopped after step 3 of 9"), "stopped after step 3 of 9"),
        (KeyboardInterrupt(), "interrupted; what is finished is kept"),
    ],
    ids=["not finite", "lease", "stopped", "Ctrl-C"],
)
def test_a_failure_of_a_cell_is_one_line(tmp_path, monkeypatch, failure, line):
    monkeypatch.setattr("grpo_origin.cell.run_cell", Mock(side_effect=failure))
    options = [part for pair in CELL.items() for part in pair]
    with pytest.raises(SystemExit) as error:
        main(["cell", *options, "--results", str(tmp_path)])
    message = str(error.value.code)
    assert message.startswith(line)
    assert len(message.splitlines()) == 1


def test_help_imports_neither_torch_nor_pandas():
    code = "import sys; from grpo_origin.cli import main\ntry: main(['--help'])\nfinally: "
    code += "print(sorted({'torch', 'transformers', 'trl', 'pandas'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert all(
        command in result.stdout for command in ("cell", "stage", "cost", "forecast", "docs")
    )
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel, unpacked outside any checkout."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "config", "benchmarks"):
        shutil.copytree(REPO / name, source / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(REPO / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    result = subprocess.run(
        [*build, "-w", str(root), str(source)], cwd=root, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    shutil.rmtree(source)
    (built,) = root.glob("grpo_origin-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(root / "installed")
    return root / "installed"


def installed(wheel: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line of the unpacked wheel, and of no other copy, in a folder."""
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); from grpo_origin.cli import main; "
    code += (
        f"import grpo_origin; assert {str(wheel)!r} in grpo_origin.__file__; main({arguments!r})"
    )
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )


def test_the_wheel_holds_what_the_commands_need(wheel, tmp_path):
    cost = installed(wheel, tmp_path, "cost")
    assert cost.stdout.startswith("laptop: 0.21M parameters, 577 jobs"), cost.stderr
    docs = installed(wheel, tmp_path, "docs")
    assert docs.stdout == (REPO / "docs" / "configuration.md").read_text(), docs.stderr
    (tmp_path / "passes.csv").write_text("prompt,samples,correct\na,8,0\nb,8,3\n")
    forecast = installed(wheel, tmp_path, "forecast", "passes.csv", "--out", "forecast.html")
    assert "2 prompts, 16 samples" in forecast.stdout, forecast.stderr
    assert (tmp_path / "forecast.html").is_file()
    short = {"pretrain": {"samples": 320}, "rl": {"steps": 1}, "trained_on": ["ood"]}
    write_config(tmp_path, "short.yaml", **short)
    where = ["--axis", "mini", "--seed", "0", "--ratio", "0.25"]
    cell = installed(wheel, tmp_path, "cell", "--config", "short.yaml", *where)
    evaluation = Paths("tiny").evaluation("mini", 0, "0.25")
    assert evaluation in cell.stdout, cell.stderr
    assert (tmp_path / evaluation).is_file()
    entry = next(wheel.glob("*.dist-info")) / "entry_points.txt"
    assert "grpo-origin = grpo_origin.cli:main" in entry.read_text()


def test_a_reader_that_has_enough_is_no_error():
    """As in `grpo-origin docs | head -1`."""
    command = f"{sys.executable} -m grpo_origin docs | head -1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environment(), capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
