"""The trace of legacy iptables: packets that nfnetlink_log copies, with the rule in the prefix.

trace_packet() in net/ipv4/netfilter/ip_tables.c logs "TRACE: TABLE:CHAIN:rule:N ", "…:policy:N " and "…:return:N ". It
says "policy" or "return" also of a rule that only has a verdict, such as ``-j DROP``: what N is tells them apart, which
is behind the last rule for the policy and for the end of a chain. It logs by the logger of the family in the network
namespace. Bound to nfnetlink_log there, nothing of it is in the kernel log.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    OverrunError,
    ask,
    attribute,
    open_socket,
    reason_of,
)
from fwguardd.kernel.nflog import PacketLog
from fwguardd.kernel.nflog_message import LoggedPacket
from fwguardd.kernel.nft_trace import RECEIVE_BYTES, TraceMessage, View, parse_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX: Final = b"TRACE: "
_NFNL_SUBSYS_ULOG: Final = 4
_MSG_CONFIG: Final = 1
_CFG_CMD: Final = 1
_CMD_PF_BIND: Final = 3
_SMALLEST_HEADER: Final = 20
_IPV6_HEADER: Final = 40
_LIMIT: Final = 1 << 20


class LegacyTraces:
    """The trace of the network namespace that the calling thread is in, from the opening on."""

    def __init__(self) -> None:
        """Raises OSError, `fwguardd.kernel.nflog.PacketLogError`."""
        for family in (socket.AF_INET, socket.AF_INET6):
            _use_nfnetlink_log(family)
        self._log = PacketLog(0, RECEIVE_BYTES, at_once=True)

    def read(self) -> list[TraceMessage]:
        """What has arrived. Raises OverrunError if packets were lost."""
        found: list[TraceMessage] = []
        for packet in self._log.read_available(_LIMIT):
            if not isinstance(packet, LoggedPacket):
                raise OverrunError
            found += _message(packet)
        return found


def _use_nfnetlink_log(family: int) -> None:
    body = FAMILY_HEADER.pack(family, 0, 0) + attribute(_CFG_CMD, struct.pack("B", _CMD_PF_BIND))
    with open_socket(NETLINK_NETFILTER) as kernel:
        answer = ask(kernel, _NFNL_SUBSYS_ULOG, _MSG_CONFIG, body, NLM_F_ACK)
    if answer != 0:
        raise OSError(0, f"cannot trace packets with nfnetlink_log: {reason_of(answer)}")


def _message(packet: LoggedPacket) -> Iterator[TraceMessage]:
    prefix, payload = packet.prefix, packet.payload
    if not prefix.startswith(_PREFIX) or len(payload) < _SMALLEST_HEADER:
        return
    place, _, position = prefix[len(_PREFIX) :].decode("utf-8", "surrogateescape").strip().rpartition(":")
    place, _, _ = place.rpartition(":")
    table, _, chain = place.partition(":")
    yield TraceMessage(*headers_of(packet), table, chain, int(position), "")


def headers_of(packet: LoggedPacket) -> tuple[int, View]:
    """The number of a packet that was copied with its headers, and its view."""
    payload, size = packet.payload, _IPV6_HEADER
    if payload[0] >> 4 == 4:
        size = 4 * (payload[0] & 0xF)
    iif, oif, _, _ = packet.devices
    return parse_headers(payload, payload[size:], iif or 0, oif or 0, packet.mark or 0)
