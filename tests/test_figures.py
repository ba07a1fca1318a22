"""Figures and report from planted evaluations: every kind draws, shows every seed, and the page needs nothing but itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from grpo_origin.analysis import statistics
from grpo_origin.report import figures, plotting
from grpo_origin.report.page import write_report

KINDS = yaml.safe_load(
    (Path(__file__).parents[1] / "workflow" / "report" / "figures.yaml").read_text()
)
STAGES = ("pretrain", "sft", "grpo~id", "grpo~ood")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def planted(seeds: int) -> dict[str, pd.DataFrame]:
    """Tables of a made-up run: one axis, two ratios, two tasks a split, mixed prompts."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "axis": "planted",
            "seed": seed,
            "ood_ratio": ratio,
            "stage": stage,
            "split": split,
            "task": task,
            "prompt_index": i,
        }
        for seed in range(seeds)
        for ratio in ("0", "0.1")
        for stage in STAGES
        for split in ("id", "ood", "mixed-1")
        for task in ("trav;4;A", "shift;4;A")
        for i in range(30)
    ]
    table = pd.DataFrame(rows)
    mass = rng.beta(1, 1, len(table)) * (table["ood_ratio"] != "0")
    table["log_mass"] = np.log(mass + 1e-9)
    table["greedy_correct"] = mass > 0.5
    table.loc[table["task"] == "shift;4;A", "prompt_index"] += 30
    prompts = statistics.prompt_gains(table)
    logs = [
        {
            "axis": "planted",
            "seed": seed,
            "ood_ratio": ratio,
            "stage": stage,
            "step": step,
            "reward_mean": 0.5,
            "zero_variance_share": 0.1,
            "kl": 0.0,
        }
        for seed in range(seeds)
        for ratio in ("0", "0.1")
        for stage in STAGES[2:]
        for step in (1, 2, 3)
    ]
    runs = [
        {
            "method": method,
            "beta": beta,
            "axis": "planted",
            "seed": 0,
            "ood_ratio": "0.1",
            "pool": pool,
            "mass_before": q,
        }
        for method in ("rloo", "grpo")
        for beta in (0.3, 1.0)
        for pool in ("train", "heldout")
        for q in (0.01, 0.3, 0.9)
    ]
    theory = pd.DataFrame(runs).assign(
        mass_after=lambda t: t["mass_before"], mass_fixed_point=0.5, law=0.6, bound=1.0
    )
    trace = [
        run | {"step": step, "train_mass": 0.3, "heldout_mass": 0.2}
        for run in runs
        if run["pool"] == "train"
        for step in (1, 2)
    ]
    return {
        "theory_prompts": theory,
        "theory_trace": pd.DataFrame(trace),
        "summary": statistics.summarise(table),
        "seed_means": statistics.seed_means(table),
        "gains": statistics.gains(table),
        "seed_gains": statistics.seed_gains(table),
        "mass_gains": statistics.binned_gains(prompts, by=("stage", "split")),
        "seed_mass_gains": statistics.seed_binned_gains(prompts, by=("stage", "split")),
        "training": pd.DataFrame(logs),
        "run": pd.DataFrame([{"beta": 0.5}]),
    }


def test_every_figure_of_the_report_can_be_drawn_and_every_one_has_a_caption():
    assert set(KINDS) == set(figures.DRAW)
    for about in KINDS.values():
        assert (
            {"per", "category", "title", "caption"}
            <= set(about)
            <= {"per", "category", "title", "caption", "law"}
        )
        for text in about.values():
            text.format(
                axis="a",
                seeds=3,
                prompts=512,
                interval="95 % t interval",
                beta="0.001",
                theory_seeds=1,
                bin_prompts=20,
            )


@pytest.mark.parametrize("seeds", [1, 3])
def test_all_kinds_draw(tmp_path, seeds):
    tables = planted(seeds)
    with plotting.style():
        for kind, draw in figures.DRAW.items():
            plotting.save(
                draw(tables, "planted"), tmp_path / f"{kind}.png", tmp_path / f"{kind}.pdf"
            )
            assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
            assert (tmp_path / f"{kind}.pdf").read_bytes().startswith(b"%PDF")


def test_convergence_figure_has_the_law_of_every_run_and_each_beta_once_in_its_legend():
    steps = {"step": [0, 100], "train_mass": [0.2, 0.6], "heldout_mass": [0.2, 0.5]}
    runs = [
        {"method": "rloo", "beta": 1.0, "axis": axis, "seed": 0, "ood_ratio": "0.1"}
        for axis in ("one", "two")
    ]
    trace = pd.concat([pd.DataFrame(steps).assign(**run) for run in runs])
    prompts = pd.DataFrame(
        [run | {"pool": "train", "law": law} for run, law in zip(runs, (0.8, 0.16), strict=True)]
    )
    axes = figures.convergence_figure(trace, prompts).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [
        0.8,
        0.16,
    ]
    assert axes.get_legend_handles_labels()[1] == ["beta 1"]


