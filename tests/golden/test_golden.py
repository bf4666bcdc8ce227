"""Rule files -> the rulesets that are composed of them, and the findings: one directory for each case.

``NN-name/README`` says what the case shows; ``in/`` holds the rule files; ``expected.v4`` and ``expected.v6`` the
rendered rulesets, which are absent where the files are refused; ``expected.findings`` all findings that need no kernel,
warnings included, as `fwguardctl check` prints them.

To write the expected files again:  .venv/bin/python -m tests.golden.update
Then read ``git diff tests/golden`` line by line: each change in it is a change of behaviour for users.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl.terminal import Painter
from fwguardd.enforce.validate import compose_files
from fwguardd.ruleset.model import FAMILIES, RuleFile
from fwguardd.ruleset.save_format import render
from fwguardd.settings import Settings

if TYPE_CHECKING:
    from fwguardd.ruleset.compose import Composition
    from fwguardd.ruleset.model import Family

FOLDER = Path(__file__).parent
DIRECTORIES = sorted(path for path in FOLDER.iterdir() if path.is_dir() and path.name[:1].isdigit())


def composed(directory: Path) -> Composition:
    """The rule files of a golden directory, read, composed and linted under their bare names."""
    paths = sorted((directory / "in").glob("*.rules"), key=lambda path: os.fsencode(path.name))
    return compose_files((RuleFile(path.name, path.read_bytes()) for path in paths), Settings().lint_context())


def findings_as_text(composition: Composition) -> str:
    """What a person reads, so that a change of any word is seen by somebody before it ships."""
    paint = Painter(colours=False)
    return "".join(f"{paint.finding(finding)}\n" for finding in composition.findings)


def ruleset_as_text(composition: Composition, family: Family) -> str | None:
    """The text for iptables-restore; None where nothing would be loaded."""
    ruleset = composition.candidate.rulesets.get(family)
    return None if ruleset is None or composition.findings.errors else render(ruleset).text


def expected_files(directory: Path) -> dict[str, str | None]:
    """The text of each expected file by its name; None for one that must be absent."""
    composition = composed(directory)
    files: dict[str, str | None] = {"expected.findings": findings_as_text(composition)}
    for family in FAMILIES:
        files[f"expected.v{family.number}"] = ruleset_as_text(composition, family)
    return files


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_golden(directory: Path) -> None:
    """The files of ``in/`` compose to the expected text of each family, with the expected findings."""
    for name, text in expected_files(directory).items():
        path = directory / name
        assert text == (path.read_text(encoding="utf-8") if path.exists() else None)


def test_each_directory_is_whole_and_says_what_it_shows() -> None:
    """A golden directory has a README of at least a sentence, rule files, and expectations; their numbers are a row."""
    for number, directory in enumerate(DIRECTORIES, 1):
        assert directory.name.startswith(f"{number:02d}-")
        assert (directory / "README").read_text(encoding="utf-8").endswith((".\n", ".\n\n"))
        assert (directory / "in").is_dir()
        assert (directory / "expected.findings").is_file()
        known = {"README", "in", "expected.findings", "expected.v4", "expected.v6"}
        assert {path.name for path in directory.iterdir()} <= known
