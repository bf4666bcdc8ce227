"""What a change of the rules does to this host, measured: probes are sent through the rules before and after it.

The probes are the connections that the kernel tracks, the listening sockets, and denials. What takes too long is left
out, and said so.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.enforce.proof import loaded_around
from fwguardd.kernel.conntrack import tracked_connections
from fwguardd.kernel.iptables import KernelError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.kernel.sockets import listening_sockets
from fwguardd.packets.clients import clients_of
from fwguardd.packets.exposure import attempts_on
from fwguardd.packets.host_routes import host_routes
from fwguardd.packets.impact import (
    Effect,
    Probes,
    connection_probes,
    denial_probes,
    impact_of,
    impact_sentence,
    socket_probes,
    turned_in_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from fwguardd.enforce.context import Context
    from fwguardd.enforce.prover import Prover
    from fwguardd.enforce.state import State
    from fwguardd.enforce.validate import Valid
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
MOST_REPORTED: Final = 50
"""Connections and sockets that an event lists."""
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


def measure_impact(
    probes: Probes, before: Rulesets, after: Rulesets, open_bed: OpenBed, open_after: OpenBed | None = None
) -> Impact:
    """Send the probes through both rulesets; ``open_after`` makes the second bed, where its sets are others. Raises
    NamespaceError."""
    packets = [probe.packet for probe in probes.probes]
    with open_bed(before) as bed:
        journeys_before = send_for(SENDING_SECONDS, packets, bed)
    with (open_after or open_bed)(after) as bed:
        journeys_after = send_for(SENDING_SECONDS, packets[: len(journeys_before)], bed)
    return impact_of(probes, journeys_before, journeys_after)


def report_impact(context: Context, state: State, accepted: Valid) -> None:
    """Emit what loading accepted files does to connections and sockets. The files are loaded also where this cannot
    be measured: the event then says why."""
    if context.prover is None:
        return
    try:
        impact, after = _impact_of_files(context, context.prover, state, accepted)
    except (KernelError, NamespaceError, OSError) as error:
        context.emit(events.IMPACT, f"the impact of the change could not be measured: {error}")
        return
    turned = [turned_in_words(turned, after) for effect in Effect for turned in impact.of(effect)]
    context.emit(
        events.IMPACT,
        f"before the change is loaded: {impact_sentence(impact)}",
        cut=len(impact.of(Effect.CUT)),
        not_again=len(impact.of(Effect.NOT_AGAIN)),
        closed=len(impact.of(Effect.CLOSED)),
        opened=len(impact.of(Effect.OPENED)),
        undecided=impact.undecided,
        turned=turned[:MOST_REPORTED],
        left_out=[*impact.left_out, *_more(len(turned) - MOST_REPORTED)],
    )


def _impact_of_files(context: Context, prover: Prover, state: State, accepted: Valid) -> tuple[Impact, Rulesets]:
    """The impact, and the rulesets after the load. Raises KernelError, NamespaceError and OSError."""
    host = prover.read_host()
    live, after = loaded_around(context, state, accepted)
    probes = probes_of_host(host_routes(host), after, ())
    return measure_impact(probes, live, after, lambda rulesets: prover.beds.prove(rulesets, host)), after


def _more(number: int) -> Iterator[str]:
    if number > 0:
        yield f"{number} more that turn are not listed"


def send_for(seconds: float, packets: Sequence[Packet], bed: Bed) -> list[Journey | Undecided]:
    """The journeys of packets, in order; those for which the time does not suffice are left out."""
    end = time.monotonic() + seconds
    journeys: list[Journey | Undecided] = []
    for start in itertools.takewhile(lambda _: time.monotonic() < end, range(0, len(packets), _AT_ONCE)):
        journeys += bed.send(packets[start : start + _AT_ONCE])
    return journeys
