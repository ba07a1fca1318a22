"""Pass counts from files: every format they come in, and every row and file that is refused."""

from __future__ import annotations

import csv
import json
from collections import defaultdict, deque
from pathlib import Path

import pandas as pd
import pytest

from grpo_origin.config.fields import ConfigError
from grpo_origin.forecast.passes import read_passes

TABLE = "prompt,samples,correct\none,8,0\ntwo,8,3\nthree,8,8\n"


def counts(*paths: Path, **options) -> dict[str, tuple[int, int]]:
    """Samples and right ones by prompt."""
    found = read_passes(paths, **options)
    pairs = zip(found.samples.tolist(), found.correct.tolist(), strict=True)
    return dict(zip(found.prompts, pairs, strict=True))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[dict]) -> Path:
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


# Tables of counts


@pytest.mark.parametrize(
    "text",
    [
        "prompt,samples,correct\na,8,0\nb,8,3\n",
        "prompt,n,c\na,8,0\nb,8,3\n",
        "\ufeffCorrect, Samples ,note,Prompt\n0,8,x,a\n\n3,8.0,y,b\n",
    ],
    ids=["plain", "aliases", "other order, capitals, byte order mark, blank row"],
)
def test_a_csv_of_counts(tmp_path, text):
    assert counts(write(tmp_path / "passes.csv", text)) == {"a": (8, 0), "b": (8, 3)}


def test_a_prompt_may_be_long_and_hold_commas_quotes_and_lines(tmp_path):
    prompt = 'say "a, b"\n' + "x" * 200_000
    with open(tmp_path / "passes.csv", "w", newline="") as file:
        csv.writer(file).writerows([["prompt", "samples", "correct"], [prompt, 8, 1]])
    assert counts(tmp_path / "passes.csv") == {prompt: (8, 1)}


def test_a_parquet_of_counts(tmp_path):
    table = pd.DataFrame({"prompt": [7, 8], "samples": [8.0, 4.0], "correct": [0, 4]})
    table.to_parquet(tmp_path / "passes.parquet")
    assert counts(tmp_path / "passes.parquet") == {"7": (8, 0), "8": (4, 4)}


def test_counts_of_a_repeated_prompt_are_added_and_it_is_said(tmp_path):
    first = write(tmp_path / "first.csv", TABLE + "two,4,4\n")
    assert counts(first)["two"] == (12, 7)
    (note,) = read_passes([first]).notes
    assert "1 row repeats a prompt" in note
    second = write(tmp_path / "second.csv", TABLE)
    assert counts(first, second)["one"] == (16, 0)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("x,0,0", ["samples is '0'", "at least 1"]),
        ("x,-3,0", ["samples is '-3'", "at least 1"]),
        ("x,8,-1", ["correct is '-1'", "from 0 to samples (8)"]),
        ("x,8,9", ["correct is '9'", "from 0 to samples (8)"]),
        ("x,8,1.5", ["correct is '1.5'", "whole number"]),
        ("x,eight,1", ["samples is 'eight'", "whole number"]),
        ("x,nan,1", ["samples is 'nan'", "whole number"]),
        ("x,1e300,1", ["samples is '1e300'", "whole number"]),
        ("x,8,", ["correct is missing"]),
        ("x,8", ["correct is missing"]),
        (",8,1", ["prompt is missing"]),
        ("a,b,8,1", ["4 fields where the header has 3", "double quotes"]),
    ],
)
def test_a_bad_row_is_refused_in_one_line(tmp_path, row, words):
    path = write(tmp_path / "passes.csv", TABLE + row + "\n")
    with pytest.raises(ConfigError) as error:
        read_passes([path])
    message = str(error.value)
    assert message.startswith(f"{path}, row 5: ")
    assert len(message.splitlines()) == 1
    assert all(word in message for word in words), message


