"""The fields of denials, summaries and notices, as `fwguardd.event_fields` defines them.

An event has only the fields that the line or packet has. Nothing is added that would be a guess: no names of services,
hosts or vendors.

This module is pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.denials.aggregation import Flow
from fwguardd.denials.model import Arp, Extent, Icmp, Incomplete, Ipsec, IPv4, IPv6, Tcp, Udp, icmp_type_name
from fwguardd.denials.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.denials.aggregation import FlowSummary
    from fwguardd.denials.model import (
        Denial,
        FragmentHeader,
        Hardware,
        InnerPacket,
        Network,
        SocketOwner,
        Transport,
        Watched,
    )
    from fwguardd.denials.scan import Notice

FieldValue: TypeAlias = str | int | tuple[str, ...]
_Fields: TypeAlias = "Mapping[str, FieldValue | None]"

ICMP_PROTOCOLS: Final = ("icmp", "ipv6-icmp")
"""Protocols of which a flow has a type in the place of a port."""


_PORT_FIELDS: Final = dict.fromkeys(ICMP_PROTOCOLS, "icmp_type")


def denial_fields(denial: Denial) -> dict[str, FieldValue]:
    """The fields of a single denial."""
    devices = denial.devices
    found: dict[str, FieldValue | None] = {
        "name": denial.watched.name,
        "prefix": denial.watched.prefix,
        "meaning": denial.watched.meaning.value,
        "family": denial.family.value,
        "in": devices.incoming,
        "out": devices.outgoing,
        "physin": devices.incoming_port,
        "physout": devices.outgoing_port,
        "src": denial.src,
        "dst": denial.dst,
        "proto": denial.proto,
    }
    found |= _hardware_fields(denial.hardware)
    found |= _network_fields(denial.network)
    found |= _transport_fields(denial.transport)
    found["mark"] = denial.mark
    found |= _owner_fields(denial.owner)
    if denial.extent is not Extent.WHOLE:
        found["extent"] = denial.extent.value
    return {key: value for key, value in found.items() if value not in (None, ())}


def _owner_fields(owner: SocketOwner | None) -> _Fields:
    if owner is None:
        return {}
    return {"uid": owner.uid, "gid": owner.gid}


def _hardware_fields(hardware: Hardware | None) -> _Fields:
    if hardware is None:
        return {}
    found: dict[str, FieldValue | None] = {
        "mac_src": hardware.source,
        "mac_dst": hardware.destination,
        "vlan": hardware.vlan,
    }
    if hardware.source is None:
        found["mac"] = hardware.octets
    if hardware.ethertype is not None:
        found["ethertype"] = f"{hardware.ethertype:04x}"
    if hardware.tunnel is not None:
        found["tunnel_src"], found["tunnel_dst"] = hardware.tunnel
    return found


def _network_fields(network: Network | None) -> _Fields:
    match network:
        case IPv4():
            return {
                "len": network.length,
                "ttl": network.ttl,
                "tos": network.tos | network.precedence,
                "id": network.ident,
                "ip_flags": network.flags,
                "frag": network.fragment_offset or None,
                "ip_options": network.options,
            }
        case IPv6():
            return _ipv6_fields(network)
        case Arp():
            return {
                "arp_operation": network.opcode,
                "arp_mac_src": network.mac_src,
                "arp_mac_dst": network.mac_dst,
                "available": network.available,
            }
        case _:
            return {}


def _ipv6_fields(network: IPv6) -> _Fields:
    found: dict[str, FieldValue | None] = {
        "len": network.length,
        "ttl": network.hop_limit,
        "tos": network.traffic_class,
        "flow_label": network.flow_label or None,
    }
    return {**found, **_fragment_fields(network.fragment)}


def _fragment_fields(fragment: FragmentHeader | None) -> _Fields:
    if fragment is None:
        return {}
    flags: tuple[str, ...] = ()
    if fragment.more:
        flags = ("MF",)
    return {"id": fragment.ident, "frag": fragment.offset or None, "ip_flags": flags}


def _transport_fields(transport: Transport | None) -> _Fields:
    match transport:
        case Tcp():
            return {
                "spt": transport.spt,
                "dpt": transport.dpt,
                "flags": transport.flags,
                "window": transport.window,
                "seq": transport.seq,
                "ack": transport.ack,
                "urgent": transport.urgent or None,
                "tcp_options": transport.options,
            }
        case Udp():
            return {"spt": transport.spt, "dpt": transport.dpt, "udp_len": transport.length}
        case Icmp():
            return {**_icmp_fields(transport), **_embedded_fields(transport.embedded)}
        case Ipsec():
            return {"spi": transport.spi}
        case Incomplete():
            return {"available": transport.available}
        case _:
            return {}


def _icmp_fields(message: Icmp) -> _Fields:
    return {
        "icmp_type": message.type,
        "icmp_code": message.code,
        "icmp_name": icmp_type_name(message.proto, message.type),
        "icmp_id": message.ident,
        "icmp_seq": message.seq,
        "icmp_pointer": message.pointer,
        "gateway": message.gateway,
        "mtu": message.mtu,
        "available": message.available,
    }


def _embedded_fields(packet: InnerPacket | None) -> _Fields:
    if packet is None or packet.network is None:
        return {}
    found: dict[str, FieldValue | None] = {"inner_src": packet.network.src, "inner_dst": packet.network.dst}
    return {**found, **_embedded_transport_fields(packet.transport)}


def _embedded_transport_fields(carried: Transport | None) -> _Fields:
    if carried is None:
        return {}
    if isinstance(carried, (Tcp, Udp)):
        return {"inner_proto": carried.proto, "inner_spt": carried.spt, "inner_dpt": carried.dpt}
    return {"inner_proto": carried.proto}


def summary_fields(summary: FlowSummary, watched: Watched) -> dict[str, FieldValue]:
    """The fields of a summary: those of the flow, `count`, `first` and `last`. Lines of flows that were not counted one
    by one have no flow."""
    found: dict[str, FieldValue] = {
        "name": watched.name,
        "prefix": watched.prefix,
        "meaning": watched.meaning.value,
    }
    if isinstance(summary.key, Flow):
        found |= _flow_fields(summary.key)
    return {**found, "count": summary.count, "first": utc(summary.first), "last": utc(summary.last)}


def _flow_fields(flow: Flow) -> dict[str, FieldValue]:
    texts = {"in": flow.incoming, "out": flow.outgoing, "src": flow.src, "dst": flow.dst, "proto": flow.proto}
    found: dict[str, FieldValue] = {key: text for key, text in texts.items() if text}
    if flow.port:
        found[_PORT_FIELDS.get(flow.proto, "dpt")] = int(flow.port)
    return found


def utc(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond, with a Z as all times of events have it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def notice_fields(notice: Notice) -> dict[str, FieldValue]:
    """The fields of a scan or sweep. `spoofable` says that the source address can be forged."""
    found: dict[str, FieldValue] = {"src": notice.src, "spoofable": "yes"}
    if isinstance(notice, Scan):
        return {**found, "count": len(notice.ports), "ports": notice.ports}
    return {**found, "count": len(notice.hosts), "hosts": notice.hosts}
