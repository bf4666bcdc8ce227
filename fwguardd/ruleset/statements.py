"""What a rule file declares, line by line: the statements that `parser` yields and `compose` consumes.

Beside them a reading holds the warnings that its author suppressed with ``# fwguard: allow CODE``, and what the lines
that were refused may have declared.

This module is pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.model import ZERO, Counters, Family, Finding, Findings, Origin, Rule, Severity
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


_ALLOW = pattern(r"#[ \t]*fwguardd?:[ \t]*allow(-file)?[ \t]+([a-z0-9-]+(?:[ \t,]+[a-z0-9-]+)*)")
WHOLE_FILE = 0
"""The number under which the suppressions for a whole file are kept; lines are counted from 1."""


def suppressions(lines: Sequence[str]) -> dict[int, frozenset[str]]:
    """Codes suppressed by ``# fwguard: allow CODE``, on the line itself or on comment lines right above it, and by
    ``# fwguard: allow-file CODE``, anywhere in the file."""
    allowed: dict[int, frozenset[str]] = {}
    above: frozenset[str] = frozenset()
    for number, line in enumerate(lines, 1):
        for_file, for_line = _allowed_by(line)
        codes = above | for_line
        if for_file:
            allowed[WHOLE_FILE] = allowed.get(WHOLE_FILE, frozenset()) | for_file
        if codes:
            allowed[number] = codes
        above = frozenset()
        if line.lstrip(" \t").startswith("#"):
            above = codes
    return allowed


def _allowed_by(line: str) -> tuple[frozenset[str], frozenset[str]]:
    """The codes that the comment of a line suppresses for the file, and for the line."""
    match = _ALLOW.search(line)
    if match is None:
        return frozenset(), frozenset()
    if match[1]:
        return _codes(match[2]), frozenset()
    return frozenset(), _codes(match[2])


def _codes(words: str) -> frozenset[str]:
    return frozenset(re.split(r"[ \t,]+", words))


@dataclass(frozen=True, slots=True)
class TableStart:
    """``*table``: the statements after it belong to this table."""

    table: str
    families: frozenset[Family]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Declaration:
    """``:CHAIN POLICY [packets:bytes]``, ``-N CHAIN`` or ``-P CHAIN TARGET``. ``policy`` is None where none is set."""

    table: str
    chain: str
    policy: str | None
    families: frozenset[Family]
    origin: Origin
    counters: Counters = ZERO


@dataclass(frozen=True, slots=True)
class Addition:
    """``-A CHAIN rule`` or ``-I CHAIN [n] rule``. ``position`` counts from 1; None appends."""

    table: str
    chain: str
    position: int | None
    text: str
    families: frozenset[Family]
    origin: Origin
    counters: Counters = ZERO


Statement = TableStart | Declaration | Addition


@dataclass(frozen=True, slots=True)
class Appended:
    """Rules that follow each other in a file and are appended to the same chain: what nearly all lines of a large file
    are. A statement for each of them is made only for those who ask."""

    table: str
    chain: str
    families: frozenset[Family]
    rules: tuple[Rule, ...]

    def statements(self) -> Iterator[Addition]:
        """The statement of each rule."""
        for rule in self.rules:
            origin = rule.origin or Origin("", 0)
            yield Addition(self.table, self.chain, None, rule.text, self.families, origin, rule.counters)


MOST_UNREAD = 100_000
"""Characters of refused lines that are searched for names of chains. More of them may declare anything."""

_NO_DECLARATION = pattern(
    r"(?:^|[ \t])(?:-[AIDRFXZELSCjg]|--(?:append|insert|jump|goto|delete|replace|flush|zero|list|check))(?:[ \t=]|$)"
)
_DECLARATION = pattern(r"^[ \t]*:|(?:^|[ \t])(?:-[NP]|--new|--policy)")
_NAME = pattern(r"""[^ \t:;,(){}"'=]+""")


def _may_be_declaration(line: str) -> bool:
    return _NO_DECLARATION.search(line) is None or _DECLARATION.search(line) is not None


def _possible_names(line: str) -> set[str]:
    return {*line.split(), *(name.removeprefix("-N") for name in _NAME.findall(line))}


