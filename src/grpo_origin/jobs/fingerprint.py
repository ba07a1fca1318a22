"""What a job's code does, as a digest of its entry point and of the modules that it can import.

Part of a rule's params and of a checkpoint's identity, so a stage runs again when code it depends
on changes, and only then. Comments, docstrings, layout and declarations of settings don't count:
the values that a stage gets are in its params already. Standard library only.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
# Settings count by the values that a stage gets; how they are declared, read and checked does not.
DECLARATIONS = frozenset({"config.fields", "config.load", "config.schema"})


def code_fingerprint(*entries: str | Path) -> str:
    """Digest of the import closure of scripts or modules (paths), the same under every Python.

    It does not depend on where the checkout lies. A module that is found by its name at run time,
    as an RL method is, has to be given as an entry.
    """
    lines = sorted(f"{_label(path)} {_digest(_text(path))}" for path in closure(*entries))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


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
            waiting += _imported(path, _text(path))
    return reached


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _label(path: Path) -> str:
    return (path.relative_to(PACKAGE) if _inside(path) else Path(path.name)).as_posix()


def _inside(path: Path) -> bool:
    return path.is_relative_to(PACKAGE)


@cache
def _imported(path: Path, text: str) -> list[Path]:
    """Files of the package that run when a file's imports do, packages above it included."""
    packages = [PACKAGE.name, *path.parent.relative_to(PACKAGE).parts] if _inside(path) else []
    names = [".".join(packages)]
    for node in _statements(ast.parse(text, str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = packages[: len(packages) + 1 - node.level] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            names += [f"{origin}.{alias.name}" for alias in node.names]
    return [file for name in names for file in _files(name)]


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, but for blocks that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _name(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield other
                yield from _statements(other)
            continue
        yield child
        yield from _statements(child)


def _name(node: ast.AST) -> str:
    """`TYPE_CHECKING` of a node like `TYPE_CHECKING` or `typing.TYPE_CHECKING`; else ""."""
    return getattr(node, "id", getattr(node, "attr", ""))


def _files(name: str) -> Iterator[Path]:
    """Files that run when a name is imported: a module or what it holds, and the packages above."""
    package, *inner = name.split(".")
    if package != PACKAGE.name:
        return
    for depth in range(len(inner) + 1):
        parts = inner[:depth]
        place = PACKAGE.joinpath(*parts)
        if ".".join(parts) not in DECLARATIONS:
            files = (place / "__init__.py", place.with_suffix(".py"))
            yield from (file for file in files if file.is_file())


@cache
def _digest(text: str) -> str:
    return hashlib.sha256(repr(_canonical(ast.parse(text))).encode()).hexdigest()


def _canonical(node: Any) -> Any:
    """A syntax tree as plain tuples that don't depend on Python's version, which `ast.dump` does.

    Fields that are empty are left out, since newer versions add some; so is `ctx`, which follows
    from the place, and the `u` of `u"..."`.
    """
    if isinstance(node, list):
        return tuple(_canonical(item) for item in node if not _silent(item))
    if isinstance(node, ast.Constant):
        return ("=", ascii(node.value))  # repr follows the version's Unicode tables
    if isinstance(node, ast.JoinedStr):  # some versions end it with an empty part
        parts = map(_canonical, node.values)
        return ("JoinedStr", *(part for part in parts if part != ("=", "''")))
    if not isinstance(node, ast.AST):
        return ascii(node)
    values = ((name, getattr(node, name, None)) for name in sorted(node._fields) if name != "ctx")
    filled = ((name, value) for name, value in values if value is not None and value != [])
    return (type(node).__name__, *((name, _canonical(value)) for name, value in filled))


def _silent(node: Any) -> bool:
    """Whether a statement does nothing that counts.

    Docstrings, the version, and declarations of a setting, `name: type = Field(...)`.
    """
    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
        return _name(node.value.func) == "Field"
    if isinstance(node, ast.Assign):
        return [_name(target) for target in node.targets] == ["__version__"]
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
