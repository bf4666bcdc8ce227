"""Policy tests that say what is so now, from probes: packets that are tried, and the verdicts that they met.

Of the packets that arrive, those to the listening sockets are tried, and one to a port that nothing listens on: what
becomes of it is what becomes of everything that no rule names. Of those that this host sends, a few usual ones are.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.packets.model import Journey
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.packets.endpoints import ListeningSocket
    from fwguardd.packets.host_routes import HostRoutes
    from fwguardd.packets.model import Undecided

USUAL = (("udp", 53), ("udp", 123), ("tcp", 22), ("tcp", 25), ("tcp", 80), ("tcp", 443))
"""Names, time, ssh, mail and the web: what most hosts send, or should not."""

UNUSED_PORT = 9
"""The port "discard" (RFC 863), on which nothing listens today."""


@dataclass(frozen=True, slots=True)
class TriedPacket:
    """A packet to try, by the keys of a test. ``why`` is what listens at the port."""

    way: str
    interface: str
    family: Family
    proto: str
    dport: int
    why: str = ""

    @property
    def test(self) -> str:
        """A test that sends the packet."""
        keys = f"{self.way}: {self.interface}, family: {self.family.value}, proto: {self.proto}, dport: {self.dport}"
        return f"- {{expect: accept, {keys}}}"


def probes(sockets: Sequence[ListeningSocket], routes: HostRoutes) -> Iterator[TriedPacket]:
    """What to try on a host with these sockets."""
    listening = _listening(sockets)
    for interface, family in _ends(routes, routes.interfaces()):
        for (proto, port), why in sorted(listening.items()):
            yield TriedPacket("in", interface, family, proto, port, why)
    for interface, family in _ends(routes, routes.default_interfaces(4) or routes.interfaces()[:1]):
        for proto, port in USUAL:
            yield TriedPacket("out", interface, family, proto, port)


def _listening(sockets: Iterable[ListeningSocket]) -> dict[tuple[str, int], str]:
    """What listens for other hosts at each port, and the port at which nothing does."""
    found = {("tcp", UNUSED_PORT): "nothing listens: an example of all other ports"}
    for socket in sockets:
        if not socket.address.is_loopback:
            found[socket.protocol, socket.port] = socket.program.name or "unknown program"
    return found


def _ends(routes: HostRoutes, interfaces: Iterable[str]) -> Iterator[tuple[str, Family]]:
    """Interfaces with the families of which they have addresses."""
    for interface in interfaces:
        for family in FAMILIES:
            if interface in dict(routes.networks(family.number)):
                yield interface, family


_Key = tuple[str, str, str, str]


def written(probed: Sequence[TriedPacket], outcomes: Sequence[Journey | Undecided], heading: str) -> str:
    """The tests that these outcomes make, as the text of a file. What is undecided makes no test."""
    ports: dict[_Key, dict[int, set[Family]]] = {}
    why: dict[tuple[str, str, int], str] = {}
    for probe, outcome in zip(probed, outcomes, strict=True):
        if isinstance(outcome, Journey):
            key = (probe.way, probe.interface, probe.proto, outcome.verdict.value)
            ports.setdefault(key, {}).setdefault(probe.dport, set()).add(probe.family)
            why[probe.way, probe.proto, probe.dport] = probe.why
    lines = [f"# {heading}", "tests:"]
    for key, of_key in ports.items():
        lines += _tests(key, of_key, why)
    return "\n".join([*lines, ""])


def _tests(key: _Key, ports: dict[int, set[Family]], why: dict[tuple[str, str, int], str]) -> Iterator[str]:
    """The lines of the tests of one way, interface, protocol and verdict."""
    way, interface, proto, verdict = key
    for families in sorted({frozenset(found) for found in ports.values()}, key=len, reverse=True):
        numbers = [port for port, found in ports.items() if found == families]
        named = [f"{port} ({why[way, proto, port]})" for port in numbers if why[way, proto, port]]
        if named:
            yield f"  # {', '.join(named)}"
        limit = "".join(f", family: {family.value}" for family in families if len(families) == 1)
        yield f"  - {{expect: {verdict}, {way}: {interface}, proto: {proto}, dport: {numbers}{limit}}}"
