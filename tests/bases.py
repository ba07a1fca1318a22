"""Base models as users have them: tiny, of several architectures, made and saved on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grpo_origin.tasks.tokenizer import build_tokenizer
from grpo_origin.tasks.world import World

ARCHITECTURES = ("llama", "qwen2", "gpt_neox")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_model(kind: str, tokens: int, context: int = 64, width: int = 32) -> Any:
    """An untrained causal LM of an architecture with so many tokens; Qwen-type ones tie weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": tokens,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
        "tie_word_embeddings": kind.startswith("qwen"),
    }
    if kind == "gpt2":
        shape = {"vocab_size": tokens, "n_embd": width, "n_layer": 1, "n_head": 2}
        shape |= {"n_positions": context}
    elif kind != "gpt_neox":
        shape |= {"num_key_value_heads": 1}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))


def string_base(folder: Path, kind: str, nodes: int = 8, **shape: Any) -> Path:
    """A base that knows the tokens of strings over so many nodes."""
    tokenizer = build_tokenizer(World(nodes, 0))
    tiny_model(kind, len(tokenizer) + 3, **shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def text_tokenizer(chat: bool = False) -> Any:
    """A byte-level tokenizer without merges: every byte is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<eos>", "<pad>", "<user>", "<assistant>", "<end>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *letters])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=special[2:],
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def text_base(folder: Path, kind: str, chat: bool = False, **shape: Any) -> Path:
    """A base for texts, with or without a chat template."""
    tokenizer = text_tokenizer(chat)
    tiny_model(kind, len(tokenizer), **shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_config(folder: Path, **changes: Any) -> Path:
    """The folder, keys of its config.json changed."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder
