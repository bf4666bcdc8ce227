"""The TCP connections of this host, and entries in the connection table for those that the kernel does not track.

The kernel tracks connections from the first rule on that needs it (nf_ct_netns_get() in nf_conntrack_proto.c). The next
packet of an older connection is NEW (nf_conntrack_tcp_loose): one that this host sends is dropped by rules that accept
what is ESTABLISHED, until the peer has sent something. A command over ssh waits for its answer, and sends nothing.
"""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.conntrack_entries import Connections, ConntrackEntry
from fwguardd.kernel.ssh_sessions import TCP_ESTABLISHED, TCP_LISTEN, TCP_TABLES, address_in_table
from fwguardd.packets.frames import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SLASH: Final = Path("/")
MOST: Final = 4096
"""Connections that get an entry: about a tenth of a second."""

SECONDS: Final = 432_000
"""How long an entry without packets stays: the kernel's own time for an established connection,
nf_conntrack_tcp_timeout_established. The first packet sets the time of this host."""

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


def track_live_connections(root: Path = SLASH) -> int:
    """Make an entry for each established connection with another host that has none; how many were made. Those that
    this host has accepted begin at the peer, the others here. Raises OSError."""
    made = 0
    with closing(Connections()) as table:
        for entry in list(live_connections(root))[:MOST]:
            made += table.add(entry, SECONDS)
    return made


def live_connections(root: Path = SLASH) -> Iterator[ConntrackEntry]:
    """The established TCP connections with other hosts. Raises OSError."""
    for name in TCP_TABLES:
        path = root / name
        if path.exists():  # There is no tcp6 where IPv6 is disabled.
            yield from connections_in(path.read_text("utf-8", "replace"))


def connections_in(table: str) -> Iterator[ConntrackEntry]:
    """Those in the text of /proc/net/tcp or tcp6 (proc(5))."""
    sockets = [line.split()[1:4] for line in table.splitlines()[1:]]
    listening = {_port(local) for local, _, state in sockets if state == TCP_LISTEN}
    for local, peer, state in sockets:
        if state == TCP_ESTABLISHED:
            ends = (local, peer)
            if _port(local) in listening:
                ends = (peer, local)
            yield from _entry(ends)


def _entry(ends: Sequence[str]) -> Iterator[ConntrackEntry]:
    """The entry of a connection between two ends; none for one within this host."""
    source, destination = (address_in_table(end.partition(":")[0]) for end in ends)
    if not source.is_loopback:
        ports = (_port(ends[0]), _port(ends[1]))
        yield ConntrackEntry(_FAMILIES[source.version], NUMBERS["tcp"], source, destination, ports)


def _port(end: str) -> int:
    return int(end.partition(":")[2], 16)
