"""What a job's code does, as a digest: of its entry point and of every module of the package it can import.

Part of a rule's params and of a checkpoint's identity, so a stage runs again when code it depends on
changes, and only then. Comments, docstrings, layout and declarations of settings don't count: the
values that a stage gets are in its params already.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# Settings count by the values that a stage gets; how they are declared, read and checked does not.
DECLARATIONS = frozenset({"config.fields", "config.load", "config.schema"})


def code_fingerprint(*entries: str | Path) -> str:
    """Digest of the import closure of scripts or modules (paths), the same under every Python."""
    digest = hashlib.sha256()
    for path in sorted(closure(*entries)):
        digest.update(_module_digest(path).encode())
    return digest.hexdigest()[:12]


def closure(*entries: str | Path) -> set[Path]:
    """The entry points and all modules of the package that they import, directly or not.

    Imports inside functions count, those for type checkers only don't.
    """
    reached: set[Path] = set()
    waiting = [Path(entry).resolve() for entry in entries]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += _imported(path)
    return reached


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def _imported(path: Path) -> list[Path]:
    """Files of the package's modules that a file imports."""
    files = []
    for node in _statements(_tree(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        files += [file for name in names if (file := _file(name))]
    return files


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _statements(child)


def _file(name: str) -> Path | None:
    """The file of a module of this package; None for other names and for declarations."""
    package, _, inner = name.partition(".")
    if package != PACKAGE.name or inner in DECLARATIONS:
        return None
    place = PACKAGE.joinpath(*inner.split(".")) if inner else PACKAGE
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _module_digest(path: Path) -> str:
    return hashlib.sha256(repr((path.name, _canonical(_tree(path)))).encode()).hexdigest()


def _canonical(node: Any) -> Any:
    """A syntax tree as plain tuples that don't depend on Python's version: `ast.dump` does.

    Fields that are empty are left out, since newer versions add some.
    """
    if isinstance(node, list):
        return tuple(_canonical(item) for item in node)
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        fields["body"] = [child for child in node.body if not _silent(child)]
    kept = ((name, value) for name, value in fields.items() if value not in (None, [], ""))
    counted = tuple((name, _canonical(value)) for name, value in kept if name != "kind")
    return (type(node).__name__, counted)


def _silent(node: ast.stmt) -> bool:
    """Whether a statement is a docstring or declares a setting, `name: type = Field(...)`."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
        return getattr(node.value.func, "id", "") == "Field"
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
