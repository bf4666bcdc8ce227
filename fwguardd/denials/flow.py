"""What denials are counted by: the flow that a line is about; and a quick look that tells it without reading all.

A flow is a prefix, the way through the host, source, destination, protocol and destination port. The source port is
no part of it: whoever tries again does so from another one.

Under a flood most lines are counted and never told, and nobody asks for their other fields. `glance` knows the plain
lines of TCP and UDP, checks every byte of them against the same grammar as `fwguardd.denials.parse`, and leaves all
others to it: a line that it knows is a line that the parser would understand, as the same flow (a test holds it to
that).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from fwguardd.denials import grammar
from fwguardd.denials.model import Icmp, Tcp, Udp
from fwguardd.denials.spelling import compress_ipv6

if TYPE_CHECKING:
    from fwguardd.denials.model import Denial


class Flow(NamedTuple):
    """One who wants one thing, told by all lines that agree in these. Texts are "" where a line has none."""

    prefix: str
    incoming: str
    outgoing: str
    src: str
    dst: str
    proto: str
    port: str
    """The destination port; of ICMP, the type."""


@dataclass(frozen=True, slots=True)
class Others:
    """All flows with a prefix that there was no room to count one by one."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """All lines with a prefix that nobody could read."""

    prefix: str


Key: TypeAlias = Flow | Others | Malformed


class Seen(NamedTuple):
    """A flow, and whether the packet asks for something, rather than answers: only asking makes a scan.

    A host that asks many questions gets many answers to many ports, some after it has forgotten the question.
    """

    flow: Flow
    asks: bool


_LAST_WELL_KNOWN: Final = 1023
_PORT: Final = "6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}|0"
_NAME: Final = r"(?:[!-.0-9;-\[\]-~]{1,15})?"
_OCTET: Final = "[0-9a-f][0-9a-f]"
_LINK: Final = rf"IN=({_NAME}) OUT=({_NAME}) (?:MAC=(?:{_OCTET}(?::{_OCTET}){{13}})? )?"
_BYTE: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = r"\.".join([_BYTE] * 4)
_IPV6: Final = ":".join(["[0-9a-f]{4}"] * 8)
_FLAGS: Final = "".join(f"(?:{flag} )?" for flag in grammar.TCP_FLAGS)
_PORTS: Final = (
    rf"PROTO=(?:(TCP)|UDP) SPT=({_PORT}) DPT=({_PORT}) "
    rf"(?(5)WINDOW=[0-9]{{1,5}} RES=0x[0-9a-f]{{2}} ({_FLAGS})URGP=[0-9]{{1,5}} |LEN=[0-9]{{1,5}} )\Z"
)
_PLAIN_IPV4: Final = re.compile(
    rf"{_LINK}SRC=({_IPV4}) DST=({_IPV4}) LEN=[0-9]{{1,10}} TOS=0x[0-9A-F]{{2}} PREC=0x[0-9A-F]{{2}} TTL=[0-9]{{1,3}} "
    rf"ID=[0-9]{{1,5}} (?:CE )?(?:DF )?(?:MF )?{_PORTS}"
)
_PLAIN_IPV6: Final = re.compile(
    rf"{_LINK}SRC=({_IPV6}) DST=({_IPV6}) LEN=[0-9]{{1,10}} TC=[0-9]{{1,3}} HOPLIMIT=[0-9]{{1,3}} "
    rf"FLOWLBL=[0-9]{{1,7}} {_PORTS}"
)


def glance(prefix: str, text: str, position: int) -> Seen | None:
    """The flow of a line whose prefix ends at a position, if it is a plain one; None when it is to be read."""
    match = _PLAIN_IPV4.match(text, position)
    if match is not None:
        incoming, outgoing, src, dst, tcp, spt, dpt, flags = match.groups()
    else:
        match = _PLAIN_IPV6.match(text, position)
        if match is None:
            return None
        incoming, outgoing, src, dst, tcp, spt, dpt, flags = match.groups()
        src, dst = compress_ipv6(src), compress_ipv6(dst)
    if tcp:
        return Seen(Flow(prefix, incoming, outgoing, src, dst, "tcp", dpt), "ACK" not in flags and "RST" not in flags)
    return Seen(Flow(prefix, incoming, outgoing, src, dst, "udp", dpt), _asks_udp(int(spt), int(dpt)))


def see(denial: Denial) -> Seen:
    """The flow that a denial is about."""
    network, transport, devices = denial.network, denial.transport, denial.devices
    port, asks = "", False
    if isinstance(transport, Tcp):
        port, asks = str(transport.dpt), "ACK" not in transport.flags and "RST" not in transport.flags
    elif isinstance(transport, Udp):
        port, asks = str(transport.dpt), _asks_udp(transport.spt, transport.dpt)
    elif isinstance(transport, Icmp):
        port = str(transport.type)
    flow = Flow(
        denial.watched.prefix,
        devices.incoming or "",
        devices.outgoing or "",
        (network.src or "") if network is not None else "",
        (network.dst or "") if network is not None else "",
        transport.proto if transport is not None else "",
        port,
    )
    return Seen(flow, asks)


def _asks_udp(spt: int, dpt: int) -> bool:
    """A packet from a well-known port to another one is an answer, most often of a name server."""
    return spt > _LAST_WELL_KNOWN or dpt <= _LAST_WELL_KNOWN
