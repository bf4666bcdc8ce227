"""The process connector: the kernel reports each process that is made, and each that starts a program.

The messages are those of linux/cn_proc.h, in multicast group 1 of NETLINK_CONNECTOR. `parse_event` is pure;
`ProcessEvents` is the thin socket around it. It never waits.

The kernel sends them for all processes of the host, whatever namespaces these are in, but only to a socket in the
initial network namespace whose process is in the initial pid and user namespace and has CAP_NET_ADMIN
(cn_proc_mcast_ctl() in drivers/connector/cn_proc.c). A socket filter drops new threads, exits and all other events in
the kernel. Linux 6.6 and newer do not even build most of these for a listener that asks for forks and execs only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from fwguardd.kernel.netlink import HEADER, NETLINK_ADD_MEMBERSHIP, SO_ATTACH_FILTER, SOL_NETLINK, open_socket, receive

if TYPE_CHECKING:
    from collections.abc import Callable

NETLINK_CONNECTOR: Final = 11
"""linux/netlink.h."""
CN_IDX_PROC: Final = 1
CN_VAL_PROC: Final = 1
"""linux/connector.h: the id of the process connector; its index is also the number of the multicast group."""
PROC_CN_MCAST_LISTEN: Final = 1
PROC_CN_MCAST_IGNORE: Final = 2
PROC_EVENT_NONE: Final = 0
PROC_EVENT_FORK: Final = 1
PROC_EVENT_EXEC: Final = 2
"""linux/cn_proc.h. NONE is the answer to a request; it carries an errno value."""

_NLMSG_DONE: Final = 3
_CONNECTOR: Final = struct.Struct("=IIIIHH")
"""struct cn_msg: index, value, sequence number, acknowledgement, length of the data, flags."""
_MESSAGE: Final = struct.Struct("=16xII12xI12x4xIII")
"""struct nlmsghdr, which is skipped; of struct cn_msg index and value; of struct proc_event what and, after processor
and time, four numbers, of which the first is skipped. Of a fork they are the thread and process id of the parent and
of the child, of an exec the thread and process id."""
_ANSWER: Final = struct.Struct("=16xII12xI12xI")
"""The same for the answer to a request, whose first number is an errno value."""
_WHAT_AT: Final = HEADER.size + _CONNECTOR.size
"""Where an event's type is in a datagram."""
_CHILD_AT: Final = _WHAT_AT + 24
"""Where a fork has the child's thread id; its process id follows."""
_LARGEST: Final = 4096
_RECEIVE_BUFFER: Final = 1 << 20
"""Bytes of waiting messages, of which each counts with about 1 KiB: some hundred events at once."""


class ProcessEventsUnavailableError(Exception):
    """The process connector cannot be used; the message says why."""


class Fork(NamedTuple):
    """A process was made: its id, and that of its parent."""

    process: int
    parent: int


class Exec(NamedTuple):
    """A process has started a program, which has not run yet."""

    process: int


ProcessEvent: TypeAlias = Fork | Exec


def parse_event(data: bytes) -> ProcessEvent | None:
    """The fork or exec in a datagram; the kernel puts one event into each. Never raises.

    None for anything else, such as a new thread.
    """
    if len(data) < _MESSAGE.size:
        return None
    index, value, what, process, child_thread, child = _MESSAGE.unpack_from(data)
    if (index, value) != (CN_IDX_PROC, CN_VAL_PROC):
        return None
    if what == PROC_EVENT_EXEC:
        return Exec(process)
    if what == PROC_EVENT_FORK and child_thread == child:
        return Fork(child, process)
    return None


def filter_program(byteorder: Literal["little", "big"] = sys.byteorder) -> bytes:
    """The socket filter that passes execs, new processes and answers only: struct sock_filter in linux/filter.h.

    A filter loads in big endian on every machine, and the event's type is stored in the machine's byte order.
    """
    fork, execution = (
        int.from_bytes(what.to_bytes(4, byteorder), "big") for what in (PROC_EVENT_FORK, PROC_EVENT_EXEC)
    )
    instructions = (
        (0x20, 0, 0, _WHAT_AT),  # BPF_LD | BPF_W | BPF_ABS: the type of the event.
        (0x15, 6, 0, execution),  # BPF_JMP | BPF_JEQ | BPF_K: an exec passes.
        (0x15, 5, 0, PROC_EVENT_NONE),  # An answer passes too.
        (0x15, 0, 5, fork),  # Of the others only a fork can pass.
        (0x20, 0, 0, _CHILD_AT),
        (0x07, 0, 0, 0),  # BPF_MISC | BPF_TAX: keep the child's thread id.
        (0x20, 0, 0, _CHILD_AT + 4),
        (0x1D, 0, 1, 0),  # BPF_JMP | BPF_JEQ | BPF_X: it is the process id, so this is no further thread.
        (0x06, 0, 0, 0xFFFFFFFF),  # BPF_RET | BPF_K: the whole message.
        (0x06, 0, 0, 0),  # BPF_RET | BPF_K: nothing of it.
    )
    layout = {"little": "<HBBI", "big": ">HBBI"}[byteorder]
    return b"".join(struct.pack(layout, *instruction) for instruction in instructions)


