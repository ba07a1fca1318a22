# What all rules share: the run's settings, grid and paths, and what is set up around its jobs.
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

# Jobs run the code of this checkout, installed or not.
SOURCE = str(Path(workflow.basedir) / "src")
sys.path.insert(0, SOURCE)
os.environ.update(
    PYTHONPATH=os.pathsep.join([SOURCE, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
)

from snakemake.iocontainers import Wildcards
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from grpo_origin.analysis.tables import TABLES
from grpo_origin.config.fields import ConfigError
from grpo_origin.config.load import differing
from grpo_origin.config.notation import SPLITS, ood_count
from grpo_origin.config.paths import (
    BASE,
    REFERENCE_LEDGER,
    REFERENCE_SETTINGS,
    TOKENIZER,
    place_of,
    variant_of,
)
from grpo_origin.jobs import prefork
from grpo_origin.jobs.files import hold_alone, write_json
from grpo_origin.jobs.fingerprint import code_fingerprint
from grpo_origin.jobs.provenance import content_fingerprint
from grpo_origin.lineage import family, jobs, maker
from grpo_origin.report.figures import figures_of
from grpo_origin.report.registry import EXPLORER_TABLES, PAGE_PARTS, SHOWN_TABLES
from grpo_origin.study import PRELOADED, open_study

try:
    STUDY = open_study(config)
    SETTINGS, METHODS, GRID, PATHS = STUDY.settings, STUDY.methods, STUDY.grid, STUDY.paths
    for folder in (Path(PATHS.root).parent, Path(PATHS.root)):
        if os.path.lexists(folder) and not folder.is_dir():
            raise ConfigError(f"run: {folder} is a file, not a folder: name another run or move it")
except ConfigError as error:
    sys.exit(f"config error: {error}")

# The run and its variants by name, and the jobs that make their files: each file once.
FAMILY = family(STUDY)
JOBS = jobs(STUDY)

# Wildcards that name an axis and seed, and those that name a cell; of paths, where a variant's lie.
GROUP = {"axis": "{axis}", "seed": "{seed}"}
CELL = GROUP | {"ratio": "{ratio}"}
PATTERNS = replace(PATHS, place="{place}")

# Name of each figure -> its kind and axis.
FIGURES = figures_of(SETTINGS)


def _alternatives(values):
    """A pattern of values, shared beginnings once: of a plain list each would be tried in turn."""
    endings = {}
    for value in dict.fromkeys(map(str, values)):
        endings.setdefault(value[:1], []).append(value[1:])
    parts = [
        re.escape(first) + _alternatives(rest) if first else "" for first, rest in endings.items()
    ]
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


wildcard_constraints:
    place=f"(?:{_alternatives(map(place_of, FAMILY))})",  # an empty pattern would mean anything
    axis=_alternatives(SETTINGS.axes),
    seed=_alternatives(SETTINGS.seeds),
    ratio=_alternatives(cell["ratio"] for cell in GRID.cells),
    method=_alternatives(name for member in FAMILY.values() for name in member.methods),
    trained_on=_alternatives(SPLITS),


# --- params: a job runs again when one of them changes, and only then


def code_of(script, *more):
    """Digest of a rule's script with all it imports, and of further modules of the package."""
    modules = [Path(SOURCE) / "grpo_origin" / f"{name}.py" for name in more]
    return code_fingerprint(
        Path(workflow.basedir) / "workflow" / "scripts" / f"{script}.py", *modules
    )


def code_in_domain(script, *more):
    """The same with the domain of a job's axis, which is found by its name."""
    domains = {axis.domain for axis in SETTINGS.axes.values()}
    codes = {name: code_of(script, *more, f"tasks/domains/{name}") for name in domains}
    return lambda wildcards: codes[SETTINGS.axes[wildcards.axis].domain]


def member_of(wildcards):
    """The run or the variant whose files a job makes."""
    return FAMILY[variant_of(getattr(wildcards, "place", ""))]


def section_of_job(section):
    """A section of the settings of a job's run or variant, as a function of its wildcards."""
    values = {
        variant: member.settings.model_dump(include={section})[section]
        for variant, member in FAMILY.items()
    }
    return lambda wildcards: values[member_of(wildcards).variant]


def settings_of(*sections):
    """Sections of the settings, and which job it is: another cell's result is not its own."""
    values = {section: section_of_job(section) for section in sections}
    return values | {"job": lambda wildcards: dict(wildcards.items())}


def base_of(wildcards):
    """The base model from outside that a job's run or variant starts from, by name and content."""
    base = member_of(wildcards).base
    return {"name": base.name, "digest": base.digest} if base else None


def axis_of(wildcards):
    """Tasks of an axis; ratios are no part of data, mixed splits part of the test prompts only."""
    left_out = {"ratios", "theory"} | (set() if wildcards.get("set") == "test" else {"mixed"})
    return SETTINGS.axes[wildcards.axis].model_dump(exclude=left_out)


def prompt_counts(wildcards):
    """What the writer of a prompt set is told."""
    member = member_of(wildcards)
    return {
        "sft": {"counts": member.sft_counts},
        "grpo": {"prompts": member.rl_prompts, "sft_counts": member.sft_counts},
        "test": {"prompts": member.settings.evaluation.prompts},
    }[wildcards.set]


def pool_sizes(wildcards):
    """Samples of both pretraining pools."""
    settings = member_of(wildcards).settings.pretrain
    return {"id": settings.samples, "ood": ood_count(settings.ood_pool, settings.samples)}


# --- inputs: what a variant does not change it reads from whoever makes it


def _cell(wildcards):
    """A job's cell, or its axis and seed if that is all it has."""
    cell = {name: str(value) for name, value in wildcards.items() if name in CELL}
    return cell | {"seed": int(cell["seed"])}


def data_of(name):
    """A data file of a job's axis and seed."""

    def path(wildcards):
        variant = member_of(wildcards).variant
        group = {key: value for key, value in _cell(wildcards).items() if key in GROUP}
        return maker(STUDY, variant, group, f"data/{name}").paths.data(**group, name=name)

    return path


def tokenizer_of(wildcards):
    """The tokenizer of a job's axis and seed, where that is a file."""
    return data_of(TOKENIZER)(wildcards) if wildcards.axis in GRID.tokenized else []


def stage_folder(variant, cell, stage):
    """The folder of a stage of a variant's cell, in that of the variant that makes it."""
    return maker(STUDY, variant, cell, stage).paths.stage(**cell, stage=stage)


def model_before(stage):
    """The model that a stage of this name starts from, in a job's cell."""

    def path(wildcards):
        member = member_of(wildcards)
        return stage_folder(member.variant, _cell(wildcards), member.previous(stage))

    return path


def stage_names(wildcards):
    """All trained stages of a job's cell."""
    return [stage.name for stage in member_of(wildcards).grid.stages]


def stages_of_cell(wildcards):
    """Their folders."""
    variant, cell = member_of(wildcards).variant, _cell(wildcards)
    return [stage_folder(variant, cell, name) for name in stage_names(wildcards)]


def recorded_settings():
    """What is kept of a run's settings, to compare the next run of that name with."""
    return SETTINGS.model_dump(mode="json", exclude={"runtime", "resources"})


# The shipped reference run, which every run is compared with. Only its content counts: a fresh
# checkout has other times.
REFERENCE = [Path(workflow.basedir) / name for name in (REFERENCE_LEDGER, REFERENCE_SETTINGS)]
IS_COMPARED = all(path.exists() for path in REFERENCE)


def unlike_reference():
    """Settings in which the run differs from the reference run."""
    if not IS_COMPARED:
        return []
    reference = json.loads(REFERENCE[1].read_text(encoding="utf-8"))
    return [
        key for key in differing(reference, recorded_settings()) if key not in ("run", "claims")
    ]


def named(wildcards):
    """Wildcards of a job as its functions get them."""
    return Wildcards(fromdict={name: str(value) for name, value in wildcards.items()})


def files_of_job(patterns, wildcards):
    """Paths of a job's inputs or outputs, from patterns or functions of the wildcards."""
    paths = []
    for pattern in patterns:
        found = pattern(named(wildcards)) if callable(pattern) else str(pattern).format(**wildcards)
        paths += [found] if isinstance(found, str) else found
    return paths


def made_by(rule, pattern):
    """The files of this pattern that a rule's jobs make, and whose each is: its place."""
    places = [cell["place"] for cell in JOBS[rule]]
    return [path for cell in JOBS[rule] for path in files_of_job([pattern], cell)], places


# --- resources: never a reason to run again


def gpu_is_visible():
    """Whether a job of this machine would take a GPU; asked without torch, which takes seconds."""
    if SETTINGS.numerics.device == "cpu":
        return False
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return given.strip() not in ("", "-1")
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.stdout.startswith("GPU")


SEES_GPU = workflow.is_main_process and gpu_is_visible()
USES_GPU = ("pretrain", "sft", "rl", "evaluate", "theory")


# A cluster counts its GPUs itself: profiles/default bounds those of a local run only.
resource_scopes:
    gpu="local",


def cluster(stage):
    """What a job of a stage asks for; memory and time grow with the attempt.

    On a machine with a GPU every job that would take it asks for it, so that one does at a time.
    """
    asked = getattr(SETTINGS.resources, stage)
    resources = {
        "mem_mb": lambda wildcards, attempt: asked.mem_mb * attempt,
        "runtime": lambda wildcards, attempt: asked.minutes * attempt,
    }
    if asked.gpus:
        resources["gpu"] = asked.gpus
    elif SEES_GPU and stage in USES_GPU:
        resources["gpu"] = lambda wildcards: int(workflow.local_exec)
    return resources


# --- around the run

OUTDATED = set()  # outputs that are there but were not made by these jobs: plan.smk


def remake_outdated(wildcards):
    """No input. Asked while Snakemake plans, after it has read its own `--forcerun`: adds to that.

    Every plan has a job of pretraining_data or prompts, whose rules ask. Only outputs that a plan
    has anyway are made again.
    """
    # There is none yet when plan.smk asks for inputs; one without jobs counts as false.
    if workflow.is_main_process and workflow.dag is not None:
        workflow.dag.forcefiles.update(OUTDATED)
    return []


# Snakemake's own lock outlives a killed controller and would refuse the next one (so it is off, see
# profiles/default); this one is let go by the kernel. Local jobs are then forked from one process
# that has the imports done; not where they take a GPU, and on a cluster each job starts by itself.
onstart:
    if workflow.is_main_process:
        try:
            hold_alone(f"{PATHS.root}/.controller")
        except RuntimeError as error:
            sys.exit(f"error: {error}")
        write_json(PATHS.settings, recorded_settings())
        # Under any limit on new jobs a second (100 by default, and no option for none) each look at
        # the queue plans another one a second later, so that they add up: after 300 jobs the
        # controller looks 300 times a second. A limit that the user sets stays.
        limit = workflow.scheduling_settings.max_jobs_per_timespan
        if limit and (limit.max_jobs, limit.timespan) == (100, 1):
            workflow.scheduler.job_rate_limiter = None
        if workflow.local_exec and SETTINGS.runtime.prefork and not SEES_GPU:
            prefork.start(PRELOADED)


# Tables that `snakemake --report` shows beside the figures.
REPORTED = ("claims", "warnings", "summary", "gains", *SHOWN_TABLES)


def table_outputs(names):
    """Both files of each table; what a row is, is its label in `snakemake --report`."""
    for name in names:
        csv, parquet = PATHS.table_files([name])
        if name in REPORTED:
            csv = report(
                csv,
                caption="../report/table.rst",
                category="Tables",
                labels={"table": name, "row": TABLES[name].row},
            )
        yield from (csv, parquet)
