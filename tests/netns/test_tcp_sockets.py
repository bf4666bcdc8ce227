"""TCP sockets by sock_diag: what /proc/net/tcp says, without its cost."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel import tcp_sockets as module
from fwguardd.kernel.tcp_sockets import TABLES, TcpSocket, sockets_in, tcp_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connected() -> Iterator[None]:
    """Two listening sockets, and one connection of IPv4, of IPv6, and of IPv4 to a socket of IPv6."""
    with contextlib.ExitStack() as opened:
        for host, peers in (("127.0.0.1", ["127.0.0.1"]), ("::", ["::1", "127.0.0.1"])):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            server = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            server.bind((host, 0))
            server.listen()
            for peer in peers:
                opened.enter_context(socket.create_connection((peer, server.getsockname()[1])))
                opened.enter_context(server.accept()[0])
        yield


def in_files() -> list[TcpSocket]:
    """What the files of /proc say."""
    found: list[TcpSocket] = []
    for name in TABLES:
        found += sockets_in((Path("/") / name).read_text())
    return found


@pytest.mark.usefixtures("connected")
def test_sock_diag_lists_what_proc_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both families, listening and connected, with ends and inode numbers; and the files serve where it fails."""
    dumped = tcp_sockets()
    assert sorted(dumped, key=str) == sorted(in_files(), key=str)
    assert [one.listens for one in dumped].count(True) == 2
    assert len(dumped) == 8
    monkeypatch.setattr(module, "_TCPDIAG_GETSOCK", 9999)
    assert sorted(tcp_sockets(), key=str) == sorted(dumped, key=str)