@dataclass(frozen=True, slots=True)
class UnreadInput:
    """The chains that refused input may declare: any chain, or one of these words. A rule for such a chain is not
    reported as one for an undeclared chain, because correcting the refused line may be all that it needs."""

    anything: bool = False
    words: frozenset[str] = frozenset()

    @classmethod
    def of_lines(cls, lines: Sequence[str]) -> UnreadInput:
        """What refused lines may declare. A line that is a rule, or deletes or lists rules, declares nothing."""
        if sum(map(len, lines)) > MOST_UNREAD:
            return cls(anything=True)
        words: set[str] = set()
        for line in lines:
            if not _may_be_declaration(line):
                continue
            if "$" in line or "`" in line:
                return cls(anything=True)  # The value of a shell variable may be a name.
            words |= _possible_names(line)
        return cls(words=frozenset(words))

    def __or__(self, other: UnreadInput) -> UnreadInput:
        return UnreadInput(self.anything or other.anything, self.words | other.words)

    def may_declare(self, chain: str | None) -> bool:
        """Whether the declaration of this chain may be among it."""
        return self.anything or chain in self.words


NOTHING_UNREAD = UnreadInput()


@dataclass(frozen=True, slots=True)
class Reading:
    """One rule file, read: what it says in order, and findings for the lines that are refused.

    ``allowed`` maps a line number to the codes of the warnings that its author has suppressed for that line, and
    `WHOLE_FILE` to those suppressed for all lines. ``open_table`` is the place of the last ``*table`` if no COMMIT ends
    it, and ``ends_inside_line`` says that the last line has no line break.
    """

    path: str
    said: tuple[Statement | Appended, ...]
    findings: Findings
    data: bytes = field(repr=False)
    allowed: Mapping[int, frozenset[str]]
    unread: UnreadInput = NOTHING_UNREAD
    open_table: Origin | None = None
    ends_inside_line: bool = False

    @property
    def statements(self) -> tuple[Statement, ...]:
        """What it says, with a statement for each rule."""
        return tuple(self.each_statement())

    def each_statement(self) -> Iterator[Statement]:
        """The same, one after the other."""
        for part in self.said:
            if isinstance(part, Appended):
                yield from part.statements()
            else:
                yield part

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the file. They are cut out of its bytes each time: few files have findings, and with 10,000
        rules they take as much memory as the rules."""
        lines = self.data.decode("utf-8", "replace").split("\n")
        if lines[-1] == "":
            del lines[-1]
        return tuple(lines)

    @property
    def says_anything(self) -> bool:
        """Whether the file declares more than a table that nothing follows."""
        return any(not isinstance(part, TableStart) or part.origin != self.open_table for part in self.said)

    def suppresses(self, finding: Finding) -> bool:
        """Whether the finding is a warning about a line of this file whose author suppressed it."""
        if finding.origin is None or finding.severity is Severity.ERROR:
            return False
        line = finding.origin.line
        return finding.code in self.allowed.get(line, ()) or finding.code in self.allowed.get(WHOLE_FILE, ())


class _LinesByPath(Mapping[str, tuple[str, ...]]):
    """The lines of a file are cut when they are asked for."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = {reading.path: reading for reading in readings}
        self._lines: dict[str, tuple[str, ...]] = {}

    def __getitem__(self, path: str) -> tuple[str, ...]:
        if path not in self._lines:
            self._lines[path] = self._readings[path].lines
        return self._lines[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readings)

    def __len__(self) -> int:
        return len(self._readings)


def lines_by_path(readings: Iterable[Reading]) -> Mapping[str, tuple[str, ...]]:
    """The lines of each file by its path, for `Findings.with_lines`."""
    return _LinesByPath(readings)


_LONGEST_COUNTERS = 50
_COUNTERS = pattern(r"\[([0-9]+):([0-9]+)\]$")


def parse_counters(text: str) -> Counters | None:
    """``[packets:bytes]`` as iptables-save prints them; None for anything else."""
    match = _COUNTERS.match(text)
    if match is None or len(text) >= _LONGEST_COUNTERS:
        return None
    return Counters(int(match[1]), int(match[2]))
