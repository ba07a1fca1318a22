"""What every job of the workflow shares: a log file, a line on the console, readable errors.

Every script in workflow/scripts runs in `job`. Knows nothing of what the job does.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from grpo_origin.config.fields import ConfigError
from grpo_origin.config.paths import variant_of
from grpo_origin.config.schema import RuntimeSettings
from grpo_origin.jobs import prefork
from grpo_origin.jobs.errors import ArtefactError, DeviceError, Interrupted, NotFinite
from grpo_origin.jobs.lease import LeaseError
from grpo_origin.jobs.provenance import making_of, stamp

EXPECTED = (
    ConfigError,
    ArtefactError,
    DeviceError,
    LeaseError,
    NotFinite,
    OSError,
)


@contextmanager
def job(snakemake: Any, label: str) -> Iterator[None]:
    """Send all output of the block to the job's log and one line, when it is done, to the console.

    When the block is done, every output gets the record of its making beside it. An expected
    failure (an unusable file, a missing GPU, a full disk) or an interruption becomes its one-line
    message and exit status 1; anything else keeps its traceback, in the log.
    """
    prefork.hand_over()
    if place := getattr(snakemake.wildcards, "place", ""):
        label = f"{label}, {variant_of(place)}"
    started = time.monotonic()
    record = making_of(dict(snakemake.params.items()), snakemake.input)
    log, console = snakemake.log[0], os.dup(2)
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    except OSError as error:
        sys.exit(f"error: {label}: no log can be written: {error}")
    signal.signal(signal.SIGINT, _interrupt)
    print(_where(), flush=True)
    outcome = f"failed, see {log}"
    try:
        yield
        for output in snakemake.output:
            stamp(output, record)
        outcome = f"{time.monotonic() - started:.1f} s"
    except EXPECTED as error:
        outcome = f"error: {error}"
        sys.exit(outcome)
    except Interrupted as stop:
        outcome = str(stop)
        sys.exit(outcome)
    except KeyboardInterrupt:
        outcome = "interrupted; the same command makes it from the start"
        sys.exit(outcome)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            outcome = stop.code
        raise
    finally:
        os.write(console, f"[{time.strftime('%H:%M:%S')}] {label}: {outcome}\n".encode())
        sys.stdout.flush()
        sys.stderr.flush()


def _interrupt(*_: Any) -> NoReturn:
    """End the block at Ctrl-C, once: more of them would only disturb the leaving."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def runtime(snakemake: Any) -> RuntimeSettings:
    """The run's runtime settings, with the threads that Snakemake gave this job.

    `set-threads` can raise them.
    """
    given = snakemake.config.get("runtime", {})
    return RuntimeSettings(**{**given, "threads": snakemake.threads})


def _where() -> str:
    """When and where the job runs, and what a cluster gave it: the first line of each attempt."""
    host = os.environ.get("SLURMD_NODENAME") or platform.node()
    variables = {
        "SLURM job": "SLURM_JOB_ID",
        "CPUs": "SLURM_CPUS_PER_TASK",
        "GPUs": "CUDA_VISIBLE_DEVICES",
    }
    given = [f"{name} {os.environ[key]}" for name, key in variables.items() if os.environ.get(key)]
    return ", ".join([time.strftime("%Y-%m-%d %H:%M:%S"), f"host {host}", *given])
