"""What a run will cost before it starts: jobs, device hours, disk.

`grpo-origin cost --config config/paper.yaml --pretrain-samples-per-s 20000 ...` prints the plan.
Rates not given are taken from a JSON file with one entry a scale, benchmarks/rates.json, which
benchmarks/rates.py measures. Knows settings and arithmetic, nothing of a run's models or files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from grpo_origin import amounts, lineage
from grpo_origin.config.fields import ConfigError, Section
from grpo_origin.config.grid import Cell
from grpo_origin.config.paths import variant_of
from grpo_origin.config.schema import ResourceSettings, Settings
from grpo_origin.config.stages import ModelSettings
from grpo_origin.study import Study, read_study
from grpo_origin.tasks.domain import domain_of

START_SECONDS = 1.0  # of a job that does next to nothing, beside others on a machine
FLOAT = 4  # bytes of a weight or an optimiser moment
# The stage, a section of `resources`, that a rule's jobs count under if it is not the rule's name.
STAGES = {
    "tokenizer": "data",
    "pretraining_data": "data",
    "prompts": "data",
    "data_summary": "data",
    "converge": "theory",
    "sampling": "theory",
    "answers": "evaluate",
    "calibration": "evaluate",
    "completions": "evaluate",
    "faithfulness": "evaluate",
    "probes": "evaluate",
    "representation": "evaluate",
    "theory_tables": "figures",
    "tables": "figures",
    "claims": "figures",
    "report": "figures",
}


class Rates(Section):
    """Measured speeds of one job on the device that the run will use."""

    pretrain_samples_per_s: float = Field(
        gt=0, description="pretraining samples a second (benchmarks/matmul_share.py)"
    )
    sft_samples_per_s: float = Field(gt=0, description="SFT samples a second")
    grpo_step_s: float = Field(gt=0, description="seconds of a GRPO step (benchmarks/grpo_step.py)")
    grpo_step_fixed_s: float = Field(
        0.0, ge=0, description="seconds of it that do not grow with the completions (default 0)"
    )
    grpo_step_completions: float | None = Field(
        None, gt=0, description="completions of that step (default: those of the run's steps)"
    )
    evaluate_prompts_per_s: float = Field(
        gt=0, description="test prompts evaluated a second, for one model"
    )
    data_samples_per_s: float = Field(
        gt=0,
        description="pool samples generated and written a second, one core (benchmarks/data.py)",
    )
    summary_samples_per_s: float = Field(
        gt=0, description="pool samples read and checked a second, one core (benchmarks/data.py)"
    )
    pool_bytes_per_sample: float = Field(
        gt=0, description="bytes of a pool sample on disk (benchmarks/data.py)"
    )
    startup_s: float = Field(ge=0, description="seconds of start-up of a job")

    @model_validator(mode="after")
    def _check(self) -> Rates:
        if self.grpo_step_fixed_s > self.grpo_step_s:
            raise ValueError("grpo_step_fixed_s: is more than the whole step (grpo_step_s)")
        return self


def matmul_parameters(model: ModelSettings, vocabulary: int) -> int:
    """Parameters that multiply every token: layers (4 d² + 3 d f) + V d of the output head.

    d is the width, f the inner size, V the vocabulary.
    """
    layer = 4 * model.width**2 + 3 * model.width * model.feed_forward
    return model.layers * layer + vocabulary * model.width


def parameters(model: ModelSettings, vocabulary: int) -> int:
    """All parameters: the above, the input embedding V d, and 2 layers + 1 norms of d."""
    embedding, norms = vocabulary * model.width, (2 * model.layers + 1) * model.width
    return matmul_parameters(model, vocabulary) + embedding + norms


def jobs(study: Study) -> dict[str, int]:
    """Jobs of a whole run by stage, summed over the rules of the grid."""
    counts = dict.fromkeys(
        (stage for stage in ResourceSettings.model_fields if stage not in STAGES), 0
    )
    for rule, planned in lineage.jobs(study).items():
        counts[STAGES.get(rule, rule)] += len(planned)
    return counts


def job_work(study: Study, rates: Rates) -> dict[str, Callable[[Study, Cell], float]]:
    """By rule the seconds of work of a job, start-up not counted, from its settings and wildcards.

    pretraining_data, data_summary   (1 + ood_pool) N pool samples
    pretrain    N samples
    sft         epochs x samples
    rl          the method's steps, each as long as one of plain GRPO with as many completions:
                short for methods that draw more
    evaluate    test prompts of all splits x models of a cell; calibration the same
    probes      twice, for the fits, prompts fitted and tested on x models of a cell
    representation  prompts of all kinds of training, each as long as an SFT sample
    converge    steps, each as long as one of plain GRPO; evaluations are not counted
    sampling, answers, faithfulness
                completions, as those of steps: too long, as sampling trains nothing

    Models of variants take longer by their parameters that multiply, against the run's. Rules that
    are not here do little but start.
    """
    settings, theory = study.settings, study.settings.theory
    own = _multiplying(study)
    a_step = rates.grpo_step_completions or settings.rl.prompts_per_step * settings.rl.group_size
    per_completion = (rates.grpo_step_s - rates.grpo_step_fixed_s) / a_step

    def step(completions: int) -> float:
        return rates.grpo_step_fixed_s + completions * per_completion

    def rl_seconds(member: Study, job: Cell) -> float:
        rl = member.methods[job["method"]].settings(member.settings.rl)
        return rl.steps * step(rl.prompts_per_step * rl.group_size)

    def sized(seconds: Callable[[Study, Cell], float]) -> Callable[[Study, Cell], float]:
        """Of a job with a model, which may be larger than the run's."""
        return lambda member, job: seconds(member, job) * _multiplying(member) / own

    def over(units: Callable[[Study, Cell], float], rate: float) -> Callable[[Study, Cell], float]:
        return lambda member, job: units(member, job) / rate

    return {
        "pretraining_data": over(amounts.pool, rates.data_samples_per_s),
        "data_summary": over(amounts.pool, rates.summary_samples_per_s),
        "pretrain": sized(over(amounts.pretraining, rates.pretrain_samples_per_s)),
        "sft": sized(over(amounts.fine_tuning, rates.sft_samples_per_s)),
        "rl": sized(rl_seconds),
        "evaluate": sized(over(amounts.evaluated, rates.evaluate_prompts_per_s)),
        "answers": sized(lambda *job: amounts.answered(*job) * per_completion),
        "faithfulness": sized(lambda *job: amounts.drawn(*job) * per_completion),
        "probes": sized(over(amounts.probed, rates.evaluate_prompts_per_s)),
        "representation": sized(over(amounts.of_heads, rates.sft_samples_per_s)),
        "calibration": sized(over(amounts.evaluated, rates.evaluate_prompts_per_s)),
        "converge": lambda member, job: theory.steps * step(theory.pool * theory.group_size),
        "sampling": lambda member, job: (
            2 * theory.sampled_prompts * theory.samples * per_completion
        ),
    }


