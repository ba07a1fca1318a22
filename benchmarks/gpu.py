"""Everything about a GPU in one command: is it right, how fast is it, what can be run on it.

    python benchmarks/gpu.py --minutes 9 --out gpu-check        # make gpu-check

needs a checkout, torch with CUDA, transformers and what the package imports; without trl what needs
it is left out and named. Four parts, each a process of its own with a share of the minutes, which
it never overruns: `checks` (gpu_checks.py), `speed` (gpu_speed.py), `cell` and `many`
(gpu_runs.py). A part that fails or is ended does not end the others; the exit status is 1 if
anything failed. Results are in OUT from the first one on: `gpu.json` (all), `gpu.md` (tables),
`rates.json` (for `grpo-origin cost --rates`), `gpu.log` (what the parts printed).
`--device cpu --tiny` goes through all of it on a CPU in less than a minute; its numbers mean
nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Asks the driver's library for GPUs, which leaves CUDA alone: parts are forked from this process.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))  # where the package is not installed

NEEDED = (
    *("torch", "transformers", "accelerate", "numpy", "pandas", "pyarrow", "pydantic", "scipy"),
    "safetensors",
)
FOR_RL = ("trl", "datasets")
# Shares of the time; what a part leaves goes to those after it.
SHARES = {"machine": 0.06, "checks": 0.2, "speed": 0.35, "cell": 0.26, "many": 0.13}
GRACE = 4.0  # seconds between a part's end and that of its process
CLOSING = 5.0  # seconds for the tables


def machine(part: Any) -> None:
    """What it is measured on."""
    import torch

    def found() -> dict[str, Any]:
        about: dict[str, Any] = {"device": f"CPU, {torch.get_num_threads()} threads"}
        if part.cuda:
            if not torch.cuda.is_available():
                raise RuntimeError(f"torch {torch.__version__} sees no GPU (--device cpu?)")
            card = torch.cuda.get_device_properties(0)
            torch.zeros(1, device=part.device)
            about = {"device": card.name, "memory_gib": card.total_memory / 2**30}
            about |= {"cuda": torch.version.cuda, "devices": torch.cuda.device_count()}
        about |= {"cpus": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        return about | {name: version(name) for name in (*NEEDED, *FOR_RL, "triton")}

    part.attempt("machine", found)


def version(package: str) -> str:
    """Its version, or that it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def run_part(part: Any, work: Callable[[Any], None], log: Path) -> None:
    """A part, in its own process and process group, what it prints in the log."""
    from gpu_part import cheap_compiler

    os.setsid()
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    with cheap_compiler(part):
        work(part)
    if part.left < 0 and not part.tiny:
        part.say("its time is up")


def main() -> None:
    """Run the parts, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9, help="for all of it (default 9)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for results")
    parser.add_argument(
        "--tiny", action="store_true", help="a minute on a CPU, to see that it runs"
    )
    parser.add_argument("--only", nargs="+", choices=list(SHARES)[1:], default=list(SHARES)[1:])
    options = parser.parse_args()
    started = time.monotonic()
    if missing := [name for name in (*NEEDED, "yaml") if importlib.util.find_spec(name) is None]:
        sys.exit(f"error: not installed: {', '.join(missing)}")
    lacking = [name for name in FOR_RL if importlib.util.find_spec(name) is None]
    import torch

    import gpu_checks
    import gpu_runs
    import gpu_speed
    from gpu_part import Part, failures
    from gpu_tables import rates_entry, tables
    from grpo_origin.jobs.files import write_json

    if not lacking:
        import grpo_origin.rl.trainer  # noqa: F401  # once for all parts, which are forks
    parts = {"machine": machine, "checks": gpu_checks.checks, "speed": gpu_speed.speed}
    parts |= {"cell": gpu_runs.cell, "many": gpu_runs.many}
    out, ends = options.out.resolve(), started + 60 * options.minutes - CLOSING
    write_json(out / "gpu.json", {})
    (out / "gpu.log").write_bytes(b"")
    if lacking:
        print(f"not installed: {', '.join(lacking)}; all that is GRPO's is left out", flush=True)
    fork, chosen = multiprocessing.get_context("fork"), ["machine", *options.only]
    for number, name in enumerate(chosen):
        left, shares = ends - time.monotonic(), [SHARES[other] for other in chosen[number:]]
        until = time.monotonic() + left * shares[0] / sum(shares) - GRACE
        with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
            part = Part(
                name=name,
                folder=Path(folder),
                results=out / "gpu.json",
                device=torch.device(options.device),
                tiny=options.tiny,
                rl=not lacking,
                console=os.dup(1),
                started=started,
                ends=until,
            )
            part.say(f"{max(part.left, 0):.0f} s")
            process = fork.Process(target=run_part, args=(part, parts[name], out / "gpu.log"))
            process.start()
            try:
                process.join(None if options.tiny else max(part.left, 0) + GRACE)
                ended = process.exitcode
            finally:
                end_group(process)
                gpu_runs.stop_mps(Path(folder))
        if ended != 0:
            why = "in the middle of something when its time was up"
            part.put("process", {"failed": f"exit status {ended}, see gpu.log" if ended else why})
        results = part.known()
        try:
            write_json(out / "rates.json", rates_entry(results, options.tiny))
            (out / "gpu.md").write_text(tables(results), encoding="utf-8")
        except Exception as error:  # gpu.json has all that the other parts will still measure
            part.put("tables", {"failed": f"{type(error).__name__}: {error}"})
        if name == "machine" and failures(results):
            break
    for file in ("gpu.md", "rates.json"):
        if (out / file).exists():
            print(f"\n{(out / file).read_text(encoding='utf-8')}")
    failed = failures(json.loads((out / "gpu.json").read_text(encoding="utf-8")))
    print(f"{time.monotonic() - started:.0f} s; failed: {'; '.join(failed) or 'nothing'}")
    sys.exit(bool(failed))


def end_group(process: multiprocessing.process.BaseProcess) -> None:
    """End a part's process and what it started."""
    assert process.pid
    with contextlib.suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


if __name__ == "__main__":
    main()
