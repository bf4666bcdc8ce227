"""Dumps of and requests to the routing side of the kernel: links, addresses, routes, rules (rtnetlink(7)).

What the attributes mean is defined by those who ask.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import (
    HEADER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    error_number,
    interrupted,
    messages,
    open_socket,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

NETLINK_ROUTE: Final = 0
RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
NLM_F_CREATE: Final = 0x400
NLM_F_EXCL: Final = 0x200

_SECONDS: Final = 5.0
_BUFFER: Final = 1 << 17
_TRIES: Final = 5
_CHUNK: Final = 1 << 13
"""Bytes that are sent at once, so that all acknowledgements fit into the receive buffer."""

Request = tuple[int, int, bytes]
"""Type, flags beside NLM_F_REQUEST, and content of a message."""


def open_route_socket() -> socket.socket:
    """A socket whose answers are waited for. Raises OSError."""
    kernel = open_socket(NETLINK_ROUTE)
    kernel.settimeout(_SECONDS)
    return kernel


def dump_objects(kernel: socket.socket, kind: int, header: bytes) -> list[bytes]:
    """The content of each message in a dump, which is repeated if a change interrupted it.

    Raises OSError, with EAGAIN where each try was interrupted: such a dump may lack objects.
    """
    for _ in range(_TRIES):
        request = HEADER.pack(HEADER.size + len(header), kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + header
        kernel.sendto(request, (0, 0))
        found, whole = _read_dump(kernel)
        if whole:
            return found
    raise OSError(errno.EAGAIN, f"changed each of the {_TRIES} times that the kernel listed it")


def _read_dump(kernel: socket.socket) -> tuple[list[bytes], bool]:
    found: list[bytes] = []
    whole = True
    while True:
        data = kernel.recv(_BUFFER)
        whole = whole and not interrupted(data)
        for kind, body in messages(data):
            if kind == NLMSG_DONE:
                return found, whole
            if kind == NLMSG_ERROR:
                raise OSError(error_number(body), "the kernel refuses the dump")
            found.append(body)


def request_all(kernel: socket.socket, requests: Sequence[Request]) -> list[int]:
    """Send requests together; the errno value of each, 0 for success. Raises OSError if there is no answer."""
    results: dict[int, int] = {}
    for chunk in _chunks(requests):
        kernel.sendto(b"".join(chunk), (0, 0))
        _read_results(kernel, results, len(results) + len(chunk))
    return [results[number] for number in range(len(requests))]


def _chunks(requests: Sequence[Request]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for number, (kind, flags, body) in enumerate(requests):
        padded = body + bytes(-len(body) % 4)
        chunk.append(HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, number, 0) + padded)
        size += len(chunk[-1])
        if size > _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _read_results(kernel: socket.socket, results: dict[int, int], wanted: int) -> None:
    """Read acknowledgements until there are as many results as wanted."""
    while len(results) < wanted:
        data = kernel.recv(_BUFFER)
        offset = 0
        while len(data) - offset >= HEADER.size:
            length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
            if kind == NLMSG_ERROR:
                results[sequence] = error_number(data[offset + HEADER.size : offset + length]) or 0
            offset += (length + 3) & ~3