def work_seconds(study: Study, rates: Rates) -> dict[str, float]:
    """Seconds of work of all jobs of each stage, start-up not counted: the sums of `job_work`.

    Of the run and its variants, each job with its settings.
    """
    members, planned = lineage.family(study), lineage.jobs(study)
    seconds = dict.fromkeys(jobs(study), 0.0)
    for rule, work in job_work(study, rates).items():
        seconds[STAGES.get(rule, rule)] += sum(
            work(members[variant_of(job.get("place", ""))], job) for job in planned[rule]
        )
    return seconds


def guesses(study: Study, shipped: Path) -> Callable[[str, Cell], float]:
    """How long a job (rule, wildcards) will take, in seconds, from the shipped rates.

    Every job takes START_SECONDS at least. Where there are no rates for the run's model all take
    alike: what counts is measured soon.
    """
    try:
        work = job_work(study, find_rates({}, shipped / "rates.json", study.settings))
    except ConfigError:
        work = {}
    members = lineage.family(study)

    def guess(rule: str, job: Cell) -> float:
        if rule not in work:
            return START_SECONDS
        return START_SECONDS + work[rule](members[variant_of(job.get("place", ""))], job)

    return guess


def _vocabulary(settings: Settings, *axes: str) -> int:
    """Tokens of a model of these axes: of the one with most."""
    return max(domain_of(settings, axis).vocabulary_size for axis in axes)


def _parameters(study: Study, *axes: str) -> int:
    """Parameters of a model of these axes; of a base from outside, those in its files."""
    if study.base:
        return study.base.parameters
    return parameters(study.settings.model, _vocabulary(study.settings, *axes))


def _multiplying(study: Study) -> int:
    """Those of them that multiply every token."""
    if study.base:
        return study.base.matmul_parameters
    settings = study.settings
    return matmul_parameters(settings.model, _vocabulary(settings, *settings.axes))


def disk(study: Study, rates: Rates, at_once: int) -> dict[str, float]:
    """Bytes by kind.

    models       models x 4 bytes a parameter (tokenizer and logs, tens of kB each, not counted)
    pools        groups x (1 + ood_pool) N samples
    checkpoints  weights and two moments, 12 bytes a parameter, of `at_once` training jobs
    """
    count, planned, members = jobs(study), lineage.jobs(study), lineage.family(study)

    def size(job: Cell) -> int:
        """Bytes of a job's model."""
        return FLOAT * _parameters(members[variant_of(job["place"])], job["axis"])

    models = [size(job) for rule in ("pretrain", "sft", "rl") for job in planned[rule]]
    pools = sum(
        amounts.pool(members[variant_of(job["place"])], job) for job in planned["pretraining_data"]
    )
    return {
        "models": sum(models),
        "pools": pools * rates.pool_bytes_per_sample,
        "checkpoints": min(at_once, max(count["pretrain"], count["rl"])) * 3 * max(models),
    }


