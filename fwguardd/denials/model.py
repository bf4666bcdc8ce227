r"""What a LOG line says, as values: one small frozen class per layer of the packet, and `Denial` around them.

`fwguardd.denials.line_parser` makes these values from text, `fwguardd.denials.packets` from copied packets;
`fwguardd.denials.fields` and `fwguardd.denials.sentences` make events of them.

Every text in these values is printable ASCII: device names and prefixes are spelled as in /dev/kmsg, `\xHH` for any
other byte (Documentation/ABI/testing/dev-kmsg), so that no value can carry a line break or a terminal's control
sequence into a log. Addresses are IPv4 dotted quads and IPv6 as RFC 5952 compresses it.

This module is pure.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Final, TypeAlias

from fwguardd.values import dataclass


class Meaning(Enum):
    """What a watched prefix means for the packet; the author of the rule decides that, not the kernel."""

    DENIED = "denied"
    LOGGED = "logged"
    ALLOWED = "allowed"

    @property
    def counted_as(self) -> str:
        """What its packets are counted as: denied or logged."""
        if self is Meaning.DENIED:
            return "denied"
        return "logged"


class PacketFamily(Enum):
    """The kind of packet."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    ARP = "arp"
    OTHER = "other"
    """Another ethertype, or a packet too short to know; only nftables' netdev and bridge rules log these."""


class Extent(Enum):
    """How much of the packet is known."""

    WHOLE = "whole"
    SHORT_PACKET = "short-packet"
    """The packet was shorter than its headers claim: the kernel printed TRUNCATED or INCOMPLETE."""
    CUT_LINE = "cut-line"
    """The kernel's line buffer was full (S_SIZE, net/netfilter/nf_log.c): the rest is unknown."""
    CUT_COPY = "cut-copy"
    """The kernel copied too little of the packet (NFLOG)."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A prefix to watch: its name in the settings, the exact text of `--log-prefix`, and its meaning."""

    name: str
    prefix: str
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class Devices:
    """The way through the host: where the packet came in and goes out, and the bridge ports, if any."""

    incoming: str | None
    outgoing: str | None
    incoming_port: str | None
    outgoing_port: str | None


@dataclass(frozen=True, slots=True)
class Hardware:
    """The link-layer header; the parts are None where the device's header is not 14 bytes or more of Ethernet."""

    source: str | None
    destination: str | None
    ethertype: int | None
    octets: str | None = None
    """The whole header as `MAC=` printed it; None in the decoded form (`--log-macdecode`)."""
    vlan_protocol: int | None = None
    vlan: int | None = None
    """The VLAN's id, from 0 to 4095."""
    vlan_priority: int | None = None
    """The tag's priority, from 0 to 7."""
    tunnel: tuple[str, str] | None = None
    """Outer IPv4 source and destination of a sit device, on kernels whose sit devices have a header length."""


@dataclass(frozen=True, slots=True)
class IPv4:
    """An IPv4 header. `length` counts bytes, `fragment_offset` bytes too (the kernel prints units of eight)."""

    src: str
    dst: str
    length: int
    tos: int
    precedence: int
    ttl: int
    ident: int
    flags: tuple[str, ...]
    """Of CE (the reserved bit), DF, MF."""
    fragment_offset: int
    options: str | None
    """Hexadecimal; None when there are none, or when the rule lacks `--log-ip-options`."""

    @property
    def is_later_fragment(self) -> bool:
        """Whether the packet is a fragment other than the first, so that it has no transport header."""
        return self.fragment_offset > 0


@dataclass(frozen=True, slots=True)
class FragmentHeader:
    """An IPv6 fragment header; `offset` counts bytes."""

    offset: int
    more: bool
    ident: int


@dataclass(frozen=True, slots=True)
class AuthenticationHeader:
    """An IPv6 authentication header; the kernel prints it only with `--log-ip-options`."""

    spi: int


@dataclass(frozen=True, slots=True)
class OptionsHeader:
    """A hop-by-hop, routing or destination header: the kernel prints neither which, nor what it holds."""


Extension: TypeAlias = FragmentHeader | AuthenticationHeader | OptionsHeader


@dataclass(frozen=True, slots=True)
class IPv6:
    """An IPv6 header and those extension headers that the kernel prints; `length` counts bytes."""

    src: str
    dst: str
    length: int
    traffic_class: int
    hop_limit: int
    flow_label: int
    extensions: tuple[Extension, ...] = ()

    @property
    def fragment(self) -> FragmentHeader | None:
        """The first fragment header: the one that a receiver reassembles by."""
        for extension in self.extensions:
            if isinstance(extension, FragmentHeader):
                return extension
        return None

    @property
    def is_later_fragment(self) -> bool:
        """Whether any fragment header has an offset: then the kernel prints nothing that comes later in the packet."""
        return any(isinstance(extension, FragmentHeader) and extension.offset for extension in self.extensions)


