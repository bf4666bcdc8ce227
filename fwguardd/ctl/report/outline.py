"""A report as values, before it is text or HTML: a headline, facts, what needs attention, and sections of blocks.

Every text is plain: the forms escape it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping


class Tone(Enum):
    """How something is to be taken."""

    PLAIN = "plain"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class Fact:
    """One of the facts at the top: its name, its value, which is short, and words beside it."""

    name: str
    value: str
    words: str = ""
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that needs attention, and the command or the advice that goes on from there."""

    tone: Tone
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. The cells of a code column are names, addresses, rules or files."""

    title: str
    number: bool = False
    code: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its cells, and lines below it that explain it."""

    cells: tuple[str, ...]
    detail: tuple[str, ...] = ()
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table; ``left_out`` says what is not in it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class RankedPlace:
    """One place of a ranking, and a short text beside it."""

    name: str
    count: int
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The highest counts of something, as bars. ``total`` is the count of all; ``beside`` the title of the texts, and
    ``unit`` of the counts."""

    title: str
    places: tuple[RankedPlace, ...]
    total: int
    beside: str = ""
    note: str = ""
    unit: str = "packets"


class MarkKind(Enum):
    """What a mark on the line of time is about."""

    REVISION = "revision"
    OPEN = "open"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class TimelineMark:
    """Something that happened at a time, to be shown with the denials."""

    when: int
    kind: MarkKind
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Packets of each hour. Times are local, in seconds as if there were no zones; ``counts`` has hours by their
    begin, longer intervals where the period has very many hours."""

    since: int
    until: int
    counts: Mapping[int, int]
    marks: tuple[TimelineMark, ...] = ()

    @property
    def total(self) -> int:
        """All packets."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence between other blocks."""

    text: str
    tone: Tone = Tone.PLAIN


Block: TypeAlias = ReportTable | Ranking | Timeline | Sentence


@dataclass(frozen=True, slots=True)
class Section:
    """A section: a key for links, its title, a sentence that says the most important, and blocks."""

    key: str
    title: str
    lead: str
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """A report."""

    host: str
    period: str
    made: str
    state: str
    headline: str
    tone: Tone
    facts: tuple[Fact, ...]
    notices: tuple[Notice, ...]
    sections: tuple[Section, ...] = field(default=())
