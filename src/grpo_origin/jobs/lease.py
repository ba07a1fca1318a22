"""Leases: one writer a training stage on a shared file system, whatever died or ran twice.

A lease is a small file beside the stage's checkpoint that names its owner and whose modification
time is a heartbeat; `checkpoint.stage` takes one. Only operations that a file server decides itself
(link, exclusive creation, rename) grant one. A second job asks the owner to hand over: the owner
gets SIGTERM from its own heartbeat, saves its state and leaves, and the second job goes on from
there; so after a controller was killed, its jobs and those of the resumed one never train at once.
The job submitted last wins, since an orphan has nobody left to report to. A dead owner's lease is
taken over when its heartbeat has stopped for a while, at once if it died on this machine. Standard
library only; knows nothing of training.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BEATS = 6  # heartbeats in the time after which a silent owner counts as dead
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LeaseError(RuntimeError):
    """The stage is another job's; one line names that job and says what to do."""


def _machine() -> str:
    """Where a process id means something: host, boot, process namespace."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _born(pid: int) -> str | None:
    """Start time of a process as the kernel counts it; None if it is dead or /proc can't tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class Owner:
    """A job that holds a lease or asks for one. `identity` is a digest of what it makes."""

    token: str
    identity: str
    machine: str
    pid: int
    born: str | None
    job: int | None
    started: float

    @classmethod
    def this(cls, identity: str) -> Owner:
        """The present process."""
        job = os.environ.get("SLURM_JOB_ID", "")
        pid = os.getpid()
        return cls(
            uuid.uuid4().hex,
            identity,
            _machine(),
            pid,
            _born(pid),
            int(job) if job.isdigit() else None,
            time.time(),
        )

    def __str__(self) -> str:
        where = f"process {self.pid} on {self.machine.split()[0]}"
        return f"SLURM job {self.job} ({where})" if self.job else where

    def newer(self, other: Owner) -> bool:
        """Whether this job was submitted after the other: by job id, else by start."""
        if self.job and other.job and self.job != other.job:
            return self.job > other.job
        return self.started > other.started

    def dead(self) -> bool:
        """Whether it is known to be dead, which can be told only on its own machine."""
        return self.born is not None and self.machine == _machine() and _born(self.pid) != self.born


def _read(path: Path) -> tuple[Owner | None, float] | None:
    """Owner and heartbeat of a lease file, None if there is none.

    The owner is None while the file is being written.
    """
    try:
        # opening makes a network file system fetch fresh attributes
        with open(path, encoding="utf-8") as file:
            heartbeat = os.fstat(file.fileno()).st_mtime
            content = file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    try:
        return Owner(**json.loads(content)), heartbeat
    except (ValueError, TypeError):
        return None, heartbeat


def _write(path: Path, owner: Owner, flags: int = os.O_TRUNC) -> None:
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644), "w", encoding="utf-8"
    ) as file:
        json.dump(asdict(owner), file)


