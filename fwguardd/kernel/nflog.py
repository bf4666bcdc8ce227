"""Packets that the kernel copies for rules with `-j NFLOG`, an exact count of the lost ones, and device names.

A group belongs to one socket of one network namespace (net/netfilter/nfnetlink_log.c), so this is the source for
containers, where LOG writes nothing. `Numbers` is pure; `PacketLog` is the thin socket around it. It never waits: an
event loop watches `fileno()`.

The kernel numbers the packets of a group, and drops a batch of them when the socket has no room. ENOBUFS reports that
at once, and the next number shows how many were lost. While no socket has the group, nothing is logged. This module
does not know what is in a packet.

A packet names its devices by index. `DeviceNames` maps an index to the current name of the device. The kernel reports
each change of a device to a netlink group (rtnetlink(7)). No event loop waits for that socket: it is read before names
are looked up, so devices that are created and removed cause no wake-up, and no name is outdated.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.kernel.kmsg import Lost
from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    SOL_NETLINK,
    OverrunError,
    attribute,
    enlarge,
    error_number,
    messages,
    open_socket,
    receive,
)
from fwguardd.kernel.nflog_message import COPIED, NFULNL_MSG_CONFIG, LoggedPacket, parse_packets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NETLINK_ROUTE: Final = 0
RTNLGRP_LINK: Final = 1
"""linux/rtnetlink.h: devices that are created, removed or changed."""

_CFG_CMD, _CFG_MODE, _CFG_NLBUFSIZ, _CFG_TIMEOUT, _CFG_QTHRESH, _CFG_FLAGS = range(1, 7)
_CMD_BIND: Final = 1
_COPY_PACKET: Final = 2
_F_SEQ: Final = 1

_BATCH_BYTES: Final = 32768
"""The buffer in which the kernel collects packets before it sends them: room for about a hundred."""
_BATCH_PACKETS: Final = 128
_ONE_PACKET_BYTES: Final = 1024
"""The buffer of a group whose packets are sent one by one."""
_BATCH_WAIT: Final = 1
"""The longest that a packet waits for others, in hundredths of a second."""

_RECEIVE_BYTES: Final = 8 << 20
"""The size of the receive buffer, which the kernel doubles: room for about 65,000 small packets."""
_LARGEST_DATAGRAM: Final = 1 << 17
_U32: Final = 0xFFFFFFFF

Logged: TypeAlias = LoggedPacket | Lost


class PacketLogError(Exception):
    """The group cannot be received; the message says why and what to do."""


class PacketLogNotPermittedError(PacketLogError):
    """The process may not bind the group: it lacks CAP_NET_ADMIN over its network namespace."""


class GroupTakenError(PacketLogError):
    """Another process has the group."""


class PacketLogUnsupportedError(PacketLogError):
    """The kernel has no nfnetlink_log, or this process cannot reach it."""


class Numbers:
    """The numbers of a group's packets since the group was bound, and which are missing. Pure."""

    def __init__(self) -> None:
        self._expected = 0
        self._reported = 0

    def overrun(self) -> Lost:
        """The socket had no room for a batch. A batch has at least one packet: that one is reported now, and the others
        when the next number shows how many they were."""
        self._reported += 1
        return Lost(1)

    def account(self, packets: list[LoggedPacket]) -> list[Logged]:
        """The packets, and before each of them the lost ones that are not reported yet.

        Numbers start over after 2**32 - 1.
        """
        logged: list[Logged] = []
        for packet in packets:
            seq = packet.seq
            if seq is not None:
                missing = (seq - self._expected) & _U32
                self._expected = (seq + 1) & _U32
                reported = min(missing, self._reported)
                self._reported -= reported
                if missing > reported:
                    logged.append(Lost(missing - reported))
            logged.append(packet)
        return logged


