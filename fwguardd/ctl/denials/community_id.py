"""The Community ID of a flow, version 1 with seed 0, by which a SIEM joins events of several programs about one flow.

Source: the specification at https://github.com/corelight/community-id-spec.

This module is pure.
"""

from __future__ import annotations

import base64
import hashlib
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEED: Final = bytes(2)
_WITH_PORTS: Final = {"tcp": 6, "udp": 17}
_ICMP: Final = {"icmp": 1, "ipv6-icmp": 58}
_OTHERS: Final = {"esp": 50, "ah": 51, "udplite": 136}

_REPLIES: Final = {
    "icmp": {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 10: 9, 9: 10, 17: 18, 18: 17},
    "ipv6-icmp": {
        128: 129, 129: 128, 130: 131, 131: 130, 133: 134, 134: 133,
        135: 136, 136: 135, 139: 140, 140: 139, 144: 145, 145: 144,
    },
}  # fmt: skip
"""The ICMP types of requests and their replies, which stand for ports."""


def community_id(found: Mapping[str, Any]) -> str | None:
    """The id of the flow of a packet, whose fields have the names of events; None where a part of it is not known."""
    try:
        ends = (ip_address(found["src"]).packed, ip_address(found["dst"]).packed)
        return _id_of(str(found["proto"]), ends, found)
    except (KeyError, ValueError):
        return None


def _id_of(proto: str, ends: tuple[bytes, bytes], found: Mapping[str, Any]) -> str | None:
    """Raises KeyError where a port or an ICMP type is not known, as of a later fragment."""
    if proto in _WITH_PORTS:
        return _hashed(_WITH_PORTS[proto], ends, (int(found["spt"]), int(found["dpt"])))
    if proto in _ICMP:
        kind = int(found["icmp_type"])
        reply = _REPLIES[proto].get(kind)
        if reply is None:  # Such a message has no reply, and its direction is part of the flow.
            return _hashed(_ICMP[proto], ends, (kind, int(found["icmp_code"])), ordered=False)
        return _hashed(_ICMP[proto], ends, (kind, reply))
    number = _OTHERS.get(proto)
    if number is None:
        number = int(proto)
    if not 0 <= number <= 255:
        return None
    return _hashed(number, ends, None)


def _hashed(proto: int, ends: tuple[bytes, bytes], ports: tuple[int, int] | None, *, ordered: bool = True) -> str:
    """The id; with ``ordered``, both directions of a flow have the same."""
    numbers = [b"", b""]
    if ports is not None:
        numbers = [port.to_bytes(2, "big") for port in ports]
    pairs = [(ends[0], numbers[0]), (ends[1], numbers[1])]
    if ordered:
        pairs.sort()
    data = _SEED + pairs[0][0] + pairs[1][0] + bytes((proto, 0)) + pairs[0][1] + pairs[1][1]
    return "1:" + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
