"""A job's fingerprint changes with the code that it can reach, and with nothing else."""

from __future__ import annotations

import dis
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from helpers import REPO

DECLARED = {"config.fields", "config.load", "config.schema"}
LATEST = "rl/methods/grpo.py"  # what the RL rule gives beside its script


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of library and scripts."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("src", "workflow"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def package(tree: Path) -> Path:
    return tree / "src" / "grpo_origin"


def modules(tree: Path) -> list[Path]:
    return sorted(package(tree).rglob("*.py"))


def dotted(tree: Path, path: Path) -> str:
    """`rl.method` for src/grpo_origin/rl/method.py, `rl` for its package, "" for the package."""
    name = ".".join(path.relative_to(package(tree)).with_suffix("").parts)
    return name.removesuffix("__init__").removesuffix(".")


def entries(tree: Path) -> dict[str, list[Path]]:
    """Entry points as the rules and stages give them."""
    scripts = sorted((tree / "workflow" / "scripts").glob("*.py"))
    given = {path.stem: [path] for path in scripts}
    given["rl"].append(package(tree) / LATEST)
    return given | {"loop": [package(tree) / "training" / "loop.py"]}


def fresh(tree: Path) -> ModuleType:
    """The tree's own fingerprint module, with nothing remembered."""
    file = package(tree) / "jobs" / "fingerprint.py"
    spec = importlib.util.spec_from_file_location("fingerprint_of_a_tree", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fingerprints(tree: Path, module: ModuleType | None = None) -> dict[str, str]:
    module = module or fresh(tree)
    return {name: module.code_fingerprint(*paths) for name, paths in entries(tree).items()}


def imported(code: CodeType) -> set[str]:
    """Names that compiled code can import from the package, read from its instructions."""
    names: set[str] = set()
    constants: list[object] = []
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_CONST":
            constants.append(step.argval)
        if step.opname == "IMPORT_NAME":
            listed = constants[-1] or ()
            names |= {step.argval, *(f"{step.argval}.{name}" for name in listed)}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= imported(constant)
    return {name for name in names if name.split(".")[0] == "grpo_origin"}


def reachable(tree: Path, paths: list[Path]) -> set[Path]:
    """The import closure from bytecode, where blocks for type checkers are compiled away."""
    known = {dotted(tree, path): path for path in modules(tree)}
    reached: set[Path] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        source = re.sub(r"\bif TYPE_CHECKING:", "if 0:", path.read_text())
        names = imported(compile(source, str(path), "exec"))
        if path in known.values():
            names.add(f"grpo_origin.{dotted(tree, path)}")
        for name in names:
            parts = name.split(".")[1:]
            above = {".".join(parts[:depth]) for depth in range(len(parts) + 1)}
            waiting += [known[module] for module in above - DECLARED if module in known]
    return reached


def edit(path: Path, change: str) -> str:
    """Change a file's text by one more line; returns what it was."""
    before = path.read_text()
    path.write_text(before + change)
    return before


def test_one_statement_changes_exactly_the_fingerprints_that_reach_it(tree):
    module = fresh(tree)
    before = fingerprints(tree, module)
    reached = {name: reachable(tree, paths) for name, paths in entries(tree).items()}
    everything = [*modules(tree), *(tree / "workflow" / "scripts").glob("*.py")]
    met = set()
    for path in everything:
        text = edit(path, "\nEDITED = 1\n")
        after = fingerprints(tree, module)
        path.write_text(text)
        changed = {name for name in before if after[name] != before[name]}
        assert changed == {name for name in before if path in reached[name]}, path
        met |= changed
    assert met == set(before)


@pytest.mark.parametrize("name", ["rl.trainer", "report.page"])
def test_nothing_that_python_loads_is_left_out(tree, name):
    """What an import loads is in the closure, but for what only settings' declarations need."""
    listing = f"import sys, grpo_origin.{name}; print(*sys.modules)"
    variables = os.environ | {"PYTHONPATH": str(tree / "src")}
    output = subprocess.check_output([sys.executable, "-c", listing], env=variables, text=True)
    paths = {
        path for path in modules(tree) if f"grpo_origin.{dotted(tree, path)}" in output.split()
    }
    sources = [package(tree) / f"{module.replace('.', '/')}.py" for module in DECLARED]
    entry = package(tree) / f"{name.replace('.', '/')}.py"
    assert entry in paths
    assert paths - reachable(tree, sources) <= fresh(tree).closure(entry)


SILENT = {
    "a comment": lambda text: f"{text}\n# a comment\n",
    "the docstring": lambda text: re.sub('"""', '"""Other words. ', text, count=1),
    "a description": lambda text: re.sub(r'(description=")', r"\1Other words. ", text),
    "the layout": lambda text: text.replace("\n\n\n", "\n\n\n\n"),
}


@pytest.mark.parametrize("change", SILENT)
def test_what_does_nothing_does_not_count(tree, change):
    before = fingerprints(tree)
    edited = 0
    texts = {path: path.read_text() for path in modules(tree)}
    try:
        for path, text in texts.items():
            path.write_text(SILENT[change](text))
            edited += path.read_text() != text
        after = fingerprints(tree)
    finally:
        for path, text in texts.items():
            path.write_text(text)
    assert edited > (3 if change == "a description" else 20)
    assert after == before


@pytest.mark.parametrize(
    ("head", "readers"),
    [
        ("def tasks(self, split: str)", {"pretraining_data", "prompts", "data_summary"}),
        ("def splits(self)", {"prompts"}),
        ("def _check(self) -> AxisSettings", {"prompts"}),
    ],
)
def test_a_function_of_a_section_counts_where_data_are_made(tree, head, readers):
    """What an axis' tasks and test splits are is decided in its section, not in its values."""
    before = fingerprints(tree)
    path = package(tree) / "config" / "stages.py"
    text = path.read_text()
    first = re.escape(head) + r"[^\n]*:\n(        \"\"\"[^\"]*\"\"\"\n)?"
    edited, count = re.subn(f"({first})", r"\1        edited = 1\n", text)
    assert count == 1
    path.write_text(edited)
    after = fingerprints(tree)
    path.write_text(text)
    assert readers <= {name for name in before if after[name] != before[name]}


def test_a_new_setting_elsewhere_does_not_count(tree):
    before = fingerprints(tree)
    for name in ("schema", "stages"):
        path = package(tree) / "config" / f"{name}.py"
        text = path.read_text()
        path.write_text(
            re.sub(
                r'(class \w+\(Section\):\n    """[^"]*"""\n)',
                r"\1    novel: int = Field(3)\n",
                text,
            )
        )
        assert path.read_text() != text
        after = fingerprints(tree)
        path.write_text(text)
        assert after == before, name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x = ''", "x = None"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = 0", "x = 0.0"),
        ("f(a)", "f(*a)"),
        ("{**a}", "{None: a}"),
        ("def f(a, b=1): pass", "def f(a, *, b=1): pass"),
        ("def f():\n    return", "def f():\n    return None"),
        ("if not TYPE_CHECKING:\n    import a", "if not TYPE_CHECKING:\n    import b"),
    ],
)
def test_different_code_has_different_fingerprints(tree, tmp_path, before, after):
    digests = []
    for text in (before, after):
        (tmp_path / "job.py").write_text(text)
        digests.append(fresh(tree).code_fingerprint(tmp_path / "job.py"))
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    "statement",
    [
        "def f():\n    from grpo_origin.rl import method",
        "import grpo_origin.rl.method as m",
        "from grpo_origin.rl.method import find",
        "async def f():\n    import grpo_origin.rl.method",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import grpo_origin.rl.method",
        "if not TYPE_CHECKING:\n    import grpo_origin.rl.method",
    ],
)
def test_an_import_counts_however_it_is_written(tree, tmp_path, statement):
    (tmp_path / "job.py").write_text(statement)
    assert package(tree) / "rl" / "method.py" in fresh(tree).closure(tmp_path / "job.py")


