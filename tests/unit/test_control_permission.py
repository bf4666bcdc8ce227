"""Who may use the control socket: the kernel says which user connects, and the server which verbs that user may use."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fwguardd.control.server import ServerLimits, root_or_reading
from tests.unit.serving import STATUS, SampleVerbs, Serving, ask, eventually, fault, let_others_enter, result
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65534

pytestmark = pytest.mark.root

BECOME_NOBODY = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
"""The process does this itself, after its imports: the user nobody may not read every Python installation."""

CLIENT_OF_ANOTHER_USER = f"""
import socket, sys
{BECOME_NOBODY}
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout({LONGEST})
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


def request_as_nobody(path: Path, request: bytes) -> tuple[bytes, str]:
    """The answer to a request of the user nobody, and what its process writes to standard error."""
    with as_nobody(CLIENT_OF_ANOTHER_USER, str(path), request.decode()) as client:
        out, errors = client.communicate(timeout=LONGEST)
    return out.encode(), errors


@pytest.fixture
def verbs() -> SampleVerbs:
    """The verbs of the server."""
    return SampleVerbs()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the socket, in a directory that other users can enter."""
    let_others_enter(tmp_path)
    return tmp_path / "control.sock"


def test_others_cannot_connect(path: Path, verbs: SampleVerbs) -> None:
    """Without a group, the kernel lets only root connect."""
    with Serving(path, verbs):
        assert request_as_nobody(path, STATUS) == (b"", "permission denied\n")


def test_others_may_use_no_verb_by_default(path: Path, verbs: SampleVerbs) -> None:
    """Users who can connect may still use no verb, unless the server is configured to permit it."""
    with Serving(path, verbs, group=NOBODY) as serving:
        code, message = fault(request_as_nobody(path, STATUS)[0])
        assert code == "not-permitted"
        assert message.startswith("status is not permitted for uid 65534, pid ")
        assert not verbs.began
        assert result(serving.request(STATUS))


def test_a_group_may_read(path: Path, verbs: SampleVerbs) -> None:
    """Members of the group may use the verbs that only read, and root may use all."""
    with Serving(path, verbs, root_or_reading, group=NOBODY) as serving:
        assert result(request_as_nobody(path, STATUS)[0])["uid"] == NOBODY
        for verb in ("reload", "open", "resume", "confirm", "rollback"):
            assert fault(request_as_nobody(path, ask(verb))[0])[0] == "not-permitted"
        assert verbs.began == ["status"]
        assert result(serving.request(ask("open")))


def test_others_cannot_lock_root_out(path: Path, verbs: SampleVerbs) -> None:
    """However many connections another user wants, it gets a few, and the other places are left for others."""
    with Serving(path, verbs, root_or_reading, group=NOBODY) as serving:
        with as_nobody(CROWD_OF_ANOTHER_USER, str(path)) as crowd:
            assert crowd.stdout is not None
            assert crowd.stdout.readline() == "connected\n"
            assert fault(request_as_nobody(path, STATUS)[0])[0] == "busy"
            assert result(serving.request(STATUS))
            assert crowd.communicate(timeout=LONGEST)[0] == f"{30 - ServerLimits().each_user}\n"
        eventually(lambda: serving.tasks() == 0)
