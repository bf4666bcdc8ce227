r"""The grammar of the kernel's LOG lines as one compiled expression per layer; the spelling of names and addresses.

Source: net/netfilter/nf_log_syslog.c. Each expression is matched at a known position, never searched for, and each word
ends with the blank that the kernel prints after it, so that half a word never counts as a word. No repetition is
unbounded: one match takes a bounded time, whatever the text. `[0-9]` is used since `\d` would also match the digits of
other scripts, and no possessive quantifiers, since before Python 3.11.5 they can match too much
(python/cpython#106052).

Bytes are spelled as /dev/kmsg escapes them, IPv6 addresses as RFC 5952 compresses them. Nothing is ever unescaped:
everything that is printed about a denial is printable ASCII.

This module is pure.
"""

from __future__ import annotations

from typing import Final

from fwguardd.patterns import pattern


class GrammarError(Exception):
    """The text is not in the kernel's grammar; `position` and `expected` say where, and what the grammar has there."""

    def __init__(self, position: int, expected: str) -> None:
        super().__init__(position, expected)
        self.position = position
        self.expected = expected


_OCTET: Final = "[0-9a-f][0-9a-f]"
_MAC: Final = ":".join([_OCTET] * 6)
_ETHERNET: Final = ":".join([_OCTET] * 14)
_BYTE: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = r"\.".join([_BYTE] * 4)
_IPV6: Final = ":".join(["[0-9a-f]" * 4] * 8)
_N3: Final = "[0-9]{1,3}"
_N5: Final = "[0-9]{1,5}"
_N10: Final = "[0-9]{1,10}"
_HEX8: Final = "[0-9a-f]{1,8}"
_OPTIONS: Final = r"OPT \(((?:[0-9A-F]{8}){1,10})\) "

# What dev_valid_name() (net/core/dev.c) lets through, as /dev/kmsg spells it: no blank, no slash, no colon.
_DEVICE: Final = "[!-.0-9;-~]"

DEVICE_NAME: Final = pattern(r"(?:[!-.0-9;-\[\]-~]|\\x(?:0[1-8ef]|1[0-9a-f]|5c|7f|[89b-f][0-9a-f]|a[1-9a-f])){1,15}")
"""A whole name: at most 15 bytes (IFNAMSIZ less its closing zero byte), each printable or escaped, none of them a blank
in the kernel's Latin-1 sense (isspace() in lib/ctype.c)."""

DEVICES: Final = pattern(
    rf"IN=({_DEVICE}{{0,60}}) OUT=({_DEVICE}{{0,60}}) (?:PHYSIN=({_DEVICE}{{1,60}}) )?(?:PHYSOUT=({_DEVICE}{{1,60}}) )?"
    rf"(?:MAC=({_ETHERNET}(?::{_OCTET}){{0,255}}|{_OCTET}(?::{_OCTET}){{0,12}}|)(?: TUNNEL=({_IPV4})->({_IPV4}))? )?"
)
"""Incoming, outgoing, port in, port out, link-layer header, tunnel source, tunnel destination."""

DECODED_MAC: Final = pattern(
    rf"MACSRC=({_MAC}) MACDST=({_MAC}) (?:VPROTO=([0-9a-f]{{4}}) VID=({_N5}) )?MACPROTO=([0-9a-f]{{4}}) "
)
"""Source, destination, VLAN protocol, VLAN tag word, ethertype."""

_PROTO: Final = rf"(?:PROTO=(TCP|UDP|ICMP|ICMPv6|UDPLITE|AH|ESP|{_N3}) )?"

IPV4: Final = pattern(
    rf"SRC=({_IPV4}) DST=({_IPV4}) LEN=({_N10}) TOS=0x([0-9A-F]{{2}}) PREC=0x([0-9A-F]{{2}}) TTL=({_N3}) ID=({_N5}) "
    rf"((?:CE )?(?:DF )?(?:MF )?)(?:FRAG:([0-9]{{1,4}}) )?(?:{_OPTIONS})?{_PROTO}"
)
"""Source, destination, length, TOS, precedence, TTL, id, flags, fragment offset in units of 8, options, protocol."""

