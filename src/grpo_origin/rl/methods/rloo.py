from grpo_origin.rl.method import Method


class RLOO(Method):
    """REINFORCE leave-one-out (Ahmadian et al., arXiv 2402.14740, section 2.2): TRL's RLOOTrainer.

    A_i = r_i - beta ln(pi/pi_ref)(y_i) - mean of the others' in the group: the exact objective E[R]
    - beta KL.
    """

    trainer = "RLOOTrainer"