@pytest.mark.parametrize("value", [None, float("nan"), 2.5, -1.0])
def test_a_bad_row_of_a_parquet_is_refused(tmp_path, value):
    table = pd.DataFrame({"prompt": ["a", "b"], "samples": [8, 8], "correct": [1.0, value]})
    table.to_parquet(tmp_path / "passes.parquet")
    with pytest.raises(ConfigError, match=r"passes.parquet, row 2: correct is .*from 0 to samples"):
        read_passes([tmp_path / "passes.parquet"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "prompt,samples\nx,8\n", ["no column correct or c", "samples (or n)"]),
        ("a.csv", "prompt,n,samples,c\nx,8,8,1\n", ["more than one column samples or n"]),
        ("a.csv", "", ["no column prompt", "there is nothing"]),
        ("a.csv", "prompt,samples,correct\n", ["no row to count"]),
        ("a.csv", 'prompt,samples,correct\n"x,8,1\n', ["not a CSV file"]),
        ("a.parquet", "PAR1 no", ["not a readable parquet file"]),
        ("a.jsonl", '{"question": "x"}\n', ["of no known format", "lm-evaluation-harness", "TRL"]),
        ("a.jsonl", '{"input": 1\n', ["row 1", "not a JSON object"]),
        ("a.jsonl", "[1]\n", ["row 1", "not a JSON object"]),
        ("a.jsonl", "", ["of no known format"]),
        ("a.xlsx", "x", ["of no known format", ".csv or .parquet with columns prompt"]),
    ],
)
def test_a_file_that_holds_no_counts_is_refused(tmp_path, name, text, words):
    with pytest.raises(ConfigError) as error:
        read_passes([write(tmp_path / name, text)])
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert name in message
    assert all(word in message for word in words), message


def test_files_that_are_no_text_missing_folders_or_named_twice_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    table = write(tmp_path / "b.csv", TABLE)
    (tmp_path / "c.csv").mkdir()
    for paths, words in [
        ([tmp_path / "a.csv"], "not text in UTF-8"),
        ([tmp_path / "none.csv"], "No such file"),
        ([tmp_path / "c.csv"], "is a folder"),
        ([table, table], "named twice"),
    ]:
        with pytest.raises(ConfigError, match=words):
            read_passes(paths)


# Logs


def trl_log(folder: Path, step: int, rewards: dict[str, list], prompts: list, **extra) -> Path:
    """A completions log, written as trl/trainer/grpo_trainer.py (log) of TRL 1.16 does."""
    size = len(prompts)
    logs = {
        "prompt": deque(prompts),
        "completion": deque([f"answer {step}.{i}" for i in range(size)]),
        "rewards": defaultdict(deque, {name: deque(x) for name, x in rewards.items()}),
        "extra": defaultdict(deque, {name: deque(x) for name, x in extra.items()}),
        "advantages": deque([0.5] * size),
    }
    table = {
        "step": [step] * len(logs["prompt"]),
        "prompt": list(logs["prompt"]),
        "completion": list(logs["completion"]),
        **logs["rewards"],
        **logs["extra"],
        "advantage": logs["advantages"],
    }
    path = folder / f"completions_{step:05d}.parquet"
    pd.DataFrame(table).to_parquet(path)
    return path


def test_a_completions_log_of_trl(tmp_path):
    log = trl_log(tmp_path, 1, {"accuracy_reward": [1.0, 0.0, 0.0, 0.0]}, ["a", "a", "b", "b"])
    assert counts(log) == {"a": (2, 1), "b": (2, 0)}
    assert "right if its accuracy_reward is above 0.5" in read_passes([log]).notes[0]


def test_conversations_and_completions_without_a_score(tmp_path):
    prompts = [[{"role": "user", "content": x}] for x in "aab"]
    log = trl_log(tmp_path, 1, {"accuracy": [1.0, None, 0.0]}, prompts, parsed=["1", "2", "3"])
    assert sorted(counts(log).values()) == [(1, 0), (1, 1)]
    assert any("1 of 3 completions have no accuracy" in x for x in read_passes([log]).notes)


