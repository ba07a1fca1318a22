from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from grpo_origin.config.fields import Number
from grpo_origin.rl.method import Method, Rollout

if TYPE_CHECKING:
    from torch import Tensor


class NTHR(Method):
    """Negative token hidden reward (arXiv 2505.18830, section 5 and eq. 7): wrong samples aren't
    punished for what right ones share.

    A token k' of a wrong completion scores s = sum over the tokens k of the group's right ones of
    <e_k - pi_k, e_k' - pi_k'> <h_k, h_k'> (one-hot less probabilities; last hidden states): how far
    its penalty would push the right ones down. Where s > the least mean score of a right
    completion's own tokens, the advantage is weakened by eta = 2 |1/2 - p|, p = the group's
    accuracy.
    """

    threshold: Number = Field(1.0, ge=0, description="Factor of the least mean score.")

    objective = "other"

    def advantages(self, rollout: Rollout) -> Tensor:
        import torch

        batch, model = rollout.batch, rollout.trainer.model
        tokens, mask = batch["completion_ids"], batch["completion_mask"].bool()
        with torch.no_grad():
            ids, seen = (
                torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], 1)
                for kind in ("ids", "mask")
            )
            out = model(
                input_ids=ids,
                attention_mask=seen,
                logits_to_keep=tokens.shape[1] + 1,
                output_hidden_states=True,
            )
            hidden = out.hidden_states[-1][:, -tokens.shape[1] - 1 : -1].float()
            error = -out.logits[:, :-1].float().softmax(-1)
            error.scatter_add_(
                2, tokens[..., None], torch.ones_like(error[..., :1])
            )  # one-hot less probabilities (B, T, V)
        advantages = batch["advantages"][:, None].repeat(1, tokens.shape[1])
        for start in range(0, len(tokens), rollout.group_size):
            rows = torch.arange(start, start + rollout.group_size, device=tokens.device)
            right, wrong = rows[rollout.rewards[rows] == 1], rows[rollout.rewards[rows] == 0]
            if len(right) and len(wrong):
                shared = error[right][mask[right]].T @ hidden[right][mask[right]]  # (V, width)
                scores = ((error[rows] @ shared) * hidden[rows]).sum(-1)  # (G, T)
                means = (scores * mask[rows]).sum(1) / mask[rows].sum(1)
                eta = 2 * abs(0.5 - len(right) / len(rows))
                heavy = scores[wrong - start] > self.threshold * means[right - start].min()
                advantages[wrong] = torch.where(heavy, eta * advantages[wrong], advantages[wrong])
        return advantages
