"""Rehearsal workers: in whose namespace they work, and in whose they refuse to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.kernel import namespaces
from fwguardd.kernel.namespaces import (
    NamespaceError,
    NamespaceMethod,
    NamespacePool,
    ScratchNamespace,
    namespace_method,
)
from tests.netns.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
RULES = "*filter\n-A INPUT -p tcp --dport 4242 -j DROP\nCOMMIT\n"
STEPS: list[dict[str, Any]] = [{"restore": RULES, "noflush": False}, {"save": True}]


def worker(connection: socket.socket, *before: str) -> subprocess.Popen[bytes]:
    """A worker on a connection, started by whatever ``before`` says."""
    argv = [*before, sys.executable, "-B", "-m", "fwguardd.kernel.worker"]
    return subprocess.Popen(argv, cwd=ROOT, stdin=connection.fileno(), stderr=subprocess.PIPE)


def request(backend: str) -> bytes:
    """A request to load rules and print them."""
    return json.dumps({"backend": backend, "family": 4, "steps": STEPS}).encode() + b"\n"


def test_a_worker_refuses_its_clients_namespace(backend: str, saved: Callable[[], dict[str, list[str]]]) -> None:
    """A worker that finds itself in the namespace of whoever connected ends at once: a unit or a starter that forgot to
    give it one of its own costs nobody the firewall."""
    ours, theirs = socket.socketpair()
    before = saved()
    with ours, theirs, worker(theirs) as running:
        theirs.close()
        ours.sendall(request(backend))
        assert running.wait(10) == 1
        assert running.stderr is not None
        assert b"refuses to run in the network namespace of its client" in running.stderr.read()
    assert saved() == before


def test_a_worker_serves_who_connects_from_elsewhere(
    backend: str, tmp_path: Path, saved: Callable[[], dict[str, list[str]]]
) -> None:
    """A connection made with connect(2) counts as its client's, whoever listens: so a worker that systemd starts knows
    its client's namespace too. The rules are loaded in the worker's, and nowhere else."""
    before = saved()
    with socket.socket(socket.AF_UNIX) as reader, socket.socket(socket.AF_UNIX) as ours:
        reader.bind(str(tmp_path / "socket"))
        reader.listen()
        ours.connect(str(tmp_path / "socket"))
        theirs, _ = reader.accept()
        with theirs, worker(theirs, "unshare", "--net", "--") as running:
            theirs.close()
            ours.sendall(request(backend))
            results = json.loads(ours.makefile("rb").readline())["results"]
            ours.close()
            assert running.wait(10) == 0
    assert [result["code"] for result in results] == [0, 0]
    assert "--dport 4242 -j DROP" in results[1]["stdout"]
    assert saved() == before


def test_a_spare_that_died_is_not_lent(backend: str) -> None:
    """A spare worker that ended while it waited is replaced when a rehearsal needs it."""
    pool = NamespacePool(spares=1)
    try:
        pool.tend()
        (spare,) = pool._ready
        assert spare.is_alive()
        assert spare._pid is not None
        os.kill(spare._pid, 9)
        wait_until(lambda: not spare.is_alive(), "the end of the spare")
        with pool.lend() as lent:
            assert lent is not spare
            lent.send(backend, 4, STEPS)
            assert lent.receive()[-1]["code"] == 0
    finally:
        pool.close()


def test_a_socket_that_nobody_serves_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody lends a namespace, nothing is rehearsed, and the error names the socket and where to look."""
    monkeypatch.setattr(namespaces, "REHEARSAL_SOCKET", tmp_path / "rehearsal.sock")
    with pytest.raises(NamespaceError, match=r"rehearsal\.sock does not answer: .*systemctl status fwguardd-rehearsal"):
        ScratchNamespace(NamespaceMethod.SERVICE)


def test_a_lender_that_hangs_up_is_told(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd cannot start the worker it closes the connection, and that is an error and no empty ruleset."""
    monkeypatch.setattr(namespaces, "REHEARSAL_SOCKET", tmp_path / "rehearsal.sock")
    with socket.socket(socket.AF_UNIX) as reader:
        reader.bind(str(tmp_path / "rehearsal.sock"))
        reader.listen()
        lent = ScratchNamespace(NamespaceMethod.SERVICE)
        assert lent.is_alive()
        reader.accept()[0].close()
        assert not lent.is_alive()
        with pytest.raises(NamespaceError, match=r"the rehearsal worker"):
            _rehearse(lent, backend)
        lent.close()


def _rehearse(lent: ScratchNamespace, backend: str) -> None:
    lent.send(backend, 4, STEPS)
    lent.receive()


def test_privilege_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CAP_SYS_ADMIN nobody has to lend a namespace; without, systemd is asked if it may be, else a user namespace
    has to do."""
    monkeypatch.setattr(namespaces, "REHEARSAL_SOCKET", tmp_path / "rehearsal.sock")
    assert namespace_method() is NamespaceMethod.PRIVILEGED
    monkeypatch.setattr(namespaces, "has_capability", lambda _number: False)
    assert namespace_method() is NamespaceMethod.USER_NAMESPACE
    (tmp_path / "rehearsal.sock").touch()
    assert namespace_method() is NamespaceMethod.SERVICE