class ProcessEvents(AbstractContextManager["ProcessEvents"]):
    """The processes that are made, and the programs that they start, on this host from the opening on.

    Raises ProcessEventsUnavailableError; OSError for anything else.
    """

    def __init__(self) -> None:
        self._socket = _open()
        try:
            _subscribe(self._socket)
        except (ProcessEventsUnavailableError, OSError):
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor, to poll for reading. -1 after `close`."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the subscription; a second time does nothing.

        Before Linux 6.6 the kernel counts a listener until it says that it ignores the events; closing is not enough.
        """
        if self._socket.fileno() != -1:
            with contextlib.suppress(OSError):
                self._socket.send(_request(struct.pack("=I", PROC_CN_MCAST_IGNORE)))
            self._socket.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_available(self, limit: int = 1024) -> list[ProcessEvent]:
        """What has arrived, in order, after at most ``limit`` reads.

        Raises netlink.OverrunError if the kernel has dropped some, OSError if the socket fails.
        """
        found: list[ProcessEvent] = []
        for _ in range(limit):
            data = receive(self._socket, _LARGEST)
            if data is None:
                break
            event = parse_event(data)
            if event is not None:
                found.append(event)
        return found


def try_process_events(opener: Callable[[], ProcessEvents] = ProcessEvents) -> ProcessEvents | None:
    """The process events, or None where they cannot be used."""
    try:
        return opener()
    except (ProcessEventsUnavailableError, OSError):
        return None


def _open() -> socket.socket:
    try:
        return open_socket(NETLINK_CONNECTOR)
    except OSError as error:
        raise ProcessEventsUnavailableError(
            f"the kernel has no process connector: {os.strerror(error.errno or 0)}"
        ) from error


def _subscribe(end: socket.socket) -> None:
    """Ask for the events, with the filter in place before the first one can arrive, and read the answer."""
    instructions = filter_program()
    program = ctypes.create_string_buffer(instructions)
    end.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(instructions) // 8, ctypes.addressof(program))
    )
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    end.bind((0, 0))
    try:
        end.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, CN_IDX_PROC)
        end.send(_request(struct.pack("=I", PROC_CN_MCAST_LISTEN)))
    except OSError as error:
        raise _refusal(error.errno) from error
    _check_answer(end)
    # Kernels before 6.6 ignore a request of this length. Since then it limits the first one.
    end.send(_request(struct.pack("=II", PROC_CN_MCAST_LISTEN, PROC_EVENT_FORK | PROC_EVENT_EXEC)))


def _check_answer(end: socket.socket) -> None:
    """The kernel answers within send(). In another pid or user namespace than the initial one it does not answer."""
    while True:
        data = receive(end, _LARGEST)
        if data is None:
            raise ProcessEventsUnavailableError(
                "the process connector does not answer outside of the initial namespaces"
            )
        number = _answered(data)
        if number:
            raise _refusal(number)
        if number is not None:
            return


def _answered(data: bytes) -> int | None:
    """The errno value of an answer, 0 for success; None if the datagram is not an answer."""
    if len(data) < _ANSWER.size:
        return None
    index, value, what, number = _ANSWER.unpack_from(data)
    if (index, value, what) != (CN_IDX_PROC, CN_VAL_PROC, PROC_EVENT_NONE):
        return None
    return int(number)


def _request(operation: bytes) -> bytes:
    message = _CONNECTOR.pack(CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(operation), 0) + operation
    return HEADER.pack(HEADER.size + len(message), _NLMSG_DONE, 0, 0, os.getpid()) + message


def _refusal(number: int | None) -> ProcessEventsUnavailableError:
    if number in {errno.EPERM, errno.EACCES}:
        return ProcessEventsUnavailableError("the process connector needs CAP_NET_ADMIN in the initial user namespace")
    if number == errno.ECONNREFUSED:
        return ProcessEventsUnavailableError("the process connector is only in the initial network namespace")
    return ProcessEventsUnavailableError(f"the process connector: {os.strerror(number or 0)}")
