"""`grpo-origin report`: what is there of a run, as tables, figures and page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from grpo_origin.cli import main
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import Paths
from grpo_origin.partial import limited, report_so_far
from helpers import REPO, tiny_study, write_config
from planted_tables import planted_settings

RUN = Path("results/tiny")


def test_settings_are_limited_to_what_is_there():
    settings = planted_settings()
    cells = [
        {"axis": "single", "seed": 1, "ratio": "0.1"},
        {"axis": "single", "seed": 2, "ratio": "0.1"},
        {"axis": "many", "seed": 2, "ratio": "0"},
    ]
    part = limited(settings, cells, 15)
    assert part.run == "planted, so far: 3 of 15 cells"
    assert {axis: part.axis_ratios(axis) for axis in part.axes} == {
        "many": ("0",),
        "single": ("0.1",),
    }
    assert part.seeds == (1, 2)
    assert not part.variants
    assert not any(part.theory_ratios(axis) for axis in part.axes)
    assert [*limited(settings, cells[:1], 15).axes] == ["single"]


@pytest.fixture
def copy(sweep, tmp_path):
    """The tiny run with one of its two cells evaluated, and nothing made of it yet."""
    shutil.copytree(sweep / RUN, tmp_path / "tiny")
    shutil.rmtree(tmp_path / "tiny" / "tables")
    shutil.rmtree(tmp_path / "tiny" / "figures")
    (tmp_path / "tiny/mini/seed~0/ood~0/evaluation.parquet").unlink()
    return tmp_path


def test_a_finished_part_has_a_report(copy, sweep, capsys):
    write_config(copy)
    files = [str(REPO / "config" / "config.yaml"), str(copy / "tiny.yaml")]
    configs = [part for file in files for part in ("--config", file)]
    before = {path for path in (copy / "tiny").rglob("*") if path.is_file()}
    main(["report", *configs, "--results", str(copy)])
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"{copy}/tiny/partial/report.html: 1 of 2 cells"
    after = {path for path in (copy / "tiny").rglob("*") if path.is_file()}
    partial = copy / "tiny" / "partial"
    assert before <= after
    assert all(path.is_relative_to(partial) for path in after - before)
    summary = pd.read_parquet(partial / "tables" / "summary.parquet")
    whole = pd.read_parquet(sweep / RUN / "tables" / "summary.parquet")
    same = whole[whole["ood_ratio"] == "0.25"].reset_index(drop=True)
    pd.testing.assert_frame_equal(summary, same)
    written = pd.read_parquet(partial / "tables" / "completions.parquet")
    assert set(written["ood_ratio"]) == {"0.25"}
    assert (partial / "figures" / "axis-mini.png").exists()
    page = (partial / "report.html").read_text()
    assert "run tiny, so far: 1 of 2 cells" in page


def test_a_run_of_which_nothing_is_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="tiny: no cell of this run is evaluated yet"):
        report_so_far(tiny_study(), Paths("tiny", str(tmp_path)))
