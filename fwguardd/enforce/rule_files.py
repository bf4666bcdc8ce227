"""The rules directory as a snapshot: every rule file and tests file is read once, and only if it can be trusted.

A user who can write a rule file can open the host. So a rule file must be a regular file that root or the daemon's own
user owns and that no other user can write; the same holds for the directory, for every directory above it, and for all
that a symbolic link leads through (`fwguardd.enforce.trusted_path`). Files that editors and package managers leave
behind are ignored without a warning, and any other file with one; neither is opened, and no link of theirs is followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from dataclasses import replace
from fnmatch import translate
from functools import partial
from typing import TYPE_CHECKING

from fwguardd.enforce.answering import HANGS, NotAnsweringError, answered
from fwguardd.enforce.trusted_path import TrustedPlace, UntrustedPathError, distrust, trusted_place
from fwguardd.escaping import printable_name
from fwguardd.kernel.processes import TRANSIENT
from fwguardd.patterns import pattern
from fwguardd.ruleset.expiry import WithoutEnded, without_ended
from fwguardd.ruleset.model import Finding, Findings, Origin, RuleFile, Severity
from fwguardd.ruleset.set_names import is_set_file, names_of_sets
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fwguardd.ruleset.set_files import SetFile

LARGEST_FILE = 16 << 20
"""Bytes of one rule file; 100,000 rules are about 8 MB."""

LARGEST_SET_FILE = 64 << 20
"""Bytes of one set file; 1,000,000 addresses are about 14 MB."""

SHORT = "no-resources"
"""The code of a finding about what could not be read because the process lacks descriptors or memory. It says nothing
about the files, which are read again."""

_SHORT_HINT = "raise LimitNOFILE= of the unit if the limit of open files is reached"

RULES_ENDING = ".rules"
TESTS_ENDING = ".tests.yaml"
ENDINGS = (RULES_ENDING, TESTS_ENDING)
"""The endings of the names of the files that are read: rule files, and policy tests."""

_LEFTOVERS = (
    ".*", "*~", "#*#", "*.bak", "*.swp", "*.swo", "*.swx", "*.tmp", "*.orig", "*.rej", "*.old", "*.save", "*.disabled",
    "*.dpkg-*", "*.ucf-*", "*.rpmnew", "*.rpmsave", "*.rpmorig", "README*",
)  # fmt: skip
_SILENT = pattern("|".join(translate(each) for each in _LEFTOVERS))
_READ_TRIES = 3
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rule files and tests files of a directory in byte order of names, findings about the others, and a digest of
    both.

    Rules that have ended (`fwguardd.ruleset.expiry`) are comments in the files. ``until`` is when the next ones end, in
    seconds since 1970; None where none do. ``any_ended`` says whether some have. ``sets`` are the names of the set
    files, and ``set_files`` those of them that were read, for a check.
    """

    directory: Path
    files: tuple[RuleFile, ...]
    findings: Findings
    digest: str
    until: float | None = None
    any_ended: bool = False
    sets: frozenset[str] = frozenset()
    set_files: tuple[SetFile, ...] = ()

    @property
    def short(self) -> str:
        """What could not be read because the process lacks descriptors or memory, or the file system does not answer;
        "" if nothing."""
        for finding in self.findings:
            if finding.code in (SHORT, HANGS):
                return str(finding)
        return ""

    @property
    def tests_files(self) -> tuple[RuleFile, ...]:
        """The files of policy tests."""
        return tests_files(self.files)


def tests_files(files: Iterable[RuleFile]) -> tuple[RuleFile, ...]:
    """Those of the files that hold policy tests."""
    return tuple(file for file in files if file.path.endswith(TESTS_ENDING))


def without_tests(files: Iterable[RuleFile]) -> tuple[RuleFile, ...]:
    """Those of the files that hold rules."""
    return tuple(file for file in files if not file.path.endswith(TESTS_ENDING))