IPV6: Final = pattern(
    rf"SRC=({_IPV6}) DST=({_IPV6}) LEN=({_N10}) TC=({_N3}) HOPLIMIT=({_N3}) FLOWLBL=([0-9]{{1,7}}) {_PROTO}"
)
"""Source, destination, length, traffic class, hop limit, flow label, protocol."""

PROTO: Final = pattern(_PROTO)
"""Protocol, or nothing where the kernel prints none."""

EXTENSION: Final = pattern(
    rf"(OPT \( )?(?:FRAG:({_N5}) (INCOMPLETE )?ID:([0-9a-f]{{8}}) |(?(1)AH SPI=0x({_HEX8}) |(?!)))?(?(1)\) )"
)
"""Option bracket, fragment offset in bytes, more fragments, id, SPI. It can match nothing at all."""

EXTENSION_STOP: Final = pattern(
    rf"(TRUNCATED) ?|(?:OPT \( )?FRAG:(TRUNCATED) |"
    rf"OPT \( (?:(AH|ESP) (?:INCOMPLETE \[({_N10}) bytes\] |SPI=0x({_HEX8}) )?)?\) ?"
)
"""No header, no fragment header, protocol, available bytes, SPI: the kernel stops here and prints no tail."""

TRUNCATED: Final = pattern("TRUNCATED ?")

TCP_FLAGS: Final = ("AE", "CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN")
"""In the order of printing."""

_FLAGS: Final = "".join(f"(?:{flag} )?" for flag in TCP_FLAGS)

TCP: Final = pattern(
    rf"SPT=({_N5}) DPT=({_N5}) (?:SEQ=({_N10}) ACK=({_N10}) )?WINDOW=({_N5}) RES=0x([0-9a-f]{{2}}) "
    rf"({_FLAGS})URGP=({_N5}) "
    rf"(?:{_OPTIONS}|(OPT \(TRUNCATED\)) ?)?"
)
"""Source port, destination port, seq, ack, window, reserved bits, flags, urgent pointer, options, short options."""

UDP: Final = pattern(rf"SPT=({_N5}) DPT=({_N5}) LEN=({_N5}) ")
"""Source port, destination port, length."""

SPI: Final = pattern(rf"SPI=0x({_HEX8}) ")

INCOMPLETE: Final = pattern(rf"INCOMPLETE \[({_N10}) bytes\] ")
"""Available bytes."""

ICMP: Final = pattern(rf"TYPE=({_N3}) CODE=({_N3}) ")
ICMP_ECHO: Final = pattern(rf"ID=({_N5}) SEQ=({_N5}) ")
ICMP_PARAMETER: Final = pattern(rf"PARAMETER=({_N3}) ")
ICMP_GATEWAY: Final = pattern(rf"GATEWAY=({_IPV4}) ")
ICMP_MTU: Final = pattern(rf"MTU=({_N10}) ")
ICMPV6_POINTER: Final = pattern("POINTER=([0-9a-f]{8}) ")

TAIL: Final = pattern(rf"(?:UID=({_N10}) GID=({_N10}) )?(?:MARK=0x({_HEX8}) )?")
"""User, group, mark."""

ARP: Final = pattern(
    rf"ARP HTYPE=({_N5}) PTYPE=0x([0-9a-f]{{4}}) OPCODE=({_N5})"
    rf"(?: MACSRC=({_MAC}) IPSRC=({_IPV4}) MACDST=({_MAC}) IPDST=({_IPV4})| INCOMPLETE \[({_N10}) bytes\])? ?"
)
"""Hardware type, protocol type, operation, sender MAC, sender IP, target MAC, target IP, available bytes."""

SHORTEST_CUT_LINE: Final = 976
"""Lines shorter than this many bytes are never cut. The kernel's own buffer holds 1016 bytes of text (S_SIZE in
net/netfilter/nf_log.c, less level and closing zero); kernels before 5.19 cut records at LOG_LINE_MAX, which was
1024 less a console prefix of 32 or 48 bytes (kernel/printk/internal.h)."""

