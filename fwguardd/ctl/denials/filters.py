"""Which denials to show: by source, by destination port, by time; and the values of --src and --dport.

The same addresses come again and again, and to look one up in a network takes half as long as to parse a line: the
answers are kept, up to a bound.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from fwguardd.ctl.denials.event import Event

Network: TypeAlias = IPv4Network | IPv6Network

_KEPT: Final = 65536
_NUMBER: Final = re.compile("[0-9]{1,5}")
_HIGHEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of the command line; an empty one lets everything pass. Times are microseconds since the epoch."""

    sources: tuple[Network, ...] = ()
    ports: tuple[range, ...] = ()
    since: int | None = None
    until: int | None = None
    _known: dict[str, bool] = field(default_factory=dict)

    @property
    def by_packet(self) -> bool:
        """Whether there is a filter for packets."""
        return bool(self.sources or self.ports)

    @property
    def by_time(self) -> bool:
        """Whether there is a filter for times."""
        return self.since is not None or self.until is not None

    def takes(self, event: Event) -> bool:
        """Whether an event passes. One that is not about packets passes only if there is no filter for packets."""
        return not self.by_packet or self.takes_packet(event.fields.get("src"), event.fields.get("dpt"))

    def takes_packet(self, source: str | None, port: int | None) -> bool:
        """Whether a packet from this address to this port passes."""
        if self.ports and not self._takes_port(port):
            return False
        if not self.sources:
            return True
        return source is not None and self._takes_source(source)

    def takes_time(self, realtime: int) -> bool:
        """Whether the time lies between --since and --until, both included."""
        if self.since is not None and realtime < self.since:
            return False
        return self.until is None or realtime <= self.until

    def _takes_port(self, port: int | None) -> bool:
        return any(port in ports for ports in self.ports)

    def _takes_source(self, text: str) -> bool:
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = self._known[text] = _is_in(text, self.sources)
        return known


def _is_in(text: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)


def source(text: str) -> Network:
    """The value of --src. Raises ArgumentTypeError."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is neither an address nor a network, such as 203.0.113.9, 203.0.113.0/24 or 2001:db8::/32"
        ) from None


def port(text: str) -> range:
    """The value of --dport. Raises ArgumentTypeError."""
    first, dash, last = text.replace(":", "-").partition("-")
    if not dash:
        last = first
    if _is_port(first) and _is_port(last):
        ports = range(int(first), int(last) + 1)
        if ports:
            return ports
    raise ArgumentTypeError(f"{text!r} is neither a port from 0 to 65535 nor a range of ports, such as 23 or 20-25")


def _is_port(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and int(text) <= _HIGHEST_PORT
