"""Pretraining and SFT: one plain loop over token blocks, exact to resume.

Called by the jobs `pretrain` and `sft`. A plain loop rather than transformers' Trainer: batches
come as blocks of one shape (no padding is computed), and the state of a run is weights, optimiser
moments and a step number, so a resumed run repeats an undisturbed one bit for bit
(docs/performance.md has the measurement). Knows nothing of RL.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import (
    LoraSettings,
    ModelSettings,
    NumericsSettings,
    OptimiserSettings,
    PretrainSettings,
    SFTSettings,
)
from grpo_origin.data.mixture import Mixture
from grpo_origin.data.pools import Pool
from grpo_origin.data.prompt_sets import read_prompts
from grpo_origin.data.rows import IGNORED, Block, Sequences, filled
from grpo_origin.jobs.checkpoint import Checkpoint, stop_signals
from grpo_origin.jobs.errors import Interrupted
from grpo_origin.tasks.domain import Domain
from grpo_origin.tasks.world import generator
from grpo_origin.training.base import find_base
from grpo_origin.training.lora import adapted, merged
from grpo_origin.training.model import build_model, load_model, open_base
from grpo_origin.training.numerics import FiniteGuard, training_passes
from grpo_origin.training.stage import training_stage

if TYPE_CHECKING:
    from grpo_origin.training.model import Decoder


PROGRESS_SECONDS = 5.0


class Progress:
    """Step, rate and time left, printed now and then."""

    def __init__(self, steps: int, first: int = 0) -> None:
        self.steps, self.first, self.started = steps, first, time.monotonic()
        self.printed = self.started

    def step(self, done: int, **values: float) -> None:
        """Report that `done` steps are done."""
        now = time.monotonic()
        if now - self.printed < PROGRESS_SECONDS and done < self.steps:
            return
        self.printed = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        shown = "".join(f"  {name} {value:.4g}" for name, value in values.items())
        left = (self.steps - done) / max(rate, 1e-9)
        print(
            f"step {done}/{self.steps}  {rate:.2f} steps/s  {left:.0f} s left{shown}",
            flush=True,
        )


def learning_rate(settings: OptimiserSettings, step: int, steps: int) -> float:
    """Learning rate of a step (0-based): linear warm-up, cosine decay to a share of the peak."""
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
    return settings.learning_rate * (settings.final_rate + (1 - settings.final_rate) * cosine)


def next_token_loss(
    logits: torch.Tensor, tokens: torch.Tensor, first: int, targets: torch.Tensor | None = None
) -> torch.Tensor:
    """Summed cross-entropy of tokens[:, first:] (B, T) given those before; logits (B, T, V).

    Of `targets` (B, T - first) instead, if given; those that are IGNORED don't count.
    """
    predicted = logits[:, first - 1 : -1].flatten(0, 1).float()
    wanted = tokens[:, first:] if targets is None else targets
    return torch.nn.functional.cross_entropy(
        predicted, wanted.flatten(), reduction="sum", ignore_index=IGNORED
    )


def targets_in(block: Block) -> int:
    """How many targets a block has."""
    if block.targets is None:
        return block.tokens[:, block.first :].size
    return int((block.targets != IGNORED).sum())


def _optimiser(model: torch.nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), fused=True
    )


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """What is trained by name; of weights that are tied, one."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _state(model: torch.nn.Module, optimiser: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    tensors = {f"model.{name}": value.detach() for name, value in _trained(model).items()}
    for i, value in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{name}": tensor for name, tensor in value.items()}
    return tensors


def _restore(
    model: torch.nn.Module, optimiser: torch.optim.AdamW, tensors: dict[str, torch.Tensor]
) -> None:
    with torch.no_grad():
        for name, value in _trained(model).items():
            value.copy_(tensors[f"model.{name}"])
    state = optimiser.state_dict()
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, i, key = name.split(".")
            state["state"].setdefault(int(i), {})[key] = tensor
    optimiser.load_state_dict(state)


