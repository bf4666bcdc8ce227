"""What of this host takes part in connections: listening sockets with their programs, and tracked connections.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Program:
    """The process that holds a socket. What could not be read is "": only root sees the sockets of other users."""

    name: str = ""
    pid: int = 0
    user: str = ""
    unit: str = ""

    def __str__(self) -> str:
        """The name with user and unit, as far as they are known."""
        details = ", ".join(filter(None, (self.user, self.unit)))
        if not details:
            return self.name or "unknown program"
        return f"{self.name or 'unknown program'} ({details})"


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket that waits for packets of other hosts.

    ``protocol`` is "tcp", "udp" or "sctp". ``interface`` is the one that it is bound to (SO_BINDTODEVICE), "" for all.
    ``both_families`` is true of an IPv6 socket that takes IPv4 packets too (ipv6(7), IPV6_V6ONLY).
    """

    protocol: str
    address: Address
    port: int
    interface: str = ""
    both_families: bool = False
    program: Program = Program()

    @property
    def takes_any_address(self) -> bool:
        """Whether it is bound to no address of its own (0.0.0.0 or ::)."""
        return self.address.is_unspecified

    def takes(self, destination: Address) -> bool:
        """Whether packets to this address are for the socket."""
        if self.takes_any_address:
            return destination.version == self.address.version or self.both_families
        return destination == self.address

    def __str__(self) -> str:
        host = str(self.address)
        if self.takes_any_address:
            host = "*"
        elif self.address.version == 6:
            host = f"[{self.address}]"
        return f"{host}:{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that the kernel tracks, by the addresses and ports of its first packet, before NAT.

    The ``reply`` addresses and ports are those of the packets that come back; with NAT they are not the reverse of the
    others. ``answered`` says whether packets of both directions were seen. A protocol without ports has None.
    """

    protocol: str
    source: Address
    destination: Address
    source_port: int | None
    destination_port: int | None
    reply_source: Address
    reply_destination: Address
    reply_source_port: int | None
    reply_destination_port: int | None
    answered: bool
    mark: int = 0

    def __str__(self) -> str:
        source = _with_port(self.source, self.source_port)
        return f"{self.protocol} {source} → {_with_port(self.destination, self.destination_port)}"


def _with_port(address: Address, port: int | None) -> str:
    if port is None:
        return str(address)
    if address.version == 6:
        return f"[{address}]:{port}"
    return f"{address}:{port}"