def take_snapshot(directory: Path, *, draft: bool = False, now: float | None = None) -> Snapshot:
    """Read the rules directory once. A file that cannot be read or trusted is a finding. Raises nothing.

    A draft is a directory that the daemon does not load: any user may own it and its files, and write them. ``now`` is
    the time that decides which rules have ended, in seconds since 1970; None stands for the clock's.
    """
    if now is None:
        now = time.time()
    return _without_ended(_take_snapshot(directory, draft=draft), now)


def _take_snapshot(directory: Path, *, draft: bool) -> Snapshot:
    shown = printable_name(str(directory))
    try:
        return answered(directory, partial(_read_whole, directory, shown, draft=draft))
    except UntrustedPathError as error:
        return _snapshot(directory, [], [error.finding])
    except NotADirectoryError:
        problem = Finding("no-directory", "the rules directory is not a directory", Origin(shown, 0))
    except NotAnsweringError as error:
        problem = error.finding(shown)
    except OSError as error:
        message = f"the rules directory cannot be read: {error.strerror}"
        problem = Finding(_code(error, "no-directory"), message, Origin(shown, 0), hint=_directory_hint(error, shown))
    return _snapshot(directory, [], [problem])


def _read_whole(directory: Path, shown: str, *, draft: bool) -> Snapshot:
    """The directory, in a thread of its own. Raises UntrustedPathError, OSError."""
    with _opened_directory(directory, shown, draft=draft) as fd:
        return _read_directory(directory, fd, draft=draft)


def read_rule_file(path: Path, *, draft: bool = False) -> RuleFile | Finding:
    """One rule file; a finding if it cannot be read, or cannot be trusted and is not a draft. Raises nothing."""
    shown = printable_name(str(path))
    try:
        if draft:
            return _read_draft(path, shown)
        with trusted_place(path) as place:
            return _read_at(place, path)
    except UntrustedPathError as error:
        return error.finding
    except OSError as error:
        hint = "check that it exists and can be read"
        if os.path.islink(path):  # noqa: PTH114 - Path.is_symlink() raises where the path cannot be looked at.
            hint = "remove the symbolic link, or correct its target"
        return _unreadable(error, shown, hint)


def read_fetched_file(path: Path) -> RuleFile | Finding:
    """A file in a directory that another user owns; a symbolic link there is not followed. A message quotes what cannot
    be read as an address, and a link could lead to a file that only root may read. Raises nothing."""
    shown = printable_name(str(path))
    try:
        return _read_stable(os.open(path, _FILE | os.O_NOFOLLOW), shown, None)
    except OSError as error:
        return _unreadable(error, shown, "remove the file; the list is fetched again: systemctl start fwguardd-lists")


def _unreadable(error: OSError, shown: str, hint: str) -> Finding:
    """A finding about a file that could not be read."""
    if error.errno in TRANSIENT:
        hint = _SHORT_HINT
    code = _code(error, "unreadable-file")
    return Finding(code, f"cannot be read: {error.strerror}", Origin(shown, 0), hint=hint)


def _code(error: OSError, code: str) -> str:
    """The code of a finding about a file that could not be read; another one where the file is not the reason."""
    if error.errno in TRANSIENT:
        return SHORT
    return code


def _without_ended(snapshot: Snapshot, now: float) -> Snapshot:
    """The snapshot without the rules that have ended. One in which no rules end is returned as it is."""
    parts = [without_ended(file.path, file.data, now) for file in snapshot.files]
    if any(part.has_ends for part in parts):
        return _of_parts(snapshot, parts)
    return snapshot


def _of_parts(snapshot: Snapshot, parts: list[WithoutEnded]) -> Snapshot:
    files = [RuleFile(file.path, part.data) for file, part in zip(snapshot.files, parts, strict=True)]
    findings = list(snapshot.findings)
    for part in parts:
        findings += part.findings
    left = _snapshot(snapshot.directory, files, findings, snapshot.sets)
    until = min((part.until for part in parts if part.until is not None), default=None)
    return replace(left, until=until, any_ended=any(part.any_ended for part in parts))


