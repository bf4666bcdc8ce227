"""What a report is made of: the answers of the daemon, what the journal has, and what packets have shown.

A part that could not be had is `MissingPart`, with the reason: a report never takes it for empty.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.control.documents import HistoryDocument, RuleCountDocument, StatusDocument
    from fwguardd.ctl.exposure import Exposure
    from fwguardd.ctl.report.account import Account


@dataclass(frozen=True, slots=True)
class MissingPart:
    """A part that could not be had, and why."""

    reason: str


NO_DAEMON = "Not known, because the daemon did not answer: see above."
NO_JOURNAL = "Not known, because the journal could not be read: see above."
"""What a section says in place of a part that is not known; the reason stands at the top of the report."""


@dataclass(frozen=True, slots=True)
class SetFact:
    """A set that is loaded: its entries, when its file was written, in seconds since 1970 (None where it is not known),
    and how often its list is fetched, in seconds; None for a set file."""

    name: str
    entries: int
    written: float | None
    every: float | None


Rules: TypeAlias = "list[RuleCountDocument]"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report says. ``since`` and ``now`` are in seconds since 1970. ``journal_begins`` is the time of the
    oldest entry of the journal, if that is later than ``since``; ``users`` are the names of user ids."""

    host: str
    version: str
    since: float
    now: float
    status: StatusDocument | MissingPart
    history: HistoryDocument | MissingPart
    rules: Rules | MissingPart
    sets: tuple[SetFact, ...] | MissingPart
    account: Account | MissingPart
    exposure: Exposure | MissingPart
    journal_begins: float | None = None
    users: Mapping[str, str] = field(default_factory=dict)