def plan(study: Study, rates: Rates, at_once: int = 100) -> dict[str, Any]:
    """The whole plan, JSON-able: parameters, rows by stage, totals of hours, disk.

    A stage's hours are (work + jobs x start-up) / 3600, times the GPUs of a job, or, if it has
    none, times its CPU threads.
    """
    settings, count, work = study.settings, jobs(study), work_seconds(study, rates)
    stages, totals = {}, {"GPU": 0.0, "core": 0.0}
    for stage in count:
        gpus = getattr(settings.resources, stage).gpus
        unit = "GPU" if gpus else "core"
        wide = gpus or (1 if stage in ("data", "figures") else settings.runtime.threads)
        hours = (work[stage] + count[stage] * rates.startup_s) / 3600 * wide
        stages[stage] = {
            "jobs": count[stage],
            "unit": unit,
            "hours": hours,
            "hours_each": hours / count[stage] if count[stage] else 0.0,
        }
        totals[unit] += hours
    space = disk(study, rates, at_once)
    return {
        "run": settings.run,
        "parameters": _parameters(study, *settings.axes),
        "jobs": sum(count.values()),
        "stages": stages,
        "gpu_hours": totals["GPU"],
        "core_hours": totals["core"],
        "disk_bytes": space | {"all": sum(space.values())},
        "rates": rates.model_dump(),
    }


def find_rates(
    given: Mapping[str, float | None],
    file: str | Path,
    settings: Settings,
    scale: str | None = None,
) -> Rates:
    """Rates given, else those of an entry of the file.

    The entry is that of `scale`, or of the run's name, or the first that was measured with the same
    model, which a base from outside is not. Raises ConfigError, naming the options, if rates are
    missing.
    """
    entries = _entries(file)
    names = [name for name in (scale or settings.run,) if name in entries]
    if not names and not scale and not settings.pretrain.base:
        model = settings.model.model_dump()
        names = [
            name
            for name, entry in entries.items()
            if "model" in entry and model == model | entry["model"]
        ]
    known = entries[names[0]] if names else {}
    values = {name: known[name] for name in Rates.model_fields if name in known}
    values |= {name: value for name, value in given.items() if value is not None}
    required = [name for name, field in Rates.model_fields.items() if field.is_required()]
    if missing := [_option(name) for name in required if name not in values]:
        wanted = repr(names[0] if names else scale or settings.run)
        raise ConfigError(
            f"no rate for {wanted} in {file}: name an entry with --scale "
            f"({', '.join(entries) or 'there is none'}), or give {' '.join(missing)}"
        )
    try:
        return Rates(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = f"{_option(str(first['loc'][0]))}: " if first["loc"] else ""
        raise ConfigError(place + first["msg"].removeprefix("Value error, ")) from None


def _entries(file: str | Path) -> dict[str, dict[str, Any]]:
    """The entries of a file of rates by scale; none if it is missing."""
    try:
        entries = json.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise ConfigError(f'{file}: must hold an entry {{"rate": number, ...}} for each scale')
    return entries


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def render(result: Mapping[str, Any]) -> str:
    """The plan as a table."""
    size = result["parameters"] / 1e6
    lines = [f"{result['run']}: {size:.2f}M parameters, {result['jobs']} jobs", ""]
    lines.append(f"{'stage':12}{'jobs':>8}{'hours each':>14}{'hours':>14}")
    for name, row in result["stages"].items():
        numbers = f"{row['jobs']:>8}{row['hours_each']:>14.4f}{row['hours']:>14.2f}"
        lines.append(f"{name:12}{numbers} {row['unit']}-hours")
    total = f"{result['gpu_hours']:.2f} GPU-hours, {result['core_hours']:.2f} core-hours"
    lines += ["", f"{'total':12}{total}", ""]
    lines += [f"{name:12}{bytes_ / 1e9:>12.3f} GB" for name, bytes_ in result["disk_bytes"].items()]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `grpo-origin cost`, but for `--config`."""
    parser.add_argument("--rates", help="JSON file of measured rates by scale (default: shipped)")
    parser.add_argument("--scale", help="its entry (default: the run's name, or its model's)")
    parser.add_argument(
        "--at-once",
        type=int,
        default=100,
        help="training jobs at once, for the room that checkpoints need (default 100)",
    )
    parser.add_argument("--json", help="write the plan to this file as well")
    for name, field in Rates.model_fields.items():
        parser.add_argument(_option(name), type=float, metavar="X", help=field.description)


def run(options: argparse.Namespace, shipped: Path) -> None:
    """Print the plan of a configuration, and write it as JSON if asked to; raises ConfigError."""
    if options.at_once < 1:
        raise ConfigError(f"--at-once: must be at least 1, not {options.at_once}")
    study = read_study(shipped / "config.yaml", *options.config)
    given = {name: getattr(options, name) for name in Rates.model_fields}
    file = options.rates or shipped / "rates.json"
    result = plan(study, find_rates(given, file, study.settings, options.scale), options.at_once)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(render(result))
