"""How far a sweep is: counts, and a time left that holds from the first tenth on."""

from __future__ import annotations

import heapq
import random
import re

import pytest

from grpo_origin.cli import SHIPPED
from grpo_origin.cost import START_SECONDS, Rates, guesses, job_work, work_seconds
from grpo_origin.jobs.progress import Planned, Progress, duration
from grpo_origin.lineage import jobs as planned_jobs
from grpo_origin.study import read_study
from helpers import REPO, tiny_study

# Seconds of a job of the default run on two cores, and how often a cell has it.
CELL = {"pretrain": (18.0, 1), "sft": (2.5, 1), "rl": (10.0, 2), "evaluate": (1.3, 1)}
AXES, CELLS = 4, 15


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def sweep(slower: dict[str, float], seed: int = 0):
    """Jobs in the order in which they run: (kind, seconds, guess), groups of cells one by one.

    Seconds vary by a fifth; `slower` is how much longer a kind takes than its guess says.
    """
    draws = random.Random(seed)
    jobs = []
    for _ in range(AXES):
        for start in range(0, CELLS, 5):
            for kind, (seconds, count) in CELL.items():
                for _ in range(min(5, CELLS - start) * count):
                    real = seconds * draws.uniform(0.8, 1.2)
                    jobs.append((kind, real, seconds / slower.get(kind, 1.0)))
    ends = [("tables", 8.0, START_SECONDS), ("figures", 20.0, START_SECONDS)]
    return jobs + ends


def replayed(jobs, at_once: int = 2) -> tuple[list[tuple[float, float, str]], float]:
    """What is said whenever a job ends, (time, seconds left, line), and when all are done."""
    clock = Clock()
    planned = {i: Planned(kind, guess) for i, (kind, _, guess) in enumerate(jobs)}
    progress = Progress(planned, at_once, clock)
    running: list[tuple[float, int]] = []
    said = []
    waiting = list(range(len(jobs)))
    while waiting or running:
        last = bool(waiting) and jobs[waiting[0]][0] in ("tables", "figures")
        while waiting and len(running) < (1 if last else at_once):
            number = waiting.pop(0)
            heapq.heappush(running, (clock.now + jobs[number][1], number))
            progress.started(number)
        clock.now, number = heapq.heappop(running)
        progress.finished(number)
        said.append((clock.now, progress.seconds_left(), progress.line()))
    return said, clock.now


@pytest.mark.parametrize(
    "slower",
    [
        {},
        dict.fromkeys(CELL, 3.0),  # another machine
        {"pretrain": 0.5, "rl": 2.0},  # rates of an older version
    ],
    ids=["as guessed", "a slow machine", "wrong rates"],
)
@pytest.mark.parametrize("at_once", [2, 8])
def test_the_time_left_holds_from_the_first_tenth_on(slower, at_once):
    said, end = replayed(sweep(slower), at_once)
    early = [(now, left) for now, left, _ in said if 0.1 * end <= now <= 0.8 * end]
    assert len(early) > 50
    for now, left in early:
        assert now + left == pytest.approx(end, rel=0.2)


def test_a_kind_that_takes_twice_its_guess_is_measured_and_no_other_is_changed():
    """Without weights by kind the short jobs would stand for the long ones."""
    clock = Clock()
    planned = {i: Planned("short", 1.0) for i in range(50)}
    planned |= {50 + i: Planned("long", 100.0) for i in range(50)}
    progress = Progress(planned, 1, clock)
    for job in [*range(25), *range(50, 60)]:
        progress.started(job)
        clock.now += 1.0 if job < 50 else 200.0
        progress.finished(job)
    assert progress.seconds_left() == pytest.approx(25 * 1 + 40 * 200, rel=0.05)


def test_the_line_has_what_is_done_what_runs_and_what_is_left():
    clock = Clock()
    progress = Progress({i: Planned("pretrain", 60.0) for i in range(10)}, 2, clock)
    assert progress.line() == "0 of 10 jobs done, 0 running, 10 to come"
    for job in (0, 1):
        progress.started(job)
    clock.now = 60.0
    progress.started(1)  # told again: it began when it was told first
    progress.finished(0)
    progress.started("of another sweep")
    progress.finished("of another sweep")
    progress.started(2)
    words = r"1 of 10 jobs done, 2 running, 7 to come, about \d+ min left \(until \d\d:\d\d\)"
    assert re.fullmatch(words, progress.line())
    progress.failed(1)
    assert ", 1 running, 8 to come, 1 failed, " in progress.line()
    progress.started(1)
    assert "failed" not in progress.line()
    for job in range(1, 10):
        progress.finished(job)  # started elsewhere, as jobs of a group: they only count
    clock.now = 200.0
    assert progress.line() == "10 of 10 jobs done, after 3 min"
    assert progress.seconds_left() == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (12000, "3 h 20 min")],
)
def test_durations_are_said_as_people_do(seconds, text):
    assert duration(seconds) == text


def test_guesses_are_those_of_the_cost_plan():
    study = read_study(REPO / "config" / "config.yaml")
    guess = guesses(study, SHIPPED)
    (cell, *_), (rl, *_) = planned_jobs(study)["pretrain"], planned_jobs(study)["rl"]
    assert guess("pretrain", cell) > guess("rl", rl) > guess("sft", cell) > START_SECONDS
    assert guess("report", {}) == guess("all", {}) == START_SECONDS
    unknown = guesses(tiny_study(), SHIPPED)  # no rates of such a model
    assert unknown("pretrain", cell) == START_SECONDS


def test_work_of_jobs_sums_to_that_of_stages():
    study = tiny_study(variants={"short": {"rl": {"steps": 6}}})
    values = dict.fromkeys(Rates.model_fields, 7.0)
    work = job_work(study, Rates(**values))
    plain, short = (work["rl"](own, {"method": "grpo"}) for own in (study, study.variants[0]))
    assert plain == 2 * short
    assert work_seconds(study, Rates(**values))["rl"] == 4 * plain + 4 * short
