"""The command line, `grpo-origin`: a cell or stage without Snakemake, plans, forecasts, two runs.

Each subcommand imports what it needs, so that help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_origin.config.fields import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from grpo_origin.config.paths import Paths
    from grpo_origin.study import Study

SHIPPED = Path(__file__).parent / "shipped"  # the default configuration and measured rates


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand; what a user can act on ends it with one line and exit status 1."""
    from grpo_origin.jobs.errors import Interrupted
    from grpo_origin.jobs.job import EXPECTED

    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has enough; what is left must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except EXPECTED as error:
        sys.exit(f"error: {error}")
    except Interrupted as interruption:
        sys.exit(str(interruption))
    except KeyboardInterrupt:
        sys.exit("interrupted; what is finished is kept")


def _parser() -> argparse.ArgumentParser:
    from grpo_origin import cost, show
    from grpo_origin.forecast import command as forecast

    parser = argparse.ArgumentParser(prog="grpo-origin", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    cell = commands.add_parser("cell", help="run one cell from nothing to its evaluation")
    cell.set_defaults(run=_cell)

    stage = commands.add_parser("stage", help="run one step of a cell again, in this process")
    stage.add_argument("name", help="data, pretrain, sft, an RL stage such as grpo~ood, evaluate")
    stage.set_defaults(run=_stage)

    shown = commands.add_parser("show", help="what the models of a cell write on a test prompt")
    shown.set_defaults(run=_show)
    show.add_arguments(shown)

    plan = commands.add_parser("cost", help="what a run will cost: jobs, hours, disk")
    plan.set_defaults(run=lambda options: cost.run(options, SHIPPED))
    cost.add_arguments(plan)

    seeds = commands.add_parser("seeds", help="undecided claims of a run and the seeds they need")
    seeds.set_defaults(run=_seeds)
    seeds.add_argument("folder", nargs="?", help="run folder such as results/laptop")
    seeds.add_argument("--results", default="results", help="folder (default: results)")

    so_far = commands.add_parser("report", help="tables, figures and page of a run so far")
    so_far.set_defaults(run=_report)
    so_far.add_argument("--results", default="results", help="folder (default: results)")

    compare = commands.add_parser("compare", help="verdicts and settings of two runs")
    compare.set_defaults(run=_compare)
    compare.add_argument("first", help="run folder such as results/laptop")
    compare.add_argument("second", help="another one, or reference")

    board = commands.add_parser("leaderboard", help="the methods of a run as a Markdown page")
    board.set_defaults(run=_leaderboard)
    board.add_argument("folder", help="run folder such as results/leaderboard")

    against = commands.add_parser("contrasts", help="the variants of a run as Markdown")
    against.set_defaults(run=_contrasts)
    against.add_argument("folder", help="run folder such as results/ablations")
    rates = commands.add_parser(
        "rates", help="each method's learning rate, chosen from a pilot run"
    )
    rates.set_defaults(run=_rates)
    rates.add_argument("folder", help="run folder such as results/rates")

    for command in (cell, stage, shown):
        needed = command is not shown  # which can be told a folder instead
        command.add_argument("--axis", required=needed)
        command.add_argument("--seed", required=needed)
        command.add_argument("--ratio", required=needed, help="OOD ratio as written in the config")
        command.add_argument("--results", default="results", help="folder (default: results)")
        command.add_argument("--variant", default="base", help="variant (default: the run itself)")
    for command in (cell, stage, shown, plan, seeds, so_far):
        command.add_argument(
            "--config",
            action="append",
            default=[],
            metavar="FILE",
            help="YAML file merged over the default configuration and those named before it",
        )

    ahead = commands.add_parser(
        "forecast", help="what RL can learn from, by pass counts per prompt"
    )
    ahead.set_defaults(run=forecast.run)
    forecast.add_arguments(ahead)

    docs = commands.add_parser("docs", help="print the reference of all settings")
    docs.set_defaults(run=_docs)
    return parser


def _cell(options: argparse.Namespace) -> None:
    study, paths = _open_variant(options)
    from grpo_origin.cell import run_cell

    evaluation = run_cell(study, paths, options.axis, int(options.seed), options.ratio)
    print(f"{evaluation}\n{_means(evaluation)}")


def _stage(options: argparse.Namespace) -> None:
    study, paths = _open_variant(options)
    _one_of("stage", options.name, ["data", *(s.name for s in study.grid.stages), "evaluate"])
    from grpo_origin.cell import run_stage

    run_stage(study, paths, options.axis, int(options.seed), options.ratio, options.name)


def _show(options: argparse.Namespace) -> None:
    from grpo_origin.show import show, take_cell

    run = take_cell(options)
    study, paths = _open_variant(options)
    if run and run != study.settings.run:
        raise ConfigError(
            f"{options.cell} is of the run {run}, the configuration is of {study.settings.run}: "
            "give that run's with --config"
        )
    known = [stage.name for stage in study.grid.stages]
    stages = options.stage or known
    for name in stages:
        _one_of("stage", name, known)
    place = options.axis, int(options.seed), options.ratio
    print(show(study, paths, place, stages, options.split, options.prompt, options.samples))


def _seeds(options: argparse.Namespace) -> None:
    from grpo_origin.analysis.seeds import seed_plan

    ledger, settings = _judged(options.folder or _open(options)[1].root)
    print(seed_plan(ledger, settings["claims"]["looks"]))


def _report(options: argparse.Namespace) -> None:
    study, paths = _open(options)
    from grpo_origin.partial import report_so_far

    print(report_so_far(study, paths))


def _compare(options: argparse.Namespace) -> None:
    from grpo_origin.analysis.agreement import comparison, paired
    from grpo_origin.config.load import differing

    (ledger, settings), (other, settings_there) = map(_judged, (options.first, options.second))
    same_world = settings.get("world") == settings_there.get("world")
    means, others = map(_seed_means, (options.first, options.second))
    masses = None
    if same_world and means is not None and others is not None:
        masses = paired(means, others)
    print(comparison(ledger, other, list(differing(settings, settings_there)), masses))


def _leaderboard(options: argparse.Namespace) -> None:
    from grpo_origin.analysis.stages import method_label
    from grpo_origin.config.schema import main_method
    from grpo_origin.report.leaderboard import leaderboard_page

    _, settings = _judged(options.folder)
    table = _table(options.folder, "leaderboard")
    main = method_label(main_method(settings["methods"]))
    print(leaderboard_page(table, settings["run"], main, settings["claims"]["equivalent"]))


def _contrasts(options: argparse.Namespace) -> None:
    from grpo_origin.report.contrasts import contrasts_text

    _, settings = _judged(options.folder)
    table = _table(options.folder, "contrasts")
    if table.empty:
        raise ConfigError(f"{options.folder}: this run has no variants")
    print(contrasts_text(table, settings))


def _rates(options: argparse.Namespace) -> None:
    from grpo_origin.analysis.rates import as_methods, chosen_rates
    from grpo_origin.config.places import run_at
    from grpo_origin.study import read_study

    board = _table(options.folder, "leaderboard")
    study = read_study(run_at(options.folder).settings)
    rates = {
        member.variant: {
            name: method.settings(member.settings.rl).learning_rate
            for name, method in member.methods.items()
        }
        for member in (study, *study.variants)
    }
    print(as_methods(chosen_rates(board[board["trained_on"] == "ood"], rates)))


def _seed_means(folder: str | Path) -> pd.DataFrame | None:
    """Table `seed_means` of a run's own settings; None of a folder without it."""
    from grpo_origin.analysis.stages import of_base
    from grpo_origin.config.places import run_at

    if not Path(run_at(folder).table("seed_means", "parquet")).exists():
        return None
    return of_base(_table(folder, "seed_means"))


def _table(folder: str | Path, name: str) -> pd.DataFrame:
    """A table of the run in a folder; raises ArtefactError if it is missing or can't be read."""
    from grpo_origin.analysis.tables import TABLES
    from grpo_origin.config.places import run_at
    from grpo_origin.jobs.files import read_table

    file = run_at(folder).table(name, "parquet")
    return read_table(file, [*TABLES[name].columns]).to_pandas()


def _judged(folder: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Ledger and settings of a run, or of a folder with both files as `reference`.

    Raises ArtefactError if either is missing or can't be read.
    """
    import json

    from grpo_origin.analysis.stages import of_base
    from grpo_origin.analysis.tables import TABLES
    from grpo_origin.config.paths import judged
    from grpo_origin.jobs.errors import ArtefactError
    from grpo_origin.jobs.files import read_table

    file, path = judged(folder)
    ledger = read_table(file, [*TABLES["claims"].columns])
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(path, f"can't be read ({error})") from None
    return of_base(ledger.to_pandas()), settings


def _docs(options: argparse.Namespace) -> None:
    from grpo_origin.config.docs import reference
    from grpo_origin.rl.method import Method, find, names

    print(reference(Method, {name: find(name) for name in names()}), end="")


def _open(options: argparse.Namespace) -> tuple[Study, Paths]:
    from grpo_origin.config.paths import Paths
    from grpo_origin.study import read_study

    study = read_study(SHIPPED / "config.yaml", *options.config)
    return study, Paths(study.settings.run, options.results)


def _open_variant(options: argparse.Namespace) -> tuple[Study, Paths]:
    """The run or its variant that is asked for, all of whose files are then its own.

    Raises ConfigError, naming what there is, for a variant or cell that there isn't.
    """
    from dataclasses import replace

    from grpo_origin.config.paths import place_of
    from grpo_origin.lineage import family

    study, paths = _open(options)
    members = family(study)
    _one_of("variant", options.variant, members)
    _check(members[options.variant], options)
    return members[options.variant], replace(paths, place=place_of(options.variant))


def _check(study: Study, options: argparse.Namespace) -> None:
    """Raise ConfigError, naming what there is, unless the run has this axis, seed and ratio."""
    settings = study.settings
    _one_of("axis", options.axis, settings.axes)
    _one_of("seed", options.seed, map(str, settings.seeds))
    _one_of("ratio", options.ratio, settings.axis_ratios(options.axis))


def _one_of(what: str, value: str, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        raise ConfigError(f"{what}: this run has no {value!r} (it has: {', '.join(known)})")


def _means(evaluation: Path) -> str:
    """Mean correct mass by stage and split as text, a line a stage."""
    import numpy as np
    import pandas as pd

    rows = pd.read_parquet(evaluation, columns=["stage", "split", "log_mass"])
    rows["mass"] = np.exp(rows.log_mass)
    means = rows.groupby(["stage", "split"], sort=False).mass.mean().unstack()
    means = means.rename_axis(index=None, columns="mean mass")
    return means.to_string(float_format="{:.4f}".format)
