"""What a rule file says, line by line: the statements that reading yields and composing consumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import ZERO, Counters, Family, Finding, Origin

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class TableStart:
    """``*table``: the statements after it belong to this table."""

    table: str
    families: frozenset[Family]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Declaration:
    """``:CHAIN POLICY [packets:bytes]``, ``-N CHAIN`` or ``-P CHAIN TARGET``. ``policy`` is None where none is said."""

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
class Reading:
    """One rule file, read: its statements in order, what is wrong with it, and what it asks not to be told.

    ``allowed`` maps a line number to the codes of the warnings that its author has silenced for that line.
    """

    path: str
    statements: tuple[Statement, ...]
    findings: tuple[Finding, ...]
    lines: tuple[str, ...] = field(repr=False)
    allowed: Mapping[int, frozenset[str]]

    def line(self, number: int) -> str:
        """The line as written, counted from 1; empty for a line that the file does not have."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""
