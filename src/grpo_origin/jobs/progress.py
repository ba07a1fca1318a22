"""How far a sweep is and when it will be done, from what its jobs have taken so far.

The workflow tells it of every job that starts and ends (workflow/rules/progress.smk). Knows kinds
of jobs and guesses of their seconds, nothing of what they do.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# What a guess counts for beside measured jobs, and the share of time that the start is worth: one
# job and half a minute, gone when a tenth of a sweep of minutes is done.
PRIOR_JOBS = 1.0
PRIOR_SECONDS = 30.0


class Planned(NamedTuple):
    """A job to come: its kind, and a guess of its seconds, of any scale that all guesses share."""

    kind: str
    guess: float


@dataclass
class Progress:
    """A sweep of jobs, of which `at_once` run together.

    Time left is the work left over the number of jobs that really ran at once. The work of a kind
    is the sum of its guesses times what its measured jobs took of theirs; a kind of which none is
    done takes that of all kinds together.
    """

    planned: Mapping[Hashable, Planned]
    at_once: int
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _running: dict[Hashable, float] = field(default_factory=dict, init=False)
    _ended: set[Hashable] = field(default_factory=set, init=False)
    _failed: set[Hashable] = field(default_factory=set, init=False)
    _seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float), init=False)
    _guessed: dict[str, float] = field(default_factory=lambda: defaultdict(float), init=False)
    _measured: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def started(self, job: Hashable) -> None:
        """A job runs; the first time that this is told, it began."""
        if job in self.planned and job not in self._ended:
            self._running.setdefault(job, self.clock())

    def finished(self, job: Hashable) -> None:
        """A job is done; one whose start was not told counts, but measures nothing."""
        begun = self._running.pop(job, None)
        if job not in self.planned or job in self._ended:
            return
        self._ended.add(job)
        if begun is not None:
            kind, guess = self.planned[job]
            self._seconds[kind] += self.clock() - begun
            self._guessed[kind] += guess
            self._measured[kind] += 1

    def failed(self, job: Hashable) -> None:
        """A job came to nothing; it may be tried again."""
        if self._running.pop(job, None) is not None:
            self._failed.add(job)

    def _ratio(self, kind: str) -> float:
        """Measured seconds over guessed ones, of a kind; drawn to that of all if few are done."""
        everything = sum(self._guessed.values())
        overall = sum(self._seconds.values()) / everything if everything else 1.0
        done = self._measured[kind]
        if not done:
            return overall
        a_job = self._guessed[kind] / done
        prior = PRIOR_JOBS * a_job
        return (self._seconds[kind] + prior * overall) / (self._guessed[kind] + prior)

    def seconds_left(self) -> float:
        """Seconds until all jobs are done, those that failed among them."""
        now = self.clock()
        guesses: dict[str, float] = defaultdict(float)
        ran = longest = 0.0
        ratio = {kind: self._ratio(kind) for kind in {job.kind for job in self.planned.values()}}
        for job, (kind, guess) in self.planned.items():
            if job not in self._ended:
                guesses[kind] += guess
        for job, begun in self._running.items():
            kind, guess = self.planned[job]
            expected = ratio[kind] * guess
            ran += min(now - begun, expected)
            longest = max(longest, expected - (now - begun))
        work = sum(ratio[kind] * guess for kind, guess in guesses.items()) - ran
        busy = sum(self._seconds.values()) + sum(now - begun for begun in self._running.values())
        passed = now - self._began
        together = (busy + self.at_once * PRIOR_SECONDS) / (passed + PRIOR_SECONDS)
        return max(work / max(together, 1.0), longest, 0.0)

    def line(self) -> str:
        """Jobs done, running and left, and when all will be done, in one line."""
        done, running = len(self._ended), len(self._running)
        waiting = len(self.planned) - done - running
        text = f"{done} of {len(self.planned)} jobs done"
        if done == len(self.planned):
            return f"{text}, after {duration(self.clock() - self._began)}"
        parts = [text, f"{running} running", f"{waiting} to come"]
        if lost := len(self._failed - self._ended - self._running.keys()):
            parts.append(f"{lost} failed")
        if self._ended:
            seconds = self.seconds_left()
            until = time.strftime("%H:%M", time.localtime(time.time() + seconds))
            parts.append(f"about {duration(seconds)} left (until {until})")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time as people say it: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min"
