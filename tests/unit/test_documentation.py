"""The documentation of the checkout names what exists: files, modules, and the terms of the glossary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fwguardd

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fwguardd"
PAGES = ("README.md", "packaging/CONTRIBUTING.md", "packaging/DESIGN.md")
MOST_TERMS = 30


def _layout() -> list[str]:
    """The lines of the package layout in the docstring of the package."""
    assert fwguardd.__doc__ is not None
    block = fwguardd.__doc__.split("exact list::\n\n")[1].split("\n\n")[0]
    return block.splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """A path in a page that begins with a directory of the checkout is a file or directory there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])((?:fwguardd|packaging|tests|etc)/[\w./-]*\w)", text)
    invented = {"tests/golden/NN-name", "fwguardd/kernel/NAME.py"}
    missing = {name for name in named if name not in invented and not (ROOT / name).exists()}
    assert not missing
    assert named, f"{page} names no file; is the pattern of this test still right?"


def test_the_layout_names_every_package_and_module() -> None:
    """Every package and every module of the top level stands in the layout, and nothing else does."""
    named = {name.strip() for line in _layout() for name in re.split(r"  +", line.strip())[0].split(",")}
    exists = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    exists -= {"__init__", "__main__"}
    assert named == exists - {"event_fields"}


def test_the_layout_names_modules_that_exist() -> None:
    """A module that the layout lists behind a package with a colon is in that package."""
    for line in _layout():
        package, _, meaning = (part.strip() for part in line.strip().partition("  "))
        listed = re.findall(r"\b[a-z]+_[a-z_]+\b", meaning.partition(":")[2])
        for module in listed:
            assert (PACKAGE / package / f"{module}.py").exists(), f"{package} has no module {module}"


def test_the_glossary_is_short_and_sorted() -> None:
    """At most 30 terms, in alphabetical order, each once."""
    assert fwguardd.__doc__ is not None
    names = [line[4:25].strip() for line in fwguardd.__doc__.split("Glossary::")[1].splitlines() if line.strip()]
    assert len(names) <= MOST_TERMS
    assert names == sorted(set(names))
