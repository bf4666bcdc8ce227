"""Packets that the kernel copies to us for rules with `-j NFLOG`, and an exact count of those that were lost.

A group belongs to one socket of one network namespace (net/netfilter/nfnetlink_log.c), so this is the source for
containers, where LOG is silent. `Numbers` is pure; `PacketLog` is the thin socket around it. It never waits: an event
loop watches `fileno()`.

The kernel numbers the packets of a group, and drops a batch of them when the socket has no room. So the next number
tells how many are gone; that some are is told at once, by ENOBUFS. What happens while nobody has the group is not
logged at all. This module refuses to know what is in a packet.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import Final, TypeAlias

from fwguardd.kernel.closing import Closing
from fwguardd.kernel.kmsg import Lost
from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    attribute,
    error_number,
    messages,
    open_socket,
)
from fwguardd.kernel.nflog_message import COPIED, NFULNL_MSG_CONFIG, LoggedPacket, parse_packets

_CFG_CMD, _CFG_MODE, _CFG_NLBUFSIZ, _CFG_TIMEOUT, _CFG_QTHRESH, _CFG_FLAGS = range(1, 7)
_CMD_BIND: Final = 1
_COPY_PACKET: Final = 2
_F_SEQ: Final = 1

_BATCH_BYTES: Final = 32768
"""The buffer in which the kernel gathers packets before it sends them: room for a hundred or so."""
_BATCH_PACKETS: Final = 128
_BATCH_WAIT: Final = 1
"""Hundredths of a second that a packet waits for others."""

_RECEIVE_BYTES: Final = 8 << 20
"""Room in the socket, which the kernel doubles: for some 65,000 small packets of a flood."""
_LARGEST_DATAGRAM: Final = 1 << 17
_U32: Final = 0xFFFFFFFF

Logged: TypeAlias = LoggedPacket | Lost


class PacketLogError(Exception):
    """Packets cannot be had; the message says why and what to do."""


class PacketLogNotPermittedError(PacketLogError):
    """The process may not listen: it lacks CAP_NET_ADMIN over its network namespace."""


class GroupTakenError(PacketLogError):
    """Another process has the group."""


class PacketLogUnsupportedError(PacketLogError):
    """There is no packet log here: the kernel has no nfnetlink_log, or this process cannot reach it."""


class Numbers:
    """The numbers of a group's packets, from the taking of the group on, and what is missing in them. Pure."""

    def __init__(self) -> None:
        self._expected = 0
        self._told = 0

    def overrun(self) -> Lost:
        """The socket had no room for a batch, and a batch has one packet at least: that one is told now, and the
        others when the next number shows how many they were."""
        self._told += 1
        return Lost(1)

    def account(self, packets: list[LoggedPacket]) -> list[Logged]:
        """The packets, and before each what is missing there and not told yet. Numbers start over after 2**32 - 1."""
        logged: list[Logged] = []
        for packet in packets:
            seq = packet.seq
            if seq is not None:
                missing = (seq - self._expected) & _U32
                self._expected = (seq + 1) & _U32
                told = min(missing, self._told)
                self._told -= told
                if missing > told:
                    logged.append(Lost(missing - told))
            logged.append(packet)
        return logged


