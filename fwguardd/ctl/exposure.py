"""The verb exposure: who can reach the listening sockets of this host, by packets through the rules in force."""

from __future__ import annotations

import itertools
import json
from itertools import filterfalse
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.beds import HostBeds, beds_of
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.explain_lines import wrapped
from fwguardd.ctl.exposure_lines import exposure_lines, port_lines
from fwguardd.ctl.offline_verbs import input_of
from fwguardd.ctl.ruleset_sources import RulesetSource, rules_in_force
from fwguardd.ctl.verb_options import add_config, add_json, add_socket, describe
from fwguardd.errors import ReportedError
from fwguardd.kernel.sockets import listening_sockets
from fwguardd.packets.clients import THIS_HOST, clients_of
from fwguardd.packets.exposure import (
    Attempt,
    Result,
    attempts_on,
    exposed,
    open_without_listener,
    own_address_towards,
    packet_from,
)
from fwguardd.packets.named_ports import LAST_PORT, named_ports
from fwguardd.packets.port_ranges import PortReach, merged_ranges
from fwguardd.values import dataclass

if TYPE_CHECKING:
    import argparse
    from collections.abc import Container, Iterable, Iterator, Sequence

    from fwguardd.packets.bed import Bed
    from fwguardd.packets.clients import Client
    from fwguardd.packets.endpoints import ListeningSocket
    from fwguardd.packets.exposure import ExposedSocket, OpenRule, Port
    from fwguardd.packets.host_routes import HostRoutes

DONE: Final = 0
PROTOCOLS: Final = ("tcp", "udp")


class SocketsUnreadableError(ReportedError):
    """The kernel does not list the sockets."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is exposed: sockets, rules that open ports where no program listens, with --all-ports all ports."""

    sockets: tuple[ExposedSocket, ...]
    open_rules: tuple[OpenRule, ...]
    ports: tuple[PortReach, ...]
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The exposure as JSON values. The keys are a contract."""
        return {
            "sockets": _documents(self.sockets),
            "open_without_listener": _documents(self.open_rules),
            "ports": _documents(self.ports),
            "notes": list(self.notes),
        }


def _documents(parts: Iterable[ExposedSocket | OpenRule | PortReach]) -> list[dict[str, Any]]:
    return [part.document() for part in parts]


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    description = (
        "List the listening sockets of this host with program, user and unit, and from where each can be reached: this "
        "host, the network of an interface, a network that a rule names, or anywhere. Packets are sent through the "
        "rules in force in a temporary network namespace, not on the network. Also listed are sockets that the rules "
        "keep all others from, and rules that open a port on which no program listens. This needs root."
    )
    examples = (
        ("fwguardctl exposure", "the listening sockets"),
        ("fwguardctl exposure --all-ports", "all ports of TCP and UDP"),
        ("fwguardctl exposure --json", "the same for programs"),
    )
    describe(parser, description, examples)
    add_json(parser)
    add_config(parser)
    add_socket(parser)
    parser.add_argument("--backend", choices=("auto", "nft", "legacy"), help="iptables backend of the rules in force")
    parser.add_argument("--all-ports", action="store_true", help="also list from where each port can be reached")


def run(options: argparse.Namespace) -> int:
    """Find out and print; the exit code. Raises ReportedError."""
    options.rules_dir = None
    source = input_of(options)
    rules = rules_in_force(source, socket_path_of(options))
    with beds_of(options) as beds:
        found = examine(rules, beds, all_ports=options.all_ports)
    if options.json:
        print(json.dumps(found.document()))
    else:
        print("\n".join(_lines(found, AnswerPainter())))
    return DONE


def _lines(found: Exposure, ink: AnswerPainter) -> Iterator[str]:
    yield from exposure_lines(found.sockets, found.open_rules, ink)
    yield from port_lines(found.ports, ink)
    for note in found.notes:
        yield from wrapped(f"note: {note}", "")


def examine(rules: RulesetSource, beds: HostBeds, *, all_ports: bool) -> Exposure:
    """Send the packets. Raises SocketsUnreadableError and NamespaceError."""
    sockets, routes = _sockets(), beds.routes
    clients, notes = clients_of(routes, rules.rulesets)
    attempts = list(attempts_on(sockets, clients, routes))
    taken = {(one.protocol, one.port) for one in sockets if not one.address.is_loopback}
    unused = list(_without_listener(taken, clients, routes, rules))
    with beds.open(rules.rulesets) as bed:
        results = send(attempts, bed)
        opened = open_without_listener(send(unused, bed), taken, rules.rulesets)
        ports: tuple[PortReach, ...] = ()
        if all_ports:
            ports = tuple(_all_ports(clients, routes, rules, bed))
    every_note = (*rules.notes, *notes, *_opaque_notes(rules, ports), *beds.notes())
    return Exposure(exposed(results, rules.rulesets), opened, ports, every_note)


def _sockets() -> tuple[ListeningSocket, ...]:
    try:
        return listening_sockets()
    except OSError as error:
        raise SocketsUnreadableError(f"the listening sockets cannot be listed: {error.strerror}") from error


def send(attempts: Sequence[Attempt], bed: Bed) -> list[Result]:
    """What becomes of each attempt. Raises NamespaceError."""
    journeys = bed.send([attempt.packet for attempt in attempts])
    return list(map(Result, attempts, journeys))


def _without_listener(
    taken: Container[Port], clients: Sequence[Client], routes: HostRoutes, rules: RulesetSource
) -> Iterator[Attempt]:
    """Packets from elsewhere to the ports that rules name and on which no program listens."""
    for protocol in PROTOCOLS:
        named = itertools.product([protocol], named_ports(rules.rulesets, protocol).single())
        for port in filterfalse(taken.__contains__, named):
            yield from _to_port(*port, clients, routes)


def _to_port(protocol: str, port: int, clients: Iterable[Client], routes: HostRoutes) -> Iterator[Attempt]:
    """A packet from each client other than this host to a port."""
    for client in clients:
        destination = own_address_towards(client, routes)
        if destination is not None and client.name != THIS_HOST:
            yield Attempt(client, packet_from(client, protocol, destination, port))


def _all_ports(clients: Sequence[Client], routes: HostRoutes, rules: RulesetSource, bed: Bed) -> Iterator[PortReach]:
    """From where all ports are reached: a packet to one of each range that the rules treat alike."""
    for protocol in PROTOCOLS:
        ranges = list(_ranges(protocol, rules))
        attempts: list[Attempt] = []
        for first, _ in ranges:
            attempts += _to_port(protocol, first, clients, routes)
        yield from merged_ranges(protocol, ranges, send(attempts, bed))


def _ranges(protocol: str, rules: RulesetSource) -> Iterator[tuple[int, int]]:
    """The ranges of ports that are alike; each port by itself where a rule tells ports apart in an unknown way."""
    named = named_ports(rules.rulesets, protocol)
    if named.opaque:
        return zip(range(1, LAST_PORT + 1), range(1, LAST_PORT + 1), strict=True)
    return named.alike()


def _opaque_notes(rules: RulesetSource, ports: Sequence[PortReach]) -> tuple[str, ...]:
    opaque = named_ports(rules.rulesets, PROTOCOLS[0]).opaque
    if ports or not opaque:
        return ()
    words = ", ".join(sorted(opaque))
    return (f"rules with the match {words} may open ports that no rule names: see --all-ports",)