class Lease:
    """A lease held by this process until `release`; `waited` if another job had it before."""

    def __init__(self, path: Path, me: Owner, stale: float) -> None:
        self.path, self.me, self.stale = path, me, stale
        self.wanted, self.private = (
            path.with_name(path.name + ".wanted"),
            path.with_name(f".{path.name}.{me.token}"),
        )
        self.waited = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def _now(self) -> float:
        """The file system's clock, so that clocks of different nodes are never compared."""
        os.utime(self.private)
        return os.stat(self.private).st_mtime

    def acquire(self, wait: float) -> None:
        """Get the lease, waiting up to `wait` seconds for a living owner to hand over.

        Raises LeaseError if it does not, or if it, or another job that waits, was submitted after
        this one.
        """
        deadline = time.monotonic() + wait
        _write(self.private, self.me)
        try:
            while not self._create():
                entry = _read(self.path)
                if entry is None:
                    continue
                owner, heartbeat = entry
                if self._now() - heartbeat > self.stale or (owner and owner.dead()):
                    if self._take_over(owner):
                        print(f"lease: taken over from {owner}, which is dead", flush=True)
                        break
                elif owner:
                    self._ask(owner)
                    if time.monotonic() > deadline:
                        raise LeaseError(
                            f"{self.path}: still held by {owner} after {wait:.0f} s; "
                            f"{f'scancel {owner.job}' if owner.job else 'end it'} "
                            "or raise runtime.lease_wait_seconds"
                        )
                time.sleep(min(self.stale / BEATS, 5.0))
        finally:
            self.private.unlink(missing_ok=True)
            self._withdraw()
        self._thread.start()

    def _create(self) -> bool:
        try:
            os.link(self.private, self.path)
        except FileExistsError:
            # a repeated request over the network: the first one had succeeded
            return os.stat(self.private).st_nlink > 1
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            try:
                _write(self.path, self.me, os.O_EXCL)
            except FileExistsError:
                return False
        return True

    def _take_over(self, dead: Owner | None) -> bool:
        """Put this job in the place of a dead owner, unless another job is about to."""
        mutex, temporary = (
            self.path.with_name(self.path.name + ".takeover"),
            self.private.with_name(self.private.name + ".new"),
        )
        try:
            _write(mutex, self.me, os.O_EXCL)
        except FileExistsError:
            if (other := _read(mutex)) and self._now() - other[1] > self.stale:
                mutex.unlink(missing_ok=True)
            return False
        try:
            entry = _read(self.path)
            if entry is None or entry[0] != dead:
                return False
            _write(temporary, self.me)
            # the lease exists throughout, so nobody can create it meanwhile
            os.replace(temporary, self.path)
        finally:
            mutex.unlink(missing_ok=True)
        return True

    def _ask(self, owner: Owner) -> None:
        """Ask a living owner to hand over, or give way to a newer job."""
        rival = _read(self.wanted)
        first = (
            rival[0]
            if rival and rival[0] and self._now() - rival[1] <= self.stale and not rival[0].dead()
            else None
        )
        for newer in filter(None, (owner, first)):
            if newer.token != self.me.token and newer.newer(self.me):
                raise LeaseError(
                    f"{self.path}: left to {newer}, which was submitted after this one"
                )
        if not self.waited:
            print(f"lease: held by {owner}; asking it to hand over", flush=True)
        self.waited = True
        _write(self.wanted, self.me)  # again and again: its age shows that this job still waits

    def _withdraw(self) -> None:
        if (entry := _read(self.wanted)) and (entry[0] is None or not entry[0].newer(self.me)):
            self.wanted.unlink(missing_ok=True)

    def _successor(self, now: float) -> Owner | None:
        """The newer job that asks for this lease, if there is one."""
        entry = _read(self.wanted)
        return (
            entry[0]
            if entry and entry[0] and entry[0].newer(self.me) and now - entry[1] <= self.stale
            else None
        )

    def _mine(self) -> bool:
        entry = _read(self.path)
        return bool(entry and entry[0] and entry[0].token == self.me.token)

    def _beat(self) -> None:
        """Keep the heartbeat going; SIGTERM the job when the lease is wanted or lost."""
        told = False
        while not self._released.wait(self.stale / BEATS):
            try:
                mine = self._mine()
                if mine:
                    os.utime(self.path)
                successor = self._successor(os.stat(self.path).st_mtime) if mine else None
            except OSError as error:
                print(f"lease: no heartbeat ({error})", flush=True)
                continue
            if not told and (successor or not mine) and not self._released.is_set():
                print(
                    f"lease: {f'wanted by {successor}' if successor else 'lost'}; stopping",
                    flush=True,
                )
                told = True
                os.kill(os.getpid(), signal.SIGTERM)

    def check(self) -> None:
        """Raise LeaseError unless this job may still write; for just before a file is in place."""
        entry = _read(self.path)
        if not self._mine():
            raise LeaseError(
                f"{self.path}: lost to {entry[0] if entry else 'nobody: the file was deleted'}; "
                "nothing was written"
            )
        if (
            entry
            and (successor := self._successor(entry[1]))
            and successor.identity != self.me.identity
        ):
            raise LeaseError(
                f"{self.path}: {successor} makes this stage from other settings or inputs; "
                "nothing was written"
            )

    def release(self) -> None:
        """Give the lease up; a lost one is left alone."""
        self._released.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):
            if self._mine():
                self.path.unlink()


@contextmanager
def lease(path: str | Path, identity: str, *, stale: float, wait: float) -> Iterator[Lease]:
    """Hold the lease `path` during the block; raises LeaseError as `Lease.acquire` does.

    `identity` is a digest of what the job makes. An owner silent for `stale` seconds counts as
    dead; a living one is given `wait` seconds to hand over. Within the block Ctrl-C, SIGTERM and
    SIGUSR1 end the process in an orderly way, so that the lease is released, wherever the block
    does not handle them itself.
    """

    def leave(number: int, _: Any) -> None:
        for other in handled:  # a second Ctrl-C would disturb the release
            signal.signal(other, signal.SIG_IGN)
        name = signal.Signals(number).name
        sys.exit(f"stopped by {name} outside of the training steps; the same command resumes")

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    held = Lease(path, Owner.this(identity), stale)
    main = threading.current_thread() is threading.main_thread()
    handled = STOP_SIGNALS if main else ()
    before = {number: signal.signal(number, leave) for number in handled}
    try:
        held.acquire(wait)
        yield held
    finally:
        held.release()
        for number, handler in before.items():
            signal.signal(number, handler)
