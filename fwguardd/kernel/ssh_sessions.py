"""The ssh sessions of this host: established TCP connections to the ports of sshd, from /proc/net/tcp (proc(5)).

The ports of sshd are 22, those that sshd_config(5) names, and those on which a running sshd listens. Of a file that
cannot be read nothing is taken.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.kernel.sockets import tcp_ports_in
from fwguardd.ruleset.ssh_sessions import SshSession

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from fwguardd.ruleset.ssh_sessions import Address

SLASH = Path("/")
_ORDER = {"little": -1, "big": 1}[sys.byteorder]
SSH_SERVERS = frozenset({"sshd", "dropbear"})
"""The names of ssh servers (proc(5), comm)."""

SSH_UNITS = ("ssh.service", "sshd.service", "dropbear.service")
"""The units of ssh servers."""

TCP_ESTABLISHED, TCP_LISTEN = "01", "0A"
"""States in /proc/net/tcp (include/net/tcp_states.h)."""

TCP_TABLES = ("proc/net/tcp", "proc/net/tcp6")
"""The files with the TCP sockets of each family (proc(5))."""

_IN_USE = re.compile(r"^TCP6?: inuse ([0-9]+)", re.MULTILINE)
_PORT = re.compile(r"^[ \t]*Port[ \t=]+([0-9]{1,5})[ \t]*$", re.IGNORECASE | re.MULTILINE)


def ssh_sessions(root: Path = SLASH, ports: frozenset[int] = frozenset()) -> tuple[SshSession, ...]:
    """The sessions in the network namespace of this process, to these ports; without any, to those of sshd."""
    return ports_and_sessions(root, ports)[1]


def ports_and_sessions(
    root: Path = SLASH, ports: frozenset[int] = frozenset()
) -> tuple[frozenset[int], tuple[SshSession, ...]]:
    """The ports and the sessions. For each table the kernel goes through all its hash buckets, which takes it 6 ms on a
    host with 24 GB, so each is read once."""
    tables = [_text(root / name) for name in TCP_TABLES]
    ports = ports or ssh_ports(root, tables)
    return ports, tuple(session for table in tables for session in sessions_in(table, ports))


def may_have_sessions(root: Path = SLASH) -> bool:
    """Whether any TCP socket is in use, by /proc/net/sockstat (proc(5)), which is read in no time. True where that
    cannot be read."""
    counts = _IN_USE.findall(_text(root / "proc/net/sockstat") + _text(root / "proc/net/sockstat6"))
    return not counts or any(map(int, counts))


def ssh_ports(root: Path = SLASH, tables: Sequence[str] = ()) -> frozenset[int]:
    """The ports that sshd listens on, by these texts of /proc/net/tcp and tcp6, those that it is configured to listen
    on, and 22."""
    ports = {22, *_listening_ports(root, tables), *_ports_of_units(root)}
    folder = root / "etc/ssh"
    for path in (folder / "sshd_config", *sorted(folder.glob("sshd_config.d/*.conf"))):
        ports.update(map(int, _PORT.findall(_text(path))))
    return frozenset(ports)


def _listening_ports(root: Path, tables: Sequence[str]) -> Iterator[int]:
    """The ports of the listening sockets of running ssh servers, as far as their descriptors can be read."""
    sockets = frozenset(_sockets_of_servers(root))
    if not sockets:
        return
    for table in tables:
        yield from _ports_of_sockets(table, sockets)


def _ports_of_sockets(table: str, sockets: frozenset[str]) -> Iterator[int]:
    """The ports of listening sockets with these inodes in the text of /proc/net/tcp or tcp6."""
    for line in table.splitlines()[1:]:
        _, local, _, state, *others = line.split()
        if state == TCP_LISTEN and sockets.intersection(others[5:6]):
            yield int(local.partition(":")[2], 16)


def _ports_of_units(root: Path) -> frozenset[int]:
    """The ports on which the services of ssh servers listen; that needs no access to their processes."""
    cgroups: set[int] = set()
    for name in SSH_UNITS:
        with contextlib.suppress(OSError):
            cgroups.add((root / "sys/fs/cgroup/system.slice" / name).stat().st_ino)
    if not cgroups:
        return frozenset()
    try:
        return tcp_ports_in(cgroups)
    except OSError:
        return frozenset()


def _sockets_of_servers(root: Path) -> Iterator[str]:
    """The inodes of the sockets that ssh servers hold (proc(5), fd)."""
    for comm in root.glob("proc/[0-9]*/comm"):
        if _text(comm).rstrip() not in SSH_SERVERS:
            continue
        with contextlib.suppress(OSError):
            for descriptor in (comm.parent / "fd").iterdir():
                link = os.readlink(descriptor)
                if link.startswith("socket:["):
                    yield link[8:-1]


def _is_established(fields: Sequence[str]) -> bool:
    return len(fields) > 3 and fields[3] == TCP_ESTABLISHED


def sessions_in(table: str, ports: Collection[int]) -> Iterator[SshSession]:
    """The established connections to these local ports in the text of /proc/net/tcp or tcp6."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if not _is_established(fields):
            continue
        local, _, port = fields[1].partition(":")
        if int(port, 16) in ports:
            yield SshSession(address_in_table(fields[2].partition(":")[0]), address_in_table(local), int(port, 16))


def address_in_table(text: str) -> Address:
    """An address as the kernel prints it: words of 32 bits, each in the byte order of the machine."""
    data = b"".join(bytes.fromhex(text[at : at + 8])[::_ORDER] for at in range(0, len(text), 8))
    if len(data) == 4:
        return IPv4Address(data)
    address = IPv6Address(data)
    return address.ipv4_mapped or address


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
