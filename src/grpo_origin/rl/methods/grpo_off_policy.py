from pydantic import Field

from grpo_origin.config.fields import Count
from grpo_origin.rl.method import Method


class GRPOOffPolicy(Method):
    """Plain GRPO with several optimiser steps on each batch of rollouts: the control of the methods
    that clip ratios.

    With one step a batch every ratio is 1 and clipping does nothing; with more, fewer completions
    are sampled for as many steps.
    """

    iterations: Count = Field(2, description="Optimiser steps on each batch of rollouts.")
