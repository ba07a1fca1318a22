"""LoRA through peft: adapters that SFT and RL train in place of all weights (arXiv 2106.09685).

What is saved as a stage has them merged into its weights, so that nothing needs peft to open it.
Knows nothing of what is trained.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.stages import LoraSettings

if TYPE_CHECKING:
    from peft import LoraConfig

    from grpo_origin.training.model import Decoder


def lora_config(settings: LoraSettings, seed: int) -> LoraConfig:
    """The adapters as peft's settings; what it draws next is of the seed alone.

    Without dropout, so that a resumed run repeats an undisturbed one. Raises ConfigError if peft is
    not installed.
    """
    check_peft()
    import torch
    from peft import LoraConfig

    torch.manual_seed(seed)
    targets = settings.targets
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a float does
        target_modules=targets if isinstance(targets, str) else list(targets),
    )


def adapted(model: Decoder, settings: LoraSettings, seed: int) -> Any:
    """The model with fresh adapters, which alone are trained: nothing is changed by them yet.

    Raises ConfigError if it has no layer of the names in `targets`.
    """
    from peft import get_peft_model

    config = lora_config(settings, seed)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"lora.targets: {str(error).splitlines()[0]}") from None


def merged(model: Any) -> Decoder:
    """The model itself, what its adapters do merged into its weights."""
    return model.merge_and_unload()


def check_peft() -> None:
    """Raise ConfigError unless peft is installed."""
    if find_spec("peft") is None:
        raise ConfigError(
            "lora: this needs peft, which is not installed: pip install 'grpo-origin[lora]'"
        )
