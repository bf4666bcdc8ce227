"""Rehearsal workers: the namespaces that they work in, and the one that they refuse to work in."""

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
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
RULES = "*filter\n-A INPUT -p tcp --dport 4242 -j DROP\nCOMMIT\n"
STEPS: list[dict[str, Any]] = [{"restore": RULES, "noflush": False}, {"save": True}]


def worker(connection: socket.socket, *before: str) -> subprocess.Popen[bytes]:
    """A worker on a connection, started by the command ``before``."""
    argv = [*before, sys.executable, "-B", "-m", "fwguardd.kernel.rehearsal_worker"]
    return subprocess.Popen(argv, cwd=ROOT, stdin=connection.fileno(), stderr=subprocess.PIPE)


def request(backend: str) -> bytes:
    """A request to load rules and print them."""
    return json.dumps({"backend": backend, "family": 4, "steps": STEPS}).encode() + b"\n"


def test_a_worker_refuses_its_clients_namespace(backend: str, saved: Callable[[], dict[str, list[str]]]) -> None:
    """A worker that is in the network namespace of its client ends at once: a unit that gives it no namespace of its
    own does not replace the host's firewall."""
    ours, theirs = socket.socketpair()
    before = saved()
    with ours, theirs, worker(theirs) as running:
        theirs.close()
        ours.sendall(request(backend))
        assert running.wait(LONGEST) == 1
        assert running.stderr is not None
        assert b"refuses to run in the network namespace of its client" in running.stderr.read()
    assert saved() == before


def test_a_worker_serves_a_client_in_another_namespace(
    backend: str, tmp_path: Path, saved: Callable[[], dict[str, list[str]]]
) -> None:
    """A connection made with connect(2) belongs to its client's namespace, so a worker that systemd starts knows that
    namespace too. The rules are loaded in the worker's namespace only."""
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
            assert running.wait(LONGEST) == 0
    assert [result["code"] for result in results] == [0, 0]
    assert "--dport 4242 -j DROP" in results[1]["stdout"]
    assert saved() == before


def test_a_spare_that_ended_is_not_used(backend: str) -> None:
    """A spare worker that ended while it waited is replaced when a rehearsal needs it."""
    pool = NamespacePool(spares=1)
    try:
        pool.refill()
        (spare,) = pool._ready
        assert spare.is_alive()
        assert spare._pid is not None
        os.kill(spare._pid, 9)
        wait_until(lambda: not spare.is_alive(), "the end of the spare")
        with pool.acquire() as scratch:
            assert scratch is not spare
            scratch.send(backend, 4, STEPS)
            assert scratch.receive()[-1]["code"] == 0
    finally:
        pool.close()


def test_a_socket_without_a_listener_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd does not listen, nothing is rehearsed, and the error names the socket and the command to run."""
    monkeypatch.setattr(namespaces, "REHEARSAL_SOCKET", tmp_path / "rehearsal.sock")
    with pytest.raises(NamespaceError, match=r"cannot connect to .*rehearsal\.sock: .*; see: systemctl status"):
        ScratchNamespace(NamespaceMethod.SERVICE)


def test_a_closed_connection_is_an_error(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd cannot start the worker it closes the connection: an error that says so, not an empty ruleset."""
    monkeypatch.setattr(namespaces, "REHEARSAL_SOCKET", tmp_path / "rehearsal.sock")
    with socket.socket(socket.AF_UNIX) as reader:
        reader.bind(str(tmp_path / "rehearsal.sock"))
        reader.listen()
        scratch = ScratchNamespace(NamespaceMethod.SERVICE)
        assert scratch.is_alive()
        reader.accept()[0].close()
        assert not scratch.is_alive()
        with pytest.raises(NamespaceError, match=r"worker in it has ended .*nothing was rehearsed; see: journalctl"):
            _rehearse(scratch, backend)
        scratch.close()


def test_a_worker_that_ended_is_an_error_with_advice(backend: str) -> None:
    """Where `unshare` fails the error names the namespace that could not be made, and what to do."""
    scratch = ScratchNamespace(NamespaceMethod.USER_NAMESPACE)
    assert scratch._pid is not None
    os.kill(scratch._pid, 9)
    wait_until(lambda: not scratch.is_alive(), "the end of the worker")
    with pytest.raises(NamespaceError, match=r"^a network namespace inside a user namespace could not be made"):
        _rehearse(scratch, backend)
    scratch.close()


def _rehearse(scratch: ScratchNamespace, backend: str) -> None:
    scratch.send(backend, 4, STEPS)
    scratch.receive()


def test_the_method_follows_from_the_privileges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CAP_SYS_ADMIN a namespace is made directly; without it by systemd if its socket can be used, and else in a
    user namespace."""
    monkeypatch.setattr(namespaces, "REHEARSAL_SOCKET", tmp_path / "rehearsal.sock")
    assert namespace_method() is NamespaceMethod.PRIVILEGED
    monkeypatch.setattr(namespaces, "has_capability", lambda _number: False)
    assert namespace_method() is NamespaceMethod.USER_NAMESPACE
    (tmp_path / "rehearsal.sock").touch()
    assert namespace_method() is NamespaceMethod.SERVICE
