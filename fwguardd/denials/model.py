r"""What a LOG line says, as values: one small frozen class per layer of the packet, and `Denial` around them.

This module refuses to read text (`fwguardd.denials.line_parser` does) or packets (`fwguardd.denials.packets` does), and
to word anything for a person (`fwguardd.denials.formatting` does).

Every text in these values is printable ASCII: device names and prefixes are spelled as /dev/kmsg spells them,
`\xHH` for any other byte (Documentation/ABI/testing/dev-kmsg), so that no value can carry a line break or a
terminal's control sequence into a log. Addresses are IPv4 dotted quads and IPv6 as RFC 5952 compresses it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, TypeAlias


class Meaning(Enum):
    """What a watched prefix tells about the packet's fate; the rule's author decides, not the kernel."""

    DENIED = "denied"
    LOGGED = "logged"


class PacketFamily(Enum):
    """What kind of packet the line is about."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    ARP = "arp"
    OTHER = "other"
    """Another ethertype, or a packet too short to tell; only nftables' netdev and bridge rules log these."""


class Extent(Enum):
    """How much of the packet the line could tell."""

    WHOLE = "whole"
    SHORT_PACKET = "short-packet"
    """The packet was shorter than its headers claim: the kernel printed TRUNCATED or INCOMPLETE."""
    CUT_LINE = "cut-line"
    """The kernel's line buffer was full (S_SIZE, net/netfilter/nf_log.c): what came later is unknown."""
    CUT_COPY = "cut-copy"
    """The kernel copied too little of the packet to tell all (NFLOG)."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A prefix to watch: what the settings call it, the exact text of `--log-prefix`, and what it means."""

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
    """An IPv6 authentication header, told only with `--log-ip-options`."""

    spi: int


@dataclass(frozen=True, slots=True)
class OptionsHeader:
    """A hop-by-hop, routing or destination header: the kernel does not say which, nor what is in it."""


Extension: TypeAlias = FragmentHeader | AuthenticationHeader | OptionsHeader


@dataclass(frozen=True, slots=True)
class IPv6:
    """An IPv6 header and those extension headers that the kernel chose to mention; `length` counts bytes."""

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
    """An ARP packet; addresses are None unless it speaks of IPv4 over Ethernet."""

    hardware_type: int
    protocol_type: int
    opcode: int
    mac_src: str | None = None
    src: str | None = None
    mac_dst: str | None = None
    dst: str | None = None
    available: int | None = None
    """Bytes there were, when too few."""


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
    """Offset in bytes of the fault that a parameter problem complains of."""
    gateway: str | None = None
    mtu: int | None = None
    embedded: Packet | None = None
    """The head of the packet that an error message is about."""
    available: int | None = None
    """Bytes there were, when too few for this type."""


@dataclass(frozen=True, slots=True)
class Ipsec:
    """AH or ESP; `spi` is None where the kernel does not print it."""

    proto: str
    spi: int | None


@dataclass(frozen=True, slots=True)
class Bare:
    """A protocol that the kernel prints no fields of, or a later fragment: `proto` is all there is."""

    proto: str


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Fewer bytes than the protocol's header needs; `available` says how many there were."""

    proto: str
    available: int


Network: TypeAlias = IPv4 | IPv6 | Arp
Transport: TypeAlias = Tcp | Udp | Icmp | Ipsec | Bare | Incomplete


@dataclass(frozen=True, slots=True)
class Packet:
    """The packet inside an ICMP error; `network` is None when not even its IP header was there."""

    network: IPv4 | IPv6 | None
    transport: Transport | None


@dataclass(frozen=True, slots=True)
class Owner:
    """Who sent a local packet: user and group id (fsuid and fsgid) in the initial user namespace."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Denial:
    """One LOG line with a watched prefix, understood to its last byte (or to where the kernel cut it); or a packet
    that an NFLOG rule copied under such a prefix. `text` is the line, or the packet's first bytes in hexadecimal."""

    watched: Watched
    text: str
    devices: Devices
    hardware: Hardware | None
    family: PacketFamily
    network: Network | None
    transport: Transport | None
    owner: Owner | None
    mark: int | None
    extent: Extent

    @property
    def src(self) -> str | None:
        """Source address; of ARP, the sender's."""
        return self.network.src if self.network is not None else None

    @property
    def dst(self) -> str | None:
        """Destination address; of ARP, the target's."""
        return self.network.dst if self.network is not None else None

    @property
    def proto(self) -> str | None:
        """Lower-case name of the protocol over IP, or its number as text; None where the kernel does not say."""
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
    """A line with our prefix that is not in the kernel's grammar; to be counted and kept, never guessed at."""

    watched: Watched
    text: str
    position: int
    """Index into `text` where reading stopped."""
    expected: str
    """What the grammar wants there."""
