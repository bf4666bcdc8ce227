"""Rules with an end: ``# fwguard: until 2026-11-28T12:00:00Z`` above rules takes them out at that time.

The comment is about the rules below it, up to the next empty line. From that time on they are read as comments. So the
end is kept where the rules are, survives restarts, and nothing has to write to the rules directory.

This module is pure.
"""

from __future__ import annotations

import math
import re
from dataclasses import field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Finding, Origin, RuleFile
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

_MARK = b"until"
_UNTIL = re.compile(rb"[ \t]*#[ \t]*fwguardd?:[ \t]*until\b[ \t]*(.*?)[ \t\r]*")
_NO_RULE = re.compile(rb"[ \t]*(?:[*:]|COMMIT\b)")
"""Lines that name a table or a chain, and the end of a table; they stay. All others are rules, however they begin."""
ENDED = b"# ended: "
"""What stands before a rule that has ended, in the files that a revision keeps."""


@dataclass(frozen=True, slots=True)
class RuleEnd:
    """When the rule of a line ends, in seconds since 1970."""

    origin: Origin
    until: float


Ends = tuple[RuleEnd, ...]
"""The rules of a ruleset that end, and have not ended yet."""


@dataclass(frozen=True, slots=True)
class WithoutEnded:
    """A rule file without the rules that have ended.

    ``until`` is when the next ones end, in seconds since 1970; None where no others do. ``any_ended`` says whether some
    have. ``ends`` are the lines of rules that end later.
    """

    data: bytes
    until: float | None = None
    any_ended: bool = False
    findings: tuple[Finding, ...] = ()
    ends: Ends = ()

    @property
    def has_ends(self) -> bool:
        """Whether the file says of any rules when they end."""
        return self.until is not None or self.any_ended or bool(self.findings)


def written_until(seconds: float) -> str:
    """The comment that takes rules out at this time, in seconds since 1970."""
    return f"# fwguard: until {datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def read_until(line: bytes) -> float | None:
    """The time of such a comment, in seconds since 1970; None for other lines. Raises ValueError for a wrong time."""
    match = _UNTIL.fullmatch(line)
    if match is None:
        return None
    when = datetime.fromisoformat(match[1].decode("ascii", "replace"))
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return when.timestamp()


def without_ended(path: str, data: bytes, now: float) -> WithoutEnded:
    """A rule file as it is to be read at this time. Lines keep their numbers."""
    if _MARK not in data:
        return WithoutEnded(data)
    reading = _Reading(path, now)
    lines = [reading.line(number, line) for number, line in enumerate(data.split(b"\n"), 1)]
    following = min(reading.following, default=None)
    return WithoutEnded(b"\n".join(lines), following, reading.any_ended, tuple(reading.findings), tuple(reading.ends))


def ends_of(files: Iterable[RuleFile]) -> Ends:
    """The rules of these files that end. What had ended when they were read is a comment in them."""
    ends: list[RuleEnd] = []
    for file in files:
        ends += without_ended(file.path, file.data, -math.inf).ends
    return tuple(ends)


def files_without_ended(files: Iterable[RuleFile], now: float) -> tuple[RuleFile, ...]:
    """The files as they are to be read at this time."""
    return tuple(RuleFile(file.path, without_ended(file.path, file.data, now).data) for file in files)


@dataclass(slots=True)
class _Reading:
    """A file while its lines are read. ``until`` is the end of the rules at this line."""

    path: str
    now: float
    until: float | None = None
    any_ended: bool = False
    following: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    ends: list[RuleEnd] = field(default_factory=list)

    def line(self, number: int, line: bytes) -> bytes:
        """The line as it is to be read."""
        if not line.strip():
            self.until = None
        elif line.lstrip().startswith(b"#"):
            self._read_comment(number, line)
        elif self.until is not None and _NO_RULE.match(line) is None:
            return self._rule_with_end(number, line, self.until)
        return line

    def _rule_with_end(self, number: int, line: bytes, until: float) -> bytes:
        if until <= self.now:
            self.any_ended = True
            return ENDED + line
        self.ends.append(RuleEnd(Origin(self.path, number), until))
        return line

    def _read_comment(self, number: int, line: bytes) -> None:
        try:
            stated = read_until(line)
        except ValueError:
            self.findings.append(_bad_time(self.path, number))
            return
        if stated is not None:
            self._end_at(stated)

    def _end_at(self, stated: float) -> None:
        self.until = stated
        if stated > self.now:
            self.following.append(stated)


def _bad_time(path: str, line: int) -> Finding:
    """Not a warning: rules would stay that were meant to end."""
    hint = "write it in UTC: # fwguard: until 2026-11-28T12:00:00Z"
    return Finding("bad-until", "the time at which these rules end cannot be read", Origin(path, line), hint=hint)
