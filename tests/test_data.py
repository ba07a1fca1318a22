"""Data: the split holds, counts are exact, mixtures are fair, files are whole or refused."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.notation import TaskSpec
from grpo_origin.config.stages import WorldSettings
from grpo_origin.data import mixture as mixture_module
from grpo_origin.data import pools as pools_module
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import Pool, training_chunk, write_pool
from grpo_origin.data.prompt_sets import mix, read_prompts
from grpo_origin.data.strings import available_strings, draw_distinct
from grpo_origin.data.summary import write_summary
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.jobs.files import atomic, read_table, write_json, write_table
from grpo_origin.tasks.tokenizer import Vocabulary
from grpo_origin.tasks.world import generator
from helpers import make_data, read, source_of, tiny, tiny_study

TRAINING = ("pretrain-id", "pretrain-ood", "sft", "grpo")
FIXED_ORDER = [1, 3, 8, 12, 16, 17]  # OOD positions of 6 in 20, seed 0
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


@pytest.fixture(scope="module")
def pools(study) -> tuple[Pool, Pool]:
    return tuple(Pool(study / "data" / f"pretrain-{split}.parquet") for split in ("id", "ood"))


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
    world = source_of(tiny()).world
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
                f"<{name}>" for name in operations.split()
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
    assert summary["overlap"]["training samples that start from test strings"] == 0


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
    with pytest.raises(ArtefactError, match=r"sft\.parquet.*1 samples start from test strings"):
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
    world = source_of(tiny()).world
    for k in (1, 2, 3):
        changed = mix(world, np.zeros((8000, 4), np.int16), k, np.random.default_rng(0)) != 0
        assert (changed.sum(axis=1) == k).all()
        assert np.abs(changed.mean(axis=0) - k / 4).max() < 5 * (k / 4 * (1 - k / 4) / 8000) ** 0.5


def tokens_of(blocks) -> list[tuple]:
    return [tuple(row) for tokens, _ in blocks for row in tokens.tolist()]


def pool_rows(rows: list[dict], count: int) -> Counter:
    return Counter(tuple(row["prompt_ids"] + row["completion_ids"]) for row in rows[:count])


@pytest.mark.parametrize("ratio", ["0", "0.001", "0.1", "0.3333", "0.5", "1"])
@pytest.mark.parametrize("block", [2**20, 300])
def test_a_mixture_holds_the_prefix_of_each_pool_once_and_exactly_the_share(
    pools, files, monkeypatch, ratio, block
):
    monkeypatch.setattr(mixture_module, "BLOCK", block)
    samples, batch = 1000, 64
    mixture = Mixture(*pools, samples, ratio, seed=0)
    steps = [mixture.blocks(i, min(i + batch, samples)) for i in range(0, samples, batch)]
    assert [sum(len(tokens) for tokens, _ in step) for step in steps] == [64] * 15 + [40]
    seen = Counter(row for step in steps for row in tokens_of(step))
    ood = round(float(ratio) * samples)
    expected = pool_rows(files["pretrain-id"], samples - ood)
    assert seen == expected + pool_rows(files["pretrain-ood"], ood)


class Numbered:
    """A pool of any size without a file: sample i is the token i + `first`."""

    path = "numbered"

    def __init__(self, size: int, first: int = 0) -> None:
        self.size, self.first = size, first

    def __len__(self) -> int:
        return self.size

    def blocks(self, start: int, stop: int):
        if start < stop:
            yield np.arange(start, stop)[:, None] + self.first, 1


OOD = 10**9  # tokens from here on are of the OOD pool


def numbered(samples: int, ratio: str, seed: int = 0) -> Mixture:
    return Mixture(Numbered(samples), Numbered(samples, OOD), samples, ratio, seed)


def tokens_at(mixture: Mixture, start: int, stop: int) -> np.ndarray:
    return np.concatenate([tokens.ravel() for tokens, _ in mixture.blocks(start, stop)])


@pytest.mark.parametrize("samples", [32_000, 2**20])
def test_up_to_a_million_samples_the_order_is_one_shuffle(samples):
    """The order of all finished runs: which samples are OOD must never change for these sizes."""
    expected = np.arange(samples) < round(0.1 * samples)
    generator(3, "mixture").shuffle(expected)
    mixture = numbered(samples, "0.1", seed=3)
    counts = [int((tokens_at(mixture, i, i + 50) >= OOD).sum()) for i in range(0, 32_000, 50)]
    assert counts == expected[:32_000].reshape(-1, 50).sum(axis=1).tolist()


def test_the_order_of_a_small_mixture_is_this_one():
    mixture = numbered(20, "0.3", seed=0)
    assert [i for i in range(20) if tokens_at(mixture, i, i + 1)[0] >= OOD] == FIXED_ORDER


def test_a_mixture_of_many_blocks_is_fair_within_and_across_them(monkeypatch):
    """OOD counts of blocks and of positions have the mean and spread of drawing without return."""
    monkeypatch.setattr(mixture_module, "BLOCK", 16)
    size, ood, seeds = 40, 16, 1500  # blocks of 16, 16 and 8
    is_ood = np.array(
        [
            [tokens_at(mixture, i, i + 1)[0] >= OOD for i in range(size)]
            for mixture in (numbered(size, "0.4", seed) for seed in range(seeds))
        ]
    )
    assert (is_ood.sum(axis=1) == ood).all()
    share = ood / size
    error = (share * (1 - share) / seeds) ** 0.5
    assert np.abs(is_ood.mean(axis=0) - share).max() < 5 * error
    first = is_ood[:, :16].sum(axis=1)
    variance = 16 * share * (1 - share) * (size - 16) / (size - 1)
    assert first.var() == pytest.approx(variance, rel=0.15)


def test_seeds_give_different_mixtures():
    orders = [tokens_at(numbered(2000, "0.5", seed), 0, 200) for seed in (0, 1)]
    assert (orders[0] >= OOD).sum() != (orders[1] >= OOD).sum()


def test_a_mixture_read_from_the_middle_is_the_same(monkeypatch):
    monkeypatch.setattr(mixture_module, "BLOCK", 100)
    starts = list(range(0, 1000, 64))
    forward = numbered(1000, "0.3")
    steps = {start: tokens_at(forward, start, min(start + 64, 1000)) for start in starts}
    jumping = numbered(1000, "0.3")
    for start in np.random.default_rng(0).permutation(starts).tolist():
        assert (tokens_at(jumping, start, min(start + 64, 1000)) == steps[start]).all()


def test_a_mixtures_memory_does_not_grow_with_its_samples():
    peaks = []
    for samples in (2**20, 20_000_000):
        tracemalloc.start()
        mixture = numbered(samples, "0.1")
        ood = 0
        for start in (0, samples // 2, samples - 256):  # resuming is as cheap as starting
            ood += int((tokens_at(mixture, start, start + 256) >= OOD).sum())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert 0 < ood < 768
        assert mixture.blocks(samples - 1, samples)
    assert max(peaks) < 4_000_000


def test_twenty_million_samples_hold_exactly_their_share():
    samples, step = 20_000_001, 250_000
    mixture = numbered(samples, "0.3")
    starts = range(0, samples, step)
    counts = [(tokens_at(mixture, i, min(i + step, samples)) >= OOD).sum() for i in starts]
    assert sum(counts) == 6_000_000
    spread = (step * 0.3 * 0.7) ** 0.5
    assert all(abs(count - 0.3 * step) < 6 * spread for count in counts[:-1])


def test_a_pool_too_small_for_its_share_is_refused(pools):
    with pytest.raises(
        ArtefactError, match=r"pretrain-ood\.parquet: holds 8000 samples where 9000"
    ):
        Mixture(*pools, 10_000, "0.9", seed=0)


def test_a_pool_reads_the_same_across_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(pools_module, "ROW_GROUP", 100)
    path = tmp_path / "pool.parquet"
    write_pool(source_of(tiny()), "id", 250, path)
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [100, 100, 50]
    pool = Pool(path)
    assert len(pool) == 250
    spans = ((0, 90), (90, 205), (205, 250), (0, 250))
    for start, stop in spans:
        rows = tokens_of(pool.blocks(start, stop))
        assert Counter(rows) == pool_rows(read(path)[start:], stop - start)


def test_a_pool_is_written_and_read_in_the_memory_of_one_row_group(tmp_path, monkeypatch):
    """Peaks of a pool 16 times as large: numpy's and Python's memory, and Arrow's still held."""
    monkeypatch.setattr(pools_module, "ROW_GROUP", 5000)
    source, peaks = source_of(tiny()), []
    for groups in (1, 16):
        path = tmp_path / f"{groups}.parquet"
        tracemalloc.start()
        write_pool(source, "id", groups * 5000, path)
        pool = Pool(path)
        for start in range(0, len(pool), 500):
            assert sum(len(tokens) for tokens, _ in pool.blocks(start, start + 500)) == 500
        peaks.append((tracemalloc.get_traced_memory()[1], pa.total_allocated_bytes()))
        tracemalloc.stop()
    for small, large in zip(*peaks, strict=True):
        assert large < 1.5 * small


def test_a_pool_of_no_samples(tmp_path):
    write_pool(source_of(tiny()), "ood", 0, tmp_path / "pool.parquet")
    assert len(Pool(tmp_path / "pool.parquet")) == 0


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


def test_a_write_that_fails_half_way_leaves_no_pool(tmp_path, monkeypatch):
    monkeypatch.setattr(pools_module, "ROW_GROUP", 100)
    calls = []

    def fail_third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("No space left on device")
        return training_chunk(*args)

    monkeypatch.setattr(pools_module, "training_chunk", fail_third)
    with pytest.raises(OSError, match="No space"):
        write_pool(source_of(tiny()), "id", 300, tmp_path / "pool.parquet")
    assert not list(tmp_path.iterdir())


def test_prompt_and_completion_lengths_match_the_settings():
    spec = TaskSpec.model_validate("trav shift trav;4;A")
    assert (spec.prompt_tokens, spec.completion_tokens) == (8, 16)
