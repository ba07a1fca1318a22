"""The throw-away SLURM and a checkout that sweeps run in, for the tests beside this file."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = Path(sys.executable).parent
COMMANDS = ("slurmctld", "slurmd", "sbatch", "munged")
PATH = os.pathsep.join([str(BIN), os.environ["PATH"], "/usr/sbin", "/sbin"])

# The smallest sweep with every stage.
TINY = {
    "run": "tiny",
    "seeds": [0],
    "ratios": ["0"],
    "axes": {
        "depth": {"ratios": ["0.1"], "theory": []},
        "length": None,
        "token": None,
        "composition": None,
    },
    "model": {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32},
    "pretrain": {"samples": 1280},
    "sft": {"samples": 128, "epochs": 1},
    "rl": {"steps": 3, "prompts_per_step": 2, "group_size": 2},
    "evaluation": {"prompts": 32},
    "numerics": {"device": "cpu"},
    "runtime": {
        "checkpoint_seconds": 2,
        "lease_seconds": 12,
        "lease_wait_seconds": 60,
    },
    "resources": {"pretrain": {"gpus": 1}},
}


def missing():
    """Why SLURM can't be had here, or None."""
    absent = [name for name in COMMANDS if not shutil.which(name, path=PATH)]
    if absent:
        packages = "Debian packages slurmctld, slurmd, slurm-client, munge"
        return f"not installed: {', '.join(absent)} ({packages})"
    if os.geteuid():
        return "needs root: fake GPUs are device files"
    if not (BIN / "snakemake").exists():
        return "snakemake is not installed beside this Python"
    return None


def _free_ports(count):
    for first in range(26817, 60000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    taken = stack.enter_context(socket.socket())
                    taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")


class Occupied(RuntimeError):
    """This machine has a SLURM already."""


@dataclass
class Cluster:
    """Two nodes, n1 and n2."""

    folder: Path
    environ: dict = field(default_factory=dict)

    def up(self):
        """Start it. Raises Occupied where a SLURM is already."""
        self.environ = {**os.environ, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}
        started = subprocess.run(
            [HERE / "up.sh", self.folder, str(_free_ports(3))], env=self.environ, timeout=120
        )
        if started.returncode == 3:
            raise Occupied("this machine has a SLURM already")
        started.check_returncode()

    def down(self):
        subprocess.run([HERE / "down.sh", self.folder], env=self.environ, check=True, timeout=120)

    def call(self, *command):
        return subprocess.run(
            command, env=self.environ, check=True, timeout=30, capture_output=True, text=True
        ).stdout

    def jobs(self, rule, states="RUNNING"):
        """Ids of the jobs of a rule in these states."""
        lines = self.call("squeue", "-h", "-t", states, "-o", "%A %k").splitlines()
        return [int(line.split()[0]) for line in lines if f"rule_{rule}" in line]

    def state(self, job):
        """What scontrol tells of a job."""
        return dict(
            part.partition("=")[::2]
            for part in self.call("scontrol", "show", "job", str(job)).split()
            if "=" in part
        )

    def ended(self, job):
        """State of a job that has come to its end, None before."""
        state = self.state(job)
        return None if state["JobState"] in ("PENDING", "RUNNING", "COMPLETING") else state

    def pid(self, daemon):
        return int((self.folder / "run" / f"{daemon}.pid").read_text())

    def kill_node(self, node):
        """Kill a node's daemon; its jobs' processes live on, as when a network breaks."""
        os.kill(self.pid(f"slurmd_{node}"), signal.SIGKILL)

    def start_node(self, node):
        file = self.folder / "run" / f"slurmd_{node}.pid"
        old = file.read_text()
        subprocess.run(
            ["slurmd", "-N", node, "-f", self.folder / "slurm.conf"],
            env=self.environ,
            check=True,
            timeout=30,
        )
        until(
            lambda: file.read_text() not in ("", old), 30, f"the daemon of {node} is up"
        )  # it writes its pid after it has forked


class Checkout:
    """A copy of the working tree in which sweeps run, locally or on the cluster."""

    def __init__(self, folder, environ):
        self.folder, self.environ = folder, environ
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in names.splitlines():
            source, target = ROOT / name, folder / name
            if source.is_symlink() or source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)

    def configure(self, name="config", **changes):
        """Write a configuration: TINY, with keys of its sections replaced."""
        config = {
            key: {**value, **changes.pop(key, {})} if isinstance(value, dict) else value
            for key, value in TINY.items()
        } | changes
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def start(self, config, *targets, profile=None, slow=0.0, log="controller.log"):
        """Start a controller; the caller must end it."""
        where = ["--profile", profile, "--latency-wait", "10"] if profile else ["--cores", "2"]
        environ = {**self.environ, "OMP_NUM_THREADS": "1", "SLOW_STEPS": str(slow)}
        environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(HERE / "hooks"), os.environ.get("PYTHONPATH")])
        )
        with open(self.folder / log, "ab") as file:
            command = [
                BIN / "snakemake",
                *where,
                "--configfile",
                config,
                *(["--"] if targets else []),
                *targets,
            ]
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environ,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def run(self, config, *targets, timeout=240, **how):
        """Run a controller to its end, which must be a good one."""
        controller = self.start(config, *targets, **how)
        try:
            code = controller.wait(timeout)
        finally:
            end(controller)
        assert code == 0, (self.folder / how.get("log", "controller.log")).read_text()[-4000:]

    def unlock(self, config):
        subprocess.run(
            [BIN / "snakemake", "--unlock", "--configfile", config],
            cwd=self.folder,
            env=self.environ,
            check=True,
            timeout=60,
        )

    def results(self, *parts):
        return self.folder.joinpath("results", "tiny", *parts)

    def stage(self, ratio, name="pretrain"):
        return self.results("depth", "seed~0", f"ood~{ratio}", name)

    def target(self, ratio, name="pretrain"):
        return str(self.stage(ratio, name).relative_to(self.folder))

    def checkpoint(self, ratio, name="pretrain"):
        return self.results("checkpoints", "depth", "seed~0", f"ood~{ratio}", name)

    def saved(self, ratio):
        """A function that says whether there is a whole checkpoint."""
        return lambda: any(self.checkpoint(ratio).glob("step-*"))

    def log(self, ratio, rule="pretrain"):
        path = self.results("logs", rule, "depth", "seed~0", f"ood~{ratio}.log")
        return path.read_text() if path.exists() else ""

    def slurm_logs(self, ratio, rule="pretrain"):
        """What SLURM logged of all attempts; the log of the stage itself is of the last one."""
        return "".join(
            path.read_text()
            # named after the wildcards, of which the place of a variant is empty
            for path in self.folder.glob(f"logs/slurm/rule_{rule}/_depth_0_{ratio}/*.log")
        )

    def weights(self, ratio, name="pretrain"):
        return (self.stage(ratio, name) / "model.safetensors").read_bytes()

    def owner(self, ratio, name="pretrain"):
        """Who holds the lease of a stage, or None."""
        path = self.checkpoint(ratio, name)
        try:
            return json.loads(path.with_name(path.name + ".lease").read_text())
        except (OSError, ValueError):
            return None


def end(controller):
    """Kill a controller and its children, if it still runs."""
    if controller.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(controller.pid, signal.SIGKILL)
        controller.wait(30)


def until(condition, timeout, what, pause=0.3):
    """Wait for a condition and return its value."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause)
    raise AssertionError(f"waited {timeout} s for: {what}")
