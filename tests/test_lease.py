"""Leases: one owner at a time, whoever dies, hangs or comes late."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from grpo_origin.jobs import lease as module
from grpo_origin.jobs.lease import Lease, LeaseError, Owner, lease

STALE = 1.2

JOB = """
import os, signal, sys, time
from grpo_origin.jobs.lease import LeaseError, lease
path, log, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
def note(word):
    with open(log, "a") as file:
        file.write(f"{word} {os.getpid()}\\n")
stopped = []
try:
    with lease(path, "same", stale=1.2, wait=20):
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
        note("in")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not stopped:
            time.sleep(0.01)
        note("out")
except LeaseError as error:
    sys.exit(f"lease: {error}")
sys.exit(3 if stopped else 0)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stage.lease"


def start(path, log, seconds, job=None):
    environ = {name: value for name, value in os.environ.items() if name != "SLURM_JOB_ID"} | (
        {"SLURM_JOB_ID": str(job)} if job else {}
    )
    return subprocess.Popen(
        [sys.executable, "-c", JOB, path, log, str(seconds)],
        env=environ,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def hold(path, owner):
    """A lease of another owner."""
    path.write_text(json.dumps(asdict(owner)))


def other(**changes):
    """An owner elsewhere."""
    return replace(
        Owner.this("same"),
        **({"token": "other", "machine": "elsewhere 1 2", "started": time.time() - 60} | changes),
    )


def test_is_released_and_leaves_nothing(path):
    with lease(path, "x", stale=STALE, wait=0) as held:
        assert json.loads(path.read_text())["pid"] == os.getpid()
        held.check()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("how", module.STOP_SIGNALS)
def test_is_released_after_a_signal(path, how):
    with pytest.raises(SystemExit, match=how.name), lease(path, "x", stale=STALE, wait=0):
        signal.raise_signal(how)
    assert list(path.parent.iterdir()) == []


def test_a_second_signal_does_not_disturb_the_release(path):
    """Ctrl-C reaches a forked job twice: from the terminal and from its script."""

    def leave():
        with lease(path, "x", stale=STALE, wait=0) as held:
            release = held.release

            def interrupted():
                signal.raise_signal(signal.SIGINT)
                release()

            held.release = interrupted
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit, match="SIGINT"):
        leave()
    assert list(path.parent.iterdir()) == []


def test_never_two_at_once(path, tmp_path):
    log = tmp_path / "log"
    jobs = [start(path, log, 0.2) for _ in range(6)]
    for job in jobs:
        job.communicate(timeout=60)
    words = [line.split() for line in log.read_text().splitlines()]
    assert words
    for (first, one), (second, two) in zip(words[::2], words[1::2], strict=True):
        assert (first, second) == ("in", "out")
        assert one == two
    assert not path.exists()


def test_owner_hands_over_to_the_job_submitted_last(path, tmp_path):
    log = tmp_path / "log"
    first = start(path, log, 30, job=7)
    wait_for(path)
    second = start(path, log, 0.1, job=8)
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert first.wait(60) == 3
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["in", "out", "in", "out"]


def test_older_job_gives_way(path, tmp_path):
    first = start(path, tmp_path / "log", 3, job=8)
    wait_for(path)
    second = start(path, tmp_path / "log", 0.1, job=7)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 1
    assert b"SLURM job 8" in errors
    assert first.wait(60) == 0


def test_dead_owner_of_this_machine_is_replaced_at_once(path, tmp_path):
    first = start(path, tmp_path / "log", 30)
    wait_for(path)
    first.kill()
    first.wait()
    with lease(path, "same", stale=3600, wait=0):
        pass


def test_silent_owner_elsewhere_is_replaced_after_a_while(path):
    hold(path, other())
    started = time.monotonic()
    with lease(path, "same", stale=STALE, wait=20):
        assert time.monotonic() - started > STALE * 0.8


def test_living_owner_elsewhere_is_waited_for_until_the_limit(path):
    hold(path, other(job=12))
    stop = threading.Event()

    def beat():
        while not stop.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with (
            pytest.raises(LeaseError, match=r"still held by SLURM job 12.*scancel 12"),
            lease(path, "same", stale=STALE, wait=2),
        ):
            pass
    finally:
        stop.set()
        thread.join()
    assert sorted(file.name for file in path.parent.iterdir()) == ["stage.lease"]


def test_lost_lease_forbids_writing_and_is_left_alone(path):
    def lose():
        with lease(path, "same", stale=STALE, wait=0) as held:
            hold(path, other())
            with pytest.raises(LeaseError, match="lost to"):
                held.check()
            time.sleep(3 * STALE)  # the heartbeat notices too, and stops the job

    with pytest.raises(SystemExit, match="SIGTERM"):
        lose()
    assert json.loads(path.read_text())["token"] == "other"


def test_job_with_other_settings_forbids_writing(path):
    held = Lease(path, Owner.this("old"), 60)
    held.acquire(0)
    try:
        hold(held.wanted, other(identity="new", started=time.time() + 60))
        with pytest.raises(LeaseError, match="other settings"):
            held.check()
    finally:
        held.release()


def test_works_without_hard_links(path, monkeypatch):
    def link(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(module.os, "link", link)
    with lease(path, "x", stale=STALE, wait=0) as held:
        held.check()
    assert list(path.parent.iterdir()) == []
