"""The network of a host, as far as it decides what happens to a packet: interfaces, addresses, routes, settings.

A `Host` is read from the kernel (`fwguardd.kernel.host_network`) or from a file that ``fwguardctl host`` wrote on
another machine. Its document form, made of dictionaries, lists, text and numbers, serves that file, and the message to
the process that rebuilds the network in a rehearsal namespace.

This module is pure.
"""

from __future__ import annotations

from dataclasses import asdict, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str | int, ...]
"""The way to a place in a document: keys, and the numbers of the entries of lists."""

_Part = TypeVar("_Part", "Interface", "Hop", "Route", "RoutingRule", "Sysctls")

LOOPBACK = "loopback"
BRIDGE = "bridge"
VRF = "vrf"


class HostError(ValueError):
    """A document does not describe a host; the message names the key and the fault.

    ``path`` leads to the place: the keys, and the numbers of the entries of lists.
    """

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface.

    ``kind`` is "loopback", "ethernet", or what ``ip -details link`` prints, such as "bridge" or "wireguard". Addresses
    have their prefix length: "192.0.2.1/24". ``master`` is the bridge or the VRF that it belongs to, "" without one.
    The settings are those in effect, so the stricter one of those for all interfaces and for this one
    (ip-sysctl.rst of the kernel); ``forwarding`` is that of IPv4.
    """

    name: str
    kind: str = "ethernet"
    addresses: tuple[str, ...] = ()
    mtu: int = 1500
    up: bool = True
    master: str = ""
    rp_filter: int = 0
    forwarding: bool = False
    accept_local: bool = False
    route_localnet: bool = False
    src_valid_mark: bool = False


@dataclass(frozen=True, slots=True)
class Hop:
    """One next hop of a route that has several."""

    via: str = ""
    dev: str = ""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """A route (ip-route(8)). ``to`` has its prefix length; "" stands for what the route does not have.

    ``type`` is a number of linux/rtnetlink.h: 1 is unicast, 2 local, 3 broadcast, 6 blackhole, 7 unreachable,
    8 prohibit, 9 throw. ``scope`` is 0 for the world, 253 for the link, 254 for the host. Table 254 is the main one.
    """

    to: str
    via: str = ""
    dev: str = ""
    table: int = 254
    type: int = 1
    scope: int = 0
    metric: int = 0
    src: str = ""
    source: str = ""
    tos: int = 0
    hops: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A rule of the routing policy (ip-rule(8)). ``action`` is a number of linux/fib_rules.h: 1 looks up ``table``, 6
    is blackhole, 7 unreachable, 8 prohibit. Ports and user ids are ranges, "22-22"; "" matches all."""

    family: int
    priority: int
    action: int = 1
    table: int = 254
    source: str = ""
    destination: str = ""
    iif: str = ""
    oif: str = ""
    mark: int = 0
    mask: int = 0
    tos: int = 0
    protocol: int = 0
    sport: str = ""
    dport: str = ""
    uids: str = ""
    inverted: bool = False
    suppress_prefix: int = -1
    goto: int = 0


@dataclass(frozen=True, slots=True)
class Sysctls:
    """The settings that hold for a whole network namespace; the names are those of ip-sysctl.rst and nf_conntrack."""

    ipv6_forwarding: bool = False
    bridge_nf_call_iptables: bool = False
    bridge_nf_call_ip6tables: bool = False
    fwmark_reflect: bool = False
    conntrack_tcp_loose: bool = True
    conntrack_tcp_be_liberal: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """The network of a host. ``left_out`` says, for messages, what could not be read or cannot be rebuilt."""

    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    sysctls: Sysctls = field(default_factory=Sysctls)
    left_out: tuple[str, ...] = ()

    def interface(self, name: str) -> Interface | None:
        """The interface of this name; None if there is none."""
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        return None

    def document(self) -> dict[str, Any]:
        """The host as dictionaries, lists, text and numbers; what has its default value is left out."""
        return {
            "interfaces": [_document(interface) for interface in self.interfaces],
            "routes": [_document(route) for route in self.routes],
            "rules": [_document(rule) for rule in self.rules],
            "sysctls": _document(self.sysctls),
            "left-out": list(self.left_out),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Host:
        """The host that a document describes. Raises HostError."""
        unknown = set(document) - {"interfaces", "routes", "rules", "sysctls", "left-out"}
        if unknown:
            raise HostError(f'unknown key "{min(unknown)}" of a host', (min(unknown),))
        return cls(
            _parts(Interface, document, "interfaces", "an interface"),
            _parts(Route, document, "routes", "a route"),
            _parts(RoutingRule, document, "rules", "a routing rule"),
            _part(Sysctls, document.get("sysctls", {}), "sysctls", ("sysctls",)),
            tuple(str(one) for one in _list(document, "left-out")),
        )


def _document(part: Interface | Hop | Route | RoutingRule | Sysctls) -> dict[str, Any]:
    found: dict[str, Any] = {}
    values = asdict(part)
    for one in fields(part):
        value = values[one.name]
        if value != one.default:
            found[one.name.replace("_", "-")] = value
    if isinstance(part, Route) and part.hops:
        found["hops"] = [_document(hop) for hop in part.hops]
    return found


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key, [])
    if not isinstance(value, list):
        raise HostError(f'"{key}" of a host: expected a list', (key,))
    return value


def _parts(kind: type[_Part], document: Mapping[str, Any], key: str, what: str) -> tuple[_Part, ...]:
    """The parts of a host that a list describes. Raises HostError."""
    return tuple(_part(kind, one, what, (key, number)) for number, one in enumerate(_list(document, key)))


def _part(kind: type[_Part], document: object, what: str, path: Path) -> _Part:
    """A part of a host from its document. Raises HostError."""
    if not isinstance(document, dict):
        raise HostError(f"{what} of a host: expected keys with values", path)
    values: dict[str, Any] = {str(key).replace("-", "_"): value for key, value in document.items()}
    defaults = {one.name: one.default for one in fields(kind)}
    for name, value in values.items():
        place = (*path, name.replace("_", "-"))
        if name not in defaults:
            raise HostError(f'unknown key "{place[-1]}" of {what}', place)
        values[name] = _value(value, defaults[name], what, place)
    try:
        return kind(**values)
    except TypeError as error:
        raise HostError(f"{what} of a host lacks a key: {error}", path) from error


def _value(value: object, default: object, what: str, path: Path) -> object:
    """A value, of the type that the default has; a key without a default is text, or the number of a rule."""
    key = str(path[-1])
    if key == "hops":
        hops = enumerate(_entries(value, what, path))
        return tuple(_part(Hop, one, "a next hop", (*path, number)) for number, one in hops)
    if isinstance(default, tuple):
        return tuple(map(str, _entries(value, what, path)))
    expected = _expected(key, default)
    if type(value) is not expected:
        raise HostError(f'"{key}" of {what}: expected {_NAMES[expected]}, not {value!r}', path)
    return value


def _expected(name: str, default: object) -> type:
    if isinstance(default, (bool, int)):
        return type(default)
    if name in ("family", "priority"):
        return int
    return str


_NAMES: Mapping[type, str] = {bool: "true or false", int: "a number", str: "text"}


def _entries(value: object, what: str, path: Path) -> list[object]:
    if not isinstance(value, (list, tuple)):
        raise HostError(f'"{path[-1]}" of {what}: expected a list', path)
    return list(value)
