"""Who may use the control socket: the kernel tells who asks, and the server whom it lets do what."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fwguardd.control.server import root_or_reading
from tests.unit.serving import STATUS, Deeds, Serving, ask, eventually, fault, let_everyone_in, result

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65534

pytestmark = pytest.mark.root

BECOME_NOBODY = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
"""Said by the process itself, once it has all that it needs: nobody may not read every Python."""

CLIENT_OF_ANOTHER_USER = f"""
import socket, sys
{BECOME_NOBODY}
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(20)
    try:
        client.connect(sys.argv[1])
    except PermissionError:
        sys.exit("permission denied")
    try:
        client.sendall(sys.argv[2].encode())
    except (BrokenPipeError, ConnectionResetError):
        pass
    sys.stdout.write(client.makefile().readline())
"""

CROWD_OF_ANOTHER_USER = f"""
import select, socket, sys
{BECOME_NOBODY}
clients = [socket.socket(socket.AF_UNIX) for _ in range(30)]
for client in clients:
    client.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
print(len(select.select(clients, [], [], 0)[0]))
"""


def as_nobody(script: str, *argv: str) -> subprocess.Popen[str]:
    """A process of the user nobody."""
    return subprocess.Popen(
        [sys.executable, "-I", "-c", script, *argv], cwd="/", text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def nobody_says(path: Path, request: bytes) -> tuple[bytes, str]:
    """What the user nobody is answered, and what it complains of."""
    with as_nobody(CLIENT_OF_ANOTHER_USER, str(path), request.decode()) as client:
        out, complaint = client.communicate(timeout=30)
    return out.encode(), complaint


@pytest.fixture
def deeds() -> Deeds:
    """What the verbs do."""
    return Deeds()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket goes: a directory that anyone can enter."""
    let_everyone_in(tmp_path)
    return tmp_path / "control.sock"


def test_others_cannot_connect(path: Path, deeds: Deeds) -> None:
    """Without a group, the kernel itself keeps all but root away from the socket."""
    with Serving(path, deeds):
        assert nobody_says(path, STATUS) == (b"", "permission denied\n")


def test_others_may_nothing_unless_it_is_said(path: Path, deeds: Deeds) -> None:
    """A socket that others can open is still for root only, unless the server is told otherwise."""
    with Serving(path, deeds, group=NOBODY) as serving:
        code, message = fault(nobody_says(path, STATUS)[0])
        assert code == "not-permitted"
        assert message.startswith("status is not permitted for uid 65534, pid ")
        assert not deeds.began
        assert result(serving.say(STATUS))


def test_a_group_may_read(path: Path, deeds: Deeds) -> None:
    """A group that is let in may use the verbs that only read, and root may use all."""
    with Serving(path, deeds, root_or_reading, group=NOBODY) as serving:
        assert result(nobody_says(path, STATUS)[0])["uid"] == NOBODY
        for verb in ("reload", "open", "resume", "confirm", "rollback"):
            assert fault(nobody_says(path, ask(verb))[0])[0] == "not-permitted"
        assert deeds.began == ["status"]
        assert result(serving.say(ask("open")))


def test_others_cannot_keep_root_out(path: Path, deeds: Deeds) -> None:
    """However many places others hold, some are left for root."""
    with Serving(path, deeds, root_or_reading, group=NOBODY) as serving:
        with as_nobody(CROWD_OF_ANOTHER_USER, str(path)) as crowd:
            assert crowd.stdout is not None
            assert crowd.stdout.readline() == "connected\n"
            assert fault(nobody_says(path, STATUS)[0])[0] == "busy"
            assert result(serving.say(STATUS))
            assert crowd.communicate(timeout=30)[0] == "6\n"
        eventually(lambda: serving.tasks() == 0)
