"""Seconds of a GRPO step: ours, stock TRL on text, and a plain torch loop of the same work.

All three sample a group for each prompt with the same `generate`, take log-probabilities under the
policy and under the reference (beta > 0), a clipped loss with a KL term, and make an AdamW step
with clipped gradients, from the same freshly initialised model. Few completions of such a model end
early, so every batch is as wide as the longest right answer, as it is in training, and the work is
the same for all. Sides run in turn, in rising and falling order; a side's figure is the median over
its steps, a ratio that of medians over repeats (goal: ours at most 1.10 times the plain loop).
`parts` splits our step, timed in a run of its own because CUDA has to wait at every border:
generation, log-probabilities (both models), backward, optimiser, and the rest (rewards, decoding,
loss, clipping, logging). One CPU thread, or CUDA where there is one. Writes grpo_step.json (or
grpo_step_paper.json) beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer

from grpo_origin.config.load import read_settings
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import SFTSettings
from grpo_origin.data.prompt_sets import write_grpo
from grpo_origin.data.source import Source
from grpo_origin.rl.methods.grpo import GRPO
from grpo_origin.rl.stage import ordered_prompts, prompt_dataset
from grpo_origin.rl.trainer import MethodHooks, make_trainer
from grpo_origin.tasks.rewards import TaskReward
from grpo_origin.tasks.tokenizer import EOS, PAD
from grpo_origin.training.model import build_model, load_model, save_model
from grpo_origin.training.numerics import FiniteGuard

CONFIG = Path(__file__).parents[1] / "config"
SKIPPED = 2  # first steps of a side, which allocate and warm up
Timer = Callable[[], float]


class Setting:
    """What all sides share: settings, device, the model folder, prompts."""

    def __init__(
        self, settings: Settings, steps: int, folder: Path, device: torch.device | None = None
    ) -> None:
        self.folder = folder
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.rl = settings.rl.model_copy(update={"steps": steps})
        self.numerics = settings.numerics
        self.bf16 = settings.numerics.precision == "bfloat16" and self.device.type == "cuda"
        self.source = Source(settings.world, settings.axes["depth"], 0)
        self.domain = self.source.domain
        model = build_model(settings.model, self.domain.tokens, 0)
        save_model(model, self.domain, folder / "model")
        write_grpo(self.source, self.rl.prompts, SFTSettings().counts, folder / "grpo.parquet")
        rows = ordered_prompts(folder / "grpo.parquet", "id", GRPO(), self.rl.prompts, 0)
        self.dataset = prompt_dataset(rows, self.domain.tokens)
        self.longest = max(map(len, self.dataset["gold"]))

    def now(self) -> float:
        """The time when all work given to the device so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


class Clock(TrainerCallback):
    """The time after each step."""

    def __init__(self, now: Timer) -> None:
        self.now = now
        self.times: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.times.append(self.now())

    def seconds(self) -> float:
        """Median seconds of a step, from the end of one to the end of the next."""
        steps = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
        return statistics.median(steps[SKIPPED - 1 :])


def our_trainer(at: Setting, clock: Clock) -> MethodHooks:
    """The trainer as the workflow makes it."""
    return make_trainer(
        GRPO(),
        load_model(at.folder / "model"),
        at.dataset,
        domain=at.domain,
        rl=at.rl,
        numerics=at.numerics,
        device=at.device,
        folder=at.folder / "ours",
        guard=FiniteGuard("grpo~id"),
        callbacks=[clock],
    )


def ours(at: Setting) -> float:
    """Seconds of our step."""
    clock = Clock(at.now)
    our_trainer(at, clock).train()
    return clock.seconds()


