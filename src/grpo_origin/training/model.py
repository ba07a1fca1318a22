"""Models: a small Llama from scratch, and model folders that `transformers` opens offline.

Without rotary embedding it is transformers' SmolLM3, a Llama whose layers can leave that out. A
base from outside (`base`) is any causal LM of transformers, of which only weights are used.
Called by every stage that makes or opens a model; knows nothing of data or losses.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from grpo_origin.config.paths import PROVENANCE
from grpo_origin.config.stages import ModelSettings
from grpo_origin.jobs.errors import ArtefactError
from grpo_origin.tasks.domain import Domain, Tokens
from grpo_origin.training.base import CONFIG, Base

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, SmolLM3ForCausalLM

    Decoder = LlamaForCausalLM | SmolLM3ForCausalLM

# What a job reads is here: models are made, and a base of the hub was fetched by the planning.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

READ_ERRORS = (OSError, SafetensorError, KeyError, ValueError, RuntimeError)
ONE_FILE = "1000TB"  # weights of a stage lie in one file, whatever their size
FOREIGN = (
    "no run made it, since it has no provenance.json, so it is left alone: move it elsewhere, and "
    "to start from a model of your own name its folder in pretrain.base"
)


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
    """Open the model folder of a stage in float32.

    Raises ArtefactError if it is missing, truncated or not whole; a folder that no run made, which
    has no provenance, is someone's own and called so.
    """
    try:
        return _opened(path, extra=False)
    except READ_ERRORS as error:
        advice = None
        if (Path(path) / CONFIG).exists() and not (Path(path) / PROVENANCE).exists():
            advice = FOREIGN
        problem = f"not a readable model folder ({str(error).splitlines()[0]})"
        raise ArtefactError(path, problem, advice) from None


def open_base(base: Base, tokens: Tokens) -> Decoder:
    """A base model from outside in float32, as all stages will have it.

    Without dropout, so that training is the same when it is resumed, and with token ids and
    generation settings of this study: what is sampled is drawn from the full softmax. Raises
    ConfigError, one line, if transformers can't open it as a causal LM.
    """
    from transformers import AutoConfig, GenerationConfig

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        _register(base.config)
        config = AutoConfig.from_pretrained(base.folder, **local)
        for key, value in config.to_dict().items():
            if "drop" in key and isinstance(value, float):
                setattr(config, key, 0.0)
        model = _opened(base.folder, extra=True, config=config, **local)
    except READ_ERRORS as error:
        raise base.error(f"can't be opened ({str(error).splitlines()[0]})") from None
    embedded = int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    if len(tokens) > embedded:
        raise base.error(
            f"its tokenizer has {len(tokens)} tokens, more than its embedding ({embedded})"
        )
    ids = {"eos_token_id": tokens.eos, "pad_token_id": tokens.pad}
    for name, value in ids.items():
        setattr(model.config, name, value)
    model.generation_config = GenerationConfig(**ids)
    return model


def _opened(path: str | Path, extra: bool, **how: Any) -> Decoder:
    """A model folder in float32, which may hold `extra` weights that its class lacks.

    Raises one of READ_ERRORS if it is not whole.
    """
    from transformers import AutoModelForCausalLM

    _register(json.loads((Path(path) / CONFIG).read_text(encoding="utf-8")))
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **how
    )
    model, loading = loaded
    # transformers fills missing ones with random numbers
    unlike = loading["missing_keys"] or loading["mismatched_keys"]
    if unlike or (loading["unexpected_keys"] and not extra):
        raise ValueError("weights and config.json are of different models")
    return model


def _register(written: dict[str, Any]) -> None:
    """Tell transformers of the architecture that config.json names, if it is one of this package.

    Raises KeyError if it names none.
    """
    if written["model_type"].startswith("grpo_origin"):
        from grpo_origin.training import alibi  # noqa: F401


def save_model(model: Decoder, domain: Domain, path: str | Path) -> None:
    """Write weights (safetensors, one file), configuration and tokenizer to a folder."""
    model.save_pretrained(path, max_shard_size=ONE_FILE)
    domain.build_tokenizer().save_pretrained(path)
