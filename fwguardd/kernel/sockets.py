"""The listening sockets of this network namespace, from sock_diag(7), and the programs that hold them, from /proc.

A UDP socket listens if it is not connected. Which process holds a socket is known by the socket's inode number, in
/proc/PID/fd; only root may read those of other users. Of a process that has ended meanwhile nothing is known.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import struct
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.cgroups import unit_of
from fwguardd.kernel.local_users import local_user
from fwguardd.kernel.netlink import open_socket, read_attributes
from fwguardd.kernel.rtnetlink import dump_objects
from fwguardd.packets.endpoints import ListeningSocket, Program
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    Address = IPv4Address | IPv6Address

PROC: Final = Path("/proc")

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
"""linux/sock_diag.h."""
_REQUEST: Final = struct.Struct("=BBBxI48x")
"""struct inet_diag_req_v2 of linux/inet_diag.h: family, protocol, extensions, states, and an id that is all zeros."""
_MESSAGE: Final = struct.Struct("=BBBB2s2s16s16sI8x12xII")
"""struct inet_diag_msg: family, state, two of timers, ports, addresses, interface, …, user, inode."""
_INET_DIAG_SKV6ONLY: Final = 11
_INET_DIAG_CGROUP_ID: Final = 21
_TCP_CLOSE, _TCP_LISTEN = 7, 10
"""include/net/tcp_states.h. An unconnected UDP socket is in the state TCP_CLOSE."""
_PROTOCOLS: Final = {
    "tcp": (socket.IPPROTO_TCP, 1 << _TCP_LISTEN),
    "udp": (socket.IPPROTO_UDP, 1 << _TCP_CLOSE),
    "sctp": (socket.IPPROTO_SCTP, 1 << _TCP_LISTEN),
}
_SOCKET: Final = re.compile(r"socket:\[([0-9]+)\]")
_SECONDS: Final = 5.0
_INIT: Final = 1


@dataclass(frozen=True, slots=True)
class _Found:
    """A socket with what identifies its process."""

    socket: ListeningSocket
    inode: int
    uid: int


def listening_sockets() -> tuple[ListeningSocket, ...]:
    """The listening sockets, by port and protocol, with their programs. Raises OSError where they cannot be listed."""
    found: list[_Found] = []
    for name, family in itertools.product(_PROTOCOLS, (socket.AF_INET, socket.AF_INET6)):
        found += map(partial(_found, name), _listening(name, family))
    holders = _holders({one.inode for one in found})
    return tuple(sorted(map(partial(_with_program, holders), found), key=_by_port))


def tcp_ports_in(cgroups: Collection[int]) -> frozenset[int]:
    """The TCP ports on which processes of these control groups listen; the groups are given by the inode numbers of
    their directories (INET_DIAG_CGROUP_ID, since Linux 5.8). Needs no privilege. Raises OSError."""
    wanted = {struct.pack("=Q", number) for number in cgroups}
    ports: set[int] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        for content in _listening("tcp", family):
            if (read_attributes(content, _MESSAGE.size) or {}).get(_INET_DIAG_CGROUP_ID) in wanted:
                ports.add(int.from_bytes(_MESSAGE.unpack_from(content)[4], "big"))
    return frozenset(ports)


def _by_port(one: ListeningSocket) -> tuple[int, str, int, int]:
    return one.port, one.protocol, one.address.version, int(one.address)


def _listening(protocol: str, family: int) -> list[bytes]:
    """The messages about sockets of one protocol and family; none where the kernel lacks the protocol."""
    number, states = _PROTOCOLS[protocol]
    with open_socket(_NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_SECONDS)
        try:
            return dump_objects(kernel, _SOCK_DIAG_BY_FAMILY, _REQUEST.pack(family, number, 0, states))
        except FileNotFoundError:
            return []


def _found(protocol: str, content: bytes) -> _Found:
    family, _, _, _, port, _, source, _, interface, uid, inode = _MESSAGE.unpack_from(content)
    address = _ADDRESSES[family](source)
    listening = ListeningSocket(
        protocol, address, int.from_bytes(port, "big"), _interface(interface), _takes_ipv4(address, content)
    )
    return _Found(listening, inode, uid)


def _ipv4(source: bytes) -> Address:
    return IPv4Address(source[:4])


def _ipv6(source: bytes) -> Address:
    """An address of an IPv6 socket. One that is bound to an IPv4 address (ipv6(7)) takes packets of IPv4 only."""
    address = IPv6Address(source)
    return address.ipv4_mapped or address


_ADDRESSES: Final[Mapping[int, Callable[[bytes], Address]]] = {socket.AF_INET: _ipv4, socket.AF_INET6: _ipv6}


def _takes_ipv4(address: Address, content: bytes) -> bool:
    """Whether a socket of IPv6 takes packets of IPv4 too."""
    attributes = read_attributes(content, _MESSAGE.size) or {}
    return address == IPv6Address(0) and attributes.get(_INET_DIAG_SKV6ONLY) == b"\0"


def _interface(index: int) -> str:
    """The name of the interface that a socket is bound to; "" for none, or one that is gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def _with_program(holders: Mapping[int, Program], found: _Found) -> ListeningSocket:
    program = holders.get(found.inode, Program())
    return replace(found.socket, program=replace(program, user=program.user or _user_name(found.uid)))


def _user_name(uid: int) -> str:
    return local_user(uid) or f"uid {uid}"


def _holders(inodes: set[int], proc: Path = PROC) -> dict[int, Program]:
    """The program of each socket. Of several processes it is the one with the lowest id, but not systemd, which also
    holds the sockets of the services that it starts on demand. Processes of other network namespaces come last: they
    hold such a socket only if it was handed to them."""
    found: dict[int, Program] = {}
    own = _target(proc / "thread-self/ns/net")
    for _, _, pid in sorted(_rank(pid, own, proc) for pid in _process_ids(proc)):
        for inode in inodes.intersection(_sockets_of(f"{proc}/{pid}/fd")).difference(found):
            found[inode] = _program(proc / str(pid), pid)
        if len(found) == len(inodes):
            break
    return found


def _rank(pid: int, own: str, proc: Path) -> tuple[bool, bool, int]:
    """The order in which processes are looked at; ``own`` is the network namespace of this one."""
    return pid == _INIT, _target(f"{proc}/{pid}/ns/net") != own, pid


def _process_ids(proc: Path) -> Iterator[int]:
    return map(int, filter(str.isdecimal, os.listdir(proc)))  # noqa: PTH208 - names are enough.


def _sockets_of(descriptors: str) -> Iterator[int]:
    """The inode numbers of the sockets in /proc/PID/fd; none of a process that has ended or may not be read."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(descriptors):  # noqa: PTH208 - names are enough.
            yield from map(int, _SOCKET.findall(_target(f"{descriptors}/{descriptor}")))


def _target(link: Path | str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _program(process: Path, pid: int) -> Program:
    name = _text(process / "comm").strip()
    return Program(name, pid, _owner(process), unit_of(_text(process / "cgroup")) or "")


def _owner(process: Path) -> str:
    try:
        return _user_name(process.stat().st_uid)
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
