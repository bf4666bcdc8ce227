"""The kernel's answer to where it would route a packet: why one disappeared between PREROUTING and the next hook."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.host_network import ROUTE, RTA_DST, RTA_SRC
from fwguardd.kernel.netlink import HEADER, NLM_F_REQUEST, NLMSG_ERROR, attribute, error_number, messages
from fwguardd.kernel.rtnetlink import RTM_GETROUTE, open_route_socket

if TYPE_CHECKING:
    from fwguardd.kernel.nft_trace import View
    from fwguardd.packets.model import Packet

NO_ROUTE: Final = "no route"
REVERSE_PATH: Final = "reverse path"
_RTA_IIF, _RTA_MARK = 3, 16
_REASONS: Final = {errno.EXDEV: REVERSE_PATH, errno.EINVAL: "invalid address"}


def why_not_routed(packet: Packet, view: View) -> str:
    """Why the kernel routed a packet nowhere: "reverse path" (rp_filter), "invalid address" (a source or destination
    that must not come from outside), else "no route". Raises OSError."""
    family = socket.AF_INET
    if packet.source.version == 6:
        family = socket.AF_INET6
    bits = 8 * len(view.source)
    body = ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0)
    body += attribute(RTA_SRC, view.source) + attribute(RTA_DST, view.destination)
    body += attribute(_RTA_IIF, struct.pack("=I", view.iif)) + attribute(_RTA_MARK, struct.pack("=I", view.mark))
    with open_route_socket() as kernel:
        kernel.sendto(HEADER.pack(HEADER.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, 1, 0) + body, (0, 0))
        for kind, content in messages(kernel.recv(1 << 16)):
            if kind == NLMSG_ERROR:
                return _REASONS.get(error_number(content) or 0, NO_ROUTE)
    return NO_ROUTE