def test_one_of_several_rewards_has_to_be_named(tmp_path):
    log = trl_log(tmp_path, 1, {"accuracy": [0.0, 1.0], "format": [1.0, 1.0]}, ["a", "a"])
    with pytest.raises(ConfigError, match=r"which reward column\?.*--reward.*accuracy, format"):
        read_passes([log])
    assert counts(log, reward="accuracy") == {"a": (2, 1)}
    assert counts(log, reward="format") == {"a": (2, 2)}
    with pytest.raises(ConfigError, match=r"no reward column 'length' \(there is: accuracy"):
        read_passes([log], reward="length")


def test_a_batch_that_trl_logged_at_two_steps_counts_once(tmp_path):
    """The log holds the last generated batch, trained on for several steps, at each of them."""
    first = trl_log(tmp_path, 1, {"accuracy": [0.0, 1.0]}, ["a", "b"])
    again = tmp_path / "completions_00002.parquet"
    pd.read_parquet(first).assign(step=2).to_parquet(again)
    later = trl_log(tmp_path, 3, {"accuracy": [1.0, 1.0]}, ["a", "b"])
    assert counts(first, again, later) == {"a": (2, 1), "b": (2, 2)}
    notes = read_passes([first, again, later]).notes
    assert any("same batch" in note for note in notes)
    assert any("2 training steps (1 to 3)" in note for note in notes)


def verl_dump(path: Path, step: int, inputs: list[str], scores: list, **extra) -> Path:
    """A dump, written as `_dump_generations` of verl/trainer/ppo/ray_trainer.py does."""
    base = {
        "input": inputs,
        "output": [f"answer {i}" for i in range(len(inputs))],
        "gts": ["4"] * len(inputs),
        "score": scores,
        "step": [step] * len(inputs),
    }
    base |= extra
    lines = [
        json.dumps({k: v[i] for k, v in base.items()}, ensure_ascii=False)
        for i in range(len(inputs))
    ]
    return write(path, "\n".join(lines) + "\n")


def test_a_rollout_dump_of_verl(tmp_path):
    dump = verl_dump(
        tmp_path / "1.jsonl", 1, ["a", "a", "b"], [1.0, -1.0, -1.0], acc=[True, True, False]
    )
    assert counts(dump) == {"a": (2, 1), "b": (1, 0)}
    assert counts(dump, right_above=-1.5) == {"a": (2, 2), "b": (1, 1)}
    assert counts(dump, reward="acc") == {"a": (2, 2), "b": (1, 0)}
    with pytest.raises(ConfigError, match=r"row 1: no key length; there is input, output"):
        read_passes([dump], reward="length")
    bad = verl_dump(tmp_path / "2.jsonl", 2, ["a", "a"], [1.0, "good"])
    with pytest.raises(ConfigError, match=r"2.jsonl, row 2: score is 'good'; right is a number"):
        read_passes([bad])


GENERATION = {"until": ["Q:"], "do_sample": True, "temperature": 1.0}


def harness_row(doc_id: int, kept, drawn=None, given=GENERATION, chosen="none", **metrics) -> dict:
    """A row as lm_eval/evaluator.py (evaluate) of lm-evaluation-harness makes it.

    It is written by save_results_samples of lm_eval/loggers/evaluation_tracker.py.
    """
    return {
        "doc_id": doc_id,
        "doc": {"question": f"question {doc_id}"},
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": f"question {doc_id}", "arg_1": given}},
        "resps": [drawn or [kept]],
        "filtered_resps": [kept],
        "filter": chosen,
        "metrics": list(metrics),
        "doc_hash": "d",
        "prompt_hash": "p",
        "target_hash": "t",
        **metrics,
    }


