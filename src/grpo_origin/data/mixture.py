"""The pretraining samples of an OOD ratio: the ID and OOD pools of a seed, shuffled into one order.

Pretraining reads it batch by batch, from any step on. Memory does not grow with the number of
samples: which of them are OOD is drawn again, block by block, where it is needed.
"""

from __future__ import annotations

import numpy as np

from grpo_origin.config.notation import ood_count
from grpo_origin.data.pools import Pool
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.tasks.world import generator

BLOCK = 2**20  # samples whose order is drawn at once, a byte each


class OodOrder:
    """Which of N positions are OOD: exactly `ood` of them, every choice of them equally likely.

    How many lie in each block of `BLOCK` positions is one multivariate hypergeometric draw, where
    they lie within it a shuffle with the block's own generator. Up to `BLOCK` positions are thus
    one shuffle by generator(seed, "mixture").
    """

    def __init__(self, positions: int, ood: int, seed: int) -> None:
        self.positions, self.seed = positions, seed
        sizes = [min(BLOCK, positions - start) for start in range(0, positions, BLOCK)]
        self.counts = generator(seed, "mixture blocks").multivariate_hypergeometric(
            sizes, ood, method="marginals"
        )
        self.earlier = np.concatenate([[0], np.cumsum(self.counts)])  # OOD before each block
        self._drawn: tuple[int, np.ndarray] | None = None

    def before(self, position: int) -> int:
        """OOD positions before this one, which may be any from 0 to N."""
        block, offset = divmod(position, BLOCK)
        within = np.count_nonzero(self._is_ood(block)[:offset]) if offset else 0
        return int(self.earlier[block]) + int(within)

    def _is_ood(self, block: int) -> np.ndarray:
        if self._drawn is None or self._drawn[0] != block:
            is_ood = np.zeros(min(BLOCK, self.positions - block * BLOCK), dtype=bool)
            is_ood[: self.counts[block]] = True
            generator(self.seed, "mixture", *([str(block)] if block else [])).shuffle(is_ood)
            self._drawn = block, is_ood
        return self._drawn[1]


class Mixture:
    """The N samples of a ratio: a prefix of each pool, exactly round(ratio * N) of them OOD."""

    def __init__(self, id_pool: Pool, ood_pool: Pool, samples: int, ratio: str, seed: int) -> None:
        ood = ood_count(ratio, samples)
        for pool, need in ((id_pool, samples - ood), (ood_pool, ood)):
            if len(pool) < need:
                raise ArtefactError(pool.path, f"holds {len(pool)} samples where {need} are needed")
        self.id_pool, self.ood_pool = id_pool, ood_pool
        self.order = OodOrder(samples, ood, seed)

    def blocks(self, start: int, stop: int) -> list[tuple[np.ndarray, int]]:
        """Samples start..stop-1 as (tokens (block, T), prompt length), one block a shape.

        The order within them is free.
        """
        first, last = self.order.before(start), self.order.before(stop)
        merged: dict[tuple[int, int], list[np.ndarray]] = {}
        for pool, low, high in (
            (self.id_pool, start - first, stop - last),
            (self.ood_pool, first, last),
        ):
            for tokens, prompt in pool.blocks(low, high):
                merged.setdefault((tokens.shape[1], prompt), []).append(tokens)
        return [(np.concatenate(parts), prompt) for (_, prompt), parts in sorted(merged.items())]