def _snapshot(
    directory: Path, files: list[RuleFile], findings: list[Finding], sets: frozenset[str] = frozenset()
) -> Snapshot:
    digest = hashlib.sha256()
    for name in sorted(sets):
        digest.update(f"set {name}".encode())
    for file in files:
        for part in (os.fsencode(file.path), file.data):
            digest.update(len(part).to_bytes(8, "big") + part)
    for finding in findings:
        digest.update(str(finding).encode("utf-8", "surrogateescape"))
    return Snapshot(directory, tuple(files), Findings(findings), digest.hexdigest(), sets=sets)


@contextlib.contextmanager
def _opened_directory(directory: Path, shown: str, *, draft: bool) -> Iterator[int]:
    """A descriptor of the directory. Raises UntrustedPathError, OSError."""
    if draft:
        fd = os.open(directory, _DIRECTORY)
    else:
        with trusted_place(directory) as place:
            fd = place.open(_DIRECTORY)
    try:
        problem = None
        if not draft:
            # Not even with the sticky bit: another user could link a file of root there, under a name of his choice.
            problem = distrust(os.fstat(fd), shown)
        if problem is not None:
            raise UntrustedPathError(problem)
        yield fd
    finally:
        os.close(fd)


def _directory_hint(error: OSError, shown: str) -> str:
    if error.errno == errno.ENOENT:
        return f"create it with: install -d -m 755 {shown}"
    if error.errno in TRANSIENT:
        return _SHORT_HINT
    return "check the directory and the disk that it is on"


