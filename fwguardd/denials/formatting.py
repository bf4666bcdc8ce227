"""A denial as flat event fields, and as the sentence that a person reads.

This module refuses to guess: no names of services, hosts or vendors. Fields are there only when the line had them.

Summaries and notices as flat event fields, and as the sentences that a person reads.

This module is pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from fwguardd.denials.aggregation import Flow
from fwguardd.denials.icmp import icmp_type_name
from fwguardd.denials.model import (
    Arp,
    Bare,
    Denial,
    Extent,
    Icmp,
    Incomplete,
    Ipsec,
    IPv4,
    IPv6,
    Packet,
    PacketFamily,
    Tcp,
    Udp,
)
from fwguardd.denials.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.denials.aggregation import FlowSummary
    from fwguardd.denials.model import Network, Transport, Watched
    from fwguardd.denials.scan import Notice


FieldValue: TypeAlias = str | int | tuple[str, ...]


class RuleOrigin(Protocol):
    """Where a rule was written; `fwguardd.ruleset.model.Origin` is one."""

    @property
    def path(self) -> str:
        """The rule file."""

    @property
    def line(self) -> int:
        """The line in it, counted from 1."""


_ARP_OPERATIONS: Final = {1: "request", 2: "reply", 3: "reverse-request", 4: "reverse-reply"}
PROTO_WORDS: Final = {
    "tcp": "TCP",
    "udp": "UDP",
    "udplite": "UDP-Lite",
    "icmp": "ICMP",
    "ipv6-icmp": "ICMPv6",
    "ah": "AH",
    "esp": "ESP",
}
"""What people call a protocol."""


def fields(denial: Denial) -> dict[str, FieldValue]:
    """The event's fields, lower-case keys, only those that the line has; numbers as int, flags as tuples of names.

    `len` is the IP packet's length in bytes, `frag` the fragment's offset in bytes, `id` the IP identification (of
    IPv6, the fragment header's), `ttl` the TTL or hop limit, `tos` the whole of TOS, precedence or traffic class as
    far as the kernel prints it, `extent` is there only when the line could not tell all.
    """
    found: dict[str, FieldValue | None] = {
        "name": denial.watched.name,
        "prefix": denial.watched.prefix,
        "meaning": denial.watched.meaning.value,
        "family": denial.family.value,
        "in": denial.devices.incoming,
        "out": denial.devices.outgoing,
        "physin": denial.devices.incoming_port,
        "physout": denial.devices.outgoing_port,
        "src": denial.src,
        "dst": denial.dst,
        "proto": denial.proto,
        **_hardware_fields(denial),
        **_network_fields(denial.network),
        **_transport_fields(denial.transport),
        "mark": denial.mark,
        "uid": denial.owner.uid if denial.owner else None,
        "gid": denial.owner.gid if denial.owner else None,
        "extent": denial.extent.value if denial.extent is not Extent.WHOLE else None,
    }
    return {key: value for key, value in found.items() if value is not None and value != ()}


def _hardware_fields(denial: Denial) -> Mapping[str, FieldValue | None]:
    hardware = denial.hardware
    if hardware is None:
        return {}
    return {
        "mac_src": hardware.source,
        "mac_dst": hardware.destination,
        "mac": hardware.octets if hardware.source is None else None,
        "ethertype": f"{hardware.ethertype:04x}" if hardware.ethertype is not None else None,
        "vlan": hardware.vlan,
        "tunnel_src": hardware.tunnel[0] if hardware.tunnel else None,
        "tunnel_dst": hardware.tunnel[1] if hardware.tunnel else None,
    }


def _network_fields(network: Network | None) -> Mapping[str, FieldValue | None]:
    if isinstance(network, IPv4):
        return {
            "len": network.length,
            "ttl": network.ttl,
            "tos": network.tos | network.precedence,
            "id": network.ident,
            "ip_flags": network.flags,
            "frag": network.fragment_offset or None,
            "ip_options": network.options,
        }
    if isinstance(network, IPv6):
        fragment = network.fragment
        return {
            "len": network.length,
            "ttl": network.hop_limit,
            "tos": network.traffic_class,
            "flow_label": network.flow_label or None,
            "id": fragment.ident if fragment else None,
            "ip_flags": ("MF",) if fragment and fragment.more else None,
            "frag": fragment.offset or None if fragment else None,
        }
    if isinstance(network, Arp):
        return {
            "arp_operation": network.opcode,
            "arp_mac_src": network.mac_src,
            "arp_mac_dst": network.mac_dst,
            "available": network.available,
        }
    return {}


def _transport_fields(transport: Transport | None) -> Mapping[str, FieldValue | None]:
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
            return _icmp_fields(transport)
        case Ipsec():
            return {"spi": transport.spi}
        case Incomplete():
            return {"available": transport.available}
        case _:
            return {}


def _icmp_fields(message: Icmp) -> Mapping[str, FieldValue | None]:
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
        **_embedded_fields(message.embedded),
    }


def _embedded_fields(packet: Packet | None) -> Mapping[str, FieldValue | None]:
    if packet is None or packet.network is None:
        return {}
    carried = packet.transport
    return {
        "inner_src": packet.network.src,
        "inner_dst": packet.network.dst,
        "inner_proto": carried.proto if carried else None,
        "inner_spt": carried.spt if isinstance(carried, (Tcp, Udp)) else None,
        "inner_dpt": carried.dpt if isinstance(carried, (Tcp, Udp)) else None,
    }


def sentence(denial: Denial, rule: RuleOrigin | None = None) -> str:
    """One line for a person: `denied TCP SYN 203.0.113.9:51234 → 10.0.0.1:23 in eth0 (99-log.rules:4)`. ``rule`` is
    where the rule that made the line was written, if that is known."""
    words = [denial.watched.meaning.value, _what(denial), *_from_to(denial), *_way(denial)]
    if denial.extent is Extent.SHORT_PACKET:
        words.append("(short packet)")
    elif denial.extent is Extent.CUT_LINE:
        words.append("(line cut by the kernel)")
    elif denial.extent is Extent.CUT_COPY:
        words.append("(copy cut by the kernel)")
    words += in_brackets(rule)
    return " ".join(words)


def in_brackets(rule: RuleOrigin | None) -> tuple[str, ...]:
    """The short name of a rule's place, as the last word of a sentence; nothing for an unknown one."""
    return (f"({rule.path.rpartition('/')[2]}:{rule.line})",) if rule is not None else ()


def _what(denial: Denial) -> str:
    transport = denial.transport
    if isinstance(denial.network, Arp):
        return f"ARP {_ARP_OPERATIONS.get(denial.network.opcode, f'operation {denial.network.opcode}')}"
    if transport is None:
        return _what_of_unknown(denial)
    word = PROTO_WORDS.get(transport.proto, f"protocol {transport.proto}")
    match transport:
        case Tcp():
            # Lowest bit first, as people name them: SYN+ACK, not the kernel's ACK SYN.
            return f"{word} {'+'.join(reversed(transport.flags)) or 'without flags'}"
        case Icmp():
            name = icmp_type_name(transport.proto, transport.type) or f"type {transport.type}"
            return f"{word} {name}"
        case Bare() if _is_later_fragment(denial.network):
            return f"{word} fragment"
        case _:
            return word


def _what_of_unknown(denial: Denial) -> str:
    if denial.family is PacketFamily.OTHER:
        ethertype = denial.hardware.ethertype if denial.hardware else None
        return "frame" if ethertype is None else f"frame of type {ethertype:04x}"
    word = {PacketFamily.IPV4: "IPv4", PacketFamily.IPV6: "IPv6", PacketFamily.ARP: "ARP"}[denial.family]
    return f"{word} fragment" if _is_later_fragment(denial.network) else f"{word} packet"


def _is_later_fragment(network: Network | None) -> bool:
    return isinstance(network, (IPv4, IPv6)) and network.is_later_fragment


def _from_to(denial: Denial) -> list[str]:
    if denial.src is None or denial.dst is None:
        hardware = denial.hardware
        return [f"{hardware.source} → {hardware.destination}"] if hardware and hardware.source else []
    return [f"{endpoint(denial.src, denial.spt)} → {endpoint(denial.dst, denial.dpt)}"]


def endpoint(address: str, port: int | str | None) -> str:
    """Address and port as one word; IPv6 addresses in brackets where a port follows."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _way(denial: Denial) -> list[str]:
    devices = denial.devices
    words = []
    for direction, device, port in (
        ("in", devices.incoming, devices.incoming_port),
        ("out", devices.outgoing, devices.outgoing_port),
    ):
        if device:
            words.append(f"{direction} {device}")
        if port:
            words.append(f"port {port}")
    return words


_ICMP = ("icmp", "ipv6-icmp")


def summary_fields(summary: FlowSummary, watched: Watched) -> dict[str, FieldValue]:
    """The fields of a summary: those of the flow, as an event of a single line names them, and `count`, `first` and
    `last`, which are times in UTC. Lines of flows that were too many to count one by one have no flow."""
    return {
        "name": watched.name,
        "prefix": watched.prefix,
        "meaning": watched.meaning.value,
        **(_flow_fields(summary.key) if isinstance(summary.key, Flow) else {}),
        "count": summary.count,
        "first": _utc(summary.first),
        "last": _utc(summary.last),
    }


def summary_sentence(summary: FlowSummary, watched: Watched, rule: RuleOrigin | None = None) -> str:
    """`denied 4812 more: TCP 203.0.113.9 → 10.0.0.1:23 in eth0, within 58 s (99-log.rules:4)`."""
    head = f"{watched.meaning.value} {summary.count} more: {_flow_words(summary, watched)}"
    return " ".join((f"{head}, within {_span(summary.last - summary.first)}", *in_brackets(rule)))


def malformed_sentence(summary: FlowSummary, watched: Watched) -> str:
    """What is told of lines that nobody could read, and that came too fast to be told one by one."""
    return f"{summary.count} more kernel lines have the prefix {watched.prefix!r} and an unknown form"


def loss_sentence(source: str, count: int) -> str:
    """What is told of things that a source had and nobody could read, and what to do about it."""
    thing = "packet" if source == "nflog" else "kernel record"
    things = f"1 {thing} was" if count == 1 else f"{count} {thing}s were"
    how = {
        "nflog": "dropped by the kernel, since fwguardd did not read fast enough",
        "journal": "missed by journald",
    }.get(source, "overwritten before fwguardd could read them")
    remedy = "" if source == "nflog" else ", or give the kernel log more room with the boot parameter log_buf_len=4M"
    return f"{things} {how}; denials may be among them; put a limit on the rules that log{remedy}"


def notice_fields(notice: Notice) -> dict[str, FieldValue]:
    """The fields of a scan or sweep. `spoofable` says that the source address is no proof of anything."""
    if isinstance(notice, Scan):
        return {"src": notice.src, "count": len(notice.ports), "ports": notice.ports, "spoofable": "yes"}
    return {"src": notice.src, "count": len(notice.hosts), "hosts": notice.hosts, "spoofable": "yes"}


def notice_sentence(notice: Notice) -> str:
    """`203.0.113.9 was denied 15 ports within 2 s, tcp/1 to tcp/15: a port scan, if the address is not forged`."""
    within = f"within {_span(notice.seconds)}"
    if isinstance(notice, Scan):
        named = f"{notice.ports[0]} to {notice.ports[-1]}"
        what = f"{len(notice.ports)} ports {within}, {named}: a port scan"
    else:
        named = f"{notice.hosts[0]} to {notice.hosts[-1]}"
        what = f"at {len(notice.hosts)} hosts {within}, {named}: a sweep"
    return f"{notice.src} was denied {what}, if the address is not forged"


def _flow_fields(flow: Flow) -> Mapping[str, FieldValue]:
    found: dict[str, FieldValue] = {
        "in": flow.incoming,
        "out": flow.outgoing,
        "src": flow.src,
        "dst": flow.dst,
        "proto": flow.proto,
    }
    if flow.port:
        found["icmp_type" if flow.proto in _ICMP else "dpt"] = int(flow.port)
    return {key: value for key, value in found.items() if value != ""}


def _flow_words(summary: FlowSummary, watched: Watched) -> str:
    flow = summary.key
    if not isinstance(flow, Flow):
        return f"packets of many flows, too many to count one by one (prefix {watched.prefix!r})"
    words = [PROTO_WORDS.get(flow.proto, f"protocol {flow.proto}" if flow.proto else "packets")]
    port: str | None = flow.port or None
    if flow.proto in _ICMP and flow.port:
        words.append(icmp_type_name(flow.proto, int(flow.port)) or f"type {flow.port}")
        port = None
    if flow.src and flow.dst:
        words.append(f"{flow.src} → {endpoint(flow.dst, port)}")
    words += [f"in {flow.incoming}"] if flow.incoming else []
    words += [f"out {flow.outgoing}"] if flow.outgoing else []
    return " ".join(words)


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
