"""What a run says of itself: the README in its folder, captions, and `snakemake --report`."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from grpo_origin.config.paths import Paths
from grpo_origin.config.places import progress_log, run_readme
from grpo_origin.report.figures import figures_of
from grpo_origin.report.page import write_captions
from grpo_origin.report.readme import described_files
from grpo_origin.report.registry import CATEGORIES
from helpers import snakemake, tiny
from planted_tables import planted_settings

RUN, CONFIG = Path("results/tiny"), ("--configfile", "tiny.yaml")
CELL = RUN / "mini/seed~0/ood~0.25"
PLACES = {
    "evaluation.parquet": ("",),
    "completions.parquet": ("",),
    "training_log.parquet of pretrain and sft": ("pretrain", "sft"),
    "training_log.parquet of RL": ("grpo~id", "grpo~ood"),
    "learning_curve.parquet": ("grpo~ood",),
    "signal.parquet": ("grpo~ood",),
    "prompt_mass.parquet": ("grpo~id",),
}


def test_the_readme_has_every_column_of_every_file(sweep):
    described = {title.partition(": ")[0]: columns for title, columns in described_files()}
    assert set(described) == set(PLACES)
    for title, columns in described.items():
        for stage in PLACES[title]:
            file = sweep / CELL / stage / title.split()[0]
            assert [*columns] == pq.read_schema(file).names, file


def test_the_readme_of_a_run_names_what_lies_in_it(sweep):
    text = (sweep / RUN / "README.md").read_text()
    assert text.startswith("# Run tiny\n")
    assert "- mini: OOD ratios 0, 0.25\n" in text
    named = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    first = {name.split("/")[0].replace("{axis}", "mini") for name in named}
    there = {path.name for path in (sweep / RUN).iterdir() if not path.name.startswith(".")}
    assert there - {"README.md"} <= first
    files = {path.name for path in (sweep / CELL).rglob("*.parquet")}
    assert all(f"`{file}`" in text or f"/{file}`" in text for file in files)


def test_paths_of_files_that_no_stage_reads():
    paths = Paths("tiny")
    assert run_readme(paths) == "results/tiny/README.md"
    assert progress_log(paths) == "results/tiny/logs/progress.log"


@pytest.fixture(scope="module")
def archive(sweep, tmp_path_factory) -> str:
    """The page that `snakemake --report` makes of the finished tiny run."""
    page = tmp_path_factory.mktemp("archive") / "archive.html"
    result = snakemake(sweep, "--report", str(page), *CONFIG)
    assert result.returncode == 0, result.stdout + result.stderr
    return page.read_text()


def test_an_archive_holds_figures_with_captions_tables_and_the_page(archive, sweep):
    captions = [
        json.loads(f'"{text}"') for text in re.findall(r'"caption": "(.*?)", "mime', archive)
    ]
    figures = figures_of(tiny())
    of_figures = [text for text in captions if text.startswith("<p><strong>")]
    assert len(of_figures) == len(figures)
    for name in figures:
        picture = (sweep / RUN / "figures" / f"{name}.png").read_bytes()
        assert base64.b64encode(picture).decode() in archive
    assert "a row of this table" in " ".join(captions).lower()
    assert "system-message" not in archive  # of docutils, where a caption is no reStructuredText
    for category in {drawing.entry.category for drawing in figures.values()} | {"Tables"}:
        assert json.dumps(category) in archive
    assert '"claims.csv"' in archive
    assert "a claim on an RL method, judged for an axis or for all" in archive
    assert "Can reinforcement learning take a language model beyond" in archive


def test_captions_are_text_of_every_figure(tmp_path):
    from docutils.core import publish_parts

    settings = planted_settings()
    paths = {name: tmp_path / f"{name}.rst" for name in figures_of(settings)}
    write_captions(settings, 0.5, paths)
    for name, (entry, _) in figures_of(settings).items():
        html = publish_parts(paths[name].read_text(), writer_name="html")["body"]
        assert html.startswith("<p><strong>")
        assert "problematic" not in html
        assert "system-message" not in html
        assert entry.category in CATEGORIES
