"""Data: the split holds, counts are exact, mixtures are fair, files are whole or refused."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import TaskSpec
from grpo_origin.config.stages import WorldSettings
from grpo_origin.data.pools import Pool, training_chunk
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.summary import write_summary
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import atomic, read_table, write_json, write_table
from grpo_origin.tasks.starts import available_strings, draw_distinct
from grpo_origin.tasks.tokenizer import Vocabulary
from helpers import make_data, read, source_of, tiny, tiny_study

TRAINING = ("pretrain-id", "pretrain-ood", "sft", "grpo")
TWO_ALPHABETS = {"id": ["trav;2;A", "trav trav;2;A"], "ood": ["trav;2;B"], "mixed": [1, 2]}


def start(row: dict, tokens: list[str]) -> str:
    """The start string of a row in upper case, read from its prompt, knowing only the notation."""
    return "".join(tokens[i] for i in row["prompt_ids"] if not tokens[i].startswith("<")).upper()


def made(root: Path, axis: str = "mini", seed: int = 0, **changes) -> dict[str, list[dict]]:
    """The rows of every data file of the tiny study with changes, made in `root`."""
    paths = make_data(root, tiny_study(**changes), axis, seed)
    return {name: read(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def files(study) -> dict[str, list[dict]]:
    return {path.stem: read(path) for path in (study / "data").glob("*.parquet")}


@pytest.mark.parametrize("axis", ["mini", "token"])
def test_no_test_string_nor_its_twin_is_in_any_training_set(tmp_path, axis):
    tokens = Vocabulary(8).tokens
    rows = made(tmp_path, axis, axes={"token": TWO_ALPHABETS})
    tested = {start(row, tokens) for row in rows["test"]}
    assert len(tested) >= 4
    for name in TRAINING:
        trained = {start(row, tokens) for row in rows[name]}
        assert trained
        assert not trained & tested, name


def test_columns_of_every_file(study, files):
    for name in files:
        columns = ["prompt_ids", "completion_ids", "task", "split"]
        expected = (
            columns if name in ("pretrain-id", "pretrain-ood") else [*columns, "prompt_index"]
        )
        assert pq.read_schema(study / "data" / f"{name}.parquet").names == expected


def test_token_ids_go_into_an_embedding_as_they_are(study, files):
    import torch

    weights = torch.randn(len(Vocabulary(8)), 4)
    for name in files:
        table = pq.read_table(study / "data" / f"{name}.parquet")
        for column in ("prompt_ids", "completion_ids"):
            row = table[column].to_numpy()[0]
            vectors = torch.embedding(weights, torch.tensor(row))
            assert torch.equal(vectors, weights[row.tolist()])


def test_every_row_is_a_right_answer_of_its_task(files):
    world = source_of(tiny()).domain.world
    vocabulary = Vocabulary(8)
    for rows in files.values():
        for row in rows[:200]:
            operations, length, _ = row["task"].split(";")
            state = [i - vocabulary.first_element for i in row["prompt_ids"][1 : 1 + int(length)]]
            expected: list[str] = []
            for name in operations.split():
                state = (
                    [int(world.successor[x]) for x in state]
                    if name == "trav"
                    else state[1:] + state[:1]
                )
                expected += [
                    "<think>",
                    *(vocabulary.tokens[x + vocabulary.first_element] for x in state),
                ]
            expected[-1 - len(state)] = "<answer>"
            assert [vocabulary.tokens[i] for i in row["completion_ids"]] == [*expected, "<eos>"]
            assert [vocabulary.tokens[i] for i in row["prompt_ids"][1 + int(length) :]] == [
                *(f"<{name}>" for name in operations.split()),
                "<solve>",
            ]


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path, study, files):
    other = made(tmp_path / "other", seed=1)
    assert made(tmp_path / "again") == files
    assert all(other[name] != files[name] for name in files)


def test_tasks_are_balanced(files):
    for name, size, tasks in (("sft", 40, 2), ("pretrain-id", 8000, 2), ("pretrain-ood", 8000, 1)):
        counts = Counter(row["task"] for row in files[name])
        assert counts.total() == size
        assert set(counts.values()) == {size // tasks}
    for split, tasks in (("id", 2), ("ood", 1), ("mixed-1", 2), ("mixed-2", 2)):
        counts = Counter(row["task"] for row in files["test"] if row["split"] == split)
        assert counts.total() == 8
        assert set(counts.values()) == {8 // tasks}


def test_any_prefix_of_a_pool_is_a_fair_sample_of_its_tasks(files):
    first = Counter(row["task"] for row in files["pretrain-id"][:2000])
    assert all(abs(count - 1000) < 5 * 500**0.5 for count in first.values())


def test_prompt_indices_count_within_a_split_and_prompts_are_distinct(files):
    for name in ("sft", "grpo", "test"):
        for split in {row["split"] for row in files[name]} & {"id", "ood"}:
            rows = [row for row in files[name] if row["split"] == split]
            assert [row["prompt_index"] for row in rows] == list(range(len(rows)))
            assert len({tuple(row["prompt_ids"]) for row in rows}) == len(rows)


def test_sft_holds_id_tasks_only_and_the_grpo_sets_are_of_their_split(files):
    axis = tiny().axes["mini"]
    assert {row["task"] for row in files["sft"]} == {str(task) for task in axis.id}
    for split in ("id", "ood"):
        assert {row["task"] for row in files["grpo"] if row["split"] == split} == {
            str(task) for task in axis.tasks(split)
        }
        assert sum(row["split"] == split for row in files["grpo"]) == tiny_study().rl_prompts


def prompts_of(rows: list[dict]) -> set[tuple]:
    return {tuple(row["prompt_ids"]) for row in rows}


def summary_of(root: Path) -> dict:
    return json.loads((root / "data" / "summary.json").read_text())


def test_sft_can_hold_a_share_of_ood_samples_that_rl_then_avoids(tmp_path):
    rows = made(tmp_path, sft={"ood_share": "0.25"}, rl={"steps": 6})
    sft = rows["sft"]
    assert Counter(row["split"] for row in sft) == {"id": 30, "ood": 10}
    assert {row["task"] for row in sft if row["split"] == "ood"} == {"trav shift trav;2;A"}
    places = [i for i, row in enumerate(sft) if row["split"] == "ood"]
    assert places != list(range(30, 40))  # mixed in
    assert len(prompts_of(sft)) == 40
    assert not prompts_of(sft) & prompts_of(rows["grpo"])
    with pytest.raises(ConfigError, match=r"sft: ood_share: 0.01 of 40 samples rounds to none"):
        tiny_study(sft={"ood_share": "0.01"})


def test_sft_and_rl_are_disjoint_while_the_space_allows_and_the_summary_says_so(study, files):
    assert not prompts_of(files["sft"]) & prompts_of(files["grpo"])
    assert summary_of(study)["overlap"]["sft in grpo"] == 0


def test_an_overlap_that_the_space_forces_is_as_small_as_can_be_and_reported(tmp_path):
    rows = made(tmp_path, sft={"samples": 80})  # 40 + 24 of about 51 train strings a task
    space = available_strings(2, tiny().world)[0]
    shared = len(prompts_of(rows["sft"]) & prompts_of(rows["grpo"]))
    assert shared == 2 * (40 + 24 - space) > 0
    assert summary_of(tmp_path)["overlap"]["sft in grpo"] == shared


def test_the_summary_counts_what_the_files_hold(tmp_path):
    files = made(tmp_path, ratios=["0", "0.1", "0.333"])
    summary = summary_of(tmp_path)
    assert summary["files"].keys() == files.keys()
    for name in files:
        assert summary["files"][name]["rows"] == len(files[name])
        assert summary["files"][name]["unique_prompts"] == len(prompts_of(files[name]))
    assert summary["files"]["pretrain-id"]["tasks"]["id: trav;2;A"] == 4000
    assert {ratio: entry["ood_samples"] for ratio, entry in summary["ood"].items()} == {
        "0": 0,
        "0.1": 800,
        "0.333": 2664,
    }
    assert summary["overlap"]["training samples that belong to test"] == 0


@pytest.mark.parametrize("twin", [False, True])
def test_a_training_set_with_a_test_string_or_its_twin_is_refused(tmp_path, twin):
    paths = make_data(tmp_path, tiny_study())
    leak = pq.read_table(paths["test"]).slice(0, 1)
    if twin:  # the second alphabet's ids follow those of the first
        first, nodes = Vocabulary(8).first_element, 8
        ids = [i + nodes * (i >= first) for i in leak["prompt_ids"].to_pylist()[0]]
        column = pa.array([ids], leak["prompt_ids"].type)
        leak = leak.set_column(0, "prompt_ids", column)
    whole = pa.concat_tables([pq.read_table(paths["sft"]), leak]).unify_dictionaries()
    pq.write_table(whole, paths["sft"])
    with pytest.raises(ArtefactError, match=r"sft\.parquet.*1 samples belong to test"):
        write_summary(source_of(tiny()), paths, ["0"], 8000, tmp_path / "summary.json")
    assert not (tmp_path / "summary.json").exists()


def test_mixed_prompts_are_the_id_prompts_with_k_positions_replaced_by_their_twin(files):
    vocabulary = Vocabulary(8)
    ids = {row["prompt_index"]: row for row in files["test"] if row["split"] == "id"}
    for k in (1, 2):
        for row in (row for row in files["test"] if row["split"] == f"mixed-{k}"):
            original = ids[row["prompt_index"]]
            assert row["task"] == original["task"]
            changed = [
                i
                for i, (a, b) in enumerate(
                    zip(original["prompt_ids"], row["prompt_ids"], strict=True)
                )
                if a != b
            ]
            assert len(changed) == k
            for i in changed:
                assert (
                    vocabulary.tokens[row["prompt_ids"][i]]
                    == vocabulary.tokens[original["prompt_ids"][i]].lower()
                )


def test_mixed_positions_are_uniform():
    domain = source_of(tiny()).domain
    for k in (1, 2, 3):
        changed = domain.mixed(np.zeros((8000, 4), np.int16), k, np.random.default_rng(0)) != 0
        assert (changed.sum(axis=1) == k).all()
        assert np.abs(changed.mean(axis=0) - k / 4).max() < 5 * (k / 4 * (1 - k / 4) / 8000) ** 0.5


def test_large_spaces_are_sampled_without_repetition():
    world = WorldSettings(nodes=26)
    drawn = draw_distinct(np.random.default_rng(0), 5000, 5, world, test=True)
    assert len(np.unique(drawn, axis=0)) == 5000
    rest = draw_distinct(np.random.default_rng(0), 5000, 5, world, test=True, avoid=drawn)
    assert not {row.tobytes() for row in rest} & {row.tobytes() for row in drawn}


def test_a_large_space_that_is_nearly_used_up_gives_avoided_strings_and_then_an_error():
    world = WorldSettings(nodes=33, test_fraction=0.9995)  # 600 of 33^4 strings are for training
    drawn = draw_distinct(np.random.default_rng(0), 500, 4, world, test=False)
    again = draw_distinct(np.random.default_rng(1), 500, 4, world, test=False, avoid=drawn)
    assert len(np.unique(again, axis=0)) == 500
    with pytest.raises(ConfigError, match="2000 are needed"):
        draw_distinct(np.random.default_rng(0), 2000, 4, world, test=False)


def test_prompts_of_every_method_must_fit():
    """Plain GRPO takes 8 prompts a run here, a method without further iterations 480."""
    axis = {"id": ["trav;3;A"], "ood": ["trav trav;3;A"], "mixed": []}
    small = {
        "axes": {"mini": axis},
        "world": {"nodes": 6},
        "rl": {"steps": 60, "iterations": 60, "prompts_per_step": 8},
        "evaluation": {"prompts": 8},
        "sft": {"samples": 32},
    }
    assert tiny_study(**small).rl_prompts == 8
    with pytest.raises(ConfigError, match=r"rl\.prompts_per_step \(axes\.mini\.id\): 480 "):
        tiny_study(**small, methods=[{"grpo": {"iterations": 1}}])


@pytest.mark.parametrize("side", ["train", "test"])
def test_every_task_needs_strings_even_if_no_prompt_of_it_is_asked_for(side):
    """Pretraining draws from all tasks and would look for a train string for ever."""
    axis = {"id": ["trav;4;A", "trav trav;4;A"], "ood": ["trav;4;B", "trav;1;A"], "mixed": []}
    fraction = 0.9 if side == "train" else 0.1  # of two strings, none is left for `side`
    few = {
        "rl": {"steps": 1, "prompts_per_step": 1},
        "evaluation": {"prompts": 2},
        "sft": {"samples": 2, "batch_size": 1},
    }
    with pytest.raises(ConfigError, match=rf"'trav;1;A'.* 0 {side} strings"):
        tiny_study(axes={"mini": axis}, world={"nodes": 2, "test_fraction": fraction}, **few)


def test_generation_is_fast_enough_for_the_paper_scale():
    """A guard against a return to row-by-row Python: a twentieth of the 1M samples/s wanted."""
    settings = tiny(
        world={"nodes": 26},
        axes={"mini": {"id": ["trav;4;A", "trav trav;4;A"], "ood": ["trav;4;B"]}},
    )
    source = source_of(settings)
    started = time.process_time()
    assert training_chunk(source, "id", np.random.default_rng(0), 200_000).num_rows == 200_000
    assert time.process_time() - started < 4


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing", "foreign"])
def test_an_unusable_parquet_file_is_named(tmp_path, study, damage):
    path = tmp_path / "test.parquet"
    content = (study / "data" / "test.parquet").read_bytes()
    if damage == "foreign":
        write_table(path, pa.table({"other": [1]}))
    elif damage != "missing":
        path.write_bytes(
            {"truncated": content[:-20], "text": b"hello, world", "empty": b""}[damage]
        )
    for use in (lambda: read_prompts(path), lambda: Pool(path)):
        with pytest.raises(ArtefactError) as caught:
            use()
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_file_damaged_inside_is_named(tmp_path, study):
    path = tmp_path / "pool.parquet"
    content = bytearray((study / "data" / "pretrain-id.parquet").read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"pool\.parquet"):
        list(Pool(path).blocks(0, 100))
    with pytest.raises(ArtefactError, match=r"pool\.parquet"):
        read_table(path, ["prompt_ids", "completion_ids"])


def test_a_split_that_the_file_lacks(study):
    with pytest.raises(ArtefactError, match=r"sft\.parquet"):
        read_prompts(study / "data" / "sft.parquet", "ood")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failed_write_leaves_the_old_and_nothing_else(tmp_path, kind):
    path = tmp_path / "thing"
    for attempt in ("old", "new"):
        try:
            with atomic(path) as temporary:
                target = temporary if kind == "file" else temporary / "inside"
                target.parent.mkdir(exist_ok=True)
                target.write_text(attempt)
                if attempt == "new":
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thing"]
    assert (path if kind == "file" else path / "inside").read_text() == "old"


def test_a_successful_write_replaces_file_and_folder(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "a.json", {"x": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 2}
    for name in ("one", "two"):
        with atomic(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [entry.name for entry in (tmp_path / "folder").iterdir()] == ["two"]


def test_prompt_and_completion_lengths_match_the_settings():
    spec = TaskSpec.model_validate("trav shift trav;4;A")
    assert (spec.prompt_tokens, spec.completion_tokens) == (9, 16)
