"""What a run will cost before it starts: jobs, device hours and disk, from its settings and measured rates.

`python -m grpo_origin.cost --configfile config/paper.yaml --pretrain-samples-per-s 20000 ...` prints the plan. Rates not given
are taken from a JSON file (benchmarks/rates.json: one entry a run name); the benchmarks measure them. Knows settings and
arithmetic only, nothing of models or files of a run.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from grpo_origin.config.fields import ConfigError, Section
from grpo_origin.config.load import load_settings
from grpo_origin.config.notation import ood_count
from grpo_origin.config.schema import Settings
from grpo_origin.config.stages import ModelSettings
from grpo_origin.tasks.tokenizer import Vocabulary

BASE = "config/config.yaml"
RATES = "benchmarks/rates.json"
THEORY_METHODS = 2  # rloo and grpo
FLOAT = 4  # bytes of a weight or an optimiser moment


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML in which no key is set twice; profiles/default has its twin, as it can't import this package."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise ValueError(
                    f"key {key!r} is set twice, again in line {node.value[i][0].start_mark.line + 1}: set each key once"
                )
        return node


class Rates(Section):
    """Measured speeds of one job on the device that the run will use."""

    pretrain_samples_per_s: float = Field(
        gt=0, description="pretraining samples a second (benchmarks/matmul_share.py)"
    )
    sft_samples_per_s: float = Field(gt=0, description="SFT samples a second")
    grpo_step_s: float = Field(gt=0, description="seconds of a GRPO step (benchmarks/grpo_step.py)")
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


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` merged over it, section by section, as Snakemake merges configuration files."""
    out = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else copy.deepcopy(value)
    return out


def read_settings(*files: str | Path) -> Settings:
    """Settings of YAML files, each merged over those before it. Raises ConfigError if they can't be used."""
    config: dict[str, Any] = {}
    for file in files:
        try:
            content = yaml.load(Path(file).read_text(encoding="utf-8"), _UniqueKeys)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{file}: must hold `key: value` pairs")
        config = merged(config, content)
    return load_settings(config)


def matmul_parameters(model: ModelSettings, vocabulary: int) -> int:
    """Parameters that multiply every token, d wide, f the inner size: layers (4 d² + 3 d f) + V d of the output head."""
    return (
        model.layers * (4 * model.width**2 + 3 * model.width * model.feed_forward)
        + vocabulary * model.width
    )


def parameters(model: ModelSettings, vocabulary: int) -> int:
    """All parameters: those of `matmul_parameters`, the input embedding V d, and 2 layers + 1 norms of d."""
    return (
        matmul_parameters(model, vocabulary)
        + vocabulary * model.width
        + (2 * model.layers + 1) * model.width
    )


def jobs(settings: Settings) -> dict[str, int]:
    """Jobs of a whole sweep by stage: what `snakemake -n` counts, but for the rule `all`.

    Groups (axis, seed) have five data jobs; cells (axis, seed, ratio) one pretraining, SFT and evaluation each and one RL job a
    method and split of prompts. Runs to convergence: theory ratios x seeds x 2 methods x betas; a sampling check an axis; the
    tables of both. Last: tables, claims, figures, report. On SLURM the data jobs of a group are one.
    """
    groups = len(settings.axes) * len(settings.seeds)
    cells = len(settings.seeds) * sum(len(settings.axis_ratios(axis)) for axis in settings.axes)
    converged = sum(len(settings.theory_ratios(axis)) for axis in settings.axes)
    runs = (
        converged
        * len(settings.seeds[: settings.theory.seeds])
        * THEORY_METHODS
        * len(settings.theory.betas)
    )
    return {
        "data": 5 * groups,
        "pretrain": cells,
        "sft": cells,
        "grpo": cells * len(settings.methods) * len(settings.prompts),
        "evaluate": cells,
        "theory": runs + len(settings.axes),
        "figures": 5,
    }


def work_seconds(settings: Settings, rates: Rates) -> dict[str, float]:
    """Seconds of work of all jobs of each stage, start-up not counted.

    data       groups x (1 + ood_pool) N pool samples, written once and read once for the summary
    pretrain   cells x N samples
    sft        cells x epochs x samples
    grpo       cells x splits of prompts x the methods' steps, each as long as one of plain GRPO: short for methods that draw more
    evaluate   groups' ratios x test prompts of all splits x models of a cell
    theory     steps and sampled completions in units of a GRPO step's completions: too long, since a step has a fixed part and
               sampling trains nothing; exact evaluations in between are not counted
    figures    none but start-up
    """
    count, seeds, groups = (
        jobs(settings),
        len(settings.seeds),
        len(settings.axes) * len(settings.seeds),
    )
    samples = settings.pretrain.samples
    pool = groups * (samples + ood_count(settings.pretrain.ood_pool, samples))
    models = 2 + len(settings.methods) * len(settings.prompts)
    rows = seeds * sum(
        len(settings.axis_ratios(name)) * len(axis.splits) * settings.evaluation.prompts * models
        for name, axis in settings.axes.items()
    )
    steps = sum(method.settings(settings.grpo).steps for method in settings.methods.values()) * len(
        settings.prompts
    )
    theory, a_step = settings.theory, settings.grpo.prompts_per_step * settings.grpo.group_size
    runs = count["theory"] - len(settings.axes)
    drawn = (
        runs * theory.steps * theory.pool * theory.group_size
        + len(settings.axes) * 2 * theory.sampled_prompts * theory.samples
    )
    return {
        "data": pool / rates.data_samples_per_s + pool / rates.summary_samples_per_s,
        "pretrain": count["pretrain"] * samples / rates.pretrain_samples_per_s,
        "sft": count["sft"] * settings.sft.epochs * settings.sft.samples / rates.sft_samples_per_s,
        "grpo": count["pretrain"] * steps * rates.grpo_step_s,
        "evaluate": rows / rates.evaluate_prompts_per_s,
        "theory": drawn / a_step * rates.grpo_step_s,
        "figures": 0.0,
    }


