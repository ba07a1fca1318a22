from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Curriculum(Method):
    """GRPO on prompts that move from the other split to the stage's own: from ID towards OOD in
    `curriculum~ood`.

    The n-th of the N prompts of a run is one of the stage's split with probability min(1, n /
    (until N)), else one of the other split.
    """

    until: Number = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the training after which all prompts are of the stage's split.",
    )

    def order(
        self, prompts: pa.Table, others: pa.Table, count: int, draws: np.random.Generator
    ) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        place = np.arange(count)
        own = draws.random(count) < place / (self.until * count)
        rows = np.where(own, place, count + place)
        return pa.concat_tables([prompts.slice(0, count), others.slice(0, count)]).take(rows)