def test_axis_figure_shows_means_intervals_and_every_seed():
    tables = planted(3)
    figure = figures.axis_figure(tables["summary"], tables["seed_means"], "planted")
    axes = figure.axes[3]  # mean mass, OOD
    points = sorted(
        round(float(y), 9)
        for collection in axes.collections
        for _, y in getattr(collection, "get_offsets", list)()
    )
    one = tables["seed_means"].query("split == 'ood' and task == 'all' and metric == 'mass'")
    assert set(one["mean"].round(9)) <= set(points)
    bars = [
        segment
        for collection in axes.collections
        if hasattr(collection, "get_segments")
        for segment in collection.get_segments()
    ]
    mean = tables["summary"].query("split == 'ood' and task == 'all' and metric == 'mass'")
    assert {round(float(low), 6) for low in mean["low"]} <= {
        round(float(y), 6) for segment in bars for y in segment[:, 1]
    }


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.001])
def test_gain_figure_shows_what_the_law_allows(beta):
    tables = planted(2)
    figure = figures.gain_figure(tables["mass_gains"], tables["seed_mass_gains"], beta)
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[1].get_lines()}
    if not beta:
        assert not any("law" in label for label in drawn)
        return
    start = (
        tables["mass_gains"]
        .query("split == 'ood'")
        .groupby("bin_low")["mass_before"]
        .mean()
        .to_numpy()
    )
    odds = np.exp(np.minimum(1 / beta, 700))
    assert drawn[f"law at beta {beta:g}"] == pytest.approx(
        start * odds / (1 - start + start * odds) - start
    )
    assert drawn["its bound, at most 1 - Q"] == pytest.approx(np.minimum(start * odds, 1) - start)


def test_methods_figure_has_every_method_and_the_others_show_one():
    tables = planted(3)
    more = {
        name: table.assign(stage=table["stage"].str.replace("grpo~", "dapo~"))
        for name, table in tables.items()
        if "stage" in table
    }
    both = {
        name: pd.concat([tables[name], more[name].query("stage.str.contains('~')")])
        for name in more
    }
    figure = figures.methods_figure(both["gains"], both["seed_gains"], both["summary"], "planted")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["grpo", "dapo"]
    assert len(figure.axes) == 4  # two ratios, two kinds of training prompts
    mean = both["gains"].query(
        "task == 'all' and metric == 'mass' and split == 'ood' and stage == 'dapo~id' and ood_ratio == '0'"
    )
    drawn = {round(float(x), 9) for line in figure.axes[0].get_lines() for x in line.get_xdata()}
    assert round(mean["mean"].item(), 9) in drawn
    one = [figures.of_method(both[name], "dapo") for name in ("summary", "seed_means")]
    legend = figures.axis_figure(*one, "planted").legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "pretrained",
        "SFT",
        "dapo on ID prompts",
        "dapo on OOD prompts",
    ]


def test_figures_are_the_same_bytes_when_drawn_again(tmp_path):
    tables = planted(2)
    for name in ("a", "b"):
        with plotting.style():
            plotting.save(
                figures.DRAW["axis"](tables, "planted"),
                tmp_path / f"{name}.png",
                tmp_path / f"{name}.pdf",
            )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    tables = planted(2)
    with plotting.style():
        plotting.save(figures.DRAW["axis"](tables, "planted"), folder / "a.png", folder / "a.pdf")
    provenance = {
        "stage": "sft",
        "device": "cpu",
        "seconds": 1.5,
        "peak_memory_mib": 300.0,
        "git_commit": "abc",
        "versions": {"torch": "2"},
    }
    numbers = {"effect": 0.001, "low": -0.002, "high": 0.004, "p_value": 0.5}
    words = {
        "method": "grpo",
        "claim": "no OOD, no gain",
        "axis": "planted",
        "statement": "s",
        "cells": "c",
        "verdict": "supported",
        "note": "",
    }
    claims = pd.DataFrame(
        [words | numbers | {"method": "dapo", "claim": "of another method"}, words | numbers]
    )
    write_report(
        folder / "report.html",
        run="planted <run>",
        claims=claims,
        method="grpo",
        figures=[("Axes", "A & B", "what is shown", folder / "a.png")],
        provenance=[provenance],
        settings={"seeds": [0], "claims": {"significance": 0.1}},
    )
    return folder / "report.html"


def test_report_is_one_page_with_claims_first_and_no_outside_request(report):
    page = report.read_text()
    assert (
        page.index("no OOD, no gain")
        < page.index("<details><summary>the same for dapo</summary>")
        < page.index("of another method")
    )
    assert (
        page.index("of another method")
        < page.index("data:image/png;base64,")
        < page.index("<h2>How it was run")
    )
    assert "planted &lt;run&gt;" in page
    assert "A &amp; B" in page
    assert "+0.001 [-0.002, +0.004]" in page
    assert "effect [90 % interval]" in page
    for outside in ("http://", "https://", "<script", "@import", '<link rel="stylesheet"'):
        assert outside not in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian package chromium)")
def test_report_renders_in_a_browser(report, tmp_path):
    """The browser, cut off from any network, lays the figure out at its size and logs no console message."""
    probe = report.with_name("probe.html")
    check = (
        "document.title=JSON.stringify([...document.images].map(i=>i.complete&&i.naturalWidth>200))"
    )
    script = f"<script>addEventListener('load',()=>{{{check}}})</script>"
    probe.write_text(report.read_text().replace("</body>", script + "</body>"))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path}",
    ]
    logging = ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--dump-dom"]
    result = subprocess.run(
        [CHROMIUM, *flags, *logging, probe.as_uri()], capture_output=True, text=True, timeout=120
    )
    title = result.stdout.split("<title>")[1].split("</title>")[0]
    assert json.loads(title) == [True]
    assert "CONSOLE" not in result.stderr
