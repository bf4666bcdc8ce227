"""Which denials to show: by address, port, protocol, device, rule, host and time; and the values of those options.

The same values come again and again, and to look an address up in a network takes half as long as to parse a line: the
answers are kept, up to a bound.
"""

from __future__ import annotations

import re
import socket
from argparse import ArgumentTypeError
from dataclasses import field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.ctl.denials.event import Event
    from fwguardd.denials.aggregation import Flow
    from fwguardd.denials.model import Denial

Network: TypeAlias = IPv4Network | IPv6Network
Values: TypeAlias = tuple[Any, ...]

_KEPT: Final = 65536
_NUMBER: Final = re.compile("[0-9]{1,5}")
_HIGHEST_PORT: Final = 65535
_PROTOCOLS: Final = {
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "50": "esp",
    "51": "ah",
    "58": "ipv6-icmp",
    "136": "udplite",
    "icmpv6": "ipv6-icmp",
    "icmp6": "ipv6-icmp",
}
"""Numbers and other names of protocols, and the names that events have for them."""


class Filter:
    """The values of one key that pass, or with ``negated`` those that do not. A packet without the value passes only a
    negated filter."""

    def __init__(self, key: str, values: Values, *, negated: bool = False) -> None:
        self.key = key
        self._matches, self._values, self._negated = _MATCHES[key], values, negated
        self._known: dict[object, bool] = {}

    def takes(self, value: object) -> bool:
        """Whether a value passes."""
        known = self._known.get(value)
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = self._known[value] = self._match(value) is not self._negated
        return known

    def _match(self, value: object) -> bool:
        if value in (None, ""):
            return False
        return self._matches(str(value), self._values)


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of the command line; an empty one lets everything pass. Times are microseconds since the epoch."""

    filters: tuple[Filter, ...] = ()
    since: int | None = None
    until: int | None = None
    _of_flow: tuple[tuple[Filter, _FlowValue], ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        """Look up once where a flow has each value."""
        of_flow = tuple((one, _FLOW_VALUES[one.key]) for one in self.filters)
        object.__setattr__(self, "_of_flow", of_flow)

    @property
    def by_packet(self) -> bool:
        """Whether there is a filter for packets."""
        return bool(self.filters)

    @property
    def by_time(self) -> bool:
        """Whether there is a filter for times."""
        return self.since is not None or self.until is not None

    def takes(self, event: Event) -> bool:
        """Whether an event passes. One that is not about packets passes only if there is no filter for packets, or if
        it is about their source."""
        return all(one.takes(_value_of(event, one.key)) for one in self.filters)

    def takes_flow(self, flow: Flow, name: str, host: str | None) -> bool:
        """Whether the packets of a flow pass; ``name`` is that of the prefix."""
        return all(one.takes(value_of(flow, name, host)) for one, value_of in self._of_flow)

    def takes_denial(self, denial: Denial, host: str | None) -> bool:
        """Whether a packet passes."""
        if not self.filters:
            return True
        devices = denial.devices
        values = {
            "src": denial.src,
            "dst": denial.dst,
            "dport": denial.dpt,
            "proto": denial.proto,
            "in": devices.incoming,
            "out": devices.outgoing,
            "rule": denial.watched.name,
            "host": host,
        }
        return all(one.takes(values[one.key]) for one in self.filters)

    def takes_time(self, realtime: int) -> bool:
        """Whether the time lies between --since and --until, both included."""
        if self.since is not None and realtime < self.since:
            return False
        return self.until is None or realtime <= self.until


_FlowValue: TypeAlias = "Callable[[Flow, str, str | None], str | None]"


def _flow_src(flow: Flow, _name: str, _host: str | None) -> str:
    return flow.src


def _flow_dst(flow: Flow, _name: str, _host: str | None) -> str:
    return flow.dst


def _flow_dport(flow: Flow, _name: str, _host: str | None) -> str:
    return flow.port


def _flow_proto(flow: Flow, _name: str, _host: str | None) -> str:
    return flow.proto


def _flow_in(flow: Flow, _name: str, _host: str | None) -> str:
    return flow.incoming


def _flow_out(flow: Flow, _name: str, _host: str | None) -> str:
    return flow.outgoing


def _flow_rule(_flow: Flow, name: str, _host: str | None) -> str:
    return name


def _flow_host(_flow: Flow, _name: str, host: str | None) -> str | None:
    return host


_FLOW_VALUES: Final[Mapping[str, _FlowValue]] = {
    "src": _flow_src,
    "dst": _flow_dst,
    "dport": _flow_dport,
    "proto": _flow_proto,
    "in": _flow_in,
    "out": _flow_out,
    "rule": _flow_rule,
    "host": _flow_host,
}


def _value_of(event: Event, key: str) -> object:
    """The value of an event under a key of the command line."""
    if key == "host":
        return event.host
    if key == "rule":
        return event.fields.get("rule") or event.fields.get("name")
    if key == "dport":
        return event.fields.get("dpt")
    return event.fields.get(key)


def _in_networks(value: str, networks: Values) -> bool:
    try:
        address = ip_address(value)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _in_ranges(value: str, ranges: Values) -> bool:
    return value.isdecimal() and any(int(value) in ports for ports in ranges)


def _is_one_of(value: str, words: Values) -> bool:
    return value.lower() in words


def _is_device(value: str, names: Values) -> bool:
    return any(value == name or (name.endswith("+") and value.startswith(name[:-1])) for name in names)


def _is_rule(value: str, names: Values) -> bool:
    """Whether a rule is named: by its file and line, by its file alone, or by the name of its prefix."""
    path = value.rpartition(":")[0] or value
    return any(name in (value, value.rpartition("/")[2], path, path.rpartition("/")[2]) for name in names)


_MATCHES: Final[Mapping[str, Callable[[str, Values], bool]]] = {
    "src": _in_networks,
    "dst": _in_networks,
    "dport": _in_ranges,
    "proto": _is_one_of,
    "in": _is_device,
    "out": _is_device,
    "rule": _is_rule,
    "host": _is_one_of,
}


def networks(text: str) -> Values:
    """Addresses and networks, with commas between them. Raises ArgumentTypeError."""
    return tuple(_network(word) for word in text.split(","))


def _network(text: str) -> Network:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is neither an address nor a network, such as 203.0.113.9, 203.0.113.0/24 or 2001:db8::/32"
        ) from None


def ports(text: str) -> Values:
    """Ports, ranges of ports and names of services, with commas between them. Raises ArgumentTypeError."""
    return tuple(_port_range(word) for word in text.split(","))


def _port_range(text: str) -> range:
    first, dash, last = text.replace(":", "-").partition("-")
    if not dash:
        last = first
    found = range(0)
    if not text[:1].isdigit():
        found = _service(text)
    if _is_port(first) and _is_port(last):
        found = range(int(first), int(last) + 1)
    if found:
        return found
    raise ArgumentTypeError(
        f"{text!r} is neither a port from 0 to 65535 nor a range of ports, such as 23 or 20-25, nor a service of "
        "/etc/services, such as ssh"
    )


def _service(name: str) -> range:
    """The port of a service of /etc/services; an empty range for any other word."""
    try:
        port = socket.getservbyname(name)
    except (OSError, ValueError):
        return range(0)
    return range(port, port + 1)


def _is_port(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and int(text) <= _HIGHEST_PORT


def protocols(text: str) -> Values:
    """Protocols by name or number."""
    return tuple(_PROTOCOLS.get(word, word) for word in words(text.lower()))


def words(text: str) -> Values:
    """Words with commas between them. Raises ArgumentTypeError."""
    found = tuple(text.split(","))
    if "" in found:
        raise ArgumentTypeError(f"{text!r} has an empty word; write words with commas between them")
    return found


def hosts(text: str) -> Values:
    """Names of hosts."""
    return words(text.lower())


PARSERS: Final[Mapping[str, Callable[[str], Values]]] = {
    "src": networks,
    "dst": networks,
    "dport": ports,
    "proto": protocols,
    "in": words,
    "out": words,
    "rule": words,
    "host": hosts,
}
"""The keys of filters, and what reads their values. Each raises ArgumentTypeError."""


def excluded(text: str) -> tuple[str, Values]:
    """The value of --not: ``KEY=VALUES``. Raises ArgumentTypeError."""
    key, equals, value = text.partition("=")
    if not equals or key not in PARSERS:
        names = ", ".join(PARSERS)
        raise ArgumentTypeError(f"{text!r} does not begin with a key and =, as in src=10.0.0.0/8; the keys are {names}")
    return key, PARSERS[key](value)
