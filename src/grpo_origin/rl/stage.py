"""One RL stage: post-train an SFT model by a method on the prompts of a split.

Called by the job `rl`. Holds the lease, resumes what was interrupted, saves by time and on a signal
(`jobs.checkpoint`); the training itself is the trainer's.
"""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from grpo_origin.config.notation import SPLITS
from grpo_origin.config.paths import LEARNING_CURVE, PROMPT_MASS, SIGNAL, rl_stage
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.config.stages import LoraSettings, NumericsSettings, RLSettings
from grpo_origin.data.prompt_sets import curve_prompts, read_prompts
from grpo_origin.data.rows import COLUMNS
from grpo_origin.data.source import Source
from grpo_origin.jobs.checkpoint import stop_signals
from grpo_origin.jobs.errors import ArtefactError, Interrupted
from grpo_origin.rl import signal
from grpo_origin.rl.callbacks import MEMORY, Keeper, LearningCurve, NewReference
from grpo_origin.rl.method import Method
from grpo_origin.rl.trainer import make_trainer, training_log
from grpo_origin.tasks.domain import Tokens
from grpo_origin.tasks.world import generator
from grpo_origin.training.lora import lora_config, merged
from grpo_origin.training.model import load_model
from grpo_origin.training.stage import training_stage


def train_rl(
    source: str | Path,
    prompt_set: str | Path,
    trained_on: str,
    output: str | Path,
    checkpoint: str | Path,
    *,
    data: Source,
    rl: RLSettings,
    method: Method,
    numerics: NumericsSettings,
    runtime: RuntimeSettings,
    lora: LoraSettings | None = None,
) -> None:
    """Post-train the model folder `source` on a prompt set's split `trained_on` (id or ood).

    Writes a model folder to `output`, with the files of `signal` and the learning curve in it;
    `data` is what prompts were and test prompts are drawn from. With `lora` adapters are trained,
    and merged into the weights that are written. Raises Interrupted after
    saving its state if the job is told to stop, NotFinite if a gradient or weight is no number,
    ArtefactError if prompts run out.
    """
    name = type(method).__module__.rpartition(".")[2]
    count, rl = method.count(rl), method.settings(rl)
    with (
        training_stage(
            rl_stage(trained_on, name),
            output,
            checkpoint,
            domain=data.domain,
            settings={
                "trained_on": trained_on,
                "method": {name: method.model_dump()},
                "rl": rl.model_dump(),
                "lora": lora.model_dump() if lora else None,
            },
            inputs=[Path(source) / "model.safetensors", prompt_set],
            code=[__file__, inspect.getfile(type(method))],
            numerics=numerics,
            runtime=runtime,
        ) as training,
        scratch(runtime) as folder,
        stop_signals() as stopping,
    ):
        if training is None:
            return
        model = load_model(source)
        prompts = ordered_prompts(prompt_set, trained_on, method, count, data.seed)
        mass = signal.prompt_mass(model, prompts.slice(0, count), training.device, rl)
        saved = training.checkpoint.load_folder()
        memory = json.loads((saved / MEMORY).read_text(encoding="utf-8")) if saved else {}
        tested = curve_prompts(data, rl.evaluate_prompts)
        curve = LearningCurve(tested, rl.evaluate_every, training.device, memory)
        keeper = Keeper(training.checkpoint, stopping, memory, training.guard)
        trainer = make_trainer(
            method,
            model,
            prompt_dataset(prompts, data.domain.tokens),
            domain=data.domain,
            rl=rl,
            numerics=numerics,
            device=training.device,
            folder=folder,
            guard=training.guard,
            callbacks=[curve],
            memory=memory,
            adapters=lora_config(model, lora, data.seed) if lora else None,
        )
        if every := rl.reset_reference_every:
            trainer.add_callback(NewReference(trainer.ref_model, every, saved))
        trainer.add_callback(keeper)  # last: it saves what the others change
        if saved:
            print(f"resumed after {saved.name.replace('-', ' ')} of {rl.steps}", flush=True)
        trainer.train(resume_from_checkpoint=str(saved) if saved else None)
        done = trainer.state.global_step
        if keeper.interrupted:
            raise Interrupted(
                f"stopped after step {done} of {rl.steps}; the state is saved and the same command "
                "resumes"
            )
        if done < rl.steps:
            raise ArtefactError(
                prompt_set,
                f"has too few {trained_on} prompts: they ended at step {done} of {rl.steps}",
            )
        if lora:
            model = merged(trainer.model)
        had_signal = signal.summary(
            memory[signal.COUNTS],
            mass["log_mass"].to_numpy(),
            from_mass=rl.temperature == 1 and rl.reward == "exact",
            moved=signal.moved(model, load_model(source)),
        )
        tables = {PROMPT_MASS: mass, SIGNAL: had_signal, LEARNING_CURVE: curve.table}
        training.finish(model, training_log(trainer.state.log_history), tables)


def ordered_prompts(
    prompt_set: str | Path, trained_on: str, method: Method, count: int, seed: int
) -> pa.Table:
    """A prompt set in the method's order of training; a run uses the first `count`."""
    (other,) = (split for split in SPLITS if split != trained_on)
    prompts, others = (read_prompts(prompt_set, split) for split in (trained_on, other))
    draws = generator(seed, "method", "prompts")
    return method.order(prompts, others, count, draws)


def prompt_dataset(prompts: pa.Table, tokens: Tokens) -> Dataset:
    """Prompts as the trainer takes them.

    `prompt`, `question` (the same), `gold`, where its steps begin (`step_starts`), `task`, and what
    else the verifier needs.
    """
    columns = {
        "prompt": "prompt_ids",
        "question": "prompt_ids",
        "gold": "completion_ids",
        "task": "task",
    }
    known = (*COLUMNS, "prompt_index")
    columns |= {name: name for name in prompts.column_names if name not in known}
    rows = {name: prompts[column].to_pylist() for name, column in columns.items()}
    rows["step_starts"] = [tokens.step_starts(gold) for gold in rows["gold"]]
    return Dataset.from_dict(rows)


def scratch(runtime: RuntimeSettings) -> tempfile.TemporaryDirectory[str]:
    """A node-local folder: the trainer writes a state there before it goes, whole, to `output`."""
    folder = os.path.expandvars(runtime.scratch) if runtime.scratch else None
    return tempfile.TemporaryDirectory(prefix="grpo-origin-", dir=folder)