def disk(settings: Settings, rates: Rates, at_once: int) -> dict[str, float]:
    """Bytes by kind.

    models       cells x models of a cell x 4 bytes a parameter (tokenizer and logs, tens of kB a model, are not counted)
    pools        groups x (1 + ood_pool) N samples
    checkpoints  weights and two moments, 12 bytes a parameter, of `at_once` training jobs; gone when they end
    """
    size = FLOAT * parameters(settings.model, len(Vocabulary(settings.world.nodes)))
    count = jobs(settings)
    groups = len(settings.axes) * len(settings.seeds)
    samples = settings.pretrain.samples + ood_count(
        settings.pretrain.ood_pool, settings.pretrain.samples
    )
    return {
        "models": (count["pretrain"] + count["sft"] + count["grpo"]) * size,
        "pools": groups * samples * rates.pool_bytes_per_sample,
        "checkpoints": min(at_once, max(count["pretrain"], count["grpo"])) * 3 * size,
    }


def plan(settings: Settings, rates: Rates, at_once: int = 100) -> dict[str, Any]:
    """The whole plan, JSON-able: parameters, rows by stage, totals in GPU-hours and core-hours, disk.

    A stage's hours are (work + jobs x start-up) / 3600, times the GPUs of a job, or, if it has none, times its CPU threads.
    """
    count, work = jobs(settings), work_seconds(settings, rates)
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
    space = disk(settings, rates, at_once)
    return {
        "run": settings.run,
        "parameters": parameters(settings.model, len(Vocabulary(settings.world.nodes))),
        "jobs": sum(count.values()),
        "stages": stages,
        "gpu_hours": totals["GPU"],
        "core_hours": totals["core"],
        "disk_bytes": space | {"all": sum(space.values())},
        "rates": rates.model_dump(),
    }


def find_rates(given: Mapping[str, float | None], file: str | Path, scale: str) -> Rates:
    """Rates given, else those of the file's entry for this scale. Raises ConfigError, naming the options, if some are missing."""
    try:
        entries = json.loads(Path(file).read_text(encoding="utf-8")) if Path(file).exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: {error}") from None
    known = entries.get(scale, {}) if isinstance(entries, dict) else None
    if not isinstance(known, dict):
        raise ConfigError(
            f'{file}: must hold an entry {{"rate": number, ...}} for each scale, such as {scale!r}'
        )
    found = {name: known[name] for name in Rates.model_fields if name in known}
    found |= {name: value for name, value in given.items() if value is not None}
    if missing := [_option(name) for name in Rates.model_fields if name not in found]:
        raise ConfigError(
            f"no rate for {scale!r} in {file}: name another entry with --scale, or give {' '.join(missing)}"
        )
    try:
        return Rates(**found)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{_option(str(first['loc'][0]))}: {first['msg']}") from None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def render(result: Mapping[str, Any]) -> str:
    """The plan as a table."""
    lines = [
        f"{result['run']}: {result['parameters'] / 1e6:.2f}M parameters, {result['jobs']} jobs",
        "",
    ]
    lines.append(f"{'stage':12}{'jobs':>8}{'hours each':>14}{'hours':>14}")
    for name, row in result["stages"].items():
        lines.append(
            f"{name:12}{row['jobs']:>8}{row['hours_each']:>14.4f}{row['hours']:>14.2f} {row['unit']}-hours"
        )
    lines += [
        "",
        f"{'total':12}{result['gpu_hours']:.2f} GPU-hours, {result['core_hours']:.2f} core-hours",
        "",
    ]
    lines += [f"{name:12}{size / 1e9:>12.3f} GB" for name, size in result["disk_bytes"].items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the plan of a configuration, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m grpo_origin.cost", description="What a sweep will cost: jobs, hours, disk."
    )
    parser.add_argument(
        "--configfile", nargs="*", default=[], help=f"YAML files merged over {BASE}"
    )
    parser.add_argument(
        "--rates", default=RATES, help=f"JSON file of measured rates by scale (default {RATES})"
    )
    parser.add_argument("--scale", help="entry of the rates file (default: the run's name)")
    parser.add_argument(
        "--at-once",
        type=int,
        default=100,
        help="training jobs at once, for the room that checkpoints need (default 100)",
    )
    parser.add_argument("--json", help="write the plan to this file as well")
    for name, field in Rates.model_fields.items():
        parser.add_argument(_option(name), type=float, metavar="X", help=field.description)
    options = parser.parse_args(arguments)
    try:
        if options.at_once < 1:
            raise ConfigError(f"--at-once: must be at least 1, not {options.at_once}")
        settings = read_settings(BASE, *options.configfile)
        given = {name: getattr(options, name) for name in Rates.model_fields}
        result = plan(
            settings,
            find_rates(given, options.rates, options.scale or settings.run),
            options.at_once,
        )
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except ConfigError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: --json: {error}")
    print(render(result))


if __name__ == "__main__":
    main()
