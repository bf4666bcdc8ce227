"""What a change of the rules does to this host, measured: probes are sent through the rules before and after it.

The probes are the connections that the kernel tracks, the listening sockets, and denials. What takes too long is left
out, and said so.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, Final

from fwguardd.kernel.conntrack import tracked_connections
from fwguardd.kernel.sockets import listening_sockets
from fwguardd.packets.clients import clients_of
from fwguardd.packets.exposure import attempts_on
from fwguardd.packets.impact import Probes, connection_probes, denial_probes, impact_of, socket_probes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from fwguardd.packets.bed import Bed
    from fwguardd.packets.host_routes import HostRoutes
    from fwguardd.packets.impact import Impact
    from fwguardd.packets.model import Journey, Packet, Undecided
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]
    OpenBed = Callable[[Rulesets], AbstractContextManager[Bed]]

MOST_TRACKED: Final = 20_000
"""Connections that are read; of these, each kind is tried once."""
SENDING_SECONDS: Final = 1.0
"""The longest that packets are sent through one ruleset. 300 packets take 0.1 s."""
_AT_ONCE: Final = 50


def probes_of_host(routes: HostRoutes, rulesets: Rulesets, denials: Iterable[Mapping[str, Any]]) -> Probes:
    """The probes for a change to these rulesets: connections first, then sockets, then these denials."""
    return _connections(routes) + _sockets(routes, rulesets) + denial_probes(denials)


def _connections(routes: HostRoutes) -> Probes:
    try:
        connections, more = tracked_connections(MOST_TRACKED)
    except OSError as error:
        return Probes((), (f"the tracked connections cannot be read: {error.strerror}",))
    probes = connection_probes(connections, routes)
    if more:
        probes += Probes((), (f"{more:,} more connections left out",))
    return probes


def _sockets(routes: HostRoutes, rulesets: Rulesets) -> Probes:
    try:
        sockets = listening_sockets()
    except OSError as error:
        return Probes((), (f"the listening sockets cannot be listed: {error.strerror}",))
    clients, notes = clients_of(routes, rulesets)
    probes = socket_probes(list(attempts_on(sockets, clients, routes)))
    return probes + Probes((), notes)


def measure_impact(probes: Probes, before: Rulesets, after: Rulesets, open_bed: OpenBed) -> Impact:
    """Send the probes through both rulesets. Raises NamespaceError."""
    packets = [probe.packet for probe in probes.probes]
    with open_bed(before) as bed:
        journeys_before = send_for(SENDING_SECONDS, packets, bed)
    with open_bed(after) as bed:
        journeys_after = send_for(SENDING_SECONDS, packets[: len(journeys_before)], bed)
    return impact_of(probes, journeys_before, journeys_after)


def send_for(seconds: float, packets: Sequence[Packet], bed: Bed) -> list[Journey | Undecided]:
    """The journeys of packets, in order; those for which the time does not suffice are left out."""
    end = time.monotonic() + seconds
    journeys: list[Journey | Undecided] = []
    for start in itertools.takewhile(lambda _: time.monotonic() < end, range(0, len(packets), _AT_ONCE)):
        journeys += bed.send(packets[start : start + _AT_ONCE])
    return journeys
