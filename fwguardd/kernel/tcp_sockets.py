"""The TCP sockets of this network namespace that listen or are connected, from sock_diag(7).

/proc/net/tcp and tcp6 have the same, but for each of them the kernel goes through the buckets of all connections one by
one, which takes it 4 ms on a host with 24 GB; sock_diag lists both families in 0.2 ms (measured with Linux 6.18). The
files are read where the kernel has no sock_diag for TCP.
"""

from __future__ import annotations

import struct
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from fwguardd.kernel.netlink import open_socket
from fwguardd.kernel.rtnetlink import dump_objects

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Address = IPv4Address | IPv6Address

SLASH: Final = Path("/")
TABLES: Final = ("proc/net/tcp", "proc/net/tcp6")
"""The files with the TCP sockets of each family (proc(5))."""

_ESTABLISHED, _LISTEN = 1, 10
"""include/net/tcp_states.h."""
_NETLINK_SOCK_DIAG: Final = 4
_TCPDIAG_GETSOCK: Final = 18
_REQUEST: Final = struct.Struct("=BBBB48xII")
"""struct inet_diag_req of linux/inet_diag.h: family, lengths of two attributes, extensions, an id, states, buckets. The
kernel takes it for a request for both families (inet_diag_dump_compat() in net/ipv4/inet_diag.c)."""
_MESSAGE: Final = struct.Struct("=BBBB2s2s16s16sI8x12xII")
"""struct inet_diag_msg: family, state, two of timers, ports, addresses, interface, …, user, inode."""
_SECONDS: Final = 5.0
_WORD: Final = {"little": -1, "big": 1}[sys.byteorder]
_INET, _INET6 = 2, 10


class TcpSocket(NamedTuple):
    """A socket: its own end, that of its peer, whether it listens, and its inode number. IPv4 over a socket of IPv6 is
    IPv4."""

    local: Address
    port: int
    peer: Address
    peer_port: int
    listens: bool
    inode: int


def tcp_sockets(root: Path = SLASH) -> list[TcpSocket]:
    """The sockets that listen or are connected; none where neither sock_diag nor the files can be read. Another
    ``root`` has only the files."""
    if root == SLASH:
        try:
            return list(_dumped())
        except OSError:
            pass
    found: list[TcpSocket] = []
    for name in TABLES:
        found += sockets_in(_text(root / name))
    return found


def _dumped() -> Iterator[TcpSocket]:
    """Raises OSError."""
    states = 1 << _ESTABLISHED | 1 << _LISTEN
    with open_socket(_NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_SECONDS)
        bodies = dump_objects(kernel, _TCPDIAG_GETSOCK, _REQUEST.pack(_INET, 0, 0, 0, states, 0))
    for body in bodies:
        family, state, _, _, port, peer_port, local, peer, *_, inode = _MESSAGE.unpack_from(body)
        ports = [int.from_bytes(one, "big") for one in (port, peer_port)]
        ends = (_address(family, local), _address(family, peer))
        yield TcpSocket(ends[0], ports[0], ends[1], ports[1], state == _LISTEN, inode)


def _address(family: int, data: bytes) -> Address:
    if family == _INET6:
        return _plain(IPv6Address(data))
    return IPv4Address(data[:4])


def _plain(address: IPv6Address) -> Address:
    return address.ipv4_mapped or address


def sockets_in(table: str) -> Iterator[TcpSocket]:
    """The sockets in the text of /proc/net/tcp or tcp6 that listen or are connected."""
    for line in table.splitlines()[1:]:
        _, local, peer, state, *others = line.split()
        number = int(state, 16)
        if number in (_ESTABLISHED, _LISTEN):
            yield TcpSocket(*_end(local), *_end(peer), number == _LISTEN, _inode(others))


def _end(text: str) -> tuple[Address, int]:
    """An end as the kernel prints it: words of 32 bits, each in the byte order of the machine, and the port."""
    address, _, port = text.partition(":")
    data = b"".join(bytes.fromhex(address[at : at + 8])[::_WORD] for at in range(0, len(address), 8))
    if len(data) == len(IPv4Address(0).packed):
        return IPv4Address(data), int(port, 16)
    return _plain(IPv6Address(data)), int(port, 16)


def _inode(others: list[str]) -> int:
    return int("".join(others[5:6]) or 0)


def listening_ports(sockets: Iterable[TcpSocket]) -> frozenset[int]:
    """The ports on which sockets listen."""
    return frozenset(one.port for one in sockets if one.listens)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
