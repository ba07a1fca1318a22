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


def lora_config(model: Decoder, settings: LoraSettings, seed: int) -> LoraConfig:
    """The adapters of a model as peft's settings; what it draws next is of the seed alone.

    Without dropout, so that a resumed run repeats an undisturbed one. Raises ConfigError if peft is
    not installed, or the model has no layer of a name in `targets`.
    """
    check_peft()
    import torch
    from peft import LoraConfig

    targets = settings.targets
    if not isinstance(targets, str):
        linear = [name for name, x in model.named_modules() if isinstance(x, torch.nn.Linear)]
        known = {name.rpartition(".")[2] for name in linear}
        if odd := [name for name in targets if name not in known]:
            has = ", ".join(sorted(known))
            raise ConfigError(f"lora.targets: the model has no layer {odd[0]!r} (it has: {has})")
    torch.manual_seed(seed)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a float does
        target_modules=targets if isinstance(targets, str) else list(targets),
    )


def adapted(model: Decoder, settings: LoraSettings, seed: int) -> Any:
    """The model with fresh adapters, which alone are trained: nothing is changed by them yet."""
    config = lora_config(model, settings, seed)
    from peft import get_peft_model

    return get_peft_model(model, config)


def merged(model: Any) -> Decoder:
    """The model itself, what its adapters do merged into its weights."""
    return model.merge_and_unload()


def check_peft() -> None:
    """Raise ConfigError unless peft is installed."""
    if find_spec("peft") is None:
        raise ConfigError(
            "lora: this needs peft, which is not installed: pip install 'grpo-origin[lora]'"
        )