def test_a_relative_import_counts_and_one_for_type_checkers_does_not(tree):
    path = package(tree) / "rl" / "novel.py"
    path.write_text("from ..tasks import world\nif TYPE_CHECKING:\n    from . import method\n")
    try:
        reached = fresh(tree).closure(path)
    finally:
        path.unlink()
    assert package(tree) / "tasks" / "world.py" in reached
    assert package(tree) / "rl" / "method.py" not in reached


ODD = r"""
import typing
x = 3
y = (f"a{x}" "b" f"{x!r:>{x}}", f"", f"{x=}", f"{x:}", u"\u0378", "\U0001fae8", 1e400, ..., 1j)
def f(a, /, b: int = 1, *c, d=2, **e) -> "int":
    match a:
        case {"k": [1, *rest], **more} if rest: return lambda: (yield)
        case str() | None: pass
    with open(b) as g, open(b): x[1:, ::2] = [*c, *(z := 4,)]
    try: ...
    except* ValueError as h: raise
class A(typing.Generic, metaclass=type): pass
"""


def working(version: str) -> bool:
    command = shutil.which(f"python{version}")
    return bool(command) and not subprocess.run([command, "-c", ""], capture_output=True).returncode


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_equal_under_every_python_with_the_standard_library_alone(tree, tmp_path, version):
    if not working(version):
        pytest.skip(f"no python{version} here")
    (tmp_path / "odd.py").write_text(ODD)
    paths = [[tmp_path / "odd.py"], *entries(tree).values()]
    call = (
        "import json, sys; from grpo_origin.jobs.fingerprint import code_fingerprint; "
        "print(json.dumps([code_fingerprint(*p) for p in json.loads(sys.argv[1])]))"
    )
    given = json.dumps([[str(path) for path in group] for group in paths])
    command = [f"python{version}", "-S", "-c", call, given]
    variables = os.environ | {"PYTHONPATH": str(tree / "src")}
    answer = subprocess.check_output(command, env=variables)
    assert json.loads(answer) == [fresh(tree).code_fingerprint(*group) for group in paths]


def test_does_not_depend_on_where_the_checkout_lies(tree, tmp_path):
    other = tmp_path / "elsewhere"
    shutil.copytree(tree, other)
    assert fingerprints(other) == fingerprints(tree)
