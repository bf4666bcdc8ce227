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
from fwguardd.kernel.tcp_sockets import listening_ports, tcp_sockets
from fwguardd.packets.frames import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from fwguardd.kernel.tcp_sockets import Address, TcpSocket

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
    """The established TCP connections with other hosts."""
    return connections_in(tcp_sockets(root))


def connections_in(sockets: Collection[TcpSocket]) -> Iterator[ConntrackEntry]:
    """Those among these sockets."""
    listening = listening_ports(sockets)
    for one in sockets:
        if one.listens or one.local.is_loopback or one.peer.is_loopback:
            continue
        if one.port in listening:
            yield _entry(one.peer, one.local, (one.peer_port, one.port))
        else:
            yield _entry(one.local, one.peer, (one.port, one.peer_port))


def _entry(source: Address, destination: Address, ports: tuple[int, int]) -> ConntrackEntry:
    return ConntrackEntry(_FAMILIES[source.version], NUMBERS["tcp"], source, destination, ports)
