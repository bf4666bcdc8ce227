"""Drift in a period: what was changed, by whom, and whether it was repaired.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.ctl.report.authors import UNKNOWN, author
from fwguardd.ctl.report.changes import shortened
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.ctl.report.account import Happening

_KINDS: Final = {
    events.DRIFT.name: "",
    events.FIGHT.name: "fight: repairs suspended",
    events.HIDDEN.name: "rules that iptables cannot show",
    events.OTHERS_UNDECIDED.name: "rules to be decided about",
    events.UNVERIFIED.name: "kernel not readable",
}
_ENDED_BY: Final = {events.REPAIRED.name: events.DRIFT.name, events.VERIFIED.name: events.UNVERIFIED.name}
"""The event that ends another one."""


@dataclass(frozen=True, slots=True)
class Episode:
    """A change of the rules by another program: when, in seconds since 1970, by whom and with which command, what it
    changed, and when it was repaired, None if no repair is known. ``kind`` is "" for drift, else words."""

    name: str
    when: float
    kind: str
    author: str
    command: str
    changes: int
    differences: tuple[str, ...]
    message: str
    repaired: float | None = None

    def document(self) -> dict[str, Any]:
        """The episode as JSON values. The keys are a contract."""
        return {
            "event": self.name,
            "when": self.when,
            "author": self.author,
            "command": self.command,
            "changes": self.changes,
            "differences": list(self.differences),
            "message": self.message,
            "repaired": self.repaired,
        }


def episodes_of(happenings: Iterable[Happening]) -> list[Episode]:
    """The episodes, oldest first. A repair ends all drift before it: it loads the whole revision."""
    found: list[Episode] = []
    for happening in happenings:
        if happening.name in _ENDED_BY:
            _end(found, _ENDED_BY[happening.name], happening.when)
        else:
            found.append(_episode(happening))
    return found


def _end(found: list[Episode], name: str, when: float) -> None:
    """Episodes of one name that are not ended yet, the newest ones, end now."""
    for place in range(len(found) - 1, -1, -1):
        if found[place].name == name:
            if found[place].repaired is not None:
                return
            found[place] = replace(found[place], repaired=when)


def _episode(happening: Happening) -> Episode:
    fields = happening.fields
    return Episode(
        happening.name,
        happening.when,
        _KINDS.get(happening.name, happening.name),
        author(fields) or UNKNOWN,
        str(fields.get("culprit_command", "")),
        _number(fields.get("changes")),
        _texts(fields.get("difference")) or _texts(fields.get("others")),
        shortened(happening.message),
    )


def _number(value: object) -> int:
    if isinstance(value, int):
        return value
    return 0


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return tuple(map(shortened, value))
    return ()


def by_author(episodes: Iterable[Episode]) -> list[tuple[str, int]]:
    """How often each author changed the rules, the most frequent first."""
    counts = Counter(map(attrgetter("author"), episodes))
    return counts.most_common()
