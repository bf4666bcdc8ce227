"""What a change of the rules does to this host: connections that are cut, sockets that are opened or closed, denials.

Each is a packet, which is sent through the ruleset before and through the one after the change. What turns is shown.

This module is pure.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.connections import first_packet, kind_of, next_packets
from fwguardd.packets.denied import packet_of_denial
from fwguardd.packets.journeys import origin_document, origin_of, packet_document, step_in_words
from fwguardd.packets.model import Journey, Packet, Undecided, Verdict
from fwguardd.packets.packet_words import end_in_words
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from fwguardd.packets.endpoints import Connection
    from fwguardd.packets.exposure import Attempt
    from fwguardd.packets.host_routes import HostRoutes
    from fwguardd.packets.model import Step
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]

MOST_CONNECTIONS: Final = 200
MOST_ATTEMPTS: Final = 300
MOST_DENIALS: Final = 100
"""Kinds of connections, packets to sockets, and kinds of denials for which packets are sent."""
MOST_SHOWN: Final = 10
"""Changes of one kind that are printed."""


class Effect(StrEnum):
    """What a change does to a connection, a socket or a denied packet. The value is the key in JSON."""

    CUT = "cut"
    """The next packet of a connection is dropped."""
    NOT_AGAIN = "not_again"
    """A connection goes on, but its first packet would be dropped if it began anew."""
    CLOSED = "closed"
    """A socket cannot be reached any more from a client."""
    OPENED = "opened"
    """A socket can be reached from a client."""
    LET_IN = "let_in"
    """A packet that was denied is accepted."""


class Subject(StrEnum):
    """What a packet is sent for."""

    CONNECTION = "connection"
    AGAIN = "again"
    SOCKET = "socket"
    DENIAL = "denial"


_LOST: Final = {Subject.CONNECTION: Effect.CUT, Subject.AGAIN: Effect.NOT_AGAIN, Subject.SOCKET: Effect.CLOSED}
_GAINED: Final = {Subject.SOCKET: Effect.OPENED, Subject.DENIAL: Effect.LET_IN}
_EFFECTS: Final[Mapping[tuple[bool, bool], Mapping[Subject, Effect]]] = {(True, False): _LOST, (False, True): _GAINED}
"""By whether packets are accepted before and after the change."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A packet, what it is sent for, and that in words. ``client`` is where a packet to a socket comes from."""

    subject: Subject
    name: str
    packet: Packet
    client: str = ""


