"""The format of all netlink messages: a header, then attributes, each with its length (netlink(7)).

Parsing never raises: it ends at the first impossible length. What a message means is defined elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SO_ATTACH_FILTER: Final = 26
"""asm-generic/socket.h; Python 3.11 does not define it."""

NETLINK_NETFILTER: Final = 12
"""linux/netlink.h; Python 3.11 defines neither this number nor those below."""
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_DROP_MEMBERSHIP: Final = 2
NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_DUMP: Final = 0x300
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr, in the host's byte order: length, type, flags, sequence number, port."""
FAMILY_HEADER: Final = struct.Struct("=BBH")
"""struct nfgenmsg: family, version, resource id (in big endian)."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""struct nlattr, in the host's byte order: length and type. The values of netfilter are big endian."""
_TYPE_MASK: Final = 0x3FFF
"""NLA_TYPE_MASK: the two bits above it are flags."""


class OverrunError(Exception):
    """The kernel dropped messages, because there was no room or memory for them (ENOBUFS, netlink(7)). It is reported
    once; the next read goes on."""


def receive(end: socket.socket, largest: int) -> bytes | None:
    """The next datagram that has arrived: empty if it is not from the kernel, None if there is none.

    Raises OverrunError, and OSError if the socket fails.
    """
    try:
        data, (sender, _) = end.recvfrom(largest)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            raise OverrunError from error
        raise
    if sender != 0:
        # Only the kernel is port 0. Processes with CAP_NET_ADMIN can write to such a socket, but not as port 0.
        return b""
    return bytes(data)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each message, up to the first one with an impossible length."""
    offset = 0
    while len(data) - offset >= HEADER.size:
        length, kind, _, _, _ = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            return
        yield kind, data[offset + HEADER.size : offset + length]
        offset += aligned(length)


def read_attributes(data: bytes, offset: int = 0) -> dict[int, bytes] | None:
    """Each attribute's value by its type, the last one of a type as in the kernel; None if they do not fit."""
    attributes = list_attributes(data, offset)
    if attributes is None:
        return None
    return dict(attributes)


def text_of(attributes: Mapping[int, bytes], kind: int) -> str:
    """The value of a text attribute; "" without it."""
    return attributes.get(kind, b"").partition(b"\0")[0].decode("utf-8", "surrogateescape")


def list_attributes(data: bytes, offset: int = 0) -> list[tuple[int, bytes]] | None:
    """Type and value of each attribute, in order; None if they do not fit."""
    found: list[tuple[int, bytes]] = []
    end = len(data)
    while offset < end:
        if end - offset < 4:
            return None
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not 4 <= length <= end - offset:
            return None
        found.append((kind & _TYPE_MASK, data[offset + 4 : offset + length]))
        offset += aligned(length)
    return found


def first_attributes(data: bytes, offset: int, last: int) -> list[bytes] | None:
    """The values of the attributes up to the first one of the type ``last``; None without one. The kernel writes those
    that name an object first, and the rest of a large one is not read."""
    values: list[bytes] = []
    end = len(data)
    while end - offset >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= end - offset:
            return None
        values.append(data[offset + 4 : offset + length])
        if kind & _TYPE_MASK == last:
            return values
        offset += aligned(length)
    return None


def interrupted(data: bytes) -> bool:
    """Whether a part of a dump reports that the dumped objects changed meanwhile (NLM_F_DUMP_INTR)."""
    return len(data) >= HEADER.size and bool(HEADER.unpack_from(data)[2] & NLM_F_DUMP_INTR)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(len(value) + _ATTRIBUTE.size, kind) + value + bytes(-len(value) % 4)


def error_number(body: bytes) -> int | None:
    """The errno value of an NLMSG_ERROR message, 0 for an acknowledgement; None when it is too short."""
    if len(body) < 4:
        return None
    return -int.from_bytes(body[:4], sys.byteorder, signed=True)


def aligned(length: int) -> int:
    """NLMSG_ALIGN and NLA_ALIGN: messages and attributes begin at multiples of four bytes."""
    return (length + 3) & ~3


def open_socket(protocol: int) -> socket.socket:
    """A socket that never waits and that child processes do not inherit. Raises OSError."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    return socket.socket(socket.AF_NETLINK, kind, protocol)


SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
"""asm-generic/socket.h; Python 3.11 does not define them."""


def enlarge(end: socket.socket, received: int) -> None:
    """Let a socket hold so many bytes of messages. In a user namespace it is at most net.core.rmem_max (socket(7))."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    with contextlib.suppress(PermissionError):
        end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, received)


_ANSWER_SECONDS: Final = 5.0
_LARGEST_ANSWER: Final = 1 << 16


def ask(kernel: socket.socket, subsystem: int, command: int, body: bytes, flags: int = 0) -> int | bytes:
    """The answer of netfilter to a command: the body of a message, or an errno value, 0 for success.

    The kernel answers before sendto() returns (netlink_unicast_kernel() in net/netlink/af_netlink.c); the timeout is
    for a kernel that does not. Raises OSError.
    """
    header = HEADER.pack(HEADER.size + len(body), subsystem << 8 | command, NLM_F_REQUEST | flags, 0, 0)
    kernel.sendto(header + body, (0, 0))
    _wait_for_answer(kernel)
    return _answer_in(kernel.recv(_LARGEST_ANSWER))


def _wait_for_answer(kernel: socket.socket) -> None:
    end = select.poll()
    end.register(kernel, select.POLLIN)
    if not end.poll(_ANSWER_SECONDS * 1000):
        raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer")


def _answer_in(data: bytes) -> int | bytes:
    for kind, content in messages(data):
        if kind != NLMSG_ERROR:
            return content
        number = error_number(content)
        if number is not None:
            return number
    raise OSError(errno.EBADMSG, "the kernel's answer cannot be parsed")


def reason_of(answer: int | bytes) -> str:
    """Why a command failed, for a message."""
    if isinstance(answer, int):
        return os.strerror(answer)
    return "the kernel's answer cannot be parsed"
