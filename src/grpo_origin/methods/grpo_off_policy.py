from pydantic import Field

from grpo_origin.method import Method
from grpo_origin.sections import Count


class GRPOOffPolicy(Method):
    """Plain GRPO with several optimiser steps on each batch of rollouts: the control of the methods that clip ratios.

    With one step a batch every ratio is 1 and clipping does nothing; with more, fewer completions are sampled for as many steps.
    """

    iterations: Count = Field(2, description="Optimiser steps on each batch of rollouts.")
