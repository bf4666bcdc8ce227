"""Rules about the code as a whole: which package may import which, what is pure, how long a function may be."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.each import each
from tests.unit.syntax import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fwguardd"
FILES = sorted(PACKAGE.rglob("*.py"))
every_file = each(FILES, lambda path: str(path.relative_to(PACKAGE)))

_BELOW = {
    "ruleset",
    "packets",
    "proof",
    "kernel",
    "denials",
    "store",
    "enforce",
    "control",
    "sinks",
    "settings",
    "events",
    "event_fields",
    "escaping",
    "worker_report",
    "metrics",
    "held_files",
    "interpreter",
}
ALLOWED = {
    "ruleset": {"ruleset"},
    "denials": {"denials", "kernel", "events"},
    "packets": {"packets", "ruleset"},
    "kernel": {"kernel", "packets", "ruleset"},
    "proof": {"proof", "packets", "ruleset"},
    "setting_nodes": set[str](),
    "setting_values": {"setting_nodes"},
    "settings": {"setting_nodes", "setting_values", "denials", "kernel", "ruleset"},
    "events": {"event_fields"},
    "event_fields": set[str](),
    "escaping": set[str](),
    "sinks": {"sinks", "events", "settings", "escaping"},
    "store": {"store", "kernel", "ruleset"},
    "enforce": {"enforce", "store", "kernel", "packets", "proof", "ruleset", "events", "escaping"},
    "control": {"control", "events"},
    "options": {"settings"},
    "documents": {"control", "enforce", "sinks", "store", "packets", "ruleset", "escaping"},
    "progress": {"kernel", "ruleset"},
    "systemd": set[str](),
    "proving": {"progress", *_BELOW},
    "worker_report": _BELOW,
    "metrics": {"metrics", "dependencies", *_BELOW},
    "dns_lookup": set[str](),
    "fetch_lists": {"dns_lookup", "ruleset", "settings"},
    "held_files": _BELOW,
    "interpreter": set[str](),
    "whole_check": {"progress", *_BELOW},
    "worker": {"interpreter", "whole_check", "progress", "proving", *_BELOW},
    "worker_thread": {"worker", "progress", *_BELOW},
    "supervisor": {"documents", "progress", "worker", "worker_thread", *_BELOW},
    "shown_revision": {"documents", "control", "store"},
    "verbs": {"documents", "shown_revision", "supervisor", "worker", *_BELOW},
    "denial_reader": _BELOW,
    "dependencies": set[str](),
    "ctl": {"ctl", "dependencies", "process_end", "worker", "progress", "proving", "documents", *_BELOW},
    "daemon": {"options", "documents", "verbs", "supervisor", "worker_thread", "systemd", "denial_reader", *_BELOW},
    "__main__": {"daemon", "dependencies", "process_end"},
    "wording": set[str](),
    "errors": set[str](),
    "defaults": set[str](),
    "values": set[str](),
    "left_out": set[str](),
    "threads": set[str](),
    "patterns": set[str](),
    "event_loop": set[str](),
    "process_end": set[str](),
    "__init__": set[str](),
}
"""Which packages each package may import from, besides ``fwguardd.__version__`` and ``_BASE``."""

_BASE = {"wording", "errors", "defaults", "values", "left_out", "patterns", "threads", "event_loop"}

PURE = "This module is pure."
"""The last sentence of the docstring of a module that computes values from values and does nothing else."""

IMPURE = {
    *("os", "io", "pathlib", "tempfile", "shutil", "glob", "fcntl", "mmap", "sys", "pwd", "grp", "argparse", "getpass"),
    *("subprocess", "signal", "multiprocessing", "threading", "concurrent", "asyncio", "select", "selectors", "ctypes"),
    *("socket", "urllib", "logging", "syslog", "time", "random", "secrets", "uuid", "platform", "resource"),
}
"""Modules of the standard library that reach outside the process, read a clock, or are not deterministic."""
PURE_LIBRARIES = {"yaml"}
"""Modules outside of the standard library that a pure module may import: parsers of text."""

IMPURE_CALLS = {"open", "print", "input", "now", "today", "utcnow"}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path) for path in FILES}


def _imports(path: Path) -> set[str]:
    """Every module that a file names in an import, also those that only a type checker imports."""
    return _imported_by(nodes(path))


def _imported_by(statements: Iterable[ast.AST]) -> set[str]:
    modules: set[str] = set()
    for node in statements:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used here"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name in MODULES else node.module for name in names}
    return modules


@cache
def _functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node)
        for path in FILES
        for node in nodes(path)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


@every_file
def test_imports_go_one_way(path: Path) -> None:
    """A package imports only from the packages below it, as the docstring of fwguardd lists them."""
    package = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in _imports(path):
        parts = module.split(".")
        if parts[0] == "fwguardd" and len(parts) > 1:
            assert parts[1] in {*_BASE, *ALLOWED[package]}, f"{path.relative_to(ROOT)} must not import {module}"


def test_no_import_cycles() -> None:
    """No module imports itself by way of others, type-checking imports included."""
    graph = {_module(path): _imports(path) for path in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail, module))}"
        if module not in done:
            for imported in graph.get(module, ()):
                if imported in graph:
                    visit(imported, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def _is_marked_pure(path: Path) -> bool:
    """By its text: this is asked whenever tests are collected, and to parse all modules takes ten times as long."""
    _, _, after = path.read_text(encoding="utf-8").partition('"""')
    return after.partition('"""')[0].rstrip().endswith(f"\n\n{PURE}")


