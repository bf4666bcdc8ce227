"""Copies of ipsets with their entries, for the namespace of a bed: a packet then matches them as it does on the host.

The kernel lists a set as what made it and what is in it, and takes the same attributes to make one and to fill it
(ip_set_dump_do() and ip_set_ad() in net/netfilter/ipset/ip_set_core.c). So nothing here knows a type of sets. Sets of
sets, and very large ones, are not copied.

The rehearsal worker imports this module, so it imports little itself.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from fwguardd.kernel.ipsets import SetCopyError, make_empty_copies
from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    ask,
    attribute,
    messages,
    open_socket,
    read_attributes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MOST_BYTES: Final = 4 << 20
"""Of entries, in all sets: about 100,000 addresses."""

_SUBSYSTEM: Final = 6
_PROTOCOL: Final = 6
_CREATE, _DESTROY, _LIST, _ADD = 2, 3, 7, 9
_A_PROTOCOL, _A_NAME, _A_TYPE, _A_REVISION, _A_FAMILY, _A_DATA, _A_ENTRIES, _A_LINE = 1, 2, 3, 4, 5, 7, 8, 9
_ATTRIBUTE: Final = struct.Struct("=HH")
_NESTED, _NETWORK_ORDER, _TYPE = 0x8000, 0x4000, 0x3FFF
_ADDRESSES: Final = frozenset({(1, 8), (2, 20)})
"""Type and length of IPSET_ATTR_IPADDR_IPV4 and _IPV6. Outside of a nested attribute these types are nested."""
_REPORTED: Final = frozenset({24, 25, 26})
"""IPSET_ATTR_ELEMENTS, REFERENCES and MEMSIZE: what the kernel counts."""
_SECONDS: Final = 5.0
_BUFFER: Final = 1 << 17
_OF_SETS: Final = "list:set"

Copy = dict[str, Any]
"""A set as JSON values: type, revision, family, what made it, and its entries, as base64."""


def read_copies(names: Iterable[str]) -> dict[str, Copy]:
    """The sets of these names in this network namespace, as far as they can be copied."""
    found: dict[str, Copy] = {}
    room = MOST_BYTES
    for name in names:
        copy = _read(name)
        if copy is None or copy["type"] == _OF_SETS:
            continue
        room -= sum(map(len, copy["entries"]))
        if room < 0:
            break
        found[name] = copy
    return found


def _read(name: str) -> Copy | None:
    """A set; None if it cannot be read."""
    try:
        with open_socket(NETLINK_NETFILTER) as kernel:
            kernel.settimeout(_SECONDS)
            parts = list(_parts(kernel, name))
    except OSError:
        return None
    head: Copy = {}
    entries: list[str] = []
    for part in parts:
        if _A_TYPE in part:
            head = _head(part)
        if part.get(_A_ENTRIES):
            entries.append(_text(_to_send(part[_A_ENTRIES])))
    if not head:
        return None
    return head | {"entries": entries}


def _parts(kernel: socket.socket, name: str) -> Iterator[Mapping[int, bytes]]:
    """The attributes of each message of a listing. Raises OSError."""
    body = _body(_attribute_of_name(name))
    kind = _SUBSYSTEM << 8 | _LIST
    header = HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP, 1, 0)
    kernel.sendto(header + body, (0, 0))
    while True:
        for answer, content in messages(kernel.recv(_BUFFER)):
            if answer in (NLMSG_DONE, NLMSG_ERROR):
                return
            yield read_attributes(content, FAMILY_HEADER.size) or {}


def _head(part: Mapping[int, bytes]) -> Copy:
    return {
        "type": part[_A_TYPE].rstrip(b"\0").decode("ascii", "replace"),
        "revision": part.get(_A_REVISION, b"\0")[0],
        "family": part.get(_A_FAMILY, b"\0")[0],
        "data": _text(_to_send(part.get(_A_DATA, b""))),
        "entries": [],
    }


def _to_send(data: bytes) -> bytes:
    """Listed attributes as they are to be sent: without what the kernel counts, and addresses with the flag that they
    are in network order (ip_set_get_ipaddr4()), which a listing does not set."""
    sent: list[bytes] = []
    offset = 0
    while len(data) - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        value = data[offset + _ATTRIBUTE.size : offset + length]
        if kind & _NESTED:
            value = _to_send(value)
        elif (kind, length) in _ADDRESSES:
            kind |= _NETWORK_ORDER
        if kind & _TYPE not in _REPORTED:
            sent.append(attribute(kind, value))
        offset += max(length + 3 & ~3, _ATTRIBUTE.size)
    return b"".join(sent)


def make_copies_of_sets(copies: Mapping[str, Copy]) -> list[str]:
    """Make these sets in this network namespace; the names of those that could not be copied, and are empty.

    Raises SetCopyError if not even that is possible.
    """
    failed: dict[str, int] = {}
    with open_socket(NETLINK_NETFILTER) as kernel:
        for name, copy in copies.items():
            try:
                _make(kernel, name, copy)
            except SetCopyError:
                _command(kernel, _DESTROY, name, b"")
                failed[name] = copy["family"]
    make_empty_copies(failed)
    return list(failed)


def _make(kernel: socket.socket, name: str, copy: Copy) -> None:
    kind = attribute(_A_TYPE, str(copy["type"]).encode() + b"\0") + attribute(_A_REVISION, bytes([copy["revision"]]))
    kind += attribute(_A_FAMILY, bytes([copy["family"]])) + attribute(_A_DATA | _NESTED, _bytes(copy["data"]))
    _command(kernel, _CREATE, name, kind)
    entries: Sequence[str] = copy["entries"]
    for line, part in enumerate(entries, 1):
        content = attribute(_A_LINE, struct.pack("=I", line)) + attribute(_A_ENTRIES | _NESTED, _bytes(part))
        _command(kernel, _ADD, name, content)


def _command(kernel: socket.socket, command: int, name: str, content: bytes) -> None:
    answer = ask(kernel, _SUBSYSTEM, command, _body(_attribute_of_name(name) + content), NLM_F_ACK)
    if answer != 0 and command != _DESTROY:
        raise SetCopyError(f"cannot copy the ipset {name}")


def _attribute_of_name(name: str) -> bytes:
    return attribute(_A_NAME, os.fsencode(name) + b"\0")


def _body(content: bytes) -> bytes:
    return FAMILY_HEADER.pack(socket.AF_INET, 0, 0) + attribute(_A_PROTOCOL, bytes([_PROTOCOL])) + content


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: object) -> bytes:
    return base64.b64decode(str(text))
