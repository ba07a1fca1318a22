from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method


class GRPOKLFree(Method):
    """GRPO without the KL term: beta = 0, as in DAPO (arXiv 2503.14476, section 2.3) and Dr. GRPO
    (arXiv 2503.20783).
    """

    beta: Number = Field(0.0, ge=0, le=0, description="Weight of the KL term: none.")