class PacketLog(Closing):
    """One NFLOG group of the network namespace that the calling thread is in, from the opening on.

    `read_available` gives each packet once, in order, and before the first packet after a gap a `Lost` with the
    number of packets in the gap; after ENOBUFS one of them is told at once.

    Call it once after opening, before the first wait: a packet that comes during the opening is kept for it, and does
    not make the descriptor readable.

    Raises `PacketLogNotPermittedError`, `GroupTakenError`, `PacketLogUnsupportedError`; OSError for anything else.
    """

    def __init__(self, group: int, receive_bytes: int = _RECEIVE_BYTES) -> None:
        self.group = group
        self._numbers = Numbers()
        self._waiting: list[Logged] = []
        self._socket = _open(group)
        try:
            self._take(receive_bytes)
        except (PacketLogError, OSError):
            self.close()
            raise

    @property
    def port(self) -> int:
        """The netlink port that has the group, by which the kernel names its owner."""
        return int(self._socket.getsockname()[0])

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading. -1 after `close`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the group back; a second time does nothing."""
        self._socket.close()

    def read_available(self, limit: int) -> list[Logged]:
        """What has arrived, in order, no more than ``limit`` packets and one batch; empty when there is nothing."""
        logged, self._waiting = self._waiting, []
        while len(logged) < limit:
            try:
                data, (sender, _) = self._socket.recvfrom(_LARGEST_DATAGRAM)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # Said once when a batch found no room (netlink(7)).
                logged.append(self._numbers.overrun())
                continue
            if sender == 0:
                # Only the kernel is port 0. Others with CAP_NET_ADMIN can write to this socket, but not as port 0.
                logged += self._numbers.account(parse_packets(data))
        return logged

    def _take(self, receive_bytes: int) -> None:
        """Make the group ours, and say how its packets are to come."""
        self._socket.bind((0, 0))
        self._set_room(receive_bytes)
        self._ask(
            attribute(_CFG_CMD, bytes([_CMD_BIND])),
            attribute(_CFG_MODE, struct.pack(">IBB", COPIED, _COPY_PACKET, 0)),
            attribute(_CFG_NLBUFSIZ, struct.pack(">I", _BATCH_BYTES)),
            attribute(_CFG_TIMEOUT, struct.pack(">I", _BATCH_WAIT)),
            attribute(_CFG_QTHRESH, struct.pack(">I", _BATCH_PACKETS)),
            attribute(_CFG_FLAGS, struct.pack(">H", _F_SEQ)),
        )

    def _set_room(self, receive_bytes: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_bytes)
        except PermissionError:
            # Only CAP_NET_ADMIN of the initial user namespace may pass net.core.rmem_max (socket(7)).
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)

    def _ask(self, *attributes: bytes) -> None:
        """Have the kernel do something with the group. It answers within sendto(), behind packets that came before."""
        body = FAMILY_HEADER.pack(socket.AF_UNSPEC, 0, socket.htons(self.group)) + b"".join(attributes)
        header = HEADER.pack(HEADER.size + len(body), NFULNL_MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        self._socket.sendto(header + body, (0, 0))
        while (number := self._read_answer()) is None:
            pass
        if number:
            raise _refusal(number, self.group)

    def _read_answer(self) -> int | None:
        """The errno value in the kernel's answer; None when it was something else."""
        data = self._socket.recv(_LARGEST_DATAGRAM)
        self._waiting += self._numbers.account(parse_packets(data))
        numbers = (error_number(body) for kind, body in messages(data) if kind == NLMSG_ERROR)
        return next(numbers, None)


_SO_RCVBUFFORCE: Final = 33
"""asm-generic/socket.h, which Python 3.11 does not repeat."""

_ABSENT: Final = {
    errno.EPROTONOSUPPORT: "the kernel has no nfnetlink",
    errno.EAFNOSUPPORT: "netlink sockets are not to be had; does RestrictAddressFamilies= leave out AF_NETLINK?",
    errno.EINVAL: "the kernel has no nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG)",
    errno.ENOENT: "the kernel has no nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG)",
}


def _open(group: int) -> socket.socket:
    try:
        return open_socket(NETLINK_NETFILTER)
    except OSError as error:
        raise _refusal(error.errno, group) from error


def _refusal(number: int | None, group: int) -> Exception:
    """The exception for an errno value: one of ours where the value has a meaning here."""
    what = f"NFLOG group {group}"
    if number in {errno.EPERM, errno.EACCES, errno.EBUSY} and (holder := _holder(group)) is not None:
        return GroupTakenError(
            f"{what} is taken by netlink port {holder}, mostly a process id (/proc/net/netfilter/nfnetlink_log); "
            "stop that one, or choose another nflog_group"
        )
    if number in {errno.EPERM, errno.EACCES}:
        return PacketLogNotPermittedError(f"{what}: not permitted; listening needs CAP_NET_ADMIN")
    if number in _ABSENT:
        return PacketLogUnsupportedError(f"{what}: {_ABSENT[number]}")
    return OSError(number, f"{what}: {os.strerror(number or 0)}")


def _holder(group: int) -> str | None:
    """The netlink port that has a group in this network namespace; None when nobody has it, or it cannot be read."""
    try:
        lines = Path("/proc/thread-self/net/netfilter/nfnetlink_log").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    holders = {words[0]: words[1] for line in lines if len(words := line.split()) > 1}
    return holders.get(str(group))
