"""The packet that a denial is about, from the fields of its event (`fwguardd.event_fields`).

This module is pure.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.model import SYN, TCP_FLAGS, Packet
from fwguardd.packets.packet_words import CLIENT_PORT, WITH_PORTS
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

_FAMILIES: Final = {4: Family.IPV4, 6: Family.IPV6}
_PROTOCOLS: Final = {"ipv6-icmp": "icmpv6"}


def packet_of_denial(fields: Mapping[str, Any]) -> Packet | None:
    """The packet; None where the event does not have enough of it, as one of ARP or of a summary without ports."""
    try:
        source, destination = ip_address(_text(fields, "src")), ip_address(_text(fields, "dst"))
        protocol, ports = _protocol(fields), _ports(fields)
    except ValueError:
        return None
    return Packet(
        _FAMILIES[source.version],
        protocol,
        source,
        destination,
        *ports,
        _text(fields, "in") or None,
        _text(fields, "out") or None,
        icmp_type=_number(fields, "icmp_type"),
        icmp_code=_number(fields, "icmp_code") or 0,
        flags=frozenset(fields.get("flags") or SYN) & frozenset(TCP_FLAGS),
        uid=_number(fields, "uid"),
        gid=_number(fields, "gid"),
        mark=_number(fields, "mark") or 0,
    )


def _protocol(fields: Mapping[str, Any]) -> str:
    """Raises ValueError where there is none."""
    protocol = _text(fields, "proto")
    if not protocol:
        raise ValueError("no protocol")
    return _PROTOCOLS.get(protocol, protocol)


def _ports(fields: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Source and destination port, none of a protocol without ports. Raises ValueError where there is no
    destination port."""
    if _text(fields, "proto") not in WITH_PORTS:
        return None, None
    port = _number(fields, "dpt")
    if port is None:
        raise ValueError("no port")
    return _number(fields, "spt") or CLIENT_PORT, port


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, str):
        return value
    return ""


def _number(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if isinstance(value, int):
        return value
    return None
