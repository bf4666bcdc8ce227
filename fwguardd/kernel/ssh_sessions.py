"""The ssh sessions of this host: established TCP connections to the ports of sshd.

The ports of sshd are 22, those that sshd_config(5) names, and those on which a running sshd listens. Of a file that
cannot be read nothing is taken.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.kernel.sockets import tcp_ports_in
from fwguardd.kernel.tcp_sockets import tcp_sockets
from fwguardd.ruleset.ssh_sessions import SshSession

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from fwguardd.kernel.tcp_sockets import TcpSocket

SLASH = Path("/")
SSH_SERVERS = frozenset({"sshd", "dropbear"})
"""The names of ssh servers (proc(5), comm)."""

SSH_UNITS = ("ssh.service", "sshd.service", "dropbear.service")
"""The units of ssh servers."""

_LONGEST_NAME = 64
_PORT = re.compile(r"^[ \t]*Port[ \t=]+([0-9]{1,5})[ \t]*$", re.IGNORECASE | re.MULTILINE)


def ssh_sessions(root: Path = SLASH, ports: frozenset[int] = frozenset()) -> tuple[SshSession, ...]:
    """The sessions in the network namespace of this process, to these ports; without any, to those of sshd."""
    return ports_and_sessions(root, ports)[1]


def ports_and_sessions(
    root: Path = SLASH, ports: frozenset[int] = frozenset()
) -> tuple[frozenset[int], tuple[SshSession, ...]]:
    """The ports and the sessions."""
    sockets = tcp_sockets(root)
    ports = ports or ssh_ports(root, sockets)
    return ports, tuple(sessions_in(sockets, ports))


def ssh_ports(root: Path = SLASH, sockets: Iterable[TcpSocket] = ()) -> frozenset[int]:
    """The ports of those of these sockets on which sshd listens, those that it is configured to listen on, and 22."""
    ports = {22, *_listening_ports(root, sockets), *_ports_of_units(root)}
    folder = root / "etc/ssh"
    for path in (folder / "sshd_config", *sorted(folder.glob("sshd_config.d/*.conf"))):
        ports.update(map(int, _PORT.findall(_text(path))))
    return frozenset(ports)


def _listening_ports(root: Path, sockets: Iterable[TcpSocket]) -> Iterator[int]:
    """The ports of the listening sockets of running ssh servers, as far as their descriptors can be read."""
    listening = [one for one in sockets if one.listens]
    if not listening:
        return
    inodes = frozenset(_sockets_of_servers(root))
    for one in listening:
        if one.inode in inodes:
            yield one.port


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


def _sockets_of_servers(root: Path) -> Iterator[int]:
    """The inode numbers of the sockets that ssh servers hold (proc(5), fd)."""
    for process in _ssh_servers(root):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                link = os.readlink(descriptor)
                if link.startswith("socket:["):
                    yield int(link[8:-1])


def _ssh_servers(root: Path) -> Iterator[Path]:
    """The directories of the processes of ssh servers. Hosts have thousands of processes: only names are read."""
    processes = root / "proc"
    for name in filter(str.isdecimal, os.listdir(processes)):  # noqa: PTH208 - as above.
        if _name_of(f"{processes}/{name}/comm") in SSH_SERVERS:
            yield processes / name


def _name_of(comm: str) -> str:
    """The name of a process; "" of one that has ended."""
    with contextlib.suppress(OSError), open(comm, "rb", buffering=0) as file:  # noqa: PTH123 - it is faster.
        return file.read(_LONGEST_NAME).decode("utf-8", "replace").rstrip()
    return ""


def sessions_in(sockets: Iterable[TcpSocket], ports: Collection[int]) -> Iterator[SshSession]:
    """The sessions among these sockets: those that are connected at one of these local ports."""
    for one in sockets:
        if not one.listens and one.port in ports:
            yield SshSession(one.peer, one.local, one.port)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
