"""Reads the set files of a directory, with the checks that rule files have to pass."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from fwguardd.enforce.answering import answered
from fwguardd.enforce.rule_files import read_fetched_file, read_rule_file
from fwguardd.ruleset.model import Finding, RuleFile
from fwguardd.ruleset.set_files import SetFile, bad_name, read_set_file
from fwguardd.ruleset.set_names import is_set_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def read_set(path: Path, *, draft: bool = False, fetched: bool = False) -> RuleFile | Finding:
    """The bytes of a set file; a finding if it cannot be read, or its name can be no set's."""
    if fetched:
        return bad_name(str(path)) or read_fetched_file(path)
    return bad_name(str(path)) or read_rule_file(path, draft=draft)


def set_files_in(directory: Path) -> list[Path] | None:
    """The set files of a directory; None where it cannot be read."""
    try:
        names = sorted(entry.name for entry in os.scandir(directory))
    except OSError:
        return None
    return [directory / name for name in names if is_set_file(name)]


def sets_beside(directory: Path) -> Sequence[SetFile] | None:
    """The sets of the set files of a directory that can be used; None where it cannot be read, or does not answer."""
    try:
        return answered(directory, partial(_usable_sets, directory))
    except OSError:
        return None


def _usable_sets(directory: Path) -> Sequence[SetFile] | None:
    paths = set_files_in(directory)
    if paths is None:
        return None
    return read_sets(paths, draft=False)[0]


def is_missing(path: Path) -> bool:
    """Whether there is no file of this name. One that cannot be looked at is there: reading it says what is wrong."""
    try:
        answered(path.parent, path.lstat)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def read_sets(paths: Iterable[Path], *, draft: bool) -> tuple[list[SetFile], list[Finding]]:
    """The set files, and what is wrong with others, for a check."""
    files: list[SetFile] = []
    findings: list[Finding] = []
    for path in paths:
        outcome = _parsed(read_set(path, draft=draft))
        if isinstance(outcome, SetFile):
            files.append(outcome)
        else:
            findings += outcome
    return files, findings


def _parsed(outcome: RuleFile | Finding) -> SetFile | Sequence[Finding]:
    if isinstance(outcome, Finding):
        return (outcome,)
    return read_set_file(outcome.path, outcome.data)
