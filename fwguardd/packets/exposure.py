"""Who can reach the listening sockets of a host: packets from each client to each socket, and what became of them.

This module is pure.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, field
from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.clients import ANYWHERE, THIS_HOST
from fwguardd.packets.journeys import ends_at, last_view, origin_document, origin_of
from fwguardd.packets.model import Journey, Packet, Undecided, Verdict
from fwguardd.packets.packet_words import CLIENT_PORT, end_in_words
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from fwguardd.packets.clients import Client
    from fwguardd.packets.endpoints import ListeningSocket
    from fwguardd.packets.host_routes import HostRoutes
    from fwguardd.packets.model import Step
    from fwguardd.ruleset.model import Family, Origin, Ruleset

    Address = IPv4Address | IPv6Address
    Rulesets = Mapping[Family, Ruleset]

NOBODY: Final = "nobody"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A packet from a client to a port of this host; ``listening`` is the socket that it is for, if there is one."""

    client: Client
    packet: Packet
    listening: ListeningSocket | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an attempt."""

    attempt: Attempt
    journey: Journey | Undecided

    @property
    def reached(self) -> bool:
        """Whether the packet was accepted."""
        return isinstance(self.journey, Journey) and self.journey.verdict is Verdict.ACCEPT

    @property
    def deciding(self) -> Step | None:
        """The rule or policy that decided; of an undecided packet, the one to blame."""
        if isinstance(self.journey, Undecided):
            return self.journey.step
        return self.journey.deciding


def attempts_on(sockets: Iterable[ListeningSocket], clients: Sequence[Client], routes: HostRoutes) -> Iterator[Attempt]:
    """A packet to each socket from each client that can send to it."""
    for listening, client in itertools.product(sockets, clients):
        destination = _destination(listening, client, routes)
        if destination is not None and _can_send(client, destination, listening):
            yield Attempt(client, packet_from(client, listening.protocol, destination, listening.port), listening)


def _destination(listening: ListeningSocket, client: Client, routes: HostRoutes) -> Address | None:
    """The address that a packet from a client to a socket has."""
    if listening.takes_any_address:
        return own_address_towards(client, routes)
    return listening.address


def _can_send(client: Client, destination: Address, listening: ListeningSocket) -> bool:
    """Whether packets from a client can come to a socket at all. To a loopback address none come from elsewhere: the
    kernel drops them as martians (ip_route_input_slow())."""
    from_elsewhere = destination.is_loopback and client.name != THIS_HOST
    if from_elsewhere or listening.interface not in ("", client.interface):
        return False
    return listening.takes(destination) and destination.version == client.source.version


def own_address_towards(client: Client, routes: HostRoutes) -> Address | None:
    """The address of this host that a client sends to."""
    if client.name == THIS_HOST:
        return client.source
    version = client.source.version
    return routes.address_on(client.interface, version) or routes.any_address(version)


def packet_from(client: Client, protocol: str, destination: Address, port: int) -> Packet:
    """The first packet of a connection from a client."""
    source = client.source
    if client.name == THIS_HOST:
        source = destination
    return Packet(client.family, protocol, source, destination, CLIENT_PORT, port, in_interface=client.interface)


@dataclass(slots=True)
class Reach:
    """From where something is reached: the names of clients, each with the versions of IP over which it is so.
    ``forwarded`` are the addresses to which NAT sends the packets, where these are not of this host."""

    accepted: dict[str, set[int]] = field(default_factory=dict)
    refused: dict[str, set[int]] = field(default_factory=dict)
    undecided: dict[str, str] = field(default_factory=dict)
    forwarded: set[str] = field(default_factory=set)

    def add(self, result: Result) -> None:
        """Count one result."""
        client = result.attempt.client
        if isinstance(result.journey, Undecided):
            self.undecided[client.name] = result.journey.because
        elif result.reached:
            self.accepted.setdefault(client.name, set()).add(client.source.version)
            self._add_target(result.journey)
        else:
            self.refused.setdefault(client.name, set()).add(client.source.version)

    def _add_target(self, journey: Journey) -> None:
        if journey.routed not in ("", "local"):
            ends = ends_at(last_view(journey), journey.packet)
            self.forwarded.add(end_in_words(ends.destination, ends.destination_port))

    @property
    def others(self) -> tuple[str, ...]:
        """The clients other than this host that reach it."""
        return tuple(name for name in _names(self.accepted, self.refused) if not name.startswith(THIS_HOST))

    @property
    def refuses_others(self) -> bool:
        """Whether a client other than this host was tried and does not reach it."""
        return any(not name.startswith(THIS_HOST) for name in self.refused)

    def __str__(self) -> str:
        """`anywhere`, `anywhere but 10.0.0.0/8`, `10.1.0.0/16`, `anywhere over IPv4`, `nobody but this host`, `nobody`,
        `undecided`."""
        if ANYWHERE not in self.accepted or ANYWHERE in self.refused:
            return ", ".join(self.others) or self._without_others()
        refused = ", ".join(_names(self.refused, self.accepted))
        return " but ".join(filter(None, (ANYWHERE, refused)))

    def _without_others(self) -> str:
        if self.undecided:
            return "undecided"
        if self.accepted:
            return f"{NOBODY} but {THIS_HOST}"
        return NOBODY

    def document(self) -> dict[str, Any]:
        """It as JSON values. The keys are a contract."""
        return {
            "reachable_from": list(_names(self.accepted, self.refused)),
            "not_reachable_from": list(_names(self.refused, self.accepted)),
            "undecided": self.undecided,
            "forwarded_to": sorted(self.forwarded),
        }


def _names(clients: Mapping[str, Collection[int]], others: Container[str]) -> Iterator[str]:
    """The names, with the version of IP of a client for which the other one is among the others."""
    for name, versions in clients.items():
        if name in others:
            yield f"{name} over IPv{max(versions)}"
        else:
            yield name


@dataclass(frozen=True, slots=True)
class ExposedSocket:
    """A listening socket, and from where it is reached. ``reach`` is empty for one that is bound to loopback."""

    listening: ListeningSocket
    reach: Reach
    deciding: Step | None
    origin: Origin | None

    @property
    def loopback_only(self) -> bool:
        """Whether it takes packets of this host only, whatever the rules are."""
        return self.listening.address.is_loopback

    @property
    def closed(self) -> bool:
        """Whether the rules keep all others from it: not where no other host has a way to it, as over an IPv6 without
        addresses."""
        reached = self.loopback_only or self.reach.others or self.reach.undecided
        return self.reach.refuses_others and not reached

    @property
    def open_to_all(self) -> bool:
        """Whether it is reached from anywhere."""
        return ANYWHERE in self.reach.accepted and not self.loopback_only

    def document(self) -> dict[str, Any]:
        """The socket as JSON values. The keys are a contract; a program that is not known has an empty name."""
        return {
            "protocol": self.listening.protocol,
            "address": str(self.listening.address),
            "port": self.listening.port,
            "program": asdict(self.listening.program),
            "loopback_only": self.loopback_only,
            "closed": self.closed,
            **self.reach.document(),
            **origin_document(self.origin),
        }


def exposed(results: Iterable[Result], rulesets: Rulesets) -> tuple[ExposedSocket, ...]:
    """The sockets in order, each with what became of the packets to it."""
    found: dict[ListeningSocket, list[Result]] = {}
    for result in results:
        if result.attempt.listening is not None:
            found.setdefault(result.attempt.listening, []).append(result)
    return tuple(_exposed(listening, of_it, rulesets) for listening, of_it in found.items())


def _exposed(listening: ListeningSocket, results: Sequence[Result], rulesets: Rulesets) -> ExposedSocket:
    """A socket with the rule of the widest client that reaches it, or else of the widest that does not."""
    reach = Reach()
    for result in results:
        reach.add(result)
    shown = min(results, key=_rank)
    return ExposedSocket(listening, reach, shown.deciding, _origin(shown, rulesets))


def _rank(result: Result) -> tuple[bool, bool, bool]:
    name = result.attempt.client.name
    return name == THIS_HOST, not result.reached, name != ANYWHERE


def _origin(result: Result, rulesets: Rulesets) -> Origin | None:
    if result.deciding is None:
        return None
    return origin_of(result.deciding, rulesets[result.attempt.packet.family])


@dataclass(slots=True)
class OpenRule:
    """A rule that accepts packets to ports on which no program listens, with the ports and from where."""

    step: Step
    origin: Origin | None
    ports: dict[str, None]
    reach: Reach

    def document(self) -> dict[str, Any]:
        """The rule as JSON values. The keys are a contract."""
        return {
            **origin_document(self.origin),
            "table": self.step.table,
            "chain": self.step.chain,
            "position": self.step.position,
            "ports": list(self.ports),
            **self.reach.document(),
        }


Port = tuple[str, int]
"""Protocol and port."""


def open_without_listener(
    results: Iterable[Result], taken: Container[Port], rulesets: Rulesets
) -> tuple[OpenRule, ...]:
    """The rules that accept packets to ports on which no program listens; ``taken`` are those on which one does. What
    both families have in one line is one rule. A policy is not a rule that opens a port."""
    found: dict[object, OpenRule] = {}
    for result in results:
        step = result.deciding
        if step is not None and step.position is not None and _is_unheard(result, taken):
            origin = _origin(result, rulesets)
            opened = found.setdefault(origin or _place(result, step), OpenRule(step, origin, {}, Reach()))
            opened.ports[f"{result.attempt.packet.destination_port}/{result.attempt.packet.protocol}"] = None
            opened.reach.add(result)
    return tuple(found.values())


def _place(result: Result, step: Step) -> object:
    return result.attempt.packet.family, step.table, step.chain, step.position


def _is_unheard(result: Result, taken: Container[Port]) -> bool:
    """Whether a packet is accepted, and NAT does not send it to a port of this host on which a program listens."""
    if not isinstance(result.journey, Journey) or result.journey.verdict is not Verdict.ACCEPT:
        return False
    packet = result.attempt.packet
    port = ends_at(last_view(result.journey), packet).destination_port
    return result.journey.routed != "local" or (packet.protocol, port) not in taken
