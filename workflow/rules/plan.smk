# Results that do not belong to these settings: found by the record that every job leaves beside its
# outputs, so that results copied from elsewhere or half remade never pass for this run's.
# Snakemake's own record (.snakemake/metadata) knows nothing of them. Included last: it reads rules.
from grpo_origin.jobs.provenance import is_current


def params_of_job(rule, wildcards):
    """Params of a job, from its rule's: values or functions of the wildcards."""
    params, job = getattr(rules, rule).params, named(wildcards)
    return {key: value(job) if callable(value) else value for key, value in params.items()}


def outdated_jobs():
    """Rule and outputs of each job of which outputs are there, but not as it would make them."""
    for name, planned in JOBS.items():
        for wildcards in planned:
            outputs = files_of_job(getattr(rules, name).output, wildcards)
            there = [output for output in outputs if os.path.lexists(output)]
            if there:
                params = params_of_job(name, wildcards)
                inputs = files_of_job(getattr(rules, name).input, wildcards)
                if not all(is_current(output, params, inputs) for output in there):
                    yield name, outputs


def warn_of_other_settings():
    """One line if the last run of this name had other settings."""
    try:
        before = json.loads(Path(PATHS.settings).read_text(encoding="utf-8"))
        keys = list(differing(before, recorded_settings()))
    except (OSError, ValueError, AttributeError):  # none, or not written by a run
        return
    if keys:
        named = ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
        logger.warning(f"{PATHS.root}: settings differ from those of the last run here: {named}")


def find_outdated():
    """Note outputs that are to be made again, and say so in one line."""
    counts = {}
    for name, outputs in outdated_jobs():
        OUTDATED.update(outputs)
        counts[name] = counts.get(name, 0) + 1
    if counts:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        logger.warning(
            f"{PATHS.root} holds results of other settings, code or jobs; "
            f"what is asked for of them is made again: {listed}"
        )


if workflow.is_main_process:
    warn_of_other_settings()
    find_outdated()