def harness(folder: Path, rows: list[dict], day: int = 1) -> Path:
    return write_lines(folder / f"samples_gsm8k_2026-01-0{day}T10-00-00.123456.jsonl", rows)


def test_samples_of_lm_evaluation_harness_over_several_runs(tmp_path):
    runs = []
    for day, value in ((1, 0.0), (2, 1.0)):
        rows = [harness_row(0, "4", exact_match=1.0), harness_row(1, "5", exact_match=value)]
        runs.append(harness(tmp_path, rows, day))
    assert counts(*runs) == {"gsm8k/0": (2, 2), "gsm8k/1": (2, 1)}


def test_a_filter_and_a_metric_are_named_where_there_are_several(tmp_path):
    rows = [
        harness_row(0, "4", chosen=chosen, exact_match=value, other=0.0)
        for chosen, value in (("strict-match", 0.0), ("flexible-extract", 1.0))
    ]
    path = harness(tmp_path, rows)
    with pytest.raises(ConfigError, match=r"which filter\?.*--filter.*strict-match, flexible"):
        read_passes([path])
    with pytest.raises(ConfigError, match=r"which metric\?.*--reward.*exact_match, other"):
        read_passes([path], filtered_by="strict-match")
    named = {"reward": "exact_match", "filtered_by": "flexible-extract"}
    assert counts(path, **named) == {"gsm8k/0": (1, 1)}


def test_repeats_of_a_document_count_where_a_metric_speaks_of_all(tmp_path):
    """As tasks/humaneval does with repeats: its filter keeps all, pass@1 is their share."""
    several = [f"code {i}" for i in range(8)]
    path = harness(tmp_path, [harness_row(0, several, drawn=several, **{"pass@1": 0.375})])
    assert counts(path) == {"gsm8k/0": (8, 3)}
    path = harness(tmp_path, [harness_row(0, several, drawn=several, **{"pass@2": 0.375})])
    with pytest.raises(ConfigError, match=r"row 1: pass@2 of 8 completions is not the share"):
        read_passes([path])
    path = harness(tmp_path, [harness_row(0, several, drawn=several, **{"pass@1": 0.3})])
    with pytest.raises(ConfigError, match=r"row 1: pass@1 is 0.3 of 8 completions"):
        read_passes([path])
    path = harness(tmp_path, [harness_row(0, "4", drawn=["4", "5", "6"], exact_match=1.0)])
    assert counts(path) == {"gsm8k/0": (1, 1)}
    assert (
        "3 completions a document, of which filter 'none' scores 1" in read_passes([path]).notes[0]
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"do_sample": False}, "greedy"),
        ({"do_sample": True, "temperature": 0.0}, "greedy"),
        ({"until": ["x"]}, "greedy"),
        (" a continuation", "multiple choice"),
    ],
)
def test_what_was_not_sampled_is_refused(tmp_path, given, words):
    path = harness(tmp_path, [harness_row(0, "4", given=given, exact_match=1.0)])
    with pytest.raises(ConfigError, match=f"row 1: .*{words}.*do_sample=true,temperature=1"):
        read_passes([path])


def test_a_row_of_another_kind_in_a_log_is_refused(tmp_path):
    whole_row = harness_row(0, "4", exact_match=1.0)
    path = harness(tmp_path, [whole_row, {"doc_id": 1, "filter": "none"}])
    with pytest.raises(ConfigError, match="row 2: filtered_resps is missing or no list"):
        read_passes([path])
    path = harness(tmp_path, [whole_row, whole_row | {"exact_match": "yes"}])
    with pytest.raises(ConfigError, match="row 2: exact_match is 'yes'; right is a number"):
        read_passes([path])


def test_another_temperature_is_noted(tmp_path):
    given = {"do_sample": True, "temperature": 0.2}
    path = harness(tmp_path, [harness_row(0, "4", given=given, exact_match=1.0)])
    assert "temperature 0.2" in read_passes([path]).notes[0]
