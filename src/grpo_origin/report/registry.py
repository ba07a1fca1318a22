"""The figures of a report: what each is called, says and needs, and how often a run draws it.

A figure is added in one place: a function in `report.figures` under `@figure(...)`. The Snakefile
reads these entries to plan, so nothing here imports a plotting library.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from grpo_origin.config.schema import Settings, method_entries
from grpo_origin.rl import method
from grpo_origin.tasks.domain import find
from grpo_origin.tasks.states import deep_tasks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PAGE_TEMPLATE = Path(__file__).with_name("page.html.j2")
# With what it includes: styles, script, sections. They count for the page as code does.
PAGE_PARTS = (
    PAGE_TEMPLATE,
    *map(
        PAGE_TEMPLATE.with_name,
        ("page.css.j2", "page.js.j2", "completions.css.j2", "completions.html.j2"),
    ),
)

# Sections of the report that hold figures and tables, in its order.
CATEGORIES = (
    "Agreement with the reference run",
    "Axes",
    "What RL gains",
    "What RL loses",
    "Beyond zero",
    "Representations",
    "RL methods",
    "Variants",
    "Theory against practice",
    "Training",
)


# How often a figure is drawn: once a run, or once for each axis of a kind.
def _every_axis(settings: Settings, axis: str) -> bool:
    return True


def _has_mixed_splits(settings: Settings, axis: str) -> bool:
    return bool(settings.axes[axis].mixed)


def _has_several_ood_tasks(settings: Settings, axis: str) -> bool:
    return len(settings.axes[axis].ood) > 1


def _has_probes(settings: Settings, axis: str) -> bool:
    return settings.probes is not None


def _has_heads(settings: Settings, axis: str) -> bool:
    return settings.representation is not None


def _has_several_methods(settings: Settings, axis: str) -> bool:
    return len(settings.methods) > 1


def _has_faithfulness(settings: Settings, axis: str) -> bool:
    """Whether the traces of any of its tasks are measured."""
    measured = settings.faithfulness
    return measured is not None and deep_tasks(settings.axes[axis], measured.depth) > 0


def _has_variants(settings: Settings, axis: str) -> bool:
    """Whether a variant, within its limits, has a cell of the axis with the method shown."""
    ratios = settings.axis_ratios(axis)
    return any(
        axis in changes.get("axes", [axis])
        and {*map(str, changes.get("ratios", ratios))} & {*ratios}
        and settings.main_method in method_entries(changes.get("methods", settings.methods))
        for changes in settings.variants.values()
    )


def _has_chances(settings: Settings, axis: str) -> bool:
    return find(settings.axes[axis].domain).stochastic


def _has_controls(settings: Settings) -> bool:
    """Whether RL or SFT of the run or of a variant is shown right completions of OOD prompts."""
    sections = [change.get("sft") or {} for change in settings.variants.values()]
    shares = [settings.sft.ood_share if settings.sft else "0"]
    shares += [section.get("ood_share", "0") for section in sections]
    methods = {*settings.methods}.union(
        *(method_entries(change.get("methods", {})) for change in settings.variants.values())
    )
    informed = any(method.find(name).informed for name in methods)
    return informed or any(Decimal(str(share)) > 0 for share in shares)


ONCE: dict[str, Callable[[Settings], bool]] = {
    "run": lambda settings: True,
    "run with controls": _has_controls,
    "run with theory": lambda settings: any(map(settings.theory_ratios, settings.axes)),
}
EACH_AXIS: dict[str, Callable[[Settings, str], bool]] = {
    "axis": _every_axis,
    "axis with mixed splits": _has_mixed_splits,
    "axis with several OOD tasks": _has_several_ood_tasks,
    "axis with probes": _has_probes,
    "axis with heads": _has_heads,
    "axis with stochastic outcomes": _has_chances,
    "axis of several methods": _has_several_methods,
    "axis of several variants": _has_variants,
    "axis with faithfulness": _has_faithfulness,
}


GIVEN = ("axis", "beta", "equivalent")  # parameters of figures that are no tables


@dataclass(frozen=True)
class FigureEntry:
    """A kind of figure. `title` and `caption` are Jinja2 templates over `page.words_of`."""

    name: str
    draw: Callable[..., Figure]
    per: str
    category: str
    title: str
    caption: str
    all_methods: bool

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables it draws: the parameters of its function but those in GIVEN."""
        names = inspect.signature(self.draw).parameters
        return tuple(name for name in names if name not in GIVEN)

    def axes_of(self, settings: Settings) -> list[str | None]:
        """The axes it is drawn for in a run; [None] for a figure of the whole run."""
        if self.per in ONCE:
            return [None] if ONCE[self.per](settings) else []
        wanted = EACH_AXIS[self.per]
        return [axis for axis in settings.axes if wanted(settings, axis)]

    def figure(
        self,
        tables: Mapping[str, pd.DataFrame],
        axis: str | None = None,
        beta: float = 0.0,
        equivalent: float = 0.0,
    ) -> Figure:
        """Draw it from tables by name.

        `beta` is the KL weight of the method shown, 0 for none, `equivalent` as in `claims`.
        """
        given: dict[str, Any] = dict(zip(GIVEN, (axis, beta, equivalent), strict=True))
        names = inspect.signature(self.draw).parameters
        return self.draw(**{name: given[name] if name in given else tables[name] for name in names})


