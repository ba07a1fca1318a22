"""A cell in plain Python: the workflow's numbers, and nothing kept that other settings made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from grpo_origin.cell import run_cell
from grpo_origin.cli import main
from grpo_origin.config.paths import Paths
from grpo_origin.jobs import fingerprint
from grpo_origin.jobs.errors import ArtefactError
from helpers import tiny_study, write_config

CELL = ("mini", 0, "0.25")
SHORT = {
    "pretrain": {"samples": 640},
    "rl": {"steps": 2},
    "methods": ["grpo"],
    "trained_on": ["ood"],
}


def test_a_cell_has_the_same_evaluation_as_the_workflows_bit_for_bit(sweep, tmp_path, capsys):
    where = ["--axis", "mini", "--seed", "0", "--ratio", "0.25", "--results", str(tmp_path)]
    main(["cell", "--config", str(sweep / "tiny.yaml"), *where])
    path = Path("tiny/mini/seed~0/ood~0.25/evaluation.parquet")
    own, workflows = pq.read_table(tmp_path / path), pq.read_table(sweep / "results" / path)
    assert own.num_rows > 0
    assert own.equals(workflows)
    *_, where, head, pretrain, sft, grpo_id, grpo_ood = capsys.readouterr().out.splitlines()
    assert where == str(tmp_path / path)
    assert head.split() == ["mean", "mass", "id", "mixed-1", "mixed-2", "ood"]
    names = [line.split()[0] for line in (pretrain, sft, grpo_id, grpo_ood)]
    assert names == ["pretrain", "sft", "grpo~id", "grpo~ood"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A short cell, run. Not to be changed."""
    root = tmp_path_factory.mktemp("finished")
    run_cell(tiny_study(**SHORT), Paths("tiny", str(root)), *CELL)
    return root


@pytest.fixture
def results(finished, tmp_path) -> Path:
    """A copy of the short cell."""
    return Path(shutil.copytree(finished, tmp_path / "results"))


def made(root: Path, **changes) -> set[str]:
    """Names of what running the cell with these changes makes anew: `data` and stages."""
    paths = Paths("tiny", str(root))
    places = {stage: Path(paths.stage(*CELL, stage)) for stage in ("pretrain", "sft", "grpo~ood")}
    places["data"] = Path(paths.data("mini", 0, "test")).parent

    def ages() -> dict[str, int]:
        files = {name: place / "provenance.json" for name, place in places.items()}
        return {n: file.stat().st_ino for n, file in files.items() if file.exists()}

    before = ages()
    run_cell(tiny_study(**SHORT | changes), paths, *CELL)
    return {name for name, age in ages().items() if before.get(name) != age}


def test_what_was_made_with_these_settings_is_kept(results):
    assert made(results) == set()


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({"rl": {"steps": 2, "learning_rate": 1e-4}}, {"grpo~ood"}),
        ({"methods": [{"grpo": {"beta": 0.5}}]}, {"grpo~ood"}),
        ({"sft": {"learning_rate": 5e-4}}, {"sft", "grpo~ood"}),
        ({"pretrain": {"samples": 640, "learning_rate": 1e-3}}, {"pretrain", "sft", "grpo~ood"}),
        ({"evaluation": {"prompts": 6}}, {"data"}),
        ({"rl": {"steps": 3}}, {"data", "grpo~ood"}),
        ({"numerics": {"device": "cpu", "deterministic": True}}, {"pretrain", "sft", "grpo~ood"}),
    ],
    ids=[
        "RL rate",
        "method's setting",
        "SFT rate",
        "pretraining rate",
        "test prompts",
        "RL steps",
        "numerics",
    ],
)
def test_what_was_made_with_other_settings_is_made_again(results, changes, anew):
    assert made(results, **changes) == anew


