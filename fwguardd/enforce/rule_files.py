"""The rules directory as a snapshot: every rule file is read once, and only if it can be trusted.

A user who can write a rule file can open the host. So a rule file must be a regular file that root or the daemon's own
user owns and that no other user can write; the same holds for the directory. Files that editors and package managers
leave behind are ignored without a warning. Any other file is ignored with one.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from fnmatch import translate
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Finding, Findings, Origin, RuleFile, Severity

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_FILE = 16 << 20
"""Bytes of one rule file; 100,000 rules are about 8 MB."""

RULES_ENDING = ".rules"
TESTS_ENDING = ".tests.yaml"

_LEFTOVERS = (
    ".*", "*~", "#*#", "*.bak", "*.swp", "*.swo", "*.swx", "*.tmp", "*.orig", "*.rej", "*.old", "*.save", "*.disabled",
    "*.dpkg-*", "*.ucf-*", "*.rpmnew", "*.rpmsave", "*.rpmorig", "README*", "*" + TESTS_ENDING,
)  # fmt: skip
_SILENT = re.compile("|".join(translate(pattern) for pattern in _LEFTOVERS))
_READ_TRIES = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rule files of a directory in byte order of names, findings about the others, and a digest of both."""

    directory: Path
    files: tuple[RuleFile, ...]
    findings: Findings
    digest: str


def take_snapshot(directory: Path, *, draft: bool = False) -> Snapshot:
    """Read the rules directory once. A file that cannot be read or trusted is a finding. Raises nothing.

    A draft is a directory that the daemon does not load: any user may own it and its files, and write them.
    """
    problem = _directory_problem(directory, draft=draft)
    if problem is not None:
        return _snapshot(directory, [], [problem])
    files: list[RuleFile] = []
    findings: list[Finding] = []
    for name in sorted((path.name for path in directory.iterdir()), key=os.fsencode):
        if _SILENT.match(name):
            continue
        outcome = _consider(directory / name, name, draft=draft)
        if isinstance(outcome, RuleFile):
            files.append(outcome)
        elif outcome is not None:
            findings.append(outcome)
    return _snapshot(directory, files, findings)


def read_rule_file(path: Path, *, draft: bool = False) -> RuleFile | Finding:
    """One rule file; a finding if it cannot be read, or cannot be trusted and is not a draft."""
    shown = printable(str(path))
    try:
        status = path.stat()
        problem = _distrust(status, shown, draft=draft)
        if problem is not None:
            return problem
        return _read_stable(path, shown, draft=draft)
    except OSError as error:
        hint = "check that it exists and can be read"
        if path.is_symlink():
            hint = "remove the symbolic link, or correct its target"
        return Finding("unreadable-file", f"cannot be read: {error.strerror}", Origin(shown, 0), hint=hint)


def printable(text: str) -> str:
    """A name that is safe to print: control characters and undecodable bytes are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def _snapshot(directory: Path, files: list[RuleFile], findings: list[Finding]) -> Snapshot:
    digest = hashlib.sha256()
    for file in files:
        for part in (os.fsencode(file.path), file.data):
            digest.update(len(part).to_bytes(8, "big") + part)
    for finding in findings:
        digest.update(str(finding).encode("utf-8", "surrogateescape"))
    return Snapshot(directory, tuple(files), Findings(findings), digest.hexdigest())


def _directory_problem(directory: Path, *, draft: bool) -> Finding | None:
    shown = printable(str(directory))
    try:
        status = directory.stat()
    except OSError as error:
        message = f"the rules directory cannot be read: {error.strerror}"
        return Finding("no-directory", message, Origin(shown, 0), hint=f"create it with: install -d -m 755 {shown}")
    if not stat.S_ISDIR(status.st_mode):
        return Finding("no-directory", "the rules directory is not a directory", Origin(shown, 0))
    if not os.access(directory, os.R_OK | os.X_OK):
        return Finding("no-directory", "the rules directory cannot be read: Permission denied", Origin(shown, 0))
    if draft:
        return None
    return _wrong_owner_or_mode(status, shown)


def _consider(path: Path, name: str, *, draft: bool) -> RuleFile | Finding | None:
    """One directory entry: a rule file, a finding, or None for one that is ignored without a warning."""
    if name.endswith(RULES_ENDING):
        return read_rule_file(path, draft=draft)
    if path.is_dir():
        return None
    origin = Origin(printable(str(path)), 0)
    hint = f'name it "{printable(path.stem)}.rules" if it holds rules'
    return Finding("ignored-file", 'only names that end in ".rules" are read', origin, Severity.WARNING, hint)


def _distrust(status: os.stat_result, shown: str, *, draft: bool) -> Finding | None:
    if not stat.S_ISREG(status.st_mode):
        return Finding("not-a-file", "not a regular file", Origin(shown, 0), hint="remove it")
    if status.st_size > LARGEST_FILE:
        message = f"the file has {status.st_size:,} bytes; a rule file may have {LARGEST_FILE:,}"
        hint = "split it, or use an ipset for long lists of addresses"
        return Finding("file-too-large", message, Origin(shown, 0), hint=hint)
    if draft:
        return None
    return _wrong_owner_or_mode(status, shown)


def _wrong_owner_or_mode(status: os.stat_result, shown: str) -> Finding | None:
    if status.st_uid not in (0, os.geteuid()):
        message = f"owned by user {status.st_uid}, who could change the rules"
        return Finding("untrusted-owner", message, Origin(shown, 0), hint=f"chown root {shown}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = f"mode {stat.S_IMODE(status.st_mode):04o} lets users other than the owner write to it"
        return Finding("untrusted-mode", message, Origin(shown, 0), hint=f"chmod go-w {shown}")
    return None


def _read_stable(path: Path, shown: str, *, draft: bool) -> RuleFile | Finding:
    """Read until size and time of change are the same before and after. Raises OSError."""
    # O_NONBLOCK: between the check and this call the name may have become a FIFO, which would hang an open().
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path of its own.
        for _ in range(_READ_TRIES):
            before = os.fstat(fd)
            problem = _distrust(before, shown, draft=draft)
            if problem is not None:
                return problem
            data = _read_up_to(fd, LARGEST_FILE + 1)
            after = os.fstat(fd)
            unchanged = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
            if unchanged and len(data) == after.st_size:
                return RuleFile(shown, data)
        assert file is not None
    hint = "write it elsewhere and rename it into place"
    return Finding("changing-file", "the file changed while it was read", Origin(shown, 0), hint=hint)


def _read_up_to(fd: int, most: int) -> bytes:
    chunks: list[bytes] = []
    position = 0
    while position < most:
        chunk = os.pread(fd, min(1 << 20, most - position), position)
        if not chunk:
            break
        chunks.append(chunk)
        position += len(chunk)
    return b"".join(chunks)
