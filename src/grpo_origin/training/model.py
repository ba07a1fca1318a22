"""Models: a small Llama from scratch, and model folders that `transformers` opens offline.

Knows architecture, devices and folders; nothing of data or losses.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from grpo_origin.config.stages import ModelSettings, NumericsSettings
from grpo_origin.jobs.errors import ArtefactError, DeviceError
from grpo_origin.tasks.tokenizer import BOS, EOS, PAD, Vocabulary, build_tokenizer
from grpo_origin.tasks.world import World

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are made here, never fetched


os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


GPU_VARIABLES = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")  # set by SLURM when it gave the job GPUs


def choose_device(numerics: NumericsSettings, threads: int) -> torch.device:
    """The device of this job, threads set: CUDA when it was allocated (or asked for), else CPU.

    Raises DeviceError if there is none although `numerics.device` is cuda, or SLURM gave the job a GPU and
    `numerics.device` is auto: at a scale that asks for GPUs, a CPU would be busy for weeks.
    """
    torch.set_num_threads(threads)
    if numerics.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        return torch.device("cuda")
    if numerics.device == "cuda":
        raise DeviceError(
            "numerics.device is cuda, but this job sees no GPU: allocate one, or set numerics.device to auto"
        )
    if allocated := next((name for name in GPU_VARIABLES if os.environ.get(name)), None):
        raise DeviceError(
            f"SLURM gave this job a GPU ({allocated}={os.environ[allocated]}), but torch {torch.__version__} can't use it: "
            "install a CUDA build of torch, check the node's driver, or set numerics.device to cpu"
        )
    return torch.device("cpu")


def build_model(settings: ModelSettings, world: World, seed: int) -> LlamaForCausalLM:
    """A freshly initialised decoder; its weights depend on the settings and the seed alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(Vocabulary(world.nodes)),
        hidden_size=settings.width,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        tie_word_embeddings=False,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    return LlamaForCausalLM(config)


def load_model(path: str | Path) -> LlamaForCausalLM:
    """Open a model folder in float32; raises ArtefactError if it is missing, truncated or not one of ours."""
    from safetensors import SafetensorError, safe_open
    from transformers import LlamaForCausalLM

    try:
        written = json.loads((Path(path) / "config.json").read_text())
        with safe_open(Path(path) / "model.safetensors", framework="pt") as weights:
            shape = weights.get_slice("model.embed_tokens.weight").get_shape()
        if shape != [written["vocab_size"], written["hidden_size"]]:
            raise ValueError("weights and config.json are of different models")
        model, found = LlamaForCausalLM.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True
        )
        if (
            found["missing_keys"] or found["unexpected_keys"]
        ):  # transformers fills them with random numbers
            raise ValueError("weights and config.json are of different models")
        return model
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtefactError(
            path, f"not a readable model folder ({str(error).splitlines()[0]})"
        ) from None


def save_model(model: LlamaForCausalLM, world: World, path: str | Path) -> None:
    """Write weights (safetensors), configuration and tokenizer to a folder that `transformers` opens offline."""
    model.save_pretrained(path)
    build_tokenizer(world).save_pretrained(path)