def stock(at: Setting) -> float:
    """Seconds of TRL's step: prompts, completions, rewards as text; loss and logging its own."""
    words = at.domain.tokens.names
    columns = {"prompt": at.dataset["prompt"], "gold": at.dataset["gold"]}
    dataset = Dataset.from_dict(
        {name: [" ".join(words[i] for i in ids) for ids in rows] for name, rows in columns.items()}
    )

    def exact_match(completions: list[str], gold: list[str], **_: object) -> list[float | None]:
        return [
            float(given.split() == right.split()[:-1])
            for given, right in zip(completions, gold, strict=True)
        ]

    clock = Clock(at.now)
    arguments = GRPOConfig(
        output_dir=str(at.folder / "stock"),
        max_steps=at.rl.steps,
        per_device_train_batch_size=at.rl.prompts_per_step * at.rl.group_size,
        num_generations=at.rl.group_size,
        max_completion_length=at.longest,
        learning_rate=at.rl.learning_rate,
        beta=at.rl.beta,
        temperature=at.rl.temperature,
        bf16=at.bf16,
        gradient_checkpointing=False,
        use_cpu=at.device.type == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=str(at.folder / "model"),
        reward_funcs=exact_match,
        args=arguments,
        train_dataset=dataset,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.seconds()


def log_probs(
    model: torch.nn.Module, tokens: torch.Tensor, mask: torch.Tensor, width: int
) -> torch.Tensor:
    """Log-probabilities of the last `width` tokens, tokens and mask (B, P + T), result (B, T)."""
    logits = (
        model(input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=width + 1)
        .logits[:, :-1]
        .float()
    )
    return torch.log_softmax(logits, -1).gather(-1, tokens[:, -width:, None])[..., 0]


def plain(at: Setting) -> float:
    """Seconds of a step written out in torch."""
    torch.manual_seed(0)
    rl, reward = at.rl, TaskReward(at.domain)
    policy: Any  # transformers types neither `to` nor `generate` of a model as they are used
    reference: Any
    policy, reference = (load_model(at.folder / "model") for _ in range(2))
    policy.to(at.device)
    reference.to(at.device)
    policy.train()
    reference.eval()
    optimiser = torch.optim.AdamW(
        policy.parameters(), lr=rl.learning_rate, weight_decay=0.0, fused=True
    )
    autocast = torch.autocast(at.device.type, torch.bfloat16, enabled=at.bf16)
    times = []
    for step in range(rl.steps):
        rows = at.dataset[step * rl.prompts_per_step : (step + 1) * rl.prompts_per_step]
        question, task = (
            [value for value in rows[name] for _ in range(rl.group_size)]
            for name in ("question", "task")
        )
        wide = max(map(len, question))
        prompts = torch.tensor(
            [[PAD] * (wide - len(ids)) + ids for ids in question], device=at.device
        )  # (B, P)
        with torch.no_grad(), autocast:
            tokens = policy.generate(
                input_ids=prompts,
                attention_mask=(prompts != PAD).long(),
                max_new_tokens=at.longest,
                do_sample=True,
                temperature=rl.temperature,
                top_k=0,
                top_p=1.0,
            )
        drawn = tokens[:, wide:]  # (B, T)
        ended = (drawn == EOS).cumsum(1)
        mask = ((ended == 0) | ((ended == 1) & (drawn == EOS))).long()
        kept = [ids[:n] for ids, n in zip(drawn.tolist(), mask.sum(1).tolist(), strict=True)]
        rewards = torch.tensor(reward(question, kept, task), device=at.device).view(
            -1, rl.group_size
        )
        advantages = (
            (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        ).view(-1, 1)
        whole = torch.cat([(prompts != PAD).long(), mask], 1)
        with autocast:
            with torch.no_grad():
                base = log_probs(reference, tokens, whole, drawn.shape[1])
            now = log_probs(policy, tokens, whole, drawn.shape[1])
        ratio = (now - now.detach()).exp()
        clipped = ratio.clamp(1 - rl.epsilon, 1 + rl.epsilon)
        kl = (base - now).exp() - (base - now) - 1
        losses = rl.beta * kl - torch.minimum(ratio * advantages, clipped * advantages)
        loss = ((losses * mask).sum(1) / mask.sum(1)).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), rl.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        (loss.item(), norm.item())  # for a log
        times.append(at.now())
    clock = Clock(at.now)
    clock.times = times
    return clock.seconds()


def parts(at: Setting) -> dict[str, float]:
    """Seconds of our step: the whole, generation, log-probs, backward, optimiser, and the rest."""
    clock = Clock(at.now)
    spent = dict.fromkeys(("generation", "log-probs", "backward", "optimiser"), 0.0)
    trainer = our_trainer(at, clock)

    def timed(owner: object, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def outer(*args: object, **kwargs: object) -> object:
            started = at.now()
            try:
                return inner(*args, **kwargs)
            finally:
                if len(clock.times) >= SKIPPED:
                    spent[name] += at.now() - started

        setattr(owner, method, outer)

    timed(trainer, "_generate_single_turn", "generation")
    timed(trainer, "_get_per_token_logps_and_entropies", "log-probs")
    timed(trainer.accelerator, "backward", "backward")
    begun: list[float] = []

    def ended(*_: object) -> None:
        if len(clock.times) >= SKIPPED:
            spent["optimiser"] += at.now() - begun[-1]

    hooks = [
        register_optimizer_step_pre_hook(lambda *_: begun.append(at.now())),
        register_optimizer_step_post_hook(ended),
    ]
    try:
        trainer.train()
    finally:
        for hook in hooks:
            hook.remove()
    steps = len(clock.times) - SKIPPED
    whole = (clock.times[-1] - clock.times[SKIPPED - 1]) / steps
    each = {name: seconds / steps for name, seconds in spent.items()}
    return {"whole": whole} | each | {"rest": whole - sum(each.values())}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scale",
        choices=["laptop", "paper"],
        default="laptop",
        help="sizes and batch of this configuration",
    )
    parser.add_argument(
        "--steps", type=int, default=20, help="steps of a side in a repeat (default 20)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="times each side runs (default 5)")
    options = parser.parse_args()
    disable_progress_bar()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = True
    files = [CONFIG / "config.yaml", *([CONFIG / "paper.yaml"] if options.scale == "paper" else [])]
    sides = {"ours": ours, "stock": stock, "plain": plain}
    found: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as name:
        at = Setting(read_settings(*files), max(options.steps, SKIPPED + 1), Path(name))
        for repeat in range(options.repeats):
            for side in list(sides)[:: -1 if repeat % 2 else 1]:
                found[side].append(sides[side](at))
        split = parts(at)
        whole = split.pop("whole")
    device = torch.cuda.get_device_name() if at.device.type == "cuda" else "1 CPU thread"
    result = {
        "scale": options.scale,
        "device": device,
        "completions_a_step": at.rl.prompts_per_step * at.rl.group_size,
        **{f"{side}_ms": statistics.median(seconds) * 1e3 for side, seconds in found.items()},
        "ours_over_plain": statistics.median(
            a / b for a, b in zip(found["ours"], found["plain"], strict=True)
        ),
        "ours_over_stock": statistics.median(
            a / b for a, b in zip(found["ours"], found["stock"], strict=True)
        ),
        **{f"share_{part}": seconds / whole for part, seconds in split.items()},
    }
    for key, value in result.items():
        print(f"{key:20} {f'{value:.3g}' if isinstance(value, float) else value}")
    suffix = "" if options.scale == "laptop" else f"_{options.scale}"
    Path(__file__).with_name(f"grpo_step{suffix}.json").write_text(
        json.dumps(result, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