def _runtime_imports(path: Path) -> set[str]:
    """What a module imports when it runs: all but the imports under ``if TYPE_CHECKING``."""
    left_out: set[ast.AST] = set()
    for node in nodes(path):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            left_out.update(inner for statement in node.body for inner in ast.walk(statement))
    return _imported_by(node for node in nodes(path) if node not in left_out)


def _called_names(path: Path) -> set[str]:
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            names.add(node.func.id if isinstance(node.func, ast.Name) else node.func.attr)
    return names


PURE_FILES = [path for path in FILES if _is_marked_pure(path)]


@each(PURE_FILES, lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_marked_as_pure_is_pure(path: Path) -> None:
    """A pure module imports only the deterministic part of the standard library and other pure modules.

    Imports that only a type checker follows do not count. It calls nothing that opens a file, prints or reads a clock.
    """
    pure = {_module(other) for other in PURE_FILES}
    for module in _runtime_imports(path):
        top = module.split(".")[0]
        if module == "fwguardd":
            continue  # Its version.
        if top == "fwguardd":
            assert module in pure, f"{path.relative_to(ROOT)} imports {module}, which is not marked as pure"
        else:
            assert top in (sys.stdlib_module_names - IMPURE) | PURE_LIBRARIES, (
                f"{path.relative_to(ROOT)} imports {module}"
            )
    assert not _called_names(path) & IMPURE_CALLS


def test_every_module_of_the_ruleset_and_of_packets_is_pure() -> None:
    """Reading, composing, comparing and planning rulesets needs neither a kernel nor a file; nor do packets, nor the
    model of all packets."""
    modules: set[Path] = set()
    for package in ("ruleset", "packets", "proof"):
        modules |= {path for path in (PACKAGE / package).glob("*.py") if path.name != "__init__.py"}
    assert modules <= set(PURE_FILES)


def test_functions_are_short() -> None:
    """No function is over 60 lines, and nine of ten have at most 25."""
    lengths = sorted(_length(node) for _, node in _functions())
    too_long = [name for name, node in _functions() if _length(node) > 60]
    assert not too_long
    assert lengths[int(len(lengths) * 0.9)] <= 25


_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.Assert, ast.comprehension)


def _complexity(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The cyclomatic complexity: one, and one more for each branch, loop, handler, condition and boolean operator."""
    complexity = 1
    for node in ast.walk(function):
        if isinstance(node, _BRANCHES):
            complexity += 1
        if isinstance(node, ast.BoolOp):
            complexity += len(node.values) - 1
        if isinstance(node, ast.comprehension):
            complexity += len(node.ifs)
    return complexity


def test_functions_are_simple() -> None:
    """No function has a cyclomatic complexity over 10, and the mean is below 2.8."""
    complexities = {name: _complexity(function) for name, function in _functions()}
    assert [name for name, complexity in complexities.items() if complexity > 10] == []
    assert sum(complexities.values()) / len(complexities) < 2.8


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def test_statements_are_plain() -> None:
    """1,000 lines have at most 10 conditional expressions and 12 comprehensions: other statements take their place."""
    lines = conditional = comprehensions = 0
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        lines += len(text.splitlines())
        for node in nodes(path):
            conditional += isinstance(node, ast.IfExp)
            comprehensions += isinstance(node, _COMPREHENSIONS)
    assert 1000 * conditional / lines <= 10
    assert 1000 * comprehensions / lines <= 12


@every_file
def test_files_are_short(path: Path) -> None:
    """No file is over 400 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_two_places_catch_everything() -> None:
    """Only the task boundary catches everything, since anywhere else that would hide a defect; and `failure_of`, for a
    write that is undone before a defect goes on to the task boundary, and for work in a thread, whose failure is raised
    again by whoever asks for the result."""
    found = []
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler):
                name = getattr(node.type, "id", None)
                if node.type is None or name in ("Exception", "BaseException"):
                    found.append(str(path.relative_to(PACKAGE)))
    assert sorted(found) == ["errors.py", "worker.py"]


def test_names_say_what_a_thing_is() -> None:
    """No class is a Manager, a Handler or a Util: such a name says only that nobody knew what the thing is."""
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                assert not node.name.endswith(("Manager", "Handler", "Util", "Utils", "Helper")), node.name


def test_a_class_name_has_one_meaning() -> None:
    """No two modules define a public class of the same name: a reader who meets the name knows which one it is."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_the_top_level_is_what_it_is_meant_to_be() -> None:
    """The checkout holds seven things and dotfiles, nothing else that git would take."""
    wanted = {"pyproject.toml", "README.md", "fwguardd", "packaging", "etc", "tests"}
    leftovers = {"build", "dist"}
    found = {entry.name for entry in ROOT.iterdir() if not entry.name.startswith(".")}
    assert {name for name in found if not name.endswith(".egg-info")} - leftovers == wanted
