"""The kernel's answer to where it would route a packet: why one disappeared between PREROUTING and the next hook."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.host_network import ROUTE, RTA_DST, RTA_SRC
from fwguardd.kernel.netlink import (
    HEADER,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    attribute,
    error_number,
    messages,
    read_attributes,
)
from fwguardd.kernel.rtnetlink import RTM_GETROUTE, open_route_socket

if TYPE_CHECKING:
    from fwguardd.kernel.nft_trace import View
    from fwguardd.packets.model import Packet

NO_ROUTE: Final = "no route"
REVERSE_PATH: Final = "reverse path"
INVALID_ADDRESS: Final = "invalid address"
_RTA_IIF, _RTA_OIF, _RTA_MARK = 3, 4, 16
_UNICAST: Final = 1  # RTN_UNICAST, linux/rtnetlink.h.
_OF_TYPE: Final = {2: "", 3: ""}
"""RTN_LOCAL and RTN_BROADCAST."""
_REASONS: Final = {errno.EXDEV: REVERSE_PATH, errno.EINVAL: INVALID_ADDRESS}


def why_not_routed(packet: Packet, view: View) -> str:
    """Why the kernel routed a packet nowhere: "reverse path" (rp_filter), "invalid address" (a source or destination
    that must not come from outside), else "no route"; "" if it is for this host, where the kernel keeps a fragment
    until it has the others. Raises OSError.

    Since Linux 6.14 the kernel answers EINVAL for the reverse path too: then the route back decides.
    """
    arrived = attribute(RTA_SRC, view.source) + attribute(RTA_DST, view.destination)
    arrived += attribute(_RTA_IIF, struct.pack("=I", view.iif)) + attribute(_RTA_MARK, struct.pack("=I", view.mark))
    answer = _asked(packet, 8 * len(view.source), arrived)
    if not isinstance(answer, int):
        return _OF_TYPE.get(ROUTE.unpack_from(answer)[7], NO_ROUTE)
    reason = _REASONS.get(answer, NO_ROUTE)
    if reason == INVALID_ADDRESS and not _leads_back(packet, view):
        return REVERSE_PATH
    return reason


def _leads_back(packet: Packet, view: View) -> bool:
    """Whether packets to the source leave by the interface that it came in by, or do not leave this host at all."""
    back = attribute(RTA_DST, view.source) + attribute(_RTA_MARK, struct.pack("=I", view.mark))
    answer = _asked(packet, 0, back)
    if isinstance(answer, int):
        return False
    if ROUTE.unpack_from(answer)[7] != _UNICAST:
        return True
    attributes = read_attributes(answer, ROUTE.size) or {}
    return attributes.get(_RTA_OIF) == struct.pack("=I", view.iif)


def _asked(packet: Packet, source_bits: int, query: bytes) -> bytes | int:
    """The route that the kernel answers with; the number of the error where it has none. Raises OSError."""
    family, bits = socket.AF_INET, 32
    if packet.source.version == 6:
        family, bits = socket.AF_INET6, 128
    body = ROUTE.pack(family, bits, source_bits, 0, 0, 0, 0, 0, 0) + query
    with open_route_socket() as kernel:
        kernel.sendto(HEADER.pack(HEADER.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, 1, 0) + body, (0, 0))
        for kind, content in messages(kernel.recv(1 << 16)):
            if kind == NLMSG_ERROR:
                return error_number(content) or 0
            return bytes(content)
    return 0