LONGEST_LINE: Final = 1016
"""A line of this many bytes was cut, even when the cut fell between two words."""

LONGEST_LAYER: Final = 320
"""No layer prints more bytes: an IPv4 header with all options has 276, a TCP header with all options 265."""

_PORT: Final = "6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}|0"
_PLAIN_NAME: Final = r"(?:[!-.0-9;-\[\]-~]{1,15})?"
_PLAIN_LINK: Final = rf"IN=({_PLAIN_NAME}) OUT=({_PLAIN_NAME}) (?:MAC=(?:{_ETHERNET})? )?"
_PLAIN_PORTS: Final = (
    rf"PROTO=(?:(TCP)|UDP) SPT=({_PORT}) DPT=({_PORT}) "
    rf"(?(5)WINDOW={_N5} RES=0x[0-9a-f]{{2}} ({_FLAGS})URGP={_N5} |LEN={_N5} )\Z"
)

PLAIN_IPV4: Final = pattern(
    rf"{_PLAIN_LINK}SRC=({_IPV4}) DST=({_IPV4}) LEN={_N10} TOS=0x[0-9A-F]{{2}} PREC=0x[0-9A-F]{{2}} TTL={_N3} ID={_N5} "
    rf"(?:CE )?(?:DF )?(?:MF )?{_PLAIN_PORTS}"
)
"""A whole line of TCP or UDP over IPv4, as most are, after its prefix: incoming, outgoing, source, destination, TCP or
nothing, source port, destination port, TCP flags."""

PLAIN_IPV6: Final = pattern(
    rf"{_PLAIN_LINK}SRC=({_IPV6}) DST=({_IPV6}) LEN={_N10} TC={_N3} HOPLIMIT={_N3} FLOWLBL=[0-9]{{1,7}} {_PLAIN_PORTS}"
)
"""The same over IPv6."""


_LONGEST_FIRST: Final = tuple(":" * count for count in range(9, 2, -1))
_MAPPED: Final = "0000:0000:0000:0000:0000:ffff:"


_SPELLED: Final = [rf"\x{byte:02x}" for byte in range(256)]
_SPELLED[0x20:0x7F] = [chr(byte) for byte in range(0x20, 0x7F)]
_SPELLED[0x5C] = r"\x5c"


def kernel_escaped(raw: bytes) -> str:
    r"""Bytes as a record of /dev/kmsg spells them: `\xHH` below 0x20, from 0x7f, and for the backslash.

    Source: msg_add_ext_text() in kernel/printk/printk.c. Readers of other sources (the journal decodes the
    escapes, syslog files may hold either) bring their text into this spelling before they parse it.
    """
    return "".join(_SPELLED[byte] for byte in raw)


def escaped_length(text: str) -> int:
    """How many bytes the kernel's spelling stands for."""
    return len(text) - 3 * text.count("\\x")


def compress_ipv6(full: str) -> str:
    """The kernel's eight groups of four hexadecimal digits, as RFC 5952 writes the address.

    IPv4-mapped addresses get a dotted end (section 5), as inet_ntop(3) prints them.
    """
    if full.startswith(_MAPPED):
        high, low = int(full[30:34], 16), int(full[35:39], 16)
        return f"::ffff:{high >> 8}.{high & 0xFF}.{low >> 8}.{low & 0xFF}"
    # Without its leading zeros a group of zeros is empty, so that n of them in a row are n + 1 colons.
    groups = f":{full}:".replace(":000", ":").replace(":00", ":").replace(":0", ":")
    if ":::" in groups:
        for colons in _LONGEST_FIRST:
            before, found, after = groups.partition(colons)
            if found:
                return f"{_with_zeros(before)[1:]}::{_with_zeros(after)[:-1]}"
    return _with_zeros(groups)[1:-1]


def _with_zeros(groups: str) -> str:
    """Empty groups written out. Twice, because neighbouring ones share a colon."""
    if "::" not in groups:
        return groups
    return groups.replace("::", ":0:").replace("::", ":0:")
