from grpo_origin.rl.method import Method


class GRPO(Method):
    """Group relative policy optimisation (Shao et al., arXiv 2402.03300, eq. 3): TRL's, unchanged.

    A_i = (r_i - mean r) / std r in the group; clipped ratios; k3 estimate of the KL; mean over
    tokens, then over completions.
    """
