"""A sweep in which 20 random processes are killed ends with the tables of an undisturbed one.

Run it with `pytest -m slow tests/slurm -s` to see what was killed when.
"""

import os
import random
import signal
import time

import pyarrow.parquet as pq
import pytest
from cluster import end

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

KILLS = 20
MINUTES = 25
RATIOS = ["0", "0.1", "0.2", "0.3", "0.4"]  # enough work that it is not done before the last kill


class Disturber:
    """Kills the controller, a job (by scancel or a signal to its training) or a node's daemon."""

    def __init__(self, cluster, checkout, config, targets):
        self.cluster, self.checkout, self.config, self.targets = cluster, checkout, config, targets
        self.random = random.Random(0)
        self.started, self.dead, self.counts = time.monotonic(), {}, {}
        self.controller = self.start()

    def say(self, text):
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def start(self):
        return self.checkout.start(
            self.config, *self.targets, profile="patient", slow=0.4, log="kills.log"
        )

    def resume(self):
        self.checkout.unlock(self.config)
        self.controller = self.start()

    def owners(self):
        """Leases held now."""
        found = []
        for path in self.checkout.results("checkpoints").rglob("*.lease"):
            stage = str(path.relative_to(self.checkout.results("checkpoints"))).removesuffix(
                ".lease"
            )
            _, _, ratio, name = stage.split("/")
            if owner := self.checkout.owner(ratio.removeprefix("ood~"), name):
                found.append((stage, owner))
        return found

    def kill(self):
        """One random kill; False if there was nothing of that kind to kill."""
        how = self.random.choice(["controller", "scancel", "SIGTERM", "SIGKILL", "node"])
        if how == "controller":
            end(self.controller)
            what = "the controller"
            time.sleep(self.random.uniform(0, 6))
            self.resume()
        elif how == "node":
            if self.dead:
                return False
            node = self.random.choice(["n1", "n2"])
            self.cluster.kill_node(node)
            self.dead[node] = time.monotonic() + 25
            what = f"the daemon of {node}"
        else:
            owners = self.owners()
            if not owners:
                return False
            stage, owner = self.random.choice(owners)
            what = f"{stage}, SLURM job {owner['job']}, by {how}"
            if how == "scancel":
                self.cluster.call("scancel", str(owner["job"]))
            else:
                try:
                    os.kill(owner["pid"], getattr(signal, how))
                except ProcessLookupError:
                    return False
        self.counts[how] = self.counts.get(how, 0) + 1
        self.say(f"kill {sum(self.counts.values())}: {what}")
        return True

    def mend(self):
        """Bring dead nodes back after a while."""
        for node, when in list(self.dead.items()):
            if time.monotonic() > when:
                self.cluster.start_node(node)
                del self.dead[node]
                self.say(f"{node} is back")

    def run(self):
        """Kill until it is enough, let the sweep end; the exit status of its last controller."""
        deadline = time.monotonic() + 60 * MINUTES
        pause = time.monotonic() + 20
        try:
            while time.monotonic() < deadline:
                self.mend()
                code = self.controller.poll()
                if code is not None:
                    self.say(
                        f"status {code} of the controller after {sum(self.counts.values())} kills"
                    )
                    if code == 0 and not self.dead:
                        return code
                    if code:
                        self.resume()
                if (
                    sum(self.counts.values()) < KILLS
                    and time.monotonic() > pause
                    and code is None
                    and self.kill()
                ):
                    pause = time.monotonic() + self.random.uniform(3, 12)
                time.sleep(0.3)
            raise AssertionError(
                f"not done after {MINUTES} minutes: "
                + (self.checkout.folder / "kills.log").read_text()[-4000:]
            )
        finally:
            end(self.controller)
            for node in self.dead:
                self.cluster.start_node(node)


def test_random_kills(cluster, checkout, local):
    axes = {"depth": {"ratios": RATIOS}}
    names = ("summary", "gains", "seed_means")
    local.run(
        local.configure(axes=axes),
        *(str(local.results("tables", f"{name}.csv").relative_to(local.folder)) for name in names),
    )
    profile = (checkout.folder / "profiles/slurm/config.yaml").read_text()
    (checkout.folder / "patient").mkdir()
    (checkout.folder / "patient/config.yaml").write_text(
        profile.replace("retries: 3", "retries: 20")
    )
    config = checkout.configure(axes=axes)
    targets = [
        str(checkout.results("tables", f"{name}.csv").relative_to(checkout.folder))
        for name in names
    ]
    disturber = Disturber(cluster, checkout, config, targets)
    assert disturber.run() == 0
    disturber.say(f"kills: {disturber.counts}")
    assert sum(disturber.counts.values()) == KILLS
    for path in sorted(local.results("tables").glob("*.csv")):
        assert checkout.results("tables", path.name).read_bytes() == path.read_bytes(), path.name
        disturber.say(f"{path.name}: identical, {path.read_text().count(chr(10)) - 1} rows")
    for ratio in RATIOS:
        ours, theirs = (
            pq.read_table(where.stage(ratio, "evaluation.parquet")) for where in (checkout, local)
        )
        assert ours.equals(theirs)
        disturber.say(f"evaluation of ratio {ratio}: identical, {ours.num_rows} rows, none twice")
        assert len(
            {
                tuple(row)
                for row in zip(
                    *(ours[name].to_pylist() for name in ("stage", "split", "prompt_index")),
                    strict=True,
                )
            }
        ) == len(ours)
        for name in ("pretrain", "sft", "grpo~id", "grpo~ood"):
            assert checkout.weights(ratio, name) == local.weights(ratio, name)
            log = pq.read_table(checkout.stage(ratio, name) / "training_log.parquet")[
                "step"
            ].to_pylist()
            assert log == list(range(1, len(log) + 1))