@dataclass(frozen=True, slots=True)
class Arp:
    """An ARP packet; addresses are None unless it is about IPv4 over Ethernet."""

    hardware_type: int
    protocol_type: int
    opcode: int
    mac_src: str | None = None
    src: str | None = None
    mac_dst: str | None = None
    dst: str | None = None
    available: int | None = None
    """Bytes of the addresses, when there were too few."""


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP header. `seq` and `ack` are None without `--log-tcp-sequence`, `options` without `--log-tcp-options`."""

    proto: ClassVar[str] = "tcp"
    spt: int
    dpt: int
    seq: int | None
    ack: int | None
    window: int
    reserved: int
    flags: tuple[str, ...]
    """Of AE, CWR, ECE, URG, ACK, PSH, RST, SYN, FIN, in this order."""
    urgent: int
    options: str | None


@dataclass(frozen=True, slots=True)
class Udp:
    """A UDP or UDP-Lite header; `length` is the header's own word, in bytes (coverage, for UDP-Lite)."""

    proto: str
    spt: int
    dpt: int
    length: int


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP or ICMPv6 message."""

    proto: str
    type: int
    code: int
    ident: int | None = None
    seq: int | None = None
    pointer: int | None = None
    """Offset in bytes of the fault that a parameter problem reports."""
    gateway: str | None = None
    mtu: int | None = None
    embedded: InnerPacket | None = None
    """The head of the packet that an error message is about."""
    available: int | None = None
    """Bytes of the message, when there were too few for its type."""


@dataclass(frozen=True, slots=True)
class Ipsec:
    """AH or ESP; `spi` is None where the kernel does not print it."""

    proto: str
    spi: int | None


@dataclass(frozen=True, slots=True)
class Bare:
    """A protocol of which the kernel prints no fields, or a later fragment: only `proto` is known."""

    proto: str


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Fewer bytes than the protocol's header needs; `available` is their number."""

    proto: str
    available: int


Network: TypeAlias = IPv4 | IPv6 | Arp
Transport: TypeAlias = Tcp | Udp | Icmp | Ipsec | Bare | Incomplete


@dataclass(frozen=True, slots=True)
class InnerPacket:
    """The packet inside an ICMP error; `network` is None when not even its IP header was there."""

    network: IPv4 | IPv6 | None
    transport: Transport | None


@dataclass(frozen=True, slots=True)
class SocketOwner:
    """The process that sent a local packet: its user and group id (fsuid and fsgid) in the initial user namespace."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Denial:
    """One LOG line with a watched prefix, parsed to its last byte (or to where the kernel cut it); or a packet that an
    NFLOG rule copied under such a prefix. `text` is the line, or the packet's first bytes in hexadecimal."""

    watched: Watched
    text: str
    devices: Devices
    hardware: Hardware | None
    family: PacketFamily
    network: Network | None
    transport: Transport | None
    owner: SocketOwner | None
    mark: int | None
    extent: Extent

    @property
    def src(self) -> str | None:
        """Source address; of ARP, that of the sender."""
        return self.network.src if self.network is not None else None

    @property
    def dst(self) -> str | None:
        """Destination address; of ARP, that of the target."""
        return self.network.dst if self.network is not None else None

    @property
    def proto(self) -> str | None:
        """Lower-case name of the protocol over IP, or its number as text; None where the kernel prints none."""
        return self.transport.proto if self.transport is not None else None

    @property
    def spt(self) -> int | None:
        """Source port, for protocols that have one."""
        return self.transport.spt if isinstance(self.transport, (Tcp, Udp)) else None

    @property
    def dpt(self) -> int | None:
        """Destination port, for protocols that have one."""
        return self.transport.dpt if isinstance(self.transport, (Tcp, Udp)) else None


@dataclass(frozen=True, slots=True)
class Unparsed:
    """A line with a watched prefix that is not in the kernel's grammar."""

    watched: Watched
    text: str
    position: int
    """Index into `text` where parsing stopped."""
    expected: str
    """What the grammar has there."""


_ICMP_TYPES: Final = {
    0: "echo-reply",
    3: "destination-unreachable",
    4: "source-quench",
    5: "redirect",
    8: "echo-request",
    9: "router-advertisement",
    10: "router-solicitation",
    11: "time-exceeded",
    12: "parameter-problem",
    13: "timestamp-request",
    14: "timestamp-reply",
    15: "information-request",
    16: "information-reply",
    17: "address-mask-request",
    18: "address-mask-reply",
    30: "traceroute",
    40: "photuris",
    42: "extended-echo-request",
    43: "extended-echo-reply",
}

_ICMPV6_TYPES: Final = {
    1: "destination-unreachable",
    2: "packet-too-big",
    3: "time-exceeded",
    4: "parameter-problem",
    128: "echo-request",
    129: "echo-reply",
    130: "mld-listener-query",
    131: "mld-listener-report",
    132: "mld-listener-done",
    133: "router-solicitation",
    134: "router-advertisement",
    135: "neighbour-solicitation",
    136: "neighbour-advertisement",
    137: "redirect",
    138: "router-renumbering",
    139: "node-information-query",
    140: "node-information-response",
    141: "inverse-neighbour-solicitation",
    142: "inverse-neighbour-advertisement",
    143: "mld2-listener-report",
    144: "home-agent-discovery-request",
    145: "home-agent-discovery-reply",
    146: "mobile-prefix-solicitation",
    147: "mobile-prefix-advertisement",
    148: "certification-path-solicitation",
    149: "certification-path-advertisement",
    151: "multicast-router-advertisement",
    152: "multicast-router-solicitation",
    153: "multicast-router-termination",
    155: "rpl-control",
    160: "extended-echo-request",
    161: "extended-echo-reply",
}


def icmp_type_name(proto: str, number: int) -> str | None:
    """The name of a type of `icmp` or `ipv6-icmp`, in iptables' spelling where it has one; None where IANA's tables
    "ICMP Parameters" and "ICMPv6 Parameters" list no type in use."""
    if proto == "icmp":
        return _ICMP_TYPES.get(number)
    return _ICMPV6_TYPES.get(number)
