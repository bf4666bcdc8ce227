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
from fwguardd.ruleset.set_files import kernel_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.ruleset.set_files import SetFile

_NESTED, _NETWORK_ORDER = 0x8000, 0x4000
_IP, _CIDR, _DATA, _MAXELEM = 1, 3, 7, 19
"""IPSET_ATTR_* of linux/netfilter/ipset/ip_set.h."""
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
    number, _ = _FAMILIES[family]
    maximum = attribute(_MAXELEM | _NETWORK_ORDER, struct.pack(">I", max(65_536, len(entries))))
    parts = [_text(part) for part in _parts(family, entries)]
    return {"type": kind, "revision": 0, "family": int(number), "data": _text(maximum), "entries": parts}


def _parts(family: Family, entries: Sequence[str]) -> Iterator[bytes]:
    """The entries in the form of the kernel, as many together as a message takes."""
    for start in range(0, len(entries), _IN_A_MESSAGE):
        yield b"".join(_entry(family, entry) for entry in entries[start : start + _IN_A_MESSAGE])


def _entry(family: Family, entry: str) -> bytes:
    network = ip_network(entry)
    address = attribute(_FAMILIES[family][1] | _NETWORK_ORDER, network.network_address.packed)
    content = attribute(_IP | _NESTED, address)
    if network.prefixlen != network.max_prefixlen:
        content += attribute(_CIDR, bytes([network.prefixlen]))
    return attribute(_DATA | _NESTED, content)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