@dataclass(frozen=True, slots=True)
class Turned:
    """A probe whose verdict the change turns, and the rule that decides after it. ``clients`` are those for which a
    socket turns."""

    effect: Effect
    probe: Probe
    step: Step | None
    clients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes for a change, and what was left out of them, in words."""

    probes: tuple[Probe, ...]
    left_out: tuple[str, ...] = ()

    def __add__(self, other: Probes) -> Probes:
        return Probes(self.probes + other.probes, self.left_out + other.left_out)


@dataclass(frozen=True, slots=True)
class Impact:
    """What a change does. ``sent`` counts the probes by subject; ``undecided`` those that a bed could not decide."""

    turned: tuple[Turned, ...]
    sent: Mapping[Subject, int]
    undecided: int = 0
    left_out: tuple[str, ...] = ()

    def of(self, effect: Effect) -> tuple[Turned, ...]:
        """What has this effect: each connection, socket and denial once, a socket with all clients."""
        found: dict[str, Turned] = {}
        for turned in self.turned:
            if turned.effect is effect:
                first = found.setdefault(turned.probe.name, turned)
                clients = dict.fromkeys((*first.clients, *filter(None, [turned.probe.client])))
                found[turned.probe.name] = replace(first, clients=tuple(clients))
        return tuple(map(_without_families, found.values()))


def connection_probes(connections: Iterable[Connection], routes: HostRoutes) -> Probes:
    """The next packets of each kind of connection, and its first one. Of one kind the first connection is taken. What
    goes to a multicast group is tracked, too, but is no connection."""
    kinds: dict[tuple[object, ...], Connection] = {}
    for connection in connections:
        if not connection.destination.is_multicast:
            kinds.setdefault(kind_of(connection), connection)
    chosen = itertools.islice(kinds.values(), MOST_CONNECTIONS)
    probes = list(map(partial(_of_connection, routes), chosen))
    left_out = (
        *_left_out(len(kinds) - len(probes), "connection"),
        *_unknown(probes.count(())),
    )
    return Probes(tuple(itertools.chain.from_iterable(probes)), left_out)


def _of_connection(routes: HostRoutes, connection: Connection) -> tuple[Probe, ...]:
    name, first = str(connection), first_packet(connection, routes)
    if first is None:
        return ()
    onward = map(partial(Probe, Subject.CONNECTION, name), next_packets(connection, routes))
    return (*onward, Probe(Subject.AGAIN, name, first))


def _left_out(number: int, one: str, many: str = "") -> Iterator[str]:
    if number > 0:
        many = many or f"{one}s"
        yield f"{counted(number, f'more {one}', f'more {many}')} left out"


def _unknown(number: int) -> Iterator[str]:
    if number:
        yield f"{counted(number, 'connection')} left out, as it is not known by which interface they come"


def socket_probes(attempts: Sequence[Attempt]) -> Probes:
    """A packet to each listening socket from each client."""
    versions: dict[str, set[int]] = {}
    for attempt in attempts:
        versions.setdefault(attempt.client.name, set()).add(attempt.client.source.version)
    probes = tuple(map(partial(_socket_probe, versions), attempts[:MOST_ATTEMPTS]))
    left_out = _left_out(len(attempts) - len(probes), "packet to a listening socket", "packets to listening sockets")
    return Probes(probes, tuple(left_out))


def _socket_probe(versions: Mapping[str, Collection[int]], attempt: Attempt) -> Probe:
    """A packet to a socket; a client of both families is named with the one of the packet."""
    assert attempt.listening is not None
    listening, client = attempt.listening, attempt.client.name
    name = f"{listening.port}/{listening.protocol} {listening.program.name}".rstrip()
    if len(versions[client]) > 1:
        client = f"{client}{_OVER}{attempt.client.source.version}"
    return Probe(Subject.SOCKET, name, attempt.packet, client)


_OVER: Final = " over IPv"


def _without_families(turned: Turned) -> Turned:
    """With each client once, and without a family where it is named with both."""
    clients = map(partial(_without_family, turned.clients), turned.clients)
    return replace(turned, clients=tuple(dict.fromkeys(clients)))


def _without_family(clients: Collection[str], client: str) -> str:
    name = client.partition(_OVER)[0]
    if {f"{name}{_OVER}4", f"{name}{_OVER}6"} <= set(clients):
        return name
    return client


def denial_probes(denials: Iterable[Mapping[str, Any]]) -> Probes:
    """A packet for each kind of denial, from the fields of events, with the number of packets that were denied."""
    packets: dict[tuple[object, ...], Packet] = {}
    counts: Counter[tuple[object, ...]] = Counter()
    for fields in denials:
        for packet in filter(None, [packet_of_denial(fields)]):
            key = (packet.protocol, packet.source, packet.destination, packet.destination_port, packet.icmp_type)
            packets.setdefault(key, packet)
            counts[key] += _weight(fields)
    probes = starmap(partial(_denial_probe, packets), counts.most_common(MOST_DENIALS))
    return Probes(tuple(probes), tuple(_left_out(len(counts) - MOST_DENIALS, "kind of denial", "kinds of denials")))


def _denial_probe(packets: Mapping[tuple[object, ...], Packet], key: tuple[object, ...], count: int) -> Probe:
    packet = packets[key]
    target = end_in_words(packet.destination, packet.destination_port)
    name = f"{packet.protocol} {packet.source} → {target}, denied {counted(count, 'time')}"
    return Probe(Subject.DENIAL, name, packet)


def _weight(fields: Mapping[str, Any]) -> int:
    count = fields.get("count", 1)
    if isinstance(count, int):
        return max(count, 1)
    return 1


def impact_of(probes: Probes, before: Sequence[Journey | Undecided], after: Sequence[Journey | Undecided]) -> Impact:
    """What turned. Where fewer journeys were made than there are probes, the rest is left out, and said so."""
    pairs = list(zip(probes.probes, before, after, strict=False))
    turned = list(itertools.chain.from_iterable(starmap(_turned, pairs)))
    undecided = [old for _, old, new in pairs if Undecided in (type(old), type(new))]
    left_out = (*probes.left_out, *_left_out(len(probes.probes) - len(pairs), "packet"))
    sent = Counter(probe.subject for probe, _, _ in pairs)
    return Impact(_without_doubles(turned), sent, len(undecided), left_out)


def _turned(probe: Probe, before: Journey | Undecided, after: Journey | Undecided) -> Iterator[Turned]:
    """What the change does to a probe, if it does anything."""
    if isinstance(before, Journey) and isinstance(after, Journey):
        accepted = before.verdict is Verdict.ACCEPT, after.verdict is Verdict.ACCEPT
        effect = _EFFECTS.get(accepted, {}).get(probe.subject)
        if effect is not None:
            yield Turned(effect, probe, after.deciding)


def _without_doubles(turned: Sequence[Turned]) -> tuple[Turned, ...]:
    """Without the connections that cannot begin anew because they are cut anyway."""
    cut = {(Effect.NOT_AGAIN, one.probe.name) for one in turned if one.effect is Effect.CUT}
    return tuple(one for one in turned if (one.effect, one.probe.name) not in cut)


_PHRASES: Final = {
    Effect.CUT: ("connection would be cut", "connections would be cut"),
    Effect.NOT_AGAIN: ("connection could not be opened again", "connections could not be opened again"),
    Effect.CLOSED: ("socket would be closed", "sockets would be closed"),
    Effect.OPENED: ("socket would be opened", "sockets would be opened"),
    Effect.LET_IN: ("denied packet would be let in", "denied packets would be let in"),
}


def impact_sentence(impact: Impact) -> str:
    """One sentence with the numbers."""
    parts: list[str] = []
    for effect, (one, many) in _PHRASES.items():
        number = len(impact.of(effect))
        if number:
            parts.append(counted(number, one, many))
    if not parts:
        return f"Nothing would be cut, closed, opened or let in: {_sent(impact)} tried."
    return f"{', '.join(parts)} ({_sent(impact)} tried)."


def _sent(impact: Impact) -> str:
    return counted(sum(impact.sent.values()), "packet")


def turned_in_words(turned: Turned, rulesets: Rulesets) -> str:
    """What is turned, for whom, and by which rule."""
    words = turned.probe.name
    if turned.clients:
        words = f"{words}, for {', '.join(turned.clients)}"
    if turned.step is None:
        return words
    return f"{words}: {step_in_words(turned.step, rulesets[turned.probe.packet.family])}"


def impact_document(impact: Impact, rulesets: Rulesets) -> dict[str, Any]:
    """The impact as JSON values. The keys are a contract. ``rulesets`` are those after the change."""
    document: dict[str, Any] = {"sentence": impact_sentence(impact)}
    for effect in Effect:
        document[effect.value] = [_turned_document(turned, rulesets) for turned in impact.of(effect)]
    sent = {subject.value: impact.sent.get(subject, 0) for subject in Subject}
    return document | {"sent": sent, "undecided": impact.undecided, "left_out": list(impact.left_out)}


def _turned_document(turned: Turned, rulesets: Rulesets) -> dict[str, Any]:
    origin = None
    if turned.step is not None:
        origin = origin_of(turned.step, rulesets[turned.probe.packet.family])
    name = {"name": turned.probe.name, "clients": list(turned.clients)}
    return {**name, "packet": packet_document(turned.probe.packet), **origin_document(origin)}
