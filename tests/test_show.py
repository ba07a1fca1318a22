"""`grpo-origin show`: what models write on a prompt, and what is wrong with it."""

from __future__ import annotations

import re

import pytest
import torch

from grpo_origin.cli import main
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.places import CellPlace, cell_at
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import Sequences
from grpo_origin.evaluation.completions import first_wrong, kind_of, shown
from grpo_origin.evaluation.mass import exact_parts
from grpo_origin.show import show
from grpo_origin.tasks.tokenizer import ANSWER, EOS, THINK
from grpo_origin.training.model import load_model
from helpers import Flat, strings, tiny_study

CPU = torch.device("cpu")
TOKENS = strings().tokens
GOLD = [THINK, 20, 21, ANSWER, 22, 23, EOS]
PLACE = ("mini", 0, "0.25")


@pytest.mark.parametrize(
    ("written", "wrong", "kind"),
    [
        (GOLD, None, None),
        ([THINK, 20, 25, ANSWER, 22, 23, EOS], 2, "content"),
        ([ANSWER, 20, 21, ANSWER, 22, 23, EOS], 0, "marker"),
        ([THINK, 20, ANSWER, 22, 23, EOS], 2, "marker"),
        ([THINK, 20, 21, ANSWER, 22, EOS], 5, "length"),
        ([THINK, 20, 21, ANSWER, 22, 23, 24], 6, "length"),
        ([THINK, 20, 21], 3, "length"),
        ([*GOLD, EOS], 7, "length"),
    ],
)
def test_the_first_mistake_and_its_kind(written, wrong, kind):
    assert first_wrong(written, GOLD) == wrong
    if wrong is not None:
        assert kind_of(written, GOLD, wrong, TOKENS) == kind


def test_probabilities_are_those_that_exact_evaluation_has(cell):
    prompts = read_prompts(cell / "data" / "test.parquet", "ood")
    model, row = load_model(cell / "sft"), prompts.slice(3, 1).to_pylist()[0]
    found = shown(model, row["prompt_ids"], row["completion_ids"], 4, CPU, 0, TOKENS)
    parts = exact_parts(model, Sequences(prompts.slice(3, 1)), 1, CPU, TOKENS)
    for name in ("log_mass", "log_mass_markers", "log_mass_content"):
        assert getattr(found, name) == parts[name][0]
    assert sum(found.gold.log_probs) == pytest.approx(found.log_mass)
    assert (found.greedy.wrong is None) == parts["greedy_correct"][0]
    assert len(found.samples) == 4
    assert [*found.by_kind] == ["gold", "greedy", *(f"sample-{i}" for i in range(1, 5))]
    for written in (found.greedy, *found.samples):
        assert len(written.tokens) == len(written.log_probs)
        assert EOS not in written.tokens[:-1]
        if written.wrong is None:
            assert written.log_probs == pytest.approx(found.gold.log_probs)
    again = shown(model, row["prompt_ids"], row["completion_ids"], 4, CPU, 0, TOKENS)
    assert [text.tokens for text in again.samples] == [text.tokens for text in found.samples]


def test_the_text_has_every_stage_with_its_mass_and_mistakes(cell):
    text = show(tiny_study(), Flat("tiny", str(cell)), PLACE, ["sft", "grpo~ood"], "ood", 3, 2)
    head, sft, grpo = text.split("\n\n")
    prompt, right = (line.split(maxsplit=1)[1] for line in head.splitlines()[1:])
    assert prompt.startswith("<bos> ")
    assert prompt.endswith(" <trav> <shift> <trav> <solve>")
    assert right.endswith(" <eos>")
    for stage, name in ((sft, "sft"), (grpo, "grpo~ood")):
        assert re.match(rf"{name}: correct mass Q [\d.e-]+ \(markers [\d.]+ x content", stage)
        labels = [line[2:11].strip() for line in stage.splitlines()[1::2]]
        assert labels == ["right", "greedy", "sample 1", "sample 2"]
        lines = stage.splitlines()
        assert re.search(r"least likely: token \d+, .+ \(\d+% of -ln Q\)$", lines[1])
        for line in lines[3::2]:
            assert re.search(
                r"right$|wrong at token \d+: .+ for .+ \((content|marker|length)\)$", line
            )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"split": "odd"},
            r"--split: axis mini has no 'odd' \(it has: id, ood, mixed-1, mixed-2\)",
        ),
        ({"number": 8}, r"--prompt: ood has prompts 0 to 7"),
        ({"samples": -1}, r"--samples: must be at least 0"),
    ],
)
def test_what_is_not_there_is_refused(cell, wrong, message):
    asked = {"split": "ood", "number": 0, "samples": 0} | wrong
    with pytest.raises(ConfigError, match=message):
        show(tiny_study(), Flat("tiny", str(cell)), PLACE, ["sft"], **asked)


def test_a_cell_may_be_named_by_its_folder():
    place = cell_at("elsewhere/tiny/mini/seed~0/ood~0.25")
    assert place == CellPlace("elsewhere", "tiny", "base", "mini", "0", "0.25")
    assert cell_at("r/tiny/variants/deep/mini/seed~12/ood~0/").variant == "deep"
    for run in ("laptop", "other"):
        with pytest.raises(SystemExit, match=rf"x/{run}") as error:
            main(["show", f"x/{run}/depth/seed~0/ood~0.003", "--stage", "sft"])
        expected = "test.parquet: missing" if run == "laptop" else "configuration is of laptop"
        assert expected in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results/laptop"], "results/laptop: not a cell's folder, such as results/"),
        ([], r"which cell\? .*--axis, --seed, --ratio"),
        (["--axis", "depth", "--ratio", "0"], "--seed$"),
    ],
)
def test_what_names_no_cell_is_refused(arguments, message):
    with pytest.raises(SystemExit, match=message):
        main(["show", *arguments])


def test_a_stage_that_is_not_there_is_named(capsys):
    cell = ["--axis", "depth", "--seed", "0", "--ratio", "0.003"]
    with pytest.raises(SystemExit, match=r"stage: this run has no 'x' \(it has: pretrain, sft, "):
        main(["show", *cell, "--stage", "x"])
    with pytest.raises(SystemExit, match=r"test.parquet: missing"):
        main(["show", *cell, "--results", "nowhere"])
