"""Which connections of /proc/net/tcp get an entry in the connection table, and in which direction."""

from __future__ import annotations

from fwguardd.kernel.live_connections import connections_in
from fwguardd.kernel.tcp_sockets import sockets_in

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 010200C0:0016 020200C0:9C40 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0 20 4 24 10 -1
   2: 010200C0:9C41 020200C0:01BB 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0 20 4 24 10 -1
   3: 0100007F:0016 0100007F:9C42 01 00000000:00000000 00:00000000 00000000     0        0 103 1 0 20 4 24 10 -1
   4: 010200C0:9C43 020200C0:01BB 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0
"""
"""sshd listens; one session of it, one connection to port 443, one session within the host, one that has ended."""


def test_connections_begin_where_they_were_opened() -> None:
    """A session of sshd begins at the peer, a connection of this host here; others get no entry."""
    found = [
        (str(entry.source), str(entry.destination), entry.ports) for entry in connections_in(list(sockets_in(TABLE)))
    ]
    assert found == [("192.0.2.2", "192.0.2.1", (40000, 22)), ("192.0.2.1", "192.0.2.2", (40001, 443))]
