"""The messages of denials, summaries, notices and losses: one line each, for people.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from fwguardd.denials.aggregation import Flow
from fwguardd.denials.fields import ICMP_PROTOCOLS
from fwguardd.denials.losses import KERNEL
from fwguardd.denials.model import Arp, Bare, Extent, Icmp, IPv4, IPv6, PacketFamily, Tcp, icmp_type_name
from fwguardd.denials.scan import Scan
from fwguardd.wording import counted

if TYPE_CHECKING:
    from fwguardd.denials.aggregation import FlowSummary
    from fwguardd.denials.model import Denial, Hardware, Network, Transport, Unparsed, Watched
    from fwguardd.denials.scan import Notice


class RuleOrigin(Protocol):
    """Where a rule was written; `fwguardd.ruleset.model.Origin` is one."""

    @property
    def path(self) -> str:
        """The rule file."""

    @property
    def line(self) -> int:
        """The line in it, counted from 1."""


_PROTOCOLS: Final = {
    "tcp": "TCP",
    "udp": "UDP",
    "udplite": "UDP-Lite",
    "icmp": "ICMP",
    "ipv6-icmp": "ICMPv6",
    "ah": "AH",
    "esp": "ESP",
}
_ARP_OPERATIONS: Final = {1: "request", 2: "reply", 3: "reverse-request", 4: "reverse-reply"}
_FAMILIES: Final = {PacketFamily.IPV4: "IPv4", PacketFamily.IPV6: "IPv6", PacketFamily.ARP: "ARP"}
_EXTENTS: Final = {
    Extent.SHORT_PACKET: "(short packet)",
    Extent.CUT_LINE: "(line cut by the kernel)",
    Extent.CUT_COPY: "(copy cut by the kernel)",
}


def sentence(denial: Denial, rule: RuleOrigin | None = None) -> str:
    """`denied TCP SYN 203.0.113.9:51234 → 10.0.0.1:23 in eth0 (99-log.rules:4)`. ``rule`` is where the rule that made
    the line was written, if that is known."""
    devices = denial.devices
    words = [denial.watched.meaning.value, _packet(denial), *_ends(denial)]
    words += _device("in", devices.incoming, devices.incoming_port)
    words += _device("out", devices.outgoing, devices.outgoing_port)
    if denial.extent in _EXTENTS:
        words.append(_EXTENTS[denial.extent])
    return " ".join([*words, *_place(rule)])


def _packet(denial: Denial) -> str:
    transport = denial.transport
    if isinstance(denial.network, Arp):
        return _arp(denial.network.opcode)
    if transport is not None:
        return f"{_protocol(transport.proto)}{_detail(transport, denial.network)}"
    if denial.family is PacketFamily.OTHER:
        return _frame(denial.hardware)
    if _is_later_fragment(denial.network):
        return f"{_FAMILIES[denial.family]} fragment"
    return f"{_FAMILIES[denial.family]} packet"


def _arp(operation: int) -> str:
    return f"ARP {_ARP_OPERATIONS.get(operation, f'operation {operation}')}"


def _frame(hardware: Hardware | None) -> str:
    if hardware is None or hardware.ethertype is None:
        return "frame"
    return f"frame of type {hardware.ethertype:04x}"


def _detail(transport: Transport, network: Network | None) -> str:
    match transport:
        case Tcp():
            # Lowest bit first, as the flags are usually named: SYN+ACK, not the kernel's ACK SYN.
            return f" {'+'.join(reversed(transport.flags)) or 'without flags'}"
        case Icmp():
            return f" {icmp_words(transport.proto, transport.type)}"
        case Bare() if _is_later_fragment(network):
            return " fragment"
        case _:
            return ""


def _is_later_fragment(network: Network | None) -> bool:
    return isinstance(network, (IPv4, IPv6)) and network.is_later_fragment


def _protocol(name: str) -> str:
    return _PROTOCOLS.get(name, f"protocol {name}")


def icmp_words(proto: str, number: int) -> str:
    """An ICMP type by its name, or by its number where it has no name."""
    return icmp_type_name(proto, number) or f"type {number}"


def _ends(denial: Denial) -> list[str]:
    """Source and destination; of a packet without addresses, those of the link layer."""
    if denial.src is not None and denial.dst is not None:
        return [f"{endpoint(denial.src, denial.spt)} → {endpoint(denial.dst, denial.dpt)}"]
    hardware = denial.hardware
    if hardware is not None and hardware.source:
        return [f"{hardware.source} → {hardware.destination}"]
    return []


def endpoint(address: str, port: int | str | None) -> str:
    """Address and port as one word; IPv6 addresses in brackets where a port follows."""
    if port is None:
        return address
    if ":" in address:
        return f"[{address}]:{port}"
    return f"{address}:{port}"


def _device(direction: str, device: str | None, port: str | None) -> list[str]:
    words = []
    if device:
        words.append(f"{direction} {device}")
    if port:
        words.append(f"port {port}")
    return words


def _place(rule: RuleOrigin | None) -> list[str]:
    """The last word of a sentence: file name and line of the rule, if it is known."""
    if rule is None:
        return []
    return [f"({rule.path.rpartition('/')[2]}:{rule.line})"]


def summary_sentence(summary: FlowSummary, watched: Watched, rule: RuleOrigin | None = None) -> str:
    """`denied 4812 more: TCP 203.0.113.9 → 10.0.0.1:23 in eth0, within 58 s (99-log.rules:4)`."""
    if isinstance(summary.key, Flow):
        what = _flow(summary.key)
    else:
        what = f"packets of many flows, too many to count one by one (prefix {watched.prefix!r})"
    head = f"{watched.meaning.value} {summary.count} more: {what}, within {_span(summary.last - summary.first)}"
    return " ".join([head, *_place(rule)])


def _flow(flow: Flow) -> str:
    words, port = _protocol_of_flow(flow)
    if flow.src and flow.dst:
        words.append(f"{flow.src} → {endpoint(flow.dst, port)}")
    words += _device("in", flow.incoming, None) + _device("out", flow.outgoing, None)
    return " ".join(words)


def _protocol_of_flow(flow: Flow) -> tuple[list[str], str | None]:
    """Words for the protocol, with the type of an ICMP message; and the port of another protocol."""
    if not flow.proto:
        return ["packets"], flow.port or None
    if flow.proto in ICMP_PROTOCOLS and flow.port:
        return [_protocol(flow.proto), icmp_words(flow.proto, int(flow.port))], None
    return [_protocol(flow.proto)], flow.port or None


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s"


def notice_sentence(notice: Notice) -> str:
    """`203.0.113.9 was denied at 15 ports within 2 s, tcp/1 to tcp/15: a port scan, if the address is not forged`."""
    if isinstance(notice, Scan):
        targets, what, conclusion = notice.ports, "ports", "a port scan"
    else:
        targets, what, conclusion = notice.hosts, "hosts", "a sweep"
    found = f"{len(targets)} {what} within {_span(notice.seconds)}, {targets[0]} to {targets[-1]}"
    return f"{notice.src} was denied at {found}: {conclusion}, if the address is not forged"


def unparsed_sentence(read: Unparsed, probable: tuple[str, RuleOrigin] | None = None) -> str:
    """The message of a line that is not in the kernel's grammar; ``probable`` is the longer prefix that it begins with,
    and its rule."""
    if probable is not None:
        prefix, rule = probable
        return (
            f"a line of the rule {rule.path}:{rule.line} has the prefix {prefix!r}, which begins with the watched "
            f"prefix {read.watched.prefix!r} and is not watched; add it to prefixes: in fwguardd.yaml: {read.text}"
        )
    return f"a kernel line has the prefix {read.watched.prefix!r} and an unknown form: {read.text}"


def malformed_sentence(summary: FlowSummary, watched: Watched) -> str:
    """The message of a number of such lines."""
    lines = counted(summary.count, "more kernel line has", "more kernel lines have")
    return f"{lines} the prefix {watched.prefix!r} and an unknown form"


_LOSSES: Final = {
    "kmsg": "overwritten before fwguardd could read them",
    "journal": "missed by journald",
    "nflog": "dropped by the kernel, because fwguardd did not read fast enough",
}
_LARGER_BUFFER: Final = ", or enlarge the kernel's log buffer with the boot parameter log_buf_len=4M"


def loss_sentence(source: str, count: int) -> str:
    """The message of records or packets that a source lost, and what to do about it."""
    if source == KERNEL:
        messages = counted(count, "kernel message was", "kernel messages were")
        return f"{messages} suppressed by a rate limit of the kernel, as the kernel log says; denials may be among them"
    thing, remedy = "kernel record", _LARGER_BUFFER
    if source == "nflog":
        thing, remedy = "packet", ""
    things = counted(count, f"{thing} was", f"{thing}s were")
    how = _LOSSES.get(source, _LOSSES["kmsg"])
    return f"{things} {how}; denials may be among them; add a limit to the rules that log{remedy}"
