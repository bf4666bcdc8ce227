"""nft commit notices: the kernel reports that the rules were changed, and by which process.

At the end of each commit nf_tables sends one message to all members of NFNLGRP_NFTABLES (nf_tables_gen_notify() in
net/netfilter/nf_tables_api.c): the number of the new generation, and the id and name of the process that committed.
`parse_notice` is pure; `GenerationNotices` is the thin socket around it. It never waits: an event loop watches
`fileno()`.

A commit also sends a message for every rule that it changes. A socket filter drops these in the kernel, before they
fill the receive buffer, so that a load of 50,000 rules is one message as well.

A notice does not say what changed, or whether anything did: setting a policy to its old value is a commit too, and so
is each table of one iptables-restore. Only a comparison shows that. Changes by iptables-legacy send no notice.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from contextlib import AbstractContextManager
from typing import Final, Literal, TypeAlias

from fwguardd.kernel.kept_socket import kept_socket
from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_DROP_MEMBERSHIP,
    NETLINK_NETFILTER,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    SO_ATTACH_FILTER,
    SOL_NETLINK,
    OverrunError,
    error_number,
    messages,
    open_socket,
    read_attributes,
    receive,
)
from fwguardd.values import dataclass

NFNLGRP_NFTABLES: Final = 7
"""linux/netfilter/nfnetlink.h, where 10 is NFNL_SUBSYS_NFTABLES: the upper byte of the two message types."""
NFT_MSG_NEWGEN: Final = 0x0A0F
NFT_MSG_GETGEN: Final = 0x0A10
NFTA_GEN_ID: Final = 1
NFTA_GEN_PROC_PID: Final = 2
NFTA_GEN_PROC_NAME: Final = 3
"""linux/netfilter/nf_tables.h, enum nft_gen_attributes."""

_ACCEPT_ALL: Final = 0xFFFFFFFF

_BUFFER: Final = 8192
"""Bytes. A notice has less than 100; a longer message is cut off, cannot be parsed, and so counts as missed."""

_ABSENT: Final = {
    errno.EPROTONOSUPPORT: "the kernel has no nfnetlink",
    errno.EAFNOSUPPORT: "no netlink sockets are available; does RestrictAddressFamilies= lack AF_NETLINK?",
    errno.ENOENT: "the kernel has no nf_tables",
    errno.EINVAL: "the kernel has no nf_tables",
    errno.EOPNOTSUPP: "the kernel's nf_tables has no generations",
}


@dataclass(frozen=True, slots=True)
class Generation:
    """One commit to nf_tables in this network namespace.

    `number` is the generation that the commit began; it starts over at 1 after 2**32 - 1. `pid` is the id of the
    *thread* that committed, in the initial pid namespace; 0 if the notice has none. `process` is that thread's name,
    15 bytes at most; the thread chooses it, so it may contain control characters; "" if the notice has none.
    """

    number: int
    pid: int
    process: str


@dataclass(frozen=True, slots=True)
class Missed:
    """Some notices were lost, so the rules count as changed, by an unknown process."""


Notice: TypeAlias = Generation | Missed


class GenerationNoticesError(Exception):
    """Commit notices are not available; the message says why."""


class NoticesNotPermittedError(GenerationNoticesError):
    """The process may not join the group: it lacks CAP_NET_ADMIN over its network namespace."""


class NoticesUnsupportedError(GenerationNoticesError):
    """The kernel has no nf_tables, or this process cannot reach it."""


def parse_notice(data: bytes) -> list[Generation]:
    """The commits in a netlink datagram, in order. Never raises.

    A message of another type is skipped, and so is one that is cut off or whose attributes do not fit into it. After a
    message with an impossible length the rest of the datagram cannot be parsed, and is skipped too.
    """
    found: list[Generation] = []
    for kind, body in messages(data):
        if kind == NFT_MSG_NEWGEN:
            generation = _parse_generation(body)
            if generation is not None:
                found.append(generation)
    return found


def filter_program(byteorder: Literal["little", "big"] = sys.byteorder) -> bytes:
    """The socket filter that passes commit notices only: four instructions, struct sock_filter in linux/filter.h.

    A filter loads in big endian on every machine, and the message type is stored in the machine's byte order. So the
    constant to compare with is the value of the type's two bytes read in big endian.
    """
    stored = NFT_MSG_NEWGEN.to_bytes(2, byteorder)
    instructions = (
        (0x28, 0, 0, 4),  # BPF_LD | BPF_H | BPF_ABS: the 16 bits at offset 4 of nlmsghdr, the type.
        (0x15, 0, 1, int.from_bytes(stored, "big")),  # BPF_JMP | BPF_JEQ | BPF_K: if equal continue, else skip one.
        (0x06, 0, 0, _ACCEPT_ALL),  # BPF_RET | BPF_K: the whole message.
        (0x06, 0, 0, 0),  # BPF_RET | BPF_K: nothing of it.
    )
    layout = {"little": "<HBBI", "big": ">HBBI"}[byteorder]
    return b"".join(struct.pack(layout, *instruction) for instruction in instructions)


class GenerationNotices(AbstractContextManager["GenerationNotices"]):
    """The commits to nf_tables in the network namespace that the calling thread is in, from the opening on.

    Compare the rules once after opening: there are no notices of earlier changes.

    Raises `NoticesNotPermittedError`, `NoticesUnsupportedError`; OSError for anything else.
    """

    def __init__(self) -> None:
        self._socket = _open()
        try:
            _join_group(self._socket)
            self._number = current_generation()
        except (GenerationNoticesError, OSError):
            self.close()
            raise

    @property
    def number_at_opening(self) -> int:
        """The number of the generation that was in force right after the opening."""
        return self._number

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading. -1 after `close`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the group; a second time does nothing."""
        self._socket.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def leave(self) -> int:
        """Get no notices until `join`; the number of a generation up to which there was one of each commit. Raises
        GenerationNoticesError and OSError."""
        number = current_generation()
        self._socket.setsockopt(SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, NFNLGRP_NFTABLES)
        return number

    def join(self) -> int:
        """Get notices again; the number of a generation from which on there is one of each commit. Raises
        GenerationNoticesError and OSError."""
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        return current_generation()

    def read_available(self, limit: int = 64) -> list[Notice]:
        """What has arrived, in order, after at most `limit` reads; an empty list when there is nothing.

        The descriptor stays readable while there is more. Raises OSError if the socket fails.
        """
        notices: list[Notice] = []
        for _ in range(limit):
            try:
                data = receive(self._socket, _BUFFER)
            except OverrunError:
                notices.append(Missed())
                continue
            if data is None:
                break
            if data:
                notices += parse_notice(data) or [Missed()]
        return notices