@pytest.mark.parametrize(
    ("module", "anew"),
    [
        ("analysis/tables.py", set()),
        ("rl/methods/grpo.py", {"grpo~ood"}),
        ("rl/stage.py", {"grpo~ood"}),
        ("training/loop.py", {"pretrain", "sft", "grpo~ood"}),
        ("data/summary.py", {"data"}),
        ("tasks/world.py", {"data", "pretrain", "sft", "grpo~ood"}),
    ],
)
def test_what_was_made_by_other_code_is_made_again(results, monkeypatch, module, anew):
    text = fingerprint._text
    end = f"grpo_origin/{module}"

    def edited(path: Path) -> str:
        return text(path) + ("\nedited = True\n" if path.as_posix().endswith(end) else "")

    monkeypatch.setattr(fingerprint, "_text", edited)
    assert made(results) == anew


def test_what_was_taken_away_or_replaced_is_made_again(results):
    paths = Paths("tiny", str(results))
    shutil.rmtree(paths.stage(*CELL, "sft"))
    assert made(results) == {"sft"}  # the same weights again, so RL is kept
    os.remove(paths.data("mini", 0, "grpo"))
    assert made(results) == {"data"}
    model = Path(paths.stage(*CELL, "pretrain"), "model.safetensors")
    shutil.copy2(Path(paths.stage(*CELL, "sft"), "model.safetensors"), model)
    assert "sft" in made(results)


@pytest.mark.parametrize("name", ["pretraining", "grpo~id", "dapo~ood"])
def test_a_stage_that_the_run_does_not_have_is_refused(tmp_path, name):
    from grpo_origin.cell import train_stage

    study, paths = tiny_study(**SHORT), Paths("tiny", str(tmp_path))
    with pytest.raises(ValueError, match=f"no stage '{name}'.*pretrain, sft, grpo~ood"):
        train_stage(study, paths, *CELL, name)


def test_a_stage_without_what_it_starts_from_says_so(results):
    shutil.rmtree(Path(Paths("tiny", str(results)).stage(*CELL, "pretrain")))
    from grpo_origin.cell import train_stage

    with pytest.raises(ArtefactError, match=r"pretrain/model\.safetensors"):
        train_stage(tiny_study(**SHORT), Paths("tiny", str(results)), *CELL, "sft")


def test_a_stage_does_not_count_the_device_memory_of_one_before_it(tmp_path, monkeypatch):
    """Stages share a process here, and torch counts for the whole of that."""
    import torch

    from grpo_origin.cell import train_stage
    from grpo_origin.training import loop

    memory, seen = {"now": 3, "peak": 900}, []
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda: memory.update(peak=memory["now"])
    )
    monkeypatch.setattr(loop, "sft", lambda *_, **__: seen.append(memory["peak"]))
    for opened in (False, True):  # a stage on the CPU doesn't open it
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda opened=opened: opened)
        train_stage(tiny_study(**SHORT), Paths("tiny", str(tmp_path)), *CELL, "sft")
    assert seen == [900, 3]


def test_a_stage_runs_again_in_this_process_so_that_a_breakpoint_works(
    results, tmp_path, monkeypatch
):
    from grpo_origin.training import loop

    stops = []
    monkeypatch.setattr("sys.breakpointhook", lambda: stops.append(os.getpid()))
    loss = loop.next_token_loss

    def watched(*arguments):
        breakpoint()
        return loss(*arguments)

    monkeypatch.setattr(loop, "next_token_loss", watched)
    stage = Path(Paths("tiny", str(results)).stage(*CELL, "sft"))
    before = (stage / "model.safetensors").read_bytes()
    write_config(tmp_path, "short.yaml", **SHORT)
    again = ["stage", "sft", "--axis", "mini", "--seed", "0", "--ratio", "0.25"]
    again += ["--results", str(results), "--config", str(tmp_path / "short.yaml")]
    main(again)
    assert set(stops) == {os.getpid()}
    assert (stage / "model.safetensors").read_bytes() == before

    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "next_token_loss", broken)
    with pytest.raises(ZeroDivisionError):
        main(again)
    assert (stage / "model.safetensors").read_bytes() == before
    assert not list(stage.parent.glob(".sft*"))
