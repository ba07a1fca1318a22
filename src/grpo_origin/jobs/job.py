"""What every job of the workflow shares: its log file, one line on the console, errors a user can read.

Knows nothing of what the job does.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.jobs import prefork
from grpo_origin.jobs.errors import ArtefactError, DeviceError, Interrupted
from grpo_origin.jobs.lease import LeaseError

EXPECTED = (
    ConfigError,
    ArtefactError,
    Interrupted,
    DeviceError,
    LeaseError,
    FloatingPointError,
    OSError,
)


@contextmanager
def job(log: str | Path, label: str) -> Iterator[None]:
    """Send all output of the block to the log file and one line, when it is done, to the console.

    An expected failure (an unusable file, a missing GPU, a full disk, an interruption) becomes its one-line message and
    exit status 1; anything else keeps its traceback, in the log.
    """
    prefork.hand_over()
    started = time.monotonic()
    console = os.dup(2)
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    except OSError as error:
        sys.exit(f"error: {label}: no log can be written: {error}")
    print(_where(), flush=True)
    outcome = "failed"
    try:
        yield
        outcome = f"{time.monotonic() - started:.1f} s"
    except EXPECTED as error:
        outcome = f"error: {error}"
        sys.exit(outcome)
    finally:
        if outcome == "failed":
            outcome += f", see {log}"
        os.write(console, f"[{time.strftime('%H:%M:%S')}] {label}: {outcome}\n".encode())
        sys.stdout.flush()
        sys.stderr.flush()


def runtime(snakemake: Any) -> RuntimeSettings:
    """The run's runtime settings, with the threads that Snakemake gave this job (`set-threads` can raise them)."""
    given = snakemake.config.get("runtime", {})
    return RuntimeSettings(**{**given, "threads": snakemake.threads})


def _where() -> str:
    """When and where the job runs, and what a cluster gave it: the first line of each attempt in the log."""
    parts = [
        time.strftime("%Y-%m-%d %H:%M:%S"),
        f"host {os.environ.get('SLURMD_NODENAME') or platform.node()}",
    ]
    variables = {
        "SLURM job": "SLURM_JOB_ID",
        "CPUs": "SLURM_CPUS_PER_TASK",
        "GPUs": "CUDA_VISIBLE_DEVICES",
    }
    return ", ".join(
        [
            *parts,
            *(
                f"{name} {os.environ[key]}"
                for name, key in variables.items()
                if os.environ.get(key)
            ),
        ]
    )
