"""Pools and mixtures: exact shares, one order for ever, memory that does not grow with N."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_origin.data import mixture as mixture_module
from grpo_origin.data import pools as pools_module
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import Pool, training_chunk, write_pool
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.tasks.world import generator
from helpers import read, source_of, tiny

FIXED_ORDER = [1, 3, 8, 12, 16, 17]  # OOD positions of 6 in 20, seed 0


@pytest.fixture(scope="module")
def files(study) -> dict[str, list[dict]]:
    return {path.stem: read(path) for path in (study / "data").glob("pretrain-*.parquet")}


@pytest.fixture(scope="module")
def pools(study) -> tuple[Pool, Pool]:
    return tuple(Pool(study / "data" / f"pretrain-{split}.parquet") for split in ("id", "ood"))


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
