"""Fixtures: the tiny study, trained once a session by direct calls and once by the workflow."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grpo_origin.config.schema import Settings
from grpo_origin.report.figures import figures_of
from grpo_origin.tasks.world import World
from helpers import TINY, copy_code, make_data, run_stage, snakemake, tiny_study, write_config
from planted_tables import planted_settings, planted_tables


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-slow") or "slow" in (config.option.markexpr or ""):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: give --run-slow"))


@pytest.fixture
def world() -> World:
    return World(TINY["world"]["nodes"], 0)


@pytest.fixture(scope="module")
def settings() -> Settings:
    """A made-up run's settings, for figures and report."""
    return planted_settings()


@pytest.fixture(scope="module")
def full(settings) -> dict[str, pd.DataFrame]:
    """The made-up run's tables by name, of all methods."""
    return planted_tables(settings)


@pytest.fixture(scope="module")
def figures(tmp_path_factory, settings):
    """A picture of another size for every figure of the run."""
    import matplotlib.image

    folder = tmp_path_factory.mktemp("figures")
    paths = {}
    for number, name in enumerate(figures_of(settings)):
        paths[name] = folder / f"{name}.png"
        matplotlib.image.imsave(paths[name], np.full((300, 300 + number), number / 100.0))
    return paths


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """The tiny study's data, in data/."""
    root = tmp_path_factory.mktemp("study")
    make_data(root, tiny_study())
    return root


@pytest.fixture(scope="session")
def cell(study) -> Path:
    """The tiny study pretrained (ratio 0.25), fine-tuned, and after GRPO. Not to be changed."""
    for stage in ("pretrain", "sft", "grpo~ood"):
        run_stage(stage, study, study / stage, study / "checkpoints" / stage)
    return study


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    """A tree in which the workflow has run the tiny study. Leave it as it was found."""
    tree = copy_code(tmp_path_factory.mktemp("sweep"))
    write_config(tree)
    result = snakemake(tree, "--cores", "2", "--configfile", "tiny.yaml")
    assert result.returncode == 0, result.stdout + result.stderr
    (tree / "console.txt").write_text(result.stdout + result.stderr)
    return tree
