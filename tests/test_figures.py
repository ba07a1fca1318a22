"""What every figure draws, read back from its axes: the table's means, intervals and seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from grpo_origin.report import draw, plotting
from grpo_origin.report.figures import ENTRIES, theory

RL_LABELS = ["GRPO on ID prompts", "GRPO on OOD prompts"]
LABELS = ["pretrained", "SFT", *RL_LABELS]
LABEL_OF = dict(zip(("pretrain", "sft", "grpo~id", "grpo~ood"), LABELS, strict=True))


@pytest.fixture(scope="module")
def tables(full):
    """The tables that figures of one method get."""
    return {name: draw.of_method(table, "grpo") for name, table in full.items()} | {
        name: full[name] for name in ("theory_prompts", "theory_trace")
    }


def drawn(axes):
    """Series of an axes: label -> heights, intervals as (low, high) and heights of the points."""
    dots = [part for part in axes.collections if isinstance(part, PathCollection)]
    return {
        bars.get_label(): (
            bars.lines[0].get_ydata(),
            np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()]),
            points.get_offsets().data[:, 1],
        )
        for bars, points in zip(axes.containers, dots, strict=True)
    }


def check_series(axes, means, seeds, order, labels):
    """Every stage of the tables is drawn: means in this order of rows, intervals, all seeds."""
    series = drawn(axes)
    assert list(series) == [
        label for stage, label in labels.items() if stage in set(means["stage"])
    ]
    for stage, label in labels.items():
        part = means[means["stage"] == stage].sort_values(order, key=_by_size)
        points = seeds[seeds["stage"] == stage]
        if len(part):
            heights, bars, dots = series[label]
            assert heights == pytest.approx(part["mean"].to_numpy())
            assert bars == pytest.approx(part[["low", "high"]].to_numpy())
            assert sorted(dots) == pytest.approx(sorted(points["mean"]))


def _by_size(column):
    """Sort keys: ratios are text, splits count their foreign tokens, metrics their samples."""
    text = column.astype(str).replace({"id": "0", "mass": "1"})
    return text.str.replace(r"mixed-|pass@", "", regex=True).astype(float)


def legend_of(picture):
    return [text.get_text() for text in picture.legends[0].get_texts()]


def places_of(axes):
    """Labels of the horizontal axis, shown or shared with the panel below."""
    return axes.xaxis.get_major_formatter().format_ticks(axes.get_xticks())


def visible(picture):
    return [axes for axes in picture.axes if axes.get_visible()]


def rows(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    return table


def both(tables, *names, **where):
    return [rows(tables[name], **where) for name in names]


def test_axis_figure_draws_every_stage_of_both_metrics_and_splits(tables):
    picture = ENTRIES["axis"].figure(tables, "many")
    for axes, (metric, split) in zip(
        picture.axes,
        [(m, s) for m in ("accuracy", "mass", "markers", "content") for s in ("id", "ood")],
        strict=True,
    ):
        where = {"axis": "many", "metric": metric, "split": split}
        check_series(axes, *both(tables, "summary", "seed_means", **where), "ood_ratio", LABEL_OF)
        assert axes.get_ylim() == (-0.03, 1.03)
        assert places_of(axes) == ["0", "0.02", "0.1"]
    assert [axes.get_ylabel() for axes in picture.axes[::2]] == list(plotting.METRICS.values())
    assert [axes.get_xlabel() for axes in picture.axes[-2:]] == ["OOD share of pretraining"] * 2
    assert picture.axes[1].get_title() == "out of distribution (OOD)"
    assert legend_of(picture) == LABELS


def test_tasks_figure_has_a_panel_for_every_task_of_either_split(tables, settings):
    picture = ENTRIES["tasks"].figure(tables, "many")
    axis = settings.axes["many"]
    wanted = [("id", task) for task in sorted(map(str, axis.id))]
    wanted += [("ood", task) for task in sorted(map(str, axis.ood))]
    panels = visible(picture)
    assert [axes.get_title() for axes in panels] == [f"{s.upper()}: {task}" for s, task in wanted]
    for axes, (split, task) in zip(panels, wanted, strict=True):
        where = {"axis": "many", "metric": "mass", "split": split, "task": task}
        part = both(tables, "task_summary", "task_seed_means", **where)
        check_series(axes, *part, "ood_ratio", LABEL_OF)
    lowest = [axes for axes in panels if axes.get_xlabel() == "OOD share of pretraining"]
    assert lowest == panels[2:]  # three tasks above two
    assert all(axes.xaxis.get_tick_params()["labelbottom"] for axes in lowest)


def test_mixing_figure_counts_foreign_tokens(tables):
    picture = ENTRIES["mixing"].figure(tables, "many")
    for axes, ratio in zip(picture.axes, ("0", "0.02", "0.1"), strict=True):
        part = [
            table[table["split"] != "ood"]
            for table in both(
                tables, "summary", "seed_means", axis="many", metric="mass", ood_ratio=ratio
            )
        ]
        check_series(axes, *part, "split", LABEL_OF)
        assert places_of(axes) == ["0", "1", "3"]
        assert axes.get_title() == f"OOD ratio {ratio}"


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.001])
def test_gain_figure_draws_the_bins_and_what_the_law_allows(tables, beta):
    picture = ENTRIES["gain"].figure(tables, beta=beta)
    labels = {stage: label for stage, label in LABEL_OF.items() if label in RL_LABELS}
    for axes, split in zip(picture.axes, ("id", "ood"), strict=True):
        part = both(tables, "mass_gains", "seed_mass_gains", split=split)
        check_series(axes, *part, "bin_low", labels)
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        if not beta:
            assert not any("law" in label or "bound" in label for label in lines)
            continue
        start = np.array([0.00005, 0.05005, 0.3, 0.75])
        odds = np.exp(np.minimum(1 / beta, 700))
        law = start * odds / (1 - start + start * odds)
        assert lines[f"law at beta {beta:g}"] == pytest.approx(law - start)
        bound = np.minimum(start * odds, 1)
        assert lines["its bound, at most 1 - Q"] == pytest.approx(bound - start)
    assert places_of(picture.axes[0]) == ["< 0.0001", "0.0001–0.1", "0.1–0.5", "0.5–1"]


def test_saturation_figure_has_a_point_for_every_cell_and_the_room_that_was_left(tables):
    picture = ENTRIES["saturation"].figure(tables)
    where = {"split": "id", "metric": "mass"}
    start = rows(tables["seed_means"], stage="sft", **where)
    keys = ["axis", "seed", "ood_ratio"]
    for axes, stage in zip(picture.axes, ("grpo~id", "grpo~ood"), strict=True):
        gains = rows(tables["seed_gains"], stage=stage, **where)
        cells = gains.merge(start, on=keys, suffixes=("_gain", "_start"))
        points = np.concatenate([part.get_offsets().data for part in axes.collections])
        wanted = cells[["mean_start", "mean_gain"]].to_numpy()
        assert points[points[:, 0].argsort()] == pytest.approx(wanted[wanted[:, 0].argsort()])
        room = next(line for line in axes.lines if "room" in line.get_label())
        assert room.get_ydata() == pytest.approx(1 - np.array(room.get_xdata()))
    assert legend_of(picture) == ["many", "single", "room left, 1 - Q"]


def test_pass_at_k_figure_starts_from_the_mass_and_leaves_no_column_without_ticks(tables):
    picture = ENTRIES["pass_at_k"].figure(tables)
    panels = visible(picture)
    cells = [("many", "0"), ("many", "0.02"), ("many", "0.1"), ("single", "0"), ("single", "0.1")]
    labels = {stage: label for stage, label in LABEL_OF.items() if stage != "pretrain"}
    for axes, (axis, ratio) in zip(panels, cells, strict=True):
        assert axes.get_title() == f"{axis}, OOD ratio {ratio}"
        part = [
            table[table["metric"].str.match("mass|pass@") & (table["stage"] != "pretrain")]
            for table in both(
                tables, "summary", "seed_means", axis=axis, ood_ratio=ratio, split="ood"
            )
        ]
        check_series(axes, *part, "metric", labels)
        assert places_of(axes) == ["1", "8", "128"]
    for axes in panels[2:]:  # the lowest of each column
        assert axes.get_xlabel() == "k (samples)"
        assert axes.xaxis.get_tick_params()["labelbottom"]
    assert legend_of(picture) == ["SFT", *RL_LABELS]


def test_forgetting_figure_draws_either_split_of_either_stage(tables):
    picture = ENTRIES["forgetting"].figure(tables)
    assert [axes.get_title() for axes in picture.axes] == ["many", "single"]
    for axes, axis in zip(picture.axes, ("many", "single"), strict=True):
        series = drawn(axes)
        for stage, name in zip(("grpo~id", "grpo~ood"), RL_LABELS, strict=True):
            for split in ("id", "ood"):
                where = {"axis": axis, "stage": stage, "split": split, "metric": "mass"}
                means, seeds = both(tables, "gains", "seed_gains", **where)
                heights, bars, dots = series[f"{name}: {split.upper()} mass"]
                means = means.sort_values("ood_ratio", key=_by_size)
                assert heights == pytest.approx(means["mean"].to_numpy())
                assert bars == pytest.approx(means[["low", "high"]].to_numpy())
                assert sorted(dots) == pytest.approx(sorted(seeds["mean"]))


def test_forgetting_figure_of_many_axes_has_several_rows(tables):
    names = [f"axis {i}" for i in range(6)]
    many = {
        name: pd.concat(
            [plotting.pick(tables[name], axis="single").assign(axis=axis) for axis in names]
        )
        for name in ("gains", "seed_gains")
    }
    picture = ENTRIES["forgetting"].figure(tables | many)
    assert picture.axes[0].get_subplotspec().get_gridspec().ncols == 4
    shown = [axes for axes in picture.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == names
    assert all(axes.has_data() for axes in shown)


def test_transfer_figure_has_a_point_for_every_seed_and_task_of_the_method(tables):
    axes = ENTRIES["transfer"].figure(tables).axes[0]
    table = tables["transfer"]
    assert set(table["method"]) == {"grpo"}
    assert [dots.get_label() for dots in axes.collections] == ["many", "single"]
    for dots, axis in zip(axes.collections, ("many", "single"), strict=True):
        part = table[table["axis"] == axis]
        mass = part["task_mass_before"].clip(lower=1e-20)
        places = np.column_stack([mass, part["after"]])
        assert np.asarray(dots.get_offsets()) == pytest.approx(places)
        assert np.argsort(dots.get_sizes()).tolist() == np.argsort(part["prompts"]).tolist()


def test_a_stage_looks_the_same_in_every_figure_and_for_every_method(full):
    def look(kind, table, label):
        picture = ENTRIES[kind].figure(table, "many")
        bars = {bars.get_label(): bars.lines[0] for bars in picture.axes[0].containers}
        return bars[label].get_color(), bars[label].get_marker()

    grpo, dapo = (
        {name: draw.of_method(table, method) for name, table in full.items()}
        for method in ("grpo", "dapo")
    )
    looks = {look(kind, grpo, RL_LABELS[1]) for kind in ("axis", "gain", "pass_at_k")}
    looks |= {look(kind, dapo, "dapo on OOD prompts") for kind in ("axis", "gain")}
    assert len(looks) == 1
    assert looks != {look("axis", grpo, RL_LABELS[0])}


def test_methods_figure_has_every_method_with_its_interval_and_seeds(full):
    picture = ENTRIES["methods"].figure(full, "many")
    assert [tick.get_text() for tick in picture.axes[0].get_yticklabels()] == ["grpo", "dapo"]
    places = [(trained_on, ratio) for trained_on in ("id", "ood") for ratio in ("0", "0.02", "0.1")]
    for axes, (trained_on, ratio) in zip(picture.axes, places, strict=True):
        assert f"trained on {trained_on.upper()} prompts" in axes.get_title()
        dots = [part for part in axes.collections if isinstance(part, PathCollection)]
        for bars, points, split in zip(axes.containers, dots, ("ood", "id"), strict=True):
            where = {"axis": "many", "metric": "mass", "split": split}
            where |= {"trained_on": trained_on, "ood_ratio": ratio}
            means, seeds = both(full, "gains", "seed_gains", **where)
            assert bars.get_label() == f"{split.upper()} mass"
            assert bars.lines[0].get_xdata() == pytest.approx(means["mean"].to_numpy())
            ends = np.array([segment[:, 0] for segment in bars.lines[2][0].get_segments()])
            assert ends == pytest.approx(means[["low", "high"]].to_numpy())
            order = {"grpo": 0, "dapo": 1}
            assert list(np.round(bars.lines[0].get_ydata())) == list(means["method"].map(order))
            spread = points.get_offsets().data
            assert sorted(spread[:, 0]) == pytest.approx(sorted(seeds["mean"]))
        sft = rows(full["summary"], axis="many", stage="sft", split="ood", metric="mass")
        room = next(line for line in axes.lines if "room" in line.get_label())
        start = rows(sft, ood_ratio=ratio)["mean"].item()
        assert room.get_xdata()[0] == pytest.approx(1 - start)


def test_theory_figure_draws_prompts_law_bound_and_fixed_points(tables):
    picture = ENTRIES["theory"].figure(tables)
    cells = [("rloo", 0.3), ("rloo", 1.0), ("grpo", 0.3), ("grpo", 1.0)]
    for axes, (method, beta) in zip(picture.axes, cells, strict=True):
        assert axes.get_title() == f"{theory.LABELS[method]}, beta {beta:g}"
        lines = {line.get_label(): line for line in axes.lines}
        q, odds = lines["law"].get_xdata(), np.exp(1 / beta)
        assert lines["law"].get_ydata() == pytest.approx(q * odds / (1 - q + q * odds))
        assert lines["bound"].get_ydata() == pytest.approx(np.minimum(q * odds, 2))
        points = {part.get_label(): part.get_offsets().data for part in axes.collections}
        runs = rows(tables["theory_prompts"], method=method, beta=beta)
        for pool, label in (("train", "pool prompts"), ("heldout", "held-out prompts")):
            wanted = rows(runs, pool=pool)[["mass_before", "mass_after"]]
            assert points[label] == pytest.approx(wanted.to_numpy())
        assert ("GRPO's fixed point" in points) == (method == "grpo")
        if method == "grpo":
            wanted = rows(runs, pool="train")[["mass_before", "mass_fixed_point"]]
            assert points["GRPO's fixed point"] == pytest.approx(wanted.to_numpy())


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
    axes = theory.convergence_figure(trace, prompts).axes[0]
    curves = [line for line in axes.lines if len(line.get_xdata())]
    lines = {kind: [line for line in curves if line.get_linestyle() == kind] for kind in "-:"}
    assert [line.get_ydata()[0] for line in lines[":"]] == [0.8, 0.16]
    assert [list(line.get_ydata()) for line in lines["-"]] == [[0.2, 0.6]] * 2
    assert axes.get_legend_handles_labels()[1] == [*theory.CURVES, "beta 1"]


@pytest.mark.parametrize(
    ("kind", "by", "names"),
    [("contrasts", "variant", ["deep", "slow"]), ("method-contrasts", "method", ["dapo"])],
)
def test_contrast_figures_have_every_difference_with_its_bounds_and_seeds(kind, by, names, full):
    tables = full if by == "method" else {n: draw.of_method(t, "grpo") for n, t in full.items()}
    picture = ENTRIES[kind].figure(tables, "many", equivalent=0.02)
    assert [tick.get_text() for tick in picture.axes[0].get_yticklabels()] == names
    places = [(quantity, ratio) for quantity in ("OOD", "ID") for ratio in ("0", "0.02", "0.1")]
    name = kind.replace("-", "_")
    for axes, (split, ratio) in zip(picture.axes, places, strict=True):
        assert axes.get_title() == f"{split} mass, OOD ratio {ratio}"
        dots = [part for part in axes.collections if isinstance(part, PathCollection)]
        for bars, points, trained_on in zip(axes.containers, dots, ("id", "ood"), strict=True):
            where = {"axis": "many", "ood_ratio": ratio, "quantity": f"{split} mass"}
            where |= {"trained_on": trained_on}
            table = tables[name], tables[name.replace("contrasts", "seed_contrasts")]
            means, seeds = (rows(part, **where) for part in table)
            assert bars.get_label() == f"trained on {trained_on.upper()} prompts"
            assert bars.lines[0].get_xdata() == pytest.approx(means["difference"].to_numpy())
            ends = np.array([segment[:, 0] for segment in bars.lines[2][0].get_segments()])
            assert ends == pytest.approx(means[["low", "high"]].to_numpy())
            assert list(np.round(bars.lines[0].get_ydata())) == list(range(len(names)))
            spread = points.get_offsets().data
            assert sorted(spread[:, 0]) == pytest.approx(sorted(seeds["difference"]))


def test_contrast_figures_name_only_prompts_that_were_trained_on(full):
    names = ("method_contrasts", "method_seed_contrasts")
    half = full | {name: full[name][full[name]["trained_on"] != "id"] for name in names}
    picture = ENTRIES["method-contrasts"].figure(half, "many", equivalent=0.02)
    told = [text.get_text() for text in picture.legends[0].get_texts()]
    assert told == ["trained on OOD prompts"]
    bars = picture.axes[0].containers[0]
    assert list(bars.lines[0].get_ydata()) == [0.0]  # on the line of its name


def test_learning_figure_draws_every_seed_and_their_mean(tables):
    picture = ENTRIES["learning"].figure(tables, "many")
    panels = np.array(picture.axes).reshape(2, 2)
    for column, stage in enumerate(("grpo~id", "grpo~ood")):
        for axes, split in zip(panels[:, column], ("ood", "id"), strict=True):
            lines = [tuple(line.get_ydata()) for line in axes.lines]
            part = rows(tables["learning_curves"], axis="many", stage=stage, split=split)
            for ratio, table in part.groupby("ood_ratio"):
                for _, curve in table.groupby("seed"):
                    assert tuple(curve.sort_values("step")["mass"]) in lines
                mean = next(line for line in axes.lines if line.get_label() == ratio)
                assert mean.get_ydata() == pytest.approx(table.groupby("step")["mass"].mean())


def test_training_figure_draws_every_seed_and_their_mean(tables):
    picture = ENTRIES["training"].figure(tables, "many")
    panels = np.array(picture.axes).reshape(3, 2)
    names = ("reward_mean", "zero_variance_share", "kl")
    for column, stage in enumerate(("grpo~id", "grpo~ood")):
        for axes, name in zip(panels[:, column], names, strict=True):
            lines = [tuple(line.get_ydata()) for line in axes.lines]
            part = rows(tables["training"], axis="many", stage=stage)
            for ratio, table in part.groupby("ood_ratio"):
                for _, curve in table.groupby("seed"):
                    assert tuple(curve.sort_values("step")[name]) in lines
                mean = next(line for line in axes.lines if line.get_label() == ratio)
                assert mean.get_ydata() == pytest.approx(table.groupby("step")[name].mean())
    assert panels[2, 0].get_ylabel() == "KL to SFT (nats a token)"
    assert legend_of(picture) == ["0", "0.02", "0.1"]