class PacketLog(AbstractContextManager["PacketLog"]):
    """One NFLOG group of the network namespace that the calling thread is in, from the opening on.

    `read_available` returns each packet once, in order, and before the first packet after a gap a `Lost` with the
    number of packets in the gap; after ENOBUFS one of them is reported at once.

    Call it once after opening, before the first wait: a packet that arrives during the opening is kept for it, and does
    not make the descriptor readable. ``at_once`` has the kernel send each packet by itself, without waiting for others.

    Raises `PacketLogNotPermittedError`, `GroupTakenError`, `PacketLogUnsupportedError`; OSError for anything else.
    """

    def __init__(self, group: int, receive_bytes: int = _RECEIVE_BYTES, *, at_once: bool = False) -> None:
        self.group = group
        self._batch = (_BATCH_PACKETS, _BATCH_BYTES)
        if at_once:
            self._batch = (1, _ONE_PACKET_BYTES)
        self._numbers = Numbers()
        self._waiting: list[Logged] = []
        self._socket = _open(group)
        try:
            self._bind(receive_bytes)
        except (PacketLogError, OSError):
            self.close()
            raise

    @property
    def port(self) -> int:
        """The netlink port of this socket, by which the kernel names the owner of the group."""
        return int(self._socket.getsockname()[0])

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading. -1 after `close`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Release the group; a second time does nothing."""
        self._socket.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_available(self, limit: int) -> list[Logged]:
        """What has arrived, in order, at most ``limit`` packets and one batch; empty when there is nothing."""
        logged, self._waiting = self._waiting, []
        while len(logged) < limit:
            try:
                data = receive(self._socket, _LARGEST_DATAGRAM)
            except OverrunError:
                logged.append(self._numbers.overrun())
                continue
            if data is None:
                break
            logged += self._numbers.account(parse_packets(data))
        return logged

    def _bind(self, receive_bytes: int) -> None:
        """Bind the group, and set how the kernel sends its packets."""
        self._socket.bind((0, 0))
        self._set_receive_buffer(receive_bytes)
        self._configure(
            attribute(_CFG_CMD, bytes([_CMD_BIND])),
            attribute(_CFG_MODE, struct.pack(">IBB", COPIED, _COPY_PACKET, 0)),
            attribute(_CFG_NLBUFSIZ, struct.pack(">I", self._batch[1])),
            attribute(_CFG_TIMEOUT, struct.pack(">I", _BATCH_WAIT)),
            attribute(_CFG_QTHRESH, struct.pack(">I", self._batch[0])),
            attribute(_CFG_FLAGS, struct.pack(">H", _F_SEQ)),
        )

    def _set_receive_buffer(self, receive_bytes: int) -> None:
        enlarge(self._socket, receive_bytes)

    def _configure(self, *attributes: bytes) -> None:
        """Send a request about the group. The kernel answers within sendto(), after packets that arrived earlier."""
        body = FAMILY_HEADER.pack(socket.AF_UNSPEC, 0, socket.htons(self.group)) + b"".join(attributes)
        header = HEADER.pack(HEADER.size + len(body), NFULNL_MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        self._socket.sendto(header + body, (0, 0))
        while (number := self._read_answer()) is None:
            pass
        if number:
            raise _refusal(number, self.group)

    def _read_answer(self) -> int | None:
        """The errno value in the kernel's answer; None when the datagram was not an answer."""
        data = self._socket.recv(_LARGEST_DATAGRAM)
        self._waiting += self._numbers.account(parse_packets(data))
        for kind, body in messages(data):
            if kind == NLMSG_ERROR:
                return error_number(body)
        return None


class DeviceNames:
    """The devices of the network namespace that the calling thread is in. Raises OSError where there is no netlink."""

    def __init__(self, name_of: Callable[[int], str] = socket.if_indextoname) -> None:
        self._name_of = name_of
        self._names: dict[int, bytes | None] = {}
        self._socket = open_socket(NETLINK_ROUTE)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK)
        except OSError:
            self.close()
            raise

    def refresh(self) -> bool:
        """Whether any device has changed since the last call; then all names are forgotten."""
        changed = False
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take_notice()
                changed = True
        if changed:
            self._names.clear()
        return changed

    def _take_notice(self) -> None:
        """Take one notice, or learn that some were dropped. Raises BlockingIOError if there is none."""
        try:
            # One byte is enough: only whether there is a notice matters.
            self._socket.recv(1)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise

    def name(self, index: int) -> bytes | None:
        """A device's name; None when no device has this index, or has it any more."""
        if index not in self._names:
            name = None
            with contextlib.suppress(OSError):
                name = os.fsencode(self._name_of(index))
            self._names[index] = name
        return self._names[index]

    def close(self) -> None:
        """Leave the group; a second time does nothing."""
        self._socket.close()


_ABSENT: Final = {
    errno.EPROTONOSUPPORT: "the kernel has no nfnetlink",
    errno.EAFNOSUPPORT: "no netlink sockets are available; does RestrictAddressFamilies= lack AF_NETLINK?",
    errno.EINVAL: "the kernel has no nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG)",
    errno.ENOENT: "the kernel has no nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG)",
}


def _open(group: int) -> socket.socket:
    try:
        return open_socket(NETLINK_NETFILTER)
    except OSError as error:
        raise _refusal(error.errno, group) from error


def _refusal(number: int | None, group: int) -> Exception:
    """The exception for an errno value: one of this module where the value has a known meaning."""
    what = f"NFLOG group {group}"
    if number in {errno.EPERM, errno.EACCES, errno.EBUSY} and (owner := _owner(group)) is not None:
        return GroupTakenError(
            f"{what} is bound to netlink port {owner}, which is usually a process id "
            "(/proc/net/netfilter/nfnetlink_log); stop that process, or set another nflog_group:"
        )
    if number in {errno.EPERM, errno.EACCES}:
        return PacketLogNotPermittedError(f"{what}: not permitted; receiving packets needs CAP_NET_ADMIN")
    if number in _ABSENT:
        return PacketLogUnsupportedError(f"{what}: {_ABSENT[number]}")
    return OSError(number, f"{what}: {os.strerror(number or 0)}")


def _owner(group: int) -> str | None:
    """The netlink port that has a group in this network namespace; None if no socket has it, or it cannot be read."""
    try:
        lines = Path("/proc/thread-self/net/netfilter/nfnetlink_log").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return _owner_in(lines, group)


def _owner_in(lines: Iterable[str], group: int) -> str | None:
    for line in lines:
        fields = line.split()
        if len(fields) > 1 and fields[0] == str(group):
            return fields[1]
    return None
