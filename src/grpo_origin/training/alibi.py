"""ALiBi: attention with a bias linear in the distance (Press et al., arXiv 2108.12409).

A SmolLM3 without rotary embedding whose attention mask holds the bias; `training.model` builds and
opens it. Importing this module tells transformers of it, which otherwise refuses such a folder
rather than opening it as something else.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM, SmolLM3Config, SmolLM3ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.modeling_utils import AttentionInterface

ALIBI = "grpo_origin_alibi"  # `model_type`, and name of the attention


def slopes(heads: int) -> torch.Tensor:
    """Slope of each head (heads,): 2^(-8/n), 2^(-16/n), .. for n heads, as in the paper.

    For a number that is no power of two the same formula holds (assumption; the paper interleaves
    two sequences).
    """
    return torch.exp2(-8 * torch.arange(1, heads + 1) / heads)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention (B, H, T, D) whose scores of a key grow by its head's slope with its position.

    Up to a constant for each query, which softmax ignores, that is minus slope times distance; so
    padding on the left, which shifts query and keys alike, changes nothing.
    """
    heads, keys = query.shape[1], key.shape[2]
    positions = torch.arange(keys, device=query.device, dtype=query.dtype)
    bias = slopes(heads).to(query)[:, None, None] * (positions - (keys - 1))
    return sdpa_attention_forward(module, query, key, value, attention_mask + bias, **more)


class AlibiConfig(SmolLM3Config):
    """Its own type, so that nothing opens such a model as one without any positions."""

    model_type = ALIBI
    auto_map: ClassVar[dict[str, str]] = {}  # TRL asks for it where transformers lacks the class


class AlibiForCausalLM(SmolLM3ForCausalLM):
    """SmolLM3 with the attention above, however it was asked for."""

    config_class = AlibiConfig

    def __init__(self, config: AlibiConfig) -> None:
        config._attn_implementation = ALIBI
        super().__init__(config)


AttentionInterface.register(ALIBI, attend)
AttentionMaskInterface.register(ALIBI, eager_mask)
AutoConfig.register(ALIBI, AlibiConfig)
AutoModelForCausalLM.register(AlibiConfig, AlibiForCausalLM)
