# How far the sweep is: one line whenever jobs start, on the console and in logs/progress.log.
import logging
import time

from snakemake.settings.enums import Quietness

from grpo_origin.cli import SHIPPED
from grpo_origin.config.places import progress_log
from grpo_origin.cost import guesses
from grpo_origin.jobs.progress import Planned, Progress


class Follower(logging.Filter):
    """Learns from Snakemake's events how far the sweep is; lets every record pass."""

    def __init__(self):
        super().__init__()
        self.progress = None

    def filter(self, record):
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_STARTED:
            self.progress = self.progress or Progress(planned_jobs(), jobs_at_once())
            for job in list(workflow.scheduler.running):  # on a cluster groups of jobs too
                for member in job if job.is_group() else (job,):
                    self.progress.started(member.jobid)
            record.msg = self.line()
        elif self.progress and event == LogEvent.JOB_FINISHED:
            self.progress.finished(record.job_id)
        elif self.progress and event == LogEvent.JOB_ERROR:
            self.progress.failed(record.jobid)
        elif self.progress and event == LogEvent.PROGRESS and record.done == record.total:
            self.line()
        return True

    def formatted(self, record):
        """Snakemake's own event as the same line."""
        done, total = record["done"], record["total"]
        return self.progress.line() if self.progress else f"{done} of {total} jobs done"

    def line(self):
        """How far the sweep is, kept in the log too."""
        text = self.progress.line()
        path = Path(progress_log(PATHS))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        return text


def planned_jobs():
    """The jobs of this sweep by their numbers; each method of RL is a kind of its own."""
    guess, planned = guesses(STUDY, SHIPPED), {}
    for job in workflow.dag.needrun_jobs():
        name, wildcards = job.rule.name, job.wildcards_dict
        kind = f"{name} {wildcards.get('method', '')}".strip()
        planned[job.jobid] = Planned(kind, guess(name, wildcards))
    return planned


def jobs_at_once():
    """Jobs that run together: what the cores allow, or on a cluster what the queue may hold."""
    asked = workflow.resource_settings
    if not workflow.local_exec:
        return asked.nodes or 1
    return max((asked.cores or 1) // SETTINGS.runtime.threads, 1)


FOLLOWER = Follower()
SELECTING = "Select jobs to execute..."  # this one is no event


def is_worth_a_line(record):
    """Of Snakemake's events on the console only jobs that start, which say how far the sweep is.

    Each job prints a line of its own when it is done (jobs/job.py).
    """
    event = getattr(record, "event", None)
    if event == LogEvent.JOB_STARTED:
        return Quietness.PROGRESS not in (workflow.output_settings.quiet or ())
    if event == LogEvent.PROGRESS:
        return record.done == record.total
    return event != LogEvent.JOB_FINISHED and record.msg != SELECTING


if workflow.is_main_process:
    logger.addFilter(FOLLOWER)
for handler in logger.handlers:
    if handler.name == "DefaultStreamHandler":  # Snakemake's log file keeps everything
        handler.addFilter(is_worth_a_line)
        handler.formatter.format_progress = FOLLOWER.formatted
