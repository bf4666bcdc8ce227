"""Services by name: what a service listens on, and the rules that accept or drop its packets.

A service comes from a table of services (``fwguardd/services.yaml`` is the one that ships), from services(5), or is
written as a port with a protocol.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PROTOCOLS = ("tcp", "udp", "sctp", "dccp", "udplite")
"""The protocols with ports that iptables knows (the match multiport in iptables-extensions(8))."""

_PORT = re.compile(r"(?P<first>[0-9]{1,5})(?:[-:](?P<last>[0-9]{1,5}))?/(?P<protocol>[a-z]+)", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_KEYS = frozenset({"about", "ports", "ipv4_ports", "ipv6_ports", "helper", "groups", "ping"})
_MOST_PORTS = 15
"""Ports of one multiport match; a range counts as two (xt_multiport.h, XT_MULTI_PORTS)."""

BOTH, IPV4, IPV6 = "", "-4", "-6"


class ServiceError(Exception):
    """A service that does not exist, or a table of services with an error. The message says what to write."""


@dataclass(frozen=True, slots=True)
class Ports:
    """A port, or a range of them. ``family`` is "" for both families, "-4" or "-6"."""

    protocol: str
    first: int
    last: int
    family: str = BOTH

    @property
    def range(self) -> str:
        """The ports, as iptables reads them."""
        if self.first == self.last:
            return str(self.first)
        return f"{self.first}:{self.last}"

    def __str__(self) -> str:
        return f"{self.range.replace(':', '-')}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Service:
    """What a service listens on. ``about`` is one line for a list.

    ``helper`` is its conntrack helper, "" for none. ``groups`` are the addresses that its packets are sent to, empty
    for those of the host. ``ping`` says that it is the echo request of ICMP, which has no port.
    """

    name: str
    ports: tuple[Ports, ...] = ()
    about: str = ""
    helper: str = ""
    groups: tuple[str, ...] = ()
    ping: bool = False


def is_port(text: str) -> bool:
    """Whether this is meant as a port with a protocol, such as 8080/tcp, and not as the name of a service."""
    return text[:1].isdigit() and "/" in text


def read_ports(text: str, family: str = BOTH) -> Ports:
    """A port with its protocol: 8080/tcp, or 60000-61000/udp. Raises ServiceError."""
    match = _PORT.fullmatch(text.strip())
    if match is None:
        raise ServiceError(f"{text!r} is not a port with a protocol; write it as 8080/tcp, or 60000-61000/udp")
    protocol, first = match["protocol"].lower(), int(match["first"])
    last = int(match["last"] or first)
    if protocol not in PROTOCOLS:
        raise ServiceError(f"{text!r}: the protocol is not one of {', '.join(PROTOCOLS)}")
    if not 0 < first <= last <= 65535:
        raise ServiceError(f"{text!r}: ports are numbers from 1 to 65535, the smaller one first")
    return Ports(protocol, first, last, family)


def service_of_port(text: str) -> Service:
    """The service that is written as a port. Raises ServiceError."""
    ports = read_ports(text)
    return Service(str(ports), (ports,))


def read_table(document: object) -> dict[str, Service]:
    """The services of a table, as its YAML says. Raises ServiceError."""
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ServiceError('expected "NAME: {ports: [443/tcp]}" lines')
    services: dict[str, Service] = {}
    for name, entry in document.items():
        services[str(name)] = _read_service(str(name), entry)
    return services


def _read_service(name: str, entry: Any) -> Service:
    if _NAME.fullmatch(name) is None:
        raise ServiceError(f"{name!r} is not the name of a service: use small letters, digits, and the signs . _ + -")
    if not isinstance(entry, dict):
        raise ServiceError(f"{name}: expected {{ports: [443/tcp]}}")
    unknown = sorted(str(key) for key in entry if key not in _KEYS)
    if unknown:
        raise ServiceError(f"{name}: unknown key {unknown[0]!r}; the keys are {', '.join(sorted(_KEYS))}")
    return _checked(_service(name, entry))


def _checked(service: Service) -> Service:
    """The service, if it listens on something. Raises ServiceError."""
    if not service.ports and not service.ping:
        raise ServiceError(f"{service.name}: it has no ports; add ports: [443/tcp]")
    if service.helper and _NAME.fullmatch(service.helper) is None:
        raise ServiceError(f"{service.name}: {service.helper!r} is not the name of a conntrack helper")
    return service


def _service(name: str, entry: Mapping[str, Any]) -> Service:
    ports: list[Ports] = []
    for key, family in (("ports", BOTH), ("ipv4_ports", IPV4), ("ipv6_ports", IPV6)):
        ports += [_named_ports(name, text, family) for text in _strings(name, key, entry.get(key, []))]
    return Service(
        name,
        tuple(ports),
        str(entry.get("about", "")),
        str(entry.get("helper", "")),
        _strings(name, "groups", entry.get("groups", [])),
        entry.get("ping") is True,
    )


def _strings(name: str, key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ServiceError(f"{name}: {key} is not a list; write it in brackets: {key}: [443/tcp]")
    return tuple(map(str, value))


def _named_ports(name: str, text: str, family: str) -> Ports:
    try:
        return read_ports(text, family)
    except ServiceError as error:
        raise ServiceError(f"{name}: {error}") from error


def read_etc_services(text: str) -> dict[str, Service]:
    """The services of services(5), by their names and aliases. Lines that are none are passed over."""
    services: dict[str, Service] = {}
    for line in text.splitlines():
        names = line.partition("#")[0].split()
        if len(names) < 2 or _PORT.fullmatch(names[1]) is None:
            continue
        for name in (names[0], *names[2:]):
            _add_port(services, name.lower(), names[1])
    return services


def _add_port(services: dict[str, Service], name: str, text: str) -> None:
    """Add a port to a service of services(5), unless iptables does not know the protocol."""
    try:
        ports = read_ports(text)
    except ServiceError:
        return
    known = services.get(name, Service(name, about="from /etc/services"))
    services[name] = Service(name, (*known.ports, ports), known.about)


@dataclass(frozen=True, slots=True)
class Peers:
    """The other end of the connections. ``family`` as in `Ports`; ``match`` is what the rule says, "" for all."""

    family: str
    match: str


@dataclass(frozen=True, slots=True)
class RuleForm:
    """What the rules of an entry have in common.

    ``command`` is "-A INPUT" or the like. ``state`` is the match of new connections, "" for none. ``target`` is ACCEPT
    or DROP. ``raw_chain`` is the chain of table raw that packets of the service come through, "" to attach no helper.
    """

    command: str
    state: str
    target: str
    raw_chain: str = ""


def rules_for(service: Service, form: RuleForm, peers: Sequence[Peers]) -> list[str]:
    """The lines of a rule file that accept or drop the packets of a service."""
    lines: list[str] = []
    for family, match in _matches(service):
        rest = f"{form.state} -j {form.target}".strip()
        lines += _lines(form.command, family, match, rest, peers)
    if form.raw_chain and service.helper:
        lines += _helper_lines(service, form.raw_chain, peers)
    return lines


def _helper_lines(service: Service, chain: str, peers: Sequence[Peers]) -> list[str]:
    """Rules of table raw that attach the conntrack helper; without them it sees no connection."""
    lines: list[str] = []
    for family, match in _port_matches(service.ports):
        lines += _lines(f"-t raw -A {chain}", family, match, f"-j CT --helper {service.helper}", peers)
    return lines


def _lines(command: str, family: str, match: str, rest: str, peers: Sequence[Peers]) -> Iterator[str]:
    """One rule for each of the peers that packets of the family can have."""
    for one in peers:
        if not _excludes(family, one.family):
            prefix = _prefix(family or one.family, f"{one.match} {match}")
            yield " ".join(part for part in (prefix, command, one.match, match, rest) if part)


_IMPLYING = ("icmp", "-s ", "-d ")


def _prefix(family: str, match: str) -> str:
    """The family where the words of the match do not imply it."""
    if any(word in match for word in _IMPLYING):
        return ""
    return family


def _excludes(family: str, other: str) -> bool:
    """Whether no packet is of both families; "" stands for both."""
    return family != other and BOTH not in (family, other)


def _matches(service: Service) -> Iterator[tuple[str, str]]:
    """The family and the match of each rule that the service needs."""
    if service.ping:
        yield IPV4, "-p icmp --icmp-type echo-request"
        yield IPV6, "-p ipv6-icmp --icmpv6-type echo-request"
    for family, match in _port_matches(service.ports):
        if not service.groups:
            yield family, match
        for group in service.groups:
            yield _family_of(group), f"-d {group} {match}"


def _family_of(address: str) -> str:
    if ":" in address:
        return IPV6
    return IPV4


def _port_matches(ports: Iterable[Ports]) -> Iterator[tuple[str, str]]:
    """The match for the ports of each family and protocol."""
    together: dict[tuple[str, str], list[Ports]] = {}
    for one in ports:
        together.setdefault((one.family, one.protocol), []).append(one)
    for (family, protocol), group in together.items():
        for part in _in_parts(group):
            yield family, _port_match(protocol, part)


def _in_parts(ports: Sequence[Ports]) -> Iterator[list[str]]:
    """Ranges of ports, as many together as one match takes."""
    part: list[str] = []
    room = _MOST_PORTS
    for one in ports:
        needed = 1 + (one.first != one.last)
        if needed > room:
            yield part
            part, room = [], _MOST_PORTS
        part.append(one.range)
        room -= needed
    yield part


def _port_match(protocol: str, ranges: Sequence[str]) -> str:
    if len(ranges) == 1:
        return f"-p {protocol} --dport {ranges[0]}"
    return f"-p {protocol} -m multiport --dports {','.join(ranges)}"