def _parse_generation(body: bytes) -> Generation | None:
    if len(body) < FAMILY_HEADER.size:
        return None
    attributes = read_attributes(body, FAMILY_HEADER.size)
    if attributes is None:
        return None
    return _generation(attributes)


def _generation(attributes: dict[int, bytes]) -> Generation | None:
    """The generation with these attributes; None if one of them is missing or has another size."""
    number = attributes.get(NFTA_GEN_ID)
    pid = attributes.get(NFTA_GEN_PROC_PID, bytes(4))
    if number is None or len(number) != 4 or len(pid) != 4:
        return None
    name, _, _ = attributes.get(NFTA_GEN_PROC_NAME, b"").partition(b"\0")
    return Generation(
        int.from_bytes(number, "big"), int.from_bytes(pid, "big"), name.decode("utf-8", "surrogateescape")
    )


def _open() -> socket.socket:
    try:
        return open_socket(NETLINK_NETFILTER)
    except OSError as error:
        raise _refusal(error.errno) from error


def _join_group(reader: socket.socket) -> None:
    """Join the group, with the filter in place before the first message can arrive."""
    program = ctypes.create_string_buffer(filter_program())
    # struct sock_fprog: the number of instructions, and where they are. The kernel copies them.
    reader.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(program)))
    # The order matters. A socket without a port gets no messages, and bind() with no groups leaves the groups that were
    # joined before it (netlink_bind() in net/netlink/af_netlink.c). Neither returns an error.
    reader.bind((0, 0))
    try:
        reader.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
    except OSError as error:
        raise _refusal(error.errno) from error


def current_generation() -> int:
    """The number of the current generation in the network namespace of the calling thread. Raises
    GenerationNoticesError; OSError for anything else.

    A kernel without nf_tables lets a process join the group and never sends a message, so it has to be asked. The
    request does not use the socket of the notices, because the filter would drop an error.
    """
    length = HEADER.size + FAMILY_HEADER.size
    request = HEADER.pack(length, NFT_MSG_GETGEN, NLM_F_REQUEST, 1, 0) + FAMILY_HEADER.pack(socket.AF_UNSPEC, 0, 0)
    with kept_socket(_open) as requester:
        requester.sendto(request, (0, 0))
        # nfnetlink answers within sendto(), so there is nothing to wait for.
        answer = requester.recv(_BUFFER)
    for generation in parse_notice(answer):
        return generation.number
    for kind, body in messages(answer):
        if kind == NLMSG_ERROR and (number := error_number(body)) is not None:
            raise _refusal(number)
    raise NoticesUnsupportedError("commit notices of nf_tables: the kernel's answer cannot be parsed")


def _refusal(number: int | None) -> Exception:
    """The exception for an errno value: one of this module where the value has a known meaning."""
    if number in {errno.EPERM, errno.EACCES}:
        return NoticesNotPermittedError(
            "commit notices of nf_tables: not permitted; receiving them needs CAP_NET_ADMIN"
        )
    if number in _ABSENT:
        return NoticesUnsupportedError(f"commit notices of nf_tables: {_ABSENT[number]}")
    return OSError(number, f"commit notices of nf_tables: {os.strerror(number or 0)}")
