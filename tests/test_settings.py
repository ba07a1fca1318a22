"""Settings as they are read: texts of ratios, counts of samples, the notation of tasks."""

from __future__ import annotations

import pytest

from grpo_origin.config.notation import DatasetTask, ood_count
from helpers import TINY, tiny


@pytest.mark.parametrize("text", ["0", "0.1", "0.10", "1", "1.0", "0.003"])
def test_ratio_texts_stay_as_written(text):
    assert tiny(ratios=[text]).ratios == (text,)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1, "0.1"), (0, "0"), (1, "1"), (0.0005, "0.0005"), (0.30, "0.3"), (1e-3, "0.001")],
)
def test_a_ratio_given_as_a_number_reads_as_a_decimal(number, text):
    assert tiny(ratios=[number]).ratios == (text,)


def test_a_tiny_number_has_no_exponent_in_its_folder_name():
    settings = tiny(ratios=[1e-5], pretrain={"samples": 100_000})
    assert settings.ratios == ("0.00001",)
    assert ood_count(settings.ratios[0], settings.pretrain.samples) == 1


def test_an_axis_may_have_ratios_of_its_own():
    settings = tiny(axes={"other": {**TINY["axes"]["mini"], "ratios": ["0", "0.5", "1"]}})
    assert settings.axis_ratios("other") == ("0", "0.5", "1")
    assert settings.axis_ratios("mini") == ("0", "0.25")


@pytest.mark.parametrize(
    ("ratio", "samples", "count"),
    [("0.1", 15, 2), ("0.1", 100, 10), ("0.29", 100, 29), ("1", 7, 7)],
)
def test_ood_counts_are_computed_in_decimals(ratio, samples, count):
    assert ood_count(ratio, samples) == count  # 0.29 * 100 is 28.999999999999996 in binary


def test_task_notation_round_trips():
    assert str(tiny().axes["mini"].ood[0]) == "trav shift trav;2;A"
    assert (
        str(tiny(axes={"mini": {"ood": [" trav  shift ; 2 ; B "]}}).axes["mini"].ood[0])
        == "trav shift;2;B"
    )


def test_settings_cannot_be_changed_after_validation():
    settings = tiny()
    with pytest.raises(Exception, match="frozen"):
        settings.rl.beta = 1.0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "sums"),
        ({"terms": 3, "negative": False}, "sums terms=3 negative=False"),
        ({"templates": [0, 1, 2, 5, 8, 9]}, "sums templates=0-2,5,8-9"),
        ({"templates": [3, 1]}, "sums templates=3,1"),
        ({"words": ["a b", "c"], "depth": [2, 2]}, "sums words=a_b,c depth=2,2"),
    ],
)
def test_the_name_of_a_task_of_a_data_set(options, name):
    assert str(DatasetTask.model_validate({"dataset": "sums", **options})) == name
    assert DatasetTask.model_validate(DatasetTask(dataset="sums", **options).written).options == (
        options
    )
