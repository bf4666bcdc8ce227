"""Forwarding a port of this host to a server behind it: the rules of ``fwguardctl forward``.

This module is pure.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from fwguardd.ruleset.services import IPV4, IPV6, Peers, Ports, ServiceError
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

_TARGET = re.compile(r"\[(?P<v6>[^\]]+)\](?::(?P<port6>[0-9]{1,5}))?|(?P<v4>[^:]+)(?::(?P<port4>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Server:
    """Where connections are forwarded to. ``port`` is None for the same port."""

    address: str
    port: int | None = None

    @property
    def family(self) -> str:
        """The family of the address, as `fwguardd.ruleset.services` has it."""
        if ":" in self.address:
            return IPV6
        return IPV4

    def __str__(self) -> str:
        address = self.address
        if self.port is None:
            return address
        if self.family == IPV6:
            address = f"[{address}]"
        return f"{address}:{self.port}"


def read_server(text: str) -> Server:
    """An address, with a port or without: 192.0.2.5:443, [2001:db8::5]:443. Raises ServiceError."""
    match = _TARGET.fullmatch(text)
    if match is None:
        return Server(_address(text, text), None)
    return Server(_address(match["v6"] or match["v4"], text), _port(match["port6"] or match["port4"], text))


def _port(port: str | None, text: str) -> int | None:
    """A port, which is a part of the text. Raises ServiceError."""
    if port is None:
        return None
    if not 0 < int(port) <= 65535:
        raise ServiceError(f"{text!r}: ports are numbers from 1 to 65535")
    return int(port)


def _address(address: str, text: str) -> str:
    """An address, which is a part of the text, as iptables prints it. Raises ServiceError."""
    try:
        return str(ip_address(address))
    except ValueError as error:
        raise ServiceError(f"{text!r} is not an address; write it as 192.0.2.5:443 or [2001:db8::5]:443") from error


def forward_rules(ports: Ports, server: Server, peers: Sequence[Peers], command: str) -> list[str]:
    """The rules that translate the destination, and accept both directions of these connections.

    ``command`` is -A or -I, for chain FORWARD. Raises ServiceError for a range of ports that is to become one port.
    """
    if server.port is not None and ports.first != ports.last:
        raise ServiceError(f"{ports} are several ports; name {server.address} without a port to keep them")
    inner = str(server.port or ports.range)
    protocol = ports.protocol
    lines: list[str] = []
    for one in peers:
        if one.family in ("", server.family):
            lines += [
                f"-t nat -A PREROUTING {one.match} -p {protocol} --dport {ports.range} -m addrtype --dst-type LOCAL "
                f"-j DNAT --to-destination {server}".replace("  ", " "),
                f"{command} FORWARD {one.match} -d {server.address} -p {protocol} --dport {inner} "
                "-m conntrack --ctstate DNAT -j ACCEPT".replace("  ", " "),
            ]
    lines.append(
        f"{command} FORWARD -s {server.address} -p {protocol} --sport {inner} "
        "-m conntrack --ctstate ESTABLISHED -j ACCEPT"
    )
    return lines
