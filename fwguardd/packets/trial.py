"""A trial of rules that are not in force: what they would have done to each new connection of this host.

This module is pure.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.connections import first_packet, kind_of
from fwguardd.packets.journeys import verdict_in_words
from fwguardd.packets.model import Journey, Undecided, Verdict
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.packets.bed import Bed
    from fwguardd.packets.endpoints import Connection
    from fwguardd.packets.host_routes import HostRoutes
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]
    _Kind = tuple[object, ...]

MOST_REMEMBERED: Final = 10_000
"""Kinds of connections whose verdict is remembered, so that each is sent once."""
MOST_LISTED: Final = 1_000
"""Kinds of connections that would have been dropped which are kept for the result."""


@dataclass(slots=True)
class Dropped:
    """A kind of connection that the candidate drops: the first one, how often it came, and the rule, in words."""

    name: str
    words: str
    times: int = 0

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"

    def document(self) -> dict[str, Any]:
        """It as JSON values. The keys are a contract."""
        return {"connection": self.name, "sentence": self.words, "times": self.times}


@dataclass(slots=True)
class Trial:
    """The connections so far. ``rulesets`` are those of the candidate, which is loaded in the bed."""

    bed: Bed
    rulesets: Rulesets
    routes: HostRoutes
    connections: int = 0
    undecided: int = 0
    unknown: int = 0
    dropped: dict[_Kind, Dropped] = field(default_factory=dict)
    left_out: int = 0
    _known: OrderedDict[_Kind, Journey | Undecided | None] = field(default_factory=OrderedDict)

    @property
    def dropped_connections(self) -> int:
        """How many connections would have been dropped."""
        return self.left_out + sum(one.times for one in self.dropped.values())

    def add(self, connections: Iterable[Connection]) -> Iterator[Dropped]:
        """Try new connections; those kinds of them that are dropped for the first time."""
        for connection in connections:
            self.connections += 1
            yield from self._try(connection)

    def _try(self, connection: Connection) -> Iterator[Dropped]:
        journey = self._journey(connection)
        if journey is None:
            self.unknown += 1
        elif isinstance(journey, Undecided):
            self.undecided += 1
        elif journey.verdict is not Verdict.ACCEPT:
            yield from self._drop(connection, journey)

    def _journey(self, connection: Connection) -> Journey | Undecided | None:
        """What becomes of a connection; None where it is not known by which interface it comes."""
        kind = kind_of(connection)
        if kind not in self._known:
            self._known[kind] = self._send(connection)
            if len(self._known) > MOST_REMEMBERED:
                self._known.popitem(last=False)
        return self._known[kind]

    def _send(self, connection: Connection) -> Journey | Undecided | None:
        packet = first_packet(connection, self.routes)
        if packet is None:
            return None
        return self.bed.send([packet])[0]

    def _drop(self, connection: Connection, journey: Journey) -> Iterator[Dropped]:
        kind = kind_of(connection)
        if kind not in self.dropped:
            if len(self.dropped) == MOST_LISTED:
                self.left_out += 1
                return
            self.dropped[kind] = Dropped(str(connection), verdict_in_words(journey, self.rulesets))
            yield self.dropped[kind]
        self.dropped[kind].times += 1

    def sentence(self) -> str:
        """The result in one sentence."""
        number = self.dropped_connections or "none"
        return f"Of {counted(self.connections, 'new connection')} {number} would have been dropped."

    def document(self) -> dict[str, Any]:
        """The result as JSON values. The keys are a contract."""
        return {
            "sentence": self.sentence(),
            "connections": self.connections,
            "dropped_connections": self.dropped_connections,
            "dropped": [one.document() for one in self.dropped.values()],
            "undecided": self.undecided,
            "unknown": self.unknown,
        }
