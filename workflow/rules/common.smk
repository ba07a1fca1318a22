# The grid of cells: settings, paths, wildcards, and what each stage depends on.
import os
import re
import sys
from pathlib import Path

# Jobs run the code of this checkout, installed or not.
SOURCE = str(Path(workflow.basedir) / "src")
sys.path.insert(0, SOURCE)
os.environ.update(
    PYTHONPATH=os.pathsep.join([SOURCE, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
)

from snakemake.logging import logger

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.grid import DATA_FILES, PROMPT_SETS
from grpo_origin.config.notation import ood_count
from grpo_origin.config.paths import rl_stage
from grpo_origin.jobs import prefork
from grpo_origin.jobs.files import hold_alone
from grpo_origin.jobs.fingerprint import code_fingerprint
from grpo_origin.jobs.provenance import content_fingerprint
from grpo_origin.report.figures import figures_of
from grpo_origin.report.registry import PAGE_TEMPLATE, SHOWN_TABLES
from grpo_origin.study import open_study

try:
    STUDY = open_study(config)
    SETTINGS, METHODS, GRID, PATHS = STUDY.settings, STUDY.methods, STUDY.grid, STUDY.paths
    for folder in (Path(PATHS.root).parent, Path(PATHS.root)):
        if os.path.lexists(folder) and not folder.is_dir():
            raise ConfigError(f"run: {folder} is a file, not a folder: name another run or move it")
except ConfigError as error:
    sys.exit(f"config error: {error}")

# Each job prints a line of its own when it is done (grpo_origin.job); these would add three.
SCHEDULER_CHATTER = ("Select jobs to execute", "Execute ", "Finished jobid")
logger.addFilter(lambda record: not str(record.msg).startswith(SCHEDULER_CHATTER))

CELL = {"axis": "{axis}", "seed": "{seed}", "ratio": "{ratio}"}
STAGE_NAMES = [stage.name for stage in GRID.stages]
PROMPT_COUNTS = {
    "sft": {"samples": SETTINGS.sft.samples},
    "grpo": {"prompts": STUDY.rl_prompts, "sft_samples": SETTINGS.sft.samples},
    "test": {"prompts": SETTINGS.evaluation.prompts},
}
GROUP = {"axis": "{axis}", "seed": "{seed}"}

# Name of each figure -> its kind and axis.
FIGURES = figures_of(SETTINGS)


def _alternatives(values):
    """A pattern of these values, shared beginnings once: a plain list of 10,000 seeds would be tried one by one."""
    endings = {}
    for value in dict.fromkeys(map(str, values)):
        endings.setdefault(value[:1], []).append(value[1:])
    parts = [
        re.escape(first) + _alternatives(rest) if first else "" for first, rest in endings.items()
    ]
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


def code_of(script, *more):
    """Digest of what a rule's script and whatever it imports do, and further modules of the package."""
    modules = [Path(SOURCE) / "grpo_origin" / f"{name}.py" for name in more]
    return code_fingerprint(
        Path(workflow.basedir) / "workflow" / "scripts" / f"{script}.py", *modules
    )


wildcard_constraints:
    axis=_alternatives(SETTINGS.axes),
    seed=_alternatives(SETTINGS.seeds),
    ratio=_alternatives(cell["ratio"] for cell in GRID.cells),
    trained_on="id|ood",


def settings_of(*sections):
    """The settings a stage depends on, as params: a change makes the stage run again, any other change does not."""
    return {section: getattr(SETTINGS, section).model_dump() for section in sections}


def axis_of(wildcards):
    """The tasks of an axis, as params; its ratios are no part of the data, its mixed splits part of the test prompts only."""
    left_out = {"ratios", "theory"} | (set() if wildcards.get("set") == "test" else {"mixed"})
    return SETTINGS.axes[wildcards.axis].model_dump(exclude=left_out)


def cluster(stage):
    """What a job of a stage asks a cluster for; memory and time grow with the attempt. Resources never cause a rerun."""
    asked = getattr(SETTINGS.resources, stage)
    resources = {
        "mem_mb": lambda wildcards, attempt: asked.mem_mb * attempt,
        "runtime": lambda wildcards, attempt: asked.minutes * attempt,
    }
    return resources | ({"gpu": asked.gpus} if asked.gpus else {})


# Snakemake's own lock outlives a killed controller and would refuse the next one (so it is off, see profiles/default);
# this one is let go by the kernel. Local jobs are then forked from one process that has the imports done; on a cluster
# each job starts by itself.
onstart:
    if workflow.is_main_process:
        try:
            hold_alone(f"{PATHS.root}/.controller")
        except RuntimeError as error:
            sys.exit(f"error: {error}")
        # Every look at the queue under Snakemake's default limit (100 new jobs a second) plans another one a second later, so
        # that they add up: after 300 jobs the controller looks 300 times a second. A limit that the user sets stays.
        limit = workflow.scheduling_settings.max_jobs_per_timespan
        if limit and (limit.max_jobs, limit.timespan) == (100, 1):
            workflow.scheduler.job_rate_limiter = None
        if workflow.local_exec and SETTINGS.runtime.prefork:
            prefork.start()