def train(
    model: Decoder,
    batch: Callable[[int], Sequence[Block]],
    steps: int,
    settings: OptimiserSettings,
    numerics: NumericsSettings,
    device: torch.device,
    checkpoint: Checkpoint,
    guard: FiniteGuard,
    compiled: bool = False,
) -> list[dict[str, float]]:
    """Train in place and return the log.

    A row a step: step, loss (nats a token), learning_rate, grad_norm, seconds. `batch(step)` gives
    the blocks of a step; the loss is the mean over all their target tokens. Raises Interrupted
    after saving its state if the job is told to stop, NotFinite if a loss, gradient or weight is no
    number.
    """
    torch.nn.Module.to(model, device).train()
    optimiser = _optimiser(model, settings)
    log: list[dict[str, float]] = []
    if (resumed := checkpoint.load()) is not None:
        _restore(model, optimiser, resumed[0])
        log = resumed[1]
        print(f"resumed after step {len(log)} of {steps}", flush=True)
    forward = torch.compile(model) if compiled else model
    autocast = training_passes(numerics, device)
    progress = Progress(steps, len(log))
    with stop_signals() as stopping:
        for step in range(len(log), steps):
            started = time.monotonic()
            rate = learning_rate(settings, step, steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            blocks = batch(step)
            count = sum(map(targets_in, blocks))
            total = torch.zeros((), device=device)
            for block in blocks:
                tokens = torch.from_numpy(block.tokens).to(device, non_blocking=True)
                wanted = None if block.targets is None else torch.from_numpy(block.targets)
                wanted = None if wanted is None else wanted.to(device, non_blocking=True)
                with autocast:
                    logits = forward(input_ids=tokens, use_cache=False).logits
                loss = next_token_loss(logits, tokens, block.first, wanted) / count
                loss.backward()
                total += loss.detach()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            row = {"loss": total.item(), "learning_rate": rate, "grad_norm": norm.item()}
            guard.number("loss", row["loss"], step + 1)
            guard.number("gradient norm", row["grad_norm"], step + 1)
            optimiser.step()
            optimiser.zero_grad()
            log.append({"step": step + 1, **row, "seconds": time.monotonic() - started})
            progress.step(step + 1, loss=row["loss"])
            if step + 1 < steps and (stopping() or checkpoint.due()):
                guard.weights(model, step + 1)
                checkpoint.save(_state(model, optimiser), log)
                if stopping():
                    raise Interrupted(
                        f"stopped after step {step + 1} of {steps}; the state is saved and the "
                        "same command resumes"
                    )
    return log


def pretrain(
    id_pool: str | Path,
    ood_pool: str | Path,
    output: str | Path,
    checkpoint: str | Path,
    *,
    domain: Domain,
    ratio: str,
    model: ModelSettings,
    pretrain: PretrainSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
) -> None:
    """Pretrain on the mixture of a ratio, from random weights or from a base, to `output`.

    What is written is a model folder; without samples it holds the base as it is.
    """
    base = find_base(pretrain.base) if pretrain.base else None
    with training_stage(
        "pretrain",
        output,
        checkpoint,
        domain=domain,
        inputs=[id_pool, ood_pool],
        code=[__file__],
        numerics=numerics,
        runtime=runtime,
        settings={
            "ratio": ratio,
            "model": model.model_dump(),
            "pretrain": pretrain.model_dump(),
            "base": base.digest if base else None,
        },
    ) as training:
        if training is None:
            return
        mixture = Mixture(Pool(id_pool), Pool(ood_pool), pretrain.samples, ratio, domain.seed)
        tokens = domain.tokens
        network = open_base(base, tokens) if base else build_model(model, tokens, domain.seed)

        def batch(step: int) -> list[Block]:
            start = step * pretrain.batch_size
            blocks = mixture.blocks(start, min(start + pretrain.batch_size, pretrain.samples))
            if domain.ragged:
                return [filled(blocks, domain.tokens.pad, whole=True)]
            return [Block(tokens, 1) for tokens, _ in blocks]

        log = train(
            network,
            batch,
            pretrain.steps,
            pretrain,
            numerics,
            training.device,
            training.checkpoint,
            training.guard,
            compiled=numerics.compile,
        )
        training.finish(network, log)


def sft(
    source: str | Path,
    samples: str | Path,
    output: str | Path,
    checkpoint: str | Path,
    *,
    domain: Domain,
    sft: SFTSettings,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
    lora: LoraSettings | None = None,
) -> None:
    """Fine-tune the model folder `source` on SFT samples' completions; write one to `output`.

    With `lora` adapters are trained, and merged into the weights that are written.
    """
    with training_stage(
        "sft",
        output,
        checkpoint,
        domain=domain,
        settings={"sft": sft.model_dump(), "lora": lora.model_dump() if lora else None},
        inputs=[Path(source) / "model.safetensors", samples],
        code=[__file__],
        numerics=numerics,
        runtime=runtime,
    ) as training:
        if training is None:
            return
        rows = Sequences(read_prompts(samples))
        network = load_model(source)
        if lora:
            network = adapted(network, lora, domain.seed)
        per_epoch = sft.steps // sft.epochs

        def batch(step: int) -> list[Block]:
            epoch, position = divmod(step, per_epoch)
            order = generator(domain.seed, "sft order", str(epoch)).permutation(rows.size)
            chosen = order[position * sft.batch_size : (position + 1) * sft.batch_size]
            blocks = [(tokens, prompt) for _, tokens, prompt in rows.blocks(chosen)]
            if domain.ragged:
                return [filled(blocks, domain.tokens.pad, whole=False)]
            return [Block(*block) for block in blocks]

        log = train(
            network,
            batch,
            sft.steps,
            sft,
            numerics,
            training.device,
            training.checkpoint,
            training.guard,
        )
        training.finish(merged(network) if lora else network, log)
