"""All ports of a protocol as ranges, each with the clients that reach it.

This module is pure.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from fwguardd.packets.exposure import Reach
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.packets.exposure import Result


@dataclass(frozen=True, slots=True)
class PortReach:
    """Ports from ``first`` to ``last``, and from where they are reached."""

    protocol: str
    first: int
    last: int
    reach: Reach

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.first}/{self.protocol}"
        return f"{self.first}-{self.last}/{self.protocol}"

    def document(self) -> dict[str, Any]:
        """The range as JSON values. The keys are a contract."""
        return {
            "protocol": self.protocol,
            "first": self.first,
            "last": self.last,
            **self.reach.document(),
        }


def merged_ranges(protocol: str, ranges: Sequence[tuple[int, int]], results: Iterable[Result]) -> Iterator[PortReach]:
    """The ranges with what became of the packets to the first port of each; neighbours that are reached alike are one
    range."""
    reaches: dict[int, Reach] = {}
    for result in results:
        port = result.attempt.packet.destination_port or 0
        reaches.setdefault(port, Reach()).add(result)

    def kind(one: tuple[int, int]) -> tuple[str, tuple[str, ...]]:
        reach = reaches.get(one[0], Reach())
        return str(reach), tuple(sorted(reach.forwarded))

    for _, group in groupby(ranges, key=kind):
        alike = list(group)
        yield PortReach(protocol, alike[0][0], alike[-1][1], reaches.get(alike[0][0], Reach()))
