"""The rules of the house, held by reading the code itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fwguardd"
FILES = sorted(PACKAGE.rglob("*.py"))

_BELOW = {"ruleset", "kernel", "denials", "store", "enforce", "control", "sinks", "settings", "events"}
ALLOWED = {
    "ruleset": {"ruleset"},
    "denials": {"denials", "kernel", "events"},
    "kernel": {"kernel", "ruleset"},
    "settings": {"denials", "kernel", "ruleset"},
    "events": set[str](),
    "sinks": {"sinks", "events", "settings"},
    "store": {"store", "kernel", "ruleset"},
    "enforce": {"enforce", "store", "kernel", "ruleset", "events"},
    "control": {"control", "events"},
    "options": {"settings"},
    "documents": {"enforce", "sinks", "store", "ruleset"},
    "supervisor": {"documents", *_BELOW},
    "denial_reader": _BELOW,
    "ctl": {"ctl", "supervisor", "documents", *_BELOW},
    "daemon": {"options", "documents", "supervisor", "denial_reader", *_BELOW},
    "__main__": {"daemon"},
    "__init__": set[str](),
}
"""Which rooms a room may import from. The version, in the package itself, is for everyone."""

PURE_ROOMS = (
    "ruleset/*.py",
    "denials/[!ps]*.py",
    "denials/packets.py",
    "denials/scan.py",
    "enforce/schedule.py",
    "control/protocol.py",
    "ctl/denials/[!ci]*.py",
)
IMPURE = {"os", "subprocess", "socket", "asyncio", "time", "logging", "signal", "select", "threading", "pathlib", "io"}


def _imports(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            if node.module == "fwguardd":
                modules |= {f"fwguardd.{alias.name}" for alias in node.names}
            else:
                modules.add(node.module)
    return modules


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    """A room imports only from the rooms below it, as the package's docstring draws them."""
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in _imports(path):
        parts = module.split(".")
        if parts[0] == "fwguardd" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in ALLOWED[room], f"{path.relative_to(ROOT)} must not import {module}"


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


@pytest.mark.parametrize("pattern", PURE_ROOMS)
def test_pure_rooms_do_no_io(pattern: str) -> None:
    """A pure room imports nothing that reaches outside the process or reads a clock."""
    for path in PACKAGE.glob(pattern):
        touched = {module.split(".")[0] for module in _imports(path)} & IMPURE
        assert not touched, f"{path.relative_to(ROOT)} imports {touched}"


def test_functions_are_short() -> None:
    """No function is over 60 lines, and nine of ten have at most 25."""
    lengths = sorted(_length(node) for _, node in _functions())
    too_long = [name for name, node in _functions() if _length(node) > 60]
    assert not too_long
    assert lengths[int(len(lengths) * 0.9)] <= 25


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path: Path) -> None:
    """No file is over 400 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_one_broad_except_stands_at_the_task_boundary() -> None:
    """Only the task boundary catches everything: anywhere else it would hide a defect."""
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                name = getattr(node.type, "id", None)
                if node.type is None or name in ("Exception", "BaseException"):
                    found.append(str(path.relative_to(PACKAGE)))
    assert found == ["supervisor.py"]


def test_names_say_what_a_thing_is() -> None:
    """No class is a Manager, a Handler or a Util: such a name says only that nobody knew what the thing is."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                assert not node.name.endswith(("Manager", "Handler", "Util", "Utils", "Helper")), node.name


def test_the_top_level_is_what_it_is_meant_to_be() -> None:
    """The checkout holds seven things and dotfiles, nothing else that git would take."""
    wanted = {"pyproject.toml", "README.md", "fwguardd", "packaging", "etc", "tests"}
    leftovers = {"build", "dist"}
    found = {entry.name for entry in ROOT.iterdir() if not entry.name.startswith(".")}
    assert {name for name in found if not name.endswith(".egg-info")} - leftovers == wanted
