"""The packets of the corpus, by name: what to send so that the kernel prints each shape of line once.

Pure: only bytes are made here. `make_corpus.py` sends them.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from tests.netns.frames import (
    ACK,
    AE,
    CWR,
    ECE,
    FIN,
    HOST,
    HOST6,
    PEER,
    PEER6,
    PSH,
    RST,
    SYN,
    URG,
    icmp,
    ipv4,
    ipv6,
    tcp,
    udp,
)

Packets: TypeAlias = dict[str, bytes]

MSS_AND_MORE: Final = bytes.fromhex("020405b40402080a000000010000000001030307")
RECORD_ROUTE: Final = bytes.fromhex("07070400000000") + b"\0"
ROUTER_ALERT: Final = bytes.fromhex("94040000")


def ipv4_packets() -> Packets:
    """Everything of IPv4 that a rule without options distinguishes."""
    return {
        **_tcp_flags(),
        "tcp-reserved-bits": ipv4(tcp(reserved=7), 6),
        "tcp-urgent-pointer": ipv4(tcp(ACK | URG, urgent=65535), 6),
        "tcp-extreme-ports": ipv4(tcp(spt=0, dpt=65535, window=0), 6),
        "tcp-with-options": ipv4(tcp(options=MSS_AND_MORE), 6),
        "tcp-with-data": ipv4(tcp(ACK | PSH) + b"SRC=6.6.6.6 DST=6.6.6.6 PROTO=UDP ", 6),
        "tcp-short": ipv4(tcp()[:8], 6),
        "tcp-nothing": ipv4(b"", 6),
        "udp": ipv4(udp(b"query"), 17),
        "udp-length-of-its-own": ipv4(udp(length=0), 17),
        "udp-short": ipv4(udp()[:7], 17),
        "udplite": ipv4(udp(b"voice", length=8), 136),
        "udplite-short": ipv4(udp()[:1], 136),
        "tos-and-precedence": ipv4(udp(), 17, tos=0xFF),
        "ecn-only": ipv4(udp(), 17, tos=0x03),
        "ttl-one": ipv4(udp(), 17, ttl=1),
        "ttl-most-id-most": ipv4(udp(), 17, ttl=255, ident=65535),
        "broadcast": ipv4(udp(spt=68, dpt=67), 17, src="0.0.0.0", dst="255.255.255.255"),
        "multicast": ipv4(udp(spt=5353, dpt=5353), 17, dst="224.0.0.251", ttl=255),
        **_ipv4_fragments(),
        **{f"protocol-{number}": ipv4(b"\0" * 24, number) for number in (0, 2, 4, 41, 47, 58, 59, 89, 132, 255)},
        "ah": ipv4(bytes.fromhex("06040000deadbeef0000000100000000") + tcp(), 51),
        "ah-short": ipv4(bytes.fromhex("06040000dead"), 51),
        "esp": ipv4(bytes.fromhex("0000000a00000001") + b"\0" * 16, 50),
        "esp-short": ipv4(bytes.fromhex("000000"), 50),
    }


def _tcp_flags() -> Packets:
    named = {
        "syn": SYN,
        "syn-ack": SYN | ACK,
        "ack": ACK,
        "psh-ack": PSH | ACK,
        "fin-ack": FIN | ACK,
        "rst": RST,
        "rst-ack": RST | ACK,
        "null": 0,
        "fin": FIN,
        "xmas": FIN | PSH | URG,
        "ecn-setup": SYN | ECE | CWR,
        "accurate-ecn": SYN | ECE | CWR | AE,
        "all-flags": FIN | SYN | RST | PSH | ACK | URG | ECE | CWR | AE,
    }
    return {f"tcp-{name}": ipv4(tcp(flags), 6) for name, flags in named.items()}


def _ipv4_fragments() -> Packets:
    return {
        "df": ipv4(tcp(), 6, flags=2),
        "ce": ipv4(tcp(), 6, flags=4),
        "ce-df-mf": ipv4(tcp() + b"\0" * 4, 6, flags=7),
        "fragment-first-tcp": ipv4(tcp() + b"\0" * 4, 6, flags=1),
        "fragment-first-udp": ipv4(udp(b"\0" * 8, length=4000), 17, flags=1),
        "fragment-first-too-small": ipv4(tcp()[:8], 6, flags=1),
        "fragment-later-tcp": ipv4(b"SPT=1 DPT=2 ".ljust(16), 6, flags=1, offset=3),
        "fragment-last-udp": ipv4(b"\0" * 16, 17, offset=185),
        "fragment-later-udplite": ipv4(b"\0" * 16, 136, offset=185),
        "fragment-later-icmp": ipv4(b"\0" * 16, 1, offset=185),
        "fragment-later-ah": ipv4(b"\0" * 16, 51, offset=185),
        "fragment-later-esp": ipv4(b"\0" * 16, 50, offset=185),
        "fragment-later-gre": ipv4(b"\0" * 16, 47, offset=185),
        "fragment-farthest": ipv4(b"\0" * 8, 17, offset=8191),
    }


def icmp_packets() -> Packets:
    """ICMP: each type that the kernel prints in its own way, and embedded packets of all kinds."""
    about = ipv4(tcp(), 6, src=HOST, dst=PEER)
    return {
        "icmp-echo-request": ipv4(icmp(8, rest=struct.pack("!HH", 77, 1), payload=b"ping"), 1),
        "icmp-echo-reply": ipv4(icmp(0, rest=struct.pack("!HH", 65535, 65535)), 1),
        "icmp-net-unreachable": ipv4(icmp(3, 0, payload=about), 1),
        "icmp-port-unreachable": ipv4(icmp(3, 3, payload=about[:28]), 1),
        "icmp-fragmentation-needed": ipv4(icmp(3, 4, rest=struct.pack("!HH", 0, 1400), payload=about), 1),
        "icmp-prohibited": ipv4(icmp(3, 13, payload=about), 1),
        "icmp-source-quench": ipv4(icmp(4, 0, payload=about), 1),
        "icmp-redirect": ipv4(icmp(5, 1, rest=bytes([10, 9, 0, 254]), payload=about), 1),
        "icmp-time-exceeded": ipv4(icmp(11, 0, payload=about), 1),
        "icmp-reassembly-time-exceeded": ipv4(icmp(11, 1, payload=about), 1),
        "icmp-parameter-problem": ipv4(icmp(12, 0, rest=bytes([20, 0, 0, 0]), payload=about), 1),
        **{
            f"icmp-type-{kind}": ipv4(icmp(kind, payload=b"\0" * 16), 1) for kind in (9, 10, 13, 14, 15, 17, 18, 30, 40)
        },
        **{f"icmp-type-{kind}": ipv4(icmp(kind, 1), 1) for kind in (1, 19, 42, 43, 255)},
        "icmp-short": ipv4(icmp(8)[:4], 1),
        "icmp-nothing": ipv4(b"", 1),
        **{
            f"icmp-short-type-{kind}": ipv4(icmp(kind, 1, payload=b"\0" * 3), 1)
            for kind in (3, 4, 5, 11, 12, 13, 14, 17)
        },
        "icmp-short-address-mask-reply": ipv4(icmp(18), 1),
        **_embedded_in_icmp(),
    }


def _embedded_in_icmp() -> Packets:
    inner = {
        "udp": ipv4(udp(), 17),
        "tcp-all-flags": ipv4(tcp(0x1FF, urgent=5), 6, flags=2, tos=0x10),
        "tcp-with-options": ipv4(tcp(options=MSS_AND_MORE), 6),
        "tcp-options-missing": ipv4(tcp(words=10), 6),
        "udp-short": ipv4(udp()[:4], 17),
        "fragment": ipv4(b"\0" * 8, 17, offset=100),
        "ah-fragment": ipv4(b"\0" * 8, 51, offset=100),
        "ah": ipv4(bytes.fromhex("0604000012345678") + b"\0" * 8, 51),
        "esp": ipv4(bytes.fromhex("1234567800000001"), 50),
        "gre": ipv4(b"\0" * 8, 47),
        "echo": ipv4(icmp(8, rest=b"\0\1\0\2"), 1),
        "icmp-error": ipv4(icmp(3, 1, payload=ipv4(tcp(), 6)), 1),
        "icmp-redirect": ipv4(icmp(5, 0, rest=bytes([6, 6, 6, 6]), payload=ipv4(tcp(), 6)), 1),
        "icmp-too-big": ipv4(icmp(3, 4, rest=b"\0\0\5\0", payload=ipv4(tcp(), 6)), 1),
        "icmp-short": ipv4(icmp(3, 1), 1),
        "ip-options": ipv4(udp(), 17, options=ROUTER_ALERT),
        "ip-options-missing": ipv4(b"", 17, options=bytes(40))[:24],
        "other-addresses": ipv4(udp(), 17, src="255.255.255.255", dst="0.0.0.0"),
    }
    return {f"icmp-about-{name}": ipv4(icmp(3, 1, payload=packet), 1) for name, packet in inner.items()}


def ipv4_option_packets() -> Packets:
    """What rules with --log-ip-options, --log-tcp-options and --log-tcp-sequence print more of."""
    return {
        "tcp-sequence": ipv4(tcp(ACK, seq=4294967295, ack=4294967295), 6),
        "tcp-options": ipv4(tcp(options=MSS_AND_MORE), 6),
        "tcp-options-most": ipv4(tcp(options=b"\1" * 40), 6),
        "tcp-options-missing": ipv4(tcp(words=15), 6),
        "tcp-options-partly": ipv4(tcp(words=15) + b"\1" * 20, 6),
        "tcp-less-than-least": ipv4(tcp(words=2), 6),
        "ip-options": ipv4(tcp(), 6, options=ROUTER_ALERT),
        "ip-options-record-route": ipv4(udp(), 17, options=RECORD_ROUTE),
        "ip-options-most": ipv4(udp(), 17, options=b"\1" * 40),
        "ip-and-tcp-options": ipv4(tcp(options=MSS_AND_MORE), 6, options=ROUTER_ALERT, flags=2),
        "ip-options-fragment": ipv4(b"\0" * 8, 17, options=ROUTER_ALERT, flags=1, offset=4),
        **_embedded_in_icmp(),
    }


def extension(next_header: int, body: bytes = b"\1\4\0\0\0\0") -> bytes:
    """A hop-by-hop, routing or destination header; the body is padding unless given."""
    return bytes([next_header, (len(body) + 2) // 8 - 1]) + body


def fragment(next_header: int, *, offset: int = 0, more: bool = False, ident: int = 0xCAFE) -> bytes:
    """An IPv6 fragment header; `offset` counts eight bytes."""
    return struct.pack("!BBHI", next_header, 0, offset << 3 | more, ident)


def authentication(next_header: int) -> bytes:
    """An authentication header of sixteen bytes."""
    return struct.pack("!BBHII4x", next_header, 2, 0, 0xDEADBEEF, 1)


def ipv6_packets() -> Packets:
    """Everything of IPv6, extension headers included."""
    return {
        "6-tcp-syn": ipv6(tcp(), 6),
        "6-tcp-all-flags": ipv6(tcp(0x1FF, options=MSS_AND_MORE), 6),
        "6-tcp-short": ipv6(tcp()[:8], 6),
        "6-tcp-options-missing": ipv6(tcp(words=10), 6),
        "6-udp": ipv6(udp(b"query"), 17),
        "6-udp-short": ipv6(b"", 17),
        "6-udplite": ipv6(udp(length=0), 136),
        "6-class-label-limit": ipv6(udp(), 17, traffic_class=255, flow_label=0xFFFFF, hop_limit=1),
        "6-long-addresses": ipv6(udp(), 17, src="2a02:8108:1234:5678:9abc:def0:1234:5678", dst="2001:db8:0:1:1:1:1:1"),
        "6-two-runs-of-zeros": ipv6(udp(), 17, src="2001:0:0:1:0:0:0:1", dst="2001:db8:1:0:0:1:0:0"),
        "6-mapped": ipv6(udp(), 17, src="fec0::ffff:1.2.3.4", dst="::ffff:10.9.0.1"),
        "6-link-local": ipv6(udp(spt=546, dpt=547), 17, src="fe80::1", dst="ff02::1:2"),
        **{f"6-protocol-{number}": ipv6(b"\0" * 24, number) for number in (1, 4, 47, 59, 89, 103, 132, 135, 139, 255)},
        **_icmpv6(),
        **_ipv6_extensions(),
    }


def _icmpv6() -> Packets:
    kinds = (100, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 143, 151, 160, 255)
    return {
        "6-icmp-echo-request": ipv6(icmp(128, rest=struct.pack("!HH", 77, 1)), 58),
        "6-icmp-echo-reply": ipv6(icmp(129, rest=struct.pack("!HH", 0, 65535)), 58),
        **{f"6-icmp-type-{kind}": ipv6(icmp(kind, payload=b"\0" * 24), 58, hop_limit=255) for kind in kinds},
        "6-icmp-short": ipv6(icmp(128)[:4], 58),
        **{f"6-icmp-about-{name}": ipv6(icmp(1, 4, payload=inner), 58) for name, inner in _about_ipv6().items()},
        "6-icmp-too-big": ipv6(icmp(2, 0, rest=struct.pack("!I", 1280), payload=ipv6(tcp(), 6)), 58),
        "6-icmp-too-big-absurd": ipv6(icmp(2, 0, rest=b"\xff" * 4, payload=ipv6(tcp(), 6)), 58),
        "6-icmp-time-exceeded": ipv6(icmp(3, 0, payload=ipv6(udp(), 17)), 58),
        "6-icmp-parameter-problem": ipv6(icmp(4, 1, rest=struct.pack("!I", 40), payload=ipv6(b"", 255)), 58),
    }


def _about_ipv6() -> Packets:
    return {
        "tcp": ipv6(tcp(), 6, src=HOST6, dst=PEER6),
        "udp": ipv6(udp(), 17, src=HOST6, dst=PEER6),
        "tcp-short": ipv6(tcp()[:4], 6),
        "nothing": b"",
        "half-a-header": ipv6(b"", 6)[:39],
        "fragment": ipv6(fragment(17, offset=5, more=True) + b"\0" * 8, 44),
        "extensions": ipv6(extension(60) + extension(6) + tcp(), 0),
        "missing-extension": ipv6(b"", 60),
        "later-options": ipv6(fragment(60, offset=5) + extension(6) + tcp(), 44),
        "ah": ipv6(authentication(6) + tcp(), 51),
        "esp": ipv6(b"\0\0\0\1\0\0\0\1", 50),
        "esp-short": ipv6(b"\0\0", 50),
        "icmp-error": ipv6(icmp(1, 0, payload=ipv6(tcp(), 6)), 58),
        "icmp-too-big": ipv6(icmp(2, 0, rest=b"\0\0\5\0", payload=ipv6(tcp(), 6)), 58),
        "icmp-parameter-problem": ipv6(icmp(4, 0, rest=b"\0\0\0\7", payload=ipv6(tcp(), 6)), 58),
    }


def _ipv6_extensions() -> Packets:
    options = extension(6)
    return {
        "6-hop-by-hop": ipv6(options + tcp(), 0),
        "6-routing": ipv6(extension(17) + udp(), 43),
        "6-destination": ipv6(options + tcp(), 60),
        "6-destination-missing": ipv6(b"", 60),
        "6-three-extensions": ipv6(extension(43) + extension(60) + options + tcp(), 0),
        "6-fragment-atomic": ipv6(fragment(6) + tcp(), 44),
        "6-fragment-first": ipv6(fragment(17, more=True) + udp(b"\0" * 8), 44),
        "6-fragment-later-tcp": ipv6(fragment(6, offset=100, more=True) + b"\0" * 16, 44),
        "6-fragment-last-udp": ipv6(fragment(17, offset=8191) + b"\0" * 16, 44),
        "6-fragment-later-icmp": ipv6(fragment(58, offset=1, ident=0xFFFFFFFF) + b"\0" * 16, 44),
        "6-fragment-later-other": ipv6(fragment(132, offset=1) + b"\0" * 16, 44),
        "6-fragment-later-options": ipv6(fragment(60, offset=1) + options + tcp(), 44),
        "6-fragment-later-ah": ipv6(fragment(51, offset=1) + authentication(6) + tcp(), 44),
        "6-fragment-later-esp": ipv6(fragment(50, offset=1) + b"\0" * 16, 44),
        "6-fragment-missing": ipv6(b"\6\0\0\0", 44),
        "6-fragment-twice": ipv6(fragment(44, more=True) + fragment(6, ident=1) + tcp(), 44),
        "6-options-then-fragment": ipv6(extension(44) + fragment(6) + tcp(), 60),
        "6-ah": ipv6(authentication(6) + tcp(), 51),
        "6-ah-udp": ipv6(authentication(17) + udp(), 51),
        "6-ah-short": ipv6(authentication(6)[:9], 51),
        "6-esp": ipv6(struct.pack("!II", 0xABC, 1) + b"\0" * 16, 50),
        "6-esp-short": ipv6(b"\0\0\0\1\0\0", 50),
        "6-ah-then-esp": ipv6(authentication(50) + struct.pack("!II", 0xABC, 1), 51),
        "6-no-next-header-after-options": ipv6(extension(59), 60),
    }
