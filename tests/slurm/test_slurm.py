"""The sweep on a cluster: the results of a local run, whatever dies on the way."""

import os
import signal
import time

import pyarrow.parquet as pq
import pytest
from cluster import end, until

pytestmark = pytest.mark.slurm

DISTURBED = {"scancel": "0.2", "sigterm": "0.3", "limit": "0.4"}
ORPHAN, NODE = "0.5", "0.6"
STEPS = 20  # of pretraining in cluster.TINY


@pytest.fixture(scope="session")
def reference(local):
    """Everything the tests compare with, from an undisturbed local run."""
    local.run(
        local.configure(), str(local.results("tables", "summary.csv").relative_to(local.folder))
    )
    ratios = [*DISTURBED.values(), ORPHAN, NODE]
    local.run(
        local.configure(axes={"depth": {"ratios": ratios}}),
        *(local.target(ratio) for ratio in ratios),
    )
    return local


@pytest.fixture(scope="session")
def sweep(checkout, reference):
    """The sweep run once on the cluster; the tests below use its data."""
    checkout.run(
        checkout.configure(),
        str(checkout.results("tables", "summary.csv").relative_to(checkout.folder)),
        profile="slurm",
    )
    return checkout


def steps(checkout, ratio):
    return pq.read_table(checkout.stage(ratio) / "training_log.parquet")["step"].to_pylist()


def assert_undisturbed(sweep, reference, ratio):
    """Final weights as of an undisturbed run, every step logged once, and nothing left over."""
    assert sweep.weights(ratio) == reference.weights(ratio)
    assert steps(sweep, ratio) == list(range(1, STEPS + 1))
    assert not sweep.checkpoint(ratio).exists()
    assert sweep.owner(ratio) is None
    assert not [
        path
        for path in sweep.results().rglob("*")
        if ratio in str(path) and path.name.endswith((".tmp", ".wanted", ".takeover"))
    ]


def test_results_equal_those_of_a_local_run(sweep, reference):
    tables = sorted(path.name for path in reference.results("tables").glob("*.csv"))
    assert tables
    for name in tables:
        assert (
            sweep.results("tables", name).read_bytes()
            == reference.results("tables", name).read_bytes()
        )
    ours, theirs = (
        pq.read_table(where.stage("0.1", "evaluation.parquet")) for where in (sweep, reference)
    )
    assert ours.equals(theirs)
    for name in ("pretrain", "sft", "grpo~id", "grpo~ood"):
        assert sweep.weights("0.1", name) == reference.weights("0.1", name)


def test_job_sees_what_it_was_given(sweep):
    first = sweep.log("0.1").splitlines()[0]
    assert "host n" in first
    assert "CPUs 1" in first
    assert "GPUs" in first
    assert "GPUs" not in sweep.log("0.1", "sft").splitlines()[0]


def test_disturbed_jobs_resume(cluster, sweep, reference):
    """scancel, SIGTERM to the process, and SLURM's warning before a limit that all run into."""
    profile = (sweep.folder / "profiles/slurm/config.yaml").read_text()
    (sweep.folder / "short").mkdir(exist_ok=True)
    (sweep.folder / "short/config.yaml").write_text(profile.replace("TERM@120", "TERM@15"))
    config = sweep.configure(
        axes={"depth": {"ratios": list(DISTURBED.values())}},
        resources={"pretrain": {"gpus": 1, "minutes": 1}},
    )
    controller = sweep.start(
        config,
        *(sweep.target(ratio) for ratio in DISTURBED.values()),
        profile="short",
        slow=3.5,
        log="disturbed.log",
    )
    try:
        for how in ("scancel", "sigterm"):
            ratio = DISTURBED[how]
            saved = sweep.saved(ratio)
            owner = until(
                lambda ratio=ratio, saved=saved: saved() and sweep.owner(ratio),
                120,
                f"a running job with a checkpoint ({how})",
            )
            if how == "scancel":
                cluster.call("scancel", str(owner["job"]))
            else:
                os.kill(owner["pid"], signal.SIGTERM)
            state = until(lambda job=owner["job"]: cluster.ended(job), 60, "the end of the job")
            assert state["JobState"] == ("CANCELLED" if how == "scancel" else "FAILED")
            assert state["ExitCode"] != "0:0" or how == "scancel"
        assert controller.wait(300) == 0, (sweep.folder / "disturbed.log").read_text()[-4000:]
    finally:
        end(controller)
    for ratio in DISTURBED.values():
        assert_undisturbed(sweep, reference, ratio)
        assert "the state is saved" in sweep.slurm_logs(ratio)
        assert "resumed after step" in sweep.log(ratio)


def test_resume_after_the_controller_was_killed(cluster, sweep, reference):
    config = sweep.configure(axes={"depth": {"ratios": [ORPHAN]}})
    first = sweep.start(config, sweep.target(ORPHAN), profile="slurm", slow=1.5, log="killed.log")
    try:
        orphan = until(lambda: sweep.owner(ORPHAN), 60, "the training job")
        until(sweep.saved(ORPHAN), 40, "a checkpoint")
    finally:
        end(first)
    assert cluster.jobs("pretrain") == [orphan["job"]]
    sweep.unlock(config)
    second = sweep.start(config, sweep.target(ORPHAN), profile="slurm", slow=0.5, log="resumed.log")
    owners = []
    try:
        while second.poll() is None:
            if (owner := sweep.owner(ORPHAN)) and owner["job"] not in owners:
                owners.append(owner["job"])
            time.sleep(0.1)
        assert second.wait(0) == 0, (sweep.folder / "resumed.log").read_text()[-4000:]
    finally:
        end(second)
    assert_undisturbed(sweep, reference, ORPHAN)
    assert owners[0] == orphan["job"]
    assert len(owners) == 2
    assert f"held by SLURM job {owners[0]}" in sweep.log(ORPHAN)
    assert "resumed after step" in sweep.log(ORPHAN)
    assert "the state is saved" in sweep.slurm_logs(ORPHAN)  # by the orphan, when it handed over


def test_job_of_a_dead_node_is_requeued(cluster, sweep, reference):
    controller = sweep.start(
        sweep.configure(axes={"depth": {"ratios": [NODE]}}),
        sweep.target(NODE),
        profile="slurm",
        slow=3,
        log="node.log",
    )
    node = None
    try:
        owner = until(lambda: sweep.owner(NODE), 60, "the training job")
        until(sweep.saved(NODE), 40, "a checkpoint")
        node = cluster.state(owner["job"])["NodeList"]
        cluster.kill_node(node)
        until(
            lambda: cluster.state(owner["job"])["Restarts"] == "1", 90, "SLURM to requeue the job"
        )
        assert controller.wait(200) == 0, (sweep.folder / "node.log").read_text()[-4000:]
    finally:
        end(controller)
        if node:
            cluster.start_node(node)
    assert_undisturbed(sweep, reference, NODE)
    assert "resumed after step" in sweep.log(NODE)
