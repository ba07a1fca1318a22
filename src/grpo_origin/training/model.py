"""Models: a small Llama from scratch, and model folders that `transformers` opens offline.

Without rotary embedding it is transformers' SmolLM3, a Llama whose layers can leave that out.
Called by every stage that makes or opens a model; knows nothing of data or losses.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from grpo_origin.config.stages import ModelSettings
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.tasks.domain import Domain, Tokens

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, SmolLM3ForCausalLM

    Decoder = LlamaForCausalLM | SmolLM3ForCausalLM

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are made here, never fetched
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def build_model(settings: ModelSettings, tokens: Tokens, seed: int) -> Decoder:
    """A freshly initialised decoder; its weights depend on settings, tokens and seed alone."""
    from transformers import LlamaConfig, LlamaForCausalLM, SmolLM3Config, SmolLM3ForCausalLM

    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": len(tokens),
        "hidden_size": settings.width,
        "intermediate_size": settings.feed_forward,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.heads,
        "max_position_embeddings": settings.context,
        "rope_parameters": {"rope_type": "default", "rope_theta": settings.rope_theta},
        "initializer_range": settings.initial_scale,
        "tie_word_embeddings": False,
        "bos_token_id": tokens.bos,
        "eos_token_id": tokens.eos,
        "pad_token_id": tokens.pad,
    }
    if settings.positions == "rope":
        return LlamaForCausalLM(LlamaConfig(**shape))
    shape["no_rope_layers"] = [0] * settings.layers
    if settings.positions == "none":
        return SmolLM3ForCausalLM(SmolLM3Config(**shape))
    from grpo_origin.training.alibi import AlibiConfig, AlibiForCausalLM

    return AlibiForCausalLM(AlibiConfig(**shape))


def load_model(path: str | Path) -> Decoder:
    """Open a model folder in float32.

    Raises ArtefactError if it is missing, truncated or not one of ours.
    """
    from safetensors import SafetensorError, safe_open
    from transformers import AutoModelForCausalLM

    try:
        written = json.loads((Path(path) / "config.json").read_text())
        with safe_open(Path(path) / "model.safetensors", framework="pt") as weights:
            shape = weights.get_slice("model.embed_tokens.weight").get_shape()
        if shape != [written["vocab_size"], written["hidden_size"]]:
            raise ValueError("weights and config.json are of different models")
        if written["model_type"] not in ("llama", "smollm3"):
            from grpo_origin.training import alibi  # noqa: F401  # tells transformers what it is

        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True
        )
        model, loading = loaded
        # transformers fills missing ones with random numbers
        if loading["missing_keys"] or loading["unexpected_keys"]:
            raise ValueError("weights and config.json are of different models")
        return model
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtefactError(
            path, f"not a readable model folder ({str(error).splitlines()[0]})"
        ) from None


def save_model(model: Decoder, domain: Domain, path: str | Path) -> None:
    """Write weights (safetensors), configuration and tokenizer to a folder."""
    model.save_pretrained(path)
    domain.build_tokenizer().save_pretrained(path)
