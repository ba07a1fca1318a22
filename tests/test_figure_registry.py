"""Which figures a run draws, how one is added, and that files are matched by name."""

from __future__ import annotations

import random
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from grpo_origin.report import draw, plotting
from grpo_origin.report.figures import ENTRIES, figures_of
from grpo_origin.report.registry import figure
from helpers import environment
from planted_tables import planted_settings


@pytest.fixture
def extra():
    """A figure added as a user would: one function with what a report says of it."""

    @figure(
        "extra", per="axis", category="Axes", title="{{ axis }} anew", caption="Of {{ seeds }}."
    )
    def extra_figure(summary, axis):
        picture, panels = plotting.panels_of(1, 1)
        panels[0, 0].plot(summary[summary["axis"] == axis]["mean"].to_numpy())
        return picture

    yield extra_figure
    del ENTRIES["extra"]


def test_a_run_draws_the_figures_that_its_settings_have_something_for():
    names = set(figures_of(planted_settings()))
    assert {"axis-many", "axis-single", "gain", "theory", "methods-single"} <= names
    assert {name for name in names if name.startswith("mixing")} == {"mixing-many"}
    assert {name for name in names if name.startswith("tasks")} == {"tasks-many"}
    fewer = planted_settings(
        methods=["dapo"],
        axes={"many": {"ood": ["trav shift;4;A"], "mixed": [], "theory": []}},
        variants={"deep": {"axes": ["many"]}},
    )
    gone = names - set(figures_of(fewer))
    assert gone == {
        *("mixing-many", "tasks-many", "theory", "convergence", "methods-many", "methods-single"),
        *("method-contrasts-many", "method-contrasts-single", "contrasts-single"),
    }


def test_an_axis_without_a_cell_in_any_variant_has_no_figure_of_contrasts():
    """`single` has no ratio 0.02, to which the variants are limited."""
    limits = {"deep": {"ratios": ["0.02"]}, "slow": {"ratios": ["0.02"]}}
    names = set(figures_of(planted_settings(variants=limits)))
    assert {name for name in names if name.startswith("contrasts")} == {"contrasts-many"}


def test_variants_without_the_method_shown_have_no_figure_of_contrasts():
    others = {"deep": {"methods": ["dapo"]}, "slow": {"methods": [{"dapo": {"draws": 2}}]}}
    names = set(figures_of(planted_settings(variants=others)))
    assert not {name for name in names if name.startswith("contrasts")}
    one = others | {"deep": {"methods": ["grpo", "dapo"]}}
    names = set(figures_of(planted_settings(variants=one)))
    assert {name for name in names if name.startswith("contrasts")} == {
        "contrasts-many",
        "contrasts-single",
    }


def test_a_figure_is_added_in_one_place(extra, full, settings, tmp_path):
    added = figures_of(settings)["extra-many"]
    assert (added.entry.name, added.axis) == ("extra", "many")
    assert ENTRIES["extra"].tables == ("summary",)
    pictures = draw_all({"extra-many": ("extra", "many")}, full, tmp_path)
    (line,) = pictures["extra-many"].axes[0].lines
    shown = draw.of_method(plotting.pick(full["summary"], axis="many"), "grpo")
    assert line.get_ydata() == pytest.approx(shown["mean"].to_numpy())


@pytest.mark.parametrize("wrong", [{"name": "axis"}, {"per": "month"}, {"category": "Else"}])
def test_a_figure_that_can_not_be_registered_is_refused(wrong):
    entry = {"name": "new", "per": "run", "category": "Axes", "title": "", "caption": ""} | wrong
    with pytest.raises(ValueError, match=f"figure {entry['name']}: "):
        figure(entry.pop("name"), **entry)(lambda summary: None)
    assert "new" not in ENTRIES


def legend_of(picture):
    return [text.get_text() for text in picture.legends[0].get_texts()]


def visible(picture):
    return [axes for axes in picture.axes if axes.get_visible()]


def draw_all(figures, full, folder, method="grpo", beta=0.5):
    """Draw from files, handed over in a random order; the figures by the file they were put in."""
    order, files, pictures = random.Random(0), {}, {}
    for name, table in full.items():
        files[name] = folder / f"{name}.parquet"
        table.to_parquet(files[name])
    paths = {s: [folder / f"{name}.{s}" for name in figures] for s in ("png", "pdf")}
    sources = list(files.values())
    for shuffled in (sources, *paths.values()):
        order.shuffle(shuffled)

    def keep(picture, png, pdf):
        assert png.stem == pdf.stem
        pictures[png.stem] = picture

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "save", keep)
        draw.draw_figures(
            figures, sources, *paths.values(), method=method, beta=beta, equivalent=0.02
        )
    return pictures


def test_files_are_matched_by_name_and_figures_of_one_method_show_it_alone(
    full, settings, tmp_path
):
    figures = {
        name: (drawing.entry.name, drawing.axis) for name, drawing in figures_of(settings).items()
    }
    pictures = draw_all(figures, full, tmp_path, method="dapo")
    assert set(pictures) == set(figures)
    labels = ["pretrained", "SFT", "dapo on ID prompts", "dapo on OOD prompts"]
    assert legend_of(pictures["axis-single"]) == labels
    assert len(pictures["axis-single"].axes[0].get_xticks()) == 2  # it has two ratios, `many` three
    assert len(pictures["axis-many"].axes[0].get_xticks()) == 3
    for kind in ("theory", "methods-many"):  # these hold all methods
        assert len(visible(pictures[kind])) >= 4
    methods = [tick.get_text() for tick in pictures["methods-many"].axes[0].get_yticklabels()]
    assert methods == ["grpo", "dapo"]


def test_figures_are_the_same_bytes_when_drawn_again(full, tmp_path):
    for name in ("a", "b"):
        with plotting.style():
            picture = ENTRIES["axis"].figure(full, "many")
            plotting.save(picture, tmp_path / f"{name}.png", tmp_path / f"{name}.pdf")
    for suffix in ("png", "pdf"):
        one, other = (tmp_path / f"{name}.{suffix}" for name in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()
    pixels = imread(tmp_path / "a.png")
    assert min(pixels.shape[:2]) > 400
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 50  # not blank


def test_drawing_leaves_matplotlib_as_it_was(full):
    before = dict(mpl.rcParams)
    with plotting.style():
        ENTRIES["axis"].figure(full, "many")
        assert mpl.rcParams["axes.spines.top"] is False
    assert dict(mpl.rcParams) == before


def test_planning_imports_no_plotting_library():
    heavy = "{'jinja2', 'matplotlib', 'pandas', 'scipy', 'seaborn', 'torch'}"
    code = f"import sys, grpo_origin.report.figures; print({heavy} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
