"""Sets of set files as they are copied into a bed, for files that are not loaded on this host, such as drafts."""

from __future__ import annotations

import base64
import socket
import struct
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.ipset_copies import MOST_BYTES, Copy
from fwguardd.kernel.netlink import attribute
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.set_entries import PROTOCOL_NUMBERS, WITHOUT_FAMILY
from fwguardd.ruleset.set_files import kernel_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.ruleset.set_files import SetFile

_NESTED, _NETWORK_ORDER = 0x8000, 0x4000
_IP, _CIDR, _PORT, _PORT_TO, _DATA, _PROTO, _FLAGS, _ETHER, _MAXELEM, _IFACE = 1, 3, 4, 5, 7, 7, 8, 17, 19, 23
"""IPSET_ATTR_* of linux/netfilter/ipset/ip_set.h. Some numbers mean another thing within an entry."""
_PHYSDEV = 1 << 1
"""IPSET_FLAG_PHYSDEV of the same file: the interface is the port of a bridge."""
_UNSPECIFIED = 0
"""NFPROTO_UNSPEC: the family of a set without addresses."""
_FAMILIES: Final = {Family.IPV4: (socket.AF_INET, 1), Family.IPV6: (socket.AF_INET6, 2)}
"""The address family, and the attribute for an address of it."""
_IN_A_MESSAGE: Final = 500


def copies_of_files(files: Iterable[SetFile]) -> dict[str, Copy]:
    """The kernel's sets of set files, as far as there is room for their entries."""
    copies: dict[str, Copy] = {}
    room = MOST_BYTES
    for file in files:
        for family, entries in file.entries.items():
            copy = _copy(file.kind, family, entries)
            room -= sum(map(len, copy["entries"]))
            if room > 0:
                copies[kernel_name(file.name, family)] = copy
    return copies


def _copy(kind: str, family: Family, entries: Sequence[str]) -> Copy:
    number = int(_FAMILIES[family][0])
    if kind in WITHOUT_FAMILY:
        number = _UNSPECIFIED
    made = attribute(_MAXELEM | _NETWORK_ORDER, struct.pack(">I", max(65_536, len(entries))))
    if kind == "bitmap:port":
        made = _port(_PORT, 0) + _port(_PORT_TO, 65_535)
    parts = [_text(part) for part in _parts(kind, family, entries)]
    return {"type": kind, "revision": 0, "family": number, "data": _text(made), "entries": parts}


def _parts(kind: str, family: Family, entries: Sequence[str]) -> Iterator[bytes]:
    """The entries in the form of the kernel, as many together as a message takes."""
    content = _CONTENTS[kind]
    for start in range(0, len(entries), _IN_A_MESSAGE):
        some = entries[start : start + _IN_A_MESSAGE]
        yield b"".join(attribute(_DATA | _NESTED, content(family, entry)) for entry in some)


def _network(family: Family, entry: str) -> bytes:
    network = ip_network(entry)
    address = attribute(_FAMILIES[family][1] | _NETWORK_ORDER, network.network_address.packed)
    content = attribute(_IP | _NESTED, address)
    if network.prefixlen != network.max_prefixlen:
        content += attribute(_CIDR, bytes([network.prefixlen]))
    return content


def _network_and_port(family: Family, entry: str) -> bytes:
    network, _, ports = entry.partition(",")
    protocol, _, port = ports.partition(":")
    number = attribute(_PROTO, bytes([PROTOCOL_NUMBERS[protocol]]))
    return _network(family, network) + _port(_PORT, int(port)) + number


def _network_and_interface(family: Family, entry: str) -> bytes:
    network, _, interface = entry.partition(",")
    name = interface.removeprefix("physdev:")
    content = _network(family, network) + attribute(_IFACE, name.encode() + b"\0")
    if name != interface:
        content += attribute(_FLAGS | _NETWORK_ORDER, struct.pack(">I", _PHYSDEV))
    return content


def _mac(_family: Family, entry: str) -> bytes:
    return attribute(_ETHER, bytes.fromhex(entry.replace(":", "")))


def _single_port(_family: Family, entry: str) -> bytes:
    return _port(_PORT, int(entry))


def _port(kind: int, number: int) -> bytes:
    return attribute(kind | _NETWORK_ORDER, struct.pack(">H", number))


_CONTENTS: Final = {
    "hash:net": _network,
    "hash:ip": _network,
    "hash:ip,port": _network_and_port,
    "hash:net,port": _network_and_port,
    "hash:net,iface": _network_and_interface,
    "hash:mac": _mac,
    "bitmap:port": _single_port,
}
"""How an entry of each type is written."""


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
