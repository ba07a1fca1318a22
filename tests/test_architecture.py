"""The house: rooms import only from the rooms before them, and no modules import in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from helpers import REPO

PACKAGE = REPO / "src" / "grpo_origin"
ROOMS = [
    *("config", "jobs", "tasks", "data", "training", "evaluation", "rl", "analysis", "report"),
    "forecast",
]
ABOVE = [
    "study",
    "lineage",
    "kept",
    "cell",
    "amounts",
    "cost",
    "show",
    "partial",
    "cli",
    "__main__",
]  # single modules on top of all rooms
FLOORS = 7


def modules(package: Path) -> dict[str, Path]:
    """Files of a package by dotted name without the package's own, such as `rl.method`."""
    names = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(package: Path, name: str, *, types: bool) -> set[str]:
    """Modules of the package that one imports, in functions too; for type checkers if `types`."""
    known, reached = modules(package), set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if for_types and not types:
                continue
            names = [alias.name for alias in getattr(child, "names", []) if hasattr(alias, "name")]
            if isinstance(child, ast.ImportFrom):
                source = child.module or ""
                inner = [f"{source}.{name}" for name in names]
                names = [x for x in inner if x.partition(".")[2] in known] or [source]
                assert not child.level, f"{source}: imports are absolute"
            elif not isinstance(child, ast.Import):
                names = []
            reached.update(
                x.partition(".")[2] for x in names if x.partition(".")[0] == package.name
            )
            walk(child)

    walk(ast.parse(known[name].read_text()))
    return reached - {name, ""}


def upward(package: Path) -> list[str]:
    """Imports of a room that comes later, or of one of the modules above all rooms."""
    order = [*ROOMS, *ABOVE]
    place = {name: order.index(name.partition(".")[0]) for name in modules(package) if name}
    pairs = ((name, x) for name in place for x in imports(package, name, types=True))
    return [f"{name} -> {x}" for name, x in pairs if place[name] < place[x]]


def floors(package: Path) -> dict[str, int]:
    """Each room's floor: 1 if it imports none, else one above the highest that it imports."""
    below: dict[str, set[str]] = {room: set() for room in ROOMS}
    for name in modules(package):
        if (room := name.partition(".")[0]) in below:
            reached = {x.partition(".")[0] for x in imports(package, name, types=False)}
            below[room] |= reached - {room}
    floor: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        floor[room] = 1 + max((floor[x] for x in below[room]), default=0)
    return floor


def in_order(package: Path) -> list[str]:
    """All modules, each after those it imports; raises CycleError if they import in a circle."""
    graph = {name: imports(package, name, types=False) for name in modules(package)}
    return list(TopologicalSorter(graph).static_order())


def test_every_module_has_its_place():
    top = {name.partition(".")[0] for name in modules(PACKAGE)} - {""}
    assert top == {*ROOMS, *ABOVE}


def test_no_room_imports_from_one_above_it():
    assert not upward(PACKAGE)


def test_no_modules_import_in_a_circle():
    assert set(in_order(PACKAGE)) == set(modules(PACKAGE))


def test_the_house_has_few_floors():
    assert max(floors(PACKAGE).values()) <= FLOORS


@pytest.fixture
def house(tmp_path) -> Path:
    """A small house in order: `rl` imports from `config`."""
    package = tmp_path / "grpo_origin"
    for room in ("config", "rl"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
    (package / "config" / "fields.py").touch()
    (package / "rl" / "method.py").write_text("from grpo_origin.config import fields\n")
    return package


def test_an_upward_import_is_seen_wherever_it_hides(house):
    assert not upward(house)
    fields = house / "config" / "fields.py"
    fields.write_text("def late():\n    from grpo_origin.rl.method import x\n")
    assert upward(house) == ["config.fields -> rl.method"]
    with pytest.raises(CycleError):
        in_order(house)
    fields.write_text("if TYPE_CHECKING:\n    import grpo_origin.rl.method\n")
    assert upward(house) == ["config.fields -> rl.method"]


def test_a_circle_within_a_room_is_seen_but_for_types(house):
    (house / "rl" / "trainer.py").write_text("from grpo_origin.rl.method import Method\n")
    method = house / "rl" / "method.py"
    method.write_text("if TYPE_CHECKING:\n    from grpo_origin.rl.trainer import X\n")
    assert in_order(house).index("rl.method") < in_order(house).index("rl.trainer")
    method.write_text("from grpo_origin.rl import trainer\n")
    with pytest.raises(CycleError):
        in_order(house)