ENTRIES: dict[str, FigureEntry] = {}
Draw = TypeVar("Draw", bound="Callable[..., Figure]")


def figure(
    name: str, *, per: str, category: str, title: str, caption: str, all_methods: bool = False
) -> Callable[[Draw], Draw]:
    """Register a function of tables (its parameters name them), and of GIVEN as a figure.

    Tables hold the stages before RL and those of the run's main method, or with `all_methods` all.
    Raises ValueError for a name in use, an unknown category or an unknown `per`.
    """
    if name in ENTRIES:
        raise ValueError(f"figure {name}: this name is in use")
    if category not in CATEGORIES:
        raise ValueError(f"figure {name}: category is one of {', '.join(CATEGORIES)}")
    if per not in ONCE | EACH_AXIS:
        raise ValueError(f"figure {name}: per is one of {', '.join(ONCE | EACH_AXIS)}")

    def register(draw: Draw) -> Draw:
        text = " ".join(caption.split())
        ENTRIES[name] = FigureEntry(name, draw, per, category, title, text, all_methods)
        return draw

    return register


class Drawing(NamedTuple):
    """A figure of a run: its kind and, unless it is of the whole run, its axis."""

    entry: FigureEntry
    axis: str | None


def drawings(settings: Settings) -> dict[str, Drawing]:
    """The registered figures of a run by name, in the order of the report."""
    entries = sorted(ENTRIES.values(), key=lambda entry: CATEGORIES.index(entry.category))
    return {
        f"{entry.name}-{axis}" if axis else entry.name: Drawing(entry, axis)
        for entry in entries
        for axis in entry.axes_of(settings)
    }


class ShownTable(NamedTuple):
    """A table that the report shows beside its figures."""

    category: str
    title: str


SHOWN_TABLES = {
    "agreement": ShownTable("Agreement with the reference run", "Verdicts here and there"),
    "signal_summary": ShownTable("What RL gains", "What RL had to learn from"),
    "calibration": ShownTable("RL methods", "Calibration where chance decides"),
    "exploration": ShownTable("Beyond zero", "First successes against their forecast"),
    "takeoff": ShownTable("What RL gains", "Take-off: seeds that learn, where one learns or not"),
    "transcend": ShownTable(
        "Beyond zero", "Does it transcend? OOD prompts that started from about no mass"
    ),
    "theory": ShownTable("Theory against practice", "Runs to convergence against the law"),
    "sampling": ShownTable("Theory against practice", "Sampled frequencies against exact masses"),
}

# Tables that the explorer of a page is made of, with the rows of all variants.
EXPLORER_TABLES = ("seed_means", "summary", "learning_curves", "mass_spread", "signal")
