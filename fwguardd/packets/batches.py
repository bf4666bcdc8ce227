"""Which packets are sent together into a bed: no packet may meet the connection of another one.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.packets.model import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwguardd.packets.model import Packet


def batches(packets: Sequence[Packet], size: int) -> Iterator[list[int]]:
    """The places of the packets of each batch, which has at most so many. Those with entries come after the others,
    one by one if they share a connection."""
    plain: list[int] = []
    stateful: list[int] = []
    for place, packet in enumerate(packets):
        if packet.state in (ConnectionState.NEW, ConnectionState.UNTRACKED):
            plain.append(place)
        else:
            stateful.append(place)
    for start in range(0, len(plain), size):
        yield plain[start : start + size]
    yield from _without_shared_connections(packets, stateful, size)


def _without_shared_connections(packets: Sequence[Packet], places: Sequence[int], size: int) -> Iterator[list[int]]:
    batch: list[int] = []
    taken: set[object] = set()
    for place in places:
        keys = _connection_keys(packets[place])
        if len(batch) == size or taken & keys:
            yield batch
            batch, taken = [], set()
        batch.append(place)
        taken |= keys
    if batch:
        yield batch


def _connection_keys(packet: Packet) -> set[object]:
    """What two packets of one connection, in any direction, have in common."""
    ends = frozenset({(packet.source, packet.source_port), (packet.destination, packet.destination_port)})
    return {(packet.protocol, ends)}