def _read_directory(directory: Path, fd: int, *, draft: bool) -> Snapshot:
    """Read the files of an open directory. Raises OSError where not even its names can be read."""
    with os.scandir(fd) as entries:
        directories = {entry.name: _is_directory(entry) for entry in entries if not _SILENT.match(entry.name)}
    files: list[RuleFile] = []
    findings: list[Finding] = []
    taken = set(directories)
    for name in sorted(directories, key=os.fsencode):
        path = directory / name
        if name.endswith(ENDINGS):
            outcome = _read_entry(fd, path, name, draft=draft)
            if isinstance(outcome, RuleFile):
                files.append(outcome)
            else:
                findings.append(outcome)
        elif not (directories[name] or is_set_file(name)):
            findings.append(_ignored(path, taken))
    return _snapshot(directory, files, findings, names_of_sets(directories))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a directory, by its type in the directory: neither the entry nor a link is looked at."""
    with contextlib.suppress(OSError):  # A few file systems keep no types; there it is looked up.
        return entry.is_dir(follow_symlinks=False)
    return False


def _ignored(path: Path, taken: set[str]) -> Finding:
    """A file that is not read, with a name that no file has and that no other hint proposes."""
    name, contents = _free_name(path, taken), "rules"
    if path.suffix in (".yaml", ".yml"):
        name, contents = f"{_stem_of_tests(path)}{TESTS_ENDING}", "policy tests"
    taken.add(name)
    hint = f'name it "{printable_name(name)}" if it holds {contents}'
    origin = Origin(printable_name(str(path)), 0)
    message = 'only names that end in ".rules" or ".tests.yaml" are read'
    return Finding("ignored-file", message, origin, Severity.WARNING, hint)


def _stem_of_tests(path: Path) -> str:
    for ending in (".tests", ".test"):
        if path.stem.endswith(ending):
            return path.stem.removesuffix(ending)
    return path.stem


def _free_name(path: Path, taken: set[str]) -> str:
    """A name for a rule file. rules.v4 and rules.v6 are those of iptables-persistent: the family stays in the name."""
    stem = path.stem
    if path.suffix in (".v4", ".v6"):
        stem = path.name
    name, number = f"{stem}{RULES_ENDING}", 2
    while name in taken:
        name = f"{stem}-{number}{RULES_ENDING}"
        if path.suffix in (".v4", ".v6"):
            name = f"{path.stem}-{number}{path.suffix}{RULES_ENDING}"
        number += 1
    return name


def _read_entry(directory: int, path: Path, name: str, *, draft: bool) -> RuleFile | Finding:
    """One rule file of an open directory; a symbolic link is followed from / on, and each step is checked."""
    if draft:
        return read_rule_file(path, draft=True)
    shown = printable_name(str(path))
    place = TrustedPlace(directory, name, str(path))
    try:
        if not stat.S_ISLNK(place.status().st_mode):
            return _read_at(place, path)
    except OSError as error:
        return _unreadable(error, shown, "check that it exists and can be read")
    return read_rule_file(path)


def _read_at(place: TrustedPlace, path: Path) -> RuleFile | Finding:
    """The file at the checked place that a path leads to. Raises OSError.

    A message about a rule quotes the rule. So a symbolic link must lead to a file that is meant to hold rules: of a
    link to /etc/shadow nothing is read or quoted.
    """
    shown, resolved = printable_name(str(path)), printable_name(place.resolved)
    status = place.status()
    problem = _unfit(status, shown) or _unnamed(place, path, resolved) or distrust(status, resolved, shown)
    if problem is not None:
        return problem
    # O_NONBLOCK: between the check and this call the name may have become a FIFO, which would hang an open().
    return _read_stable(place.open(_FILE), shown, resolved)


def _unnamed(place: TrustedPlace, path: Path, resolved: str) -> Finding | None:
    """A finding if a symbolic link leads to a file whose name has another ending."""
    ending = path.suffix
    if path.name.endswith(TESTS_ENDING):
        ending = TESTS_ENDING
    if place.name in (path.name, ".") or place.name.endswith(ending):
        return None
    message = f'the symbolic link leads to {resolved}, whose name does not end in "{ending}"'
    hint = f'give the target a name that ends in "{ending}", or replace the link by a copy'
    return Finding("untrusted-link", message, Origin(printable_name(str(path)), 0), hint=hint)


def _read_draft(path: Path, shown: str) -> RuleFile | Finding:
    """A file that any user may own, by a path that symbolic links may lead through. Raises OSError."""
    return _unfit(path.stat(), shown) or _read_stable(os.open(path, _FILE), shown, None)


def largest(path: str) -> int:
    """The bytes that a file of this name may have."""
    if is_set_file(path):
        return LARGEST_SET_FILE
    return LARGEST_FILE


def _unfit(status: os.stat_result, shown: str) -> Finding | None:
    if not stat.S_ISREG(status.st_mode):
        return Finding("not-a-file", "not a regular file", Origin(shown, 0), hint="remove it")
    if status.st_size > largest(shown):
        message = f"the file has {status.st_size:,} bytes; it may have {largest(shown):,}"
        hint = "split it, or use a set for long lists of addresses"
        return Finding("file-too-large", message, Origin(shown, 0), hint=hint)
    return None


def _read_stable(fd: int, shown: str, resolved: str | None) -> RuleFile | Finding:
    """Read until size and time of change are the same before and after, and close the descriptor. Raises OSError.

    ``resolved`` is the path whose owner and mode have to be trusted; None for a draft.
    """
    with open(fd, "rb", buffering=0):
        for _ in range(_READ_TRIES):
            before = os.fstat(fd)
            problem = _unfit(before, shown)
            if problem is None and resolved is not None:
                problem = distrust(before, resolved, shown)
            if problem is not None:
                return problem
            data = _read_up_to(fd, largest(shown) + 1)
            after = os.fstat(fd)
            unchanged = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
            if unchanged and len(data) == after.st_size:
                return RuleFile(shown, data)
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
