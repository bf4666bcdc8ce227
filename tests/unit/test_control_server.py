"""The daemon's end of the control socket, with correct, faulty and hostile clients on a real socket."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.control.protocol import LARGEST_REQUEST
from fwguardd.control.server import Caller, ControlSocketError, ServerLimits
from tests.unit.serving import (
    LARGE,
    STATUS,
    SampleVerbs,
    Serving,
    ask,
    descriptors,
    eventually,
    fault,
    let_others_enter,
    no_leak,
    read_all,
    result,
)
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

QUICK = ServerLimits(request_within=0.5, answer_within=0.5, verbs_end_within=0.3)


@pytest.fixture
def verbs() -> SampleVerbs:
    """The verbs of the server."""
    return SampleVerbs()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the socket, in a directory that other users can enter."""
    let_others_enter(tmp_path)
    return tmp_path / "control.sock"


@pytest.fixture
def serving(path: Path, verbs: SampleVerbs) -> Iterator[Serving]:
    """A server that must leave no descriptor and no task behind, neither while it runs nor when it is closed."""
    before = descriptors()
    with Serving(path, verbs) as server, no_leak(server, verbs):
        yield server
    assert descriptors() == before
    assert not path.exists()


@pytest.fixture
def quick(path: Path, verbs: SampleVerbs) -> Iterator[Serving]:
    """The same with short time limits."""
    before = descriptors()
    with Serving(path, verbs, limits=QUICK) as server, no_leak(server, verbs):
        yield server
    assert descriptors() == before
    assert not path.exists()


def test_a_verb_is_performed_for_the_one_who_connected(serving: Serving) -> None:
    """A verb gets from the kernel who sent the request: user, group, process and its name."""
    answer = result(serving.request(STATUS))
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    assert answer == {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "caller": f"uid {os.getuid()}, pid {os.getpid()} ({name})",
    }


def test_a_hostile_process_name_moves_no_cursor() -> None:
    """A process chooses its own name; in messages the name is printable."""
    assert str(Caller(0, 0, 812, "fwguardctl")) == "uid 0, pid 812 (fwguardctl)"
    assert str(Caller(0, 0, 812, "a\x1b[2J\n")) == "uid 0, pid 812 (a?[2J?)"
    assert str(Caller(7, 7, 0, "")) == "uid 7, pid 0"


def test_a_refusal_is_an_answer(serving: Serving) -> None:
    """A verb that is refused is answered with the code and the message of the RequestError."""
    assert fault(serving.request(ask("rollback"))) == ("not-found", "there is no revision before this one")


def test_a_bug_is_answered_and_reported(serving: Serving) -> None:
    """After a bug in a verb the client gets an answer, the loop gets the exception, and the server continues."""
    code, message = fault(serving.request(ask("confirm")))
    assert (code, message) == ("failed", "confirm failed because of a bug in fwguardd: ZeroDivisionError: a defect")
    assert [type(context["exception"]) for context in serving.faults] == [ZeroDivisionError]
    assert result(serving.request(STATUS))


def test_a_result_that_is_not_json_is_a_failure(serving: Serving) -> None:
    """A result that cannot be written as JSON does not leave the client without an answer."""
    assert fault(serving.request(ask("history")))[0] == "failed"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\n", "bad-request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "bad-request"),
        (bytes(range(256)) * 8 + b"\n", "bad-request"),
        (b"\xff\n", "bad-request"),
        (b"[" * 50000 + b"\n", "bad-request"),
        (b'{"v": 1, "verb": "flush"}\n', "unknown-verb"),
        (b'{"v": 7, "verb": "status"}\n', "unsupported-version"),
        (b'{"v": 1, "verb": "status", "args": {"x": 1}}\n', "bad-request"),
    ],
)
def test_garbage_is_answered_with_a_reason(serving: Serving, verbs: SampleVerbs, data: bytes, code: str) -> None:
    """Bytes that are not a request are refused, nothing is performed, and the next client is served."""
    assert fault(serving.request(data))[0] == code
    assert not verbs.began
    assert result(serving.request(STATUS))


def test_a_request_of_the_largest_size_is_read(serving: Serving) -> None:
    """The limit includes the newline."""
    assert result(serving.request(STATUS[:-1].ljust(LARGEST_REQUEST - 1) + b"\n"))


@pytest.mark.parametrize("size", [LARGEST_REQUEST, LARGEST_REQUEST + 1, 4 << 20])
def test_an_oversize_request_is_refused_unread(serving: Serving, size: int) -> None:
    """The server reads no more than the limit, and answers so, also to a client that still writes."""
    with serving.connect() as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b" " * size)
        assert fault(read_all(client)) == ("bad-request", f"a request has at most {LARGEST_REQUEST} bytes")


def test_only_the_first_line_counts(serving: Serving, verbs: SampleVerbs) -> None:
    """One connection is one request; what follows it is not performed."""
    assert result(serving.request(STATUS + ask("open")))
    assert verbs.began == ["status"]


def test_a_request_may_come_in_pieces(serving: Serving) -> None:
    """A stream has no records: a request is complete when its newline has arrived, in however many pieces."""
    with serving.connect() as client:
        for byte in STATUS:
            client.sendall(bytes([byte]))
            time.sleep(0.001)
        assert result(read_all(client))


def test_a_half_open_client_is_answered(serving: Serving) -> None:
    """A client that has closed its sending side still gets the answer, and needs no newline."""
    with serving.connect() as client:
        client.sendall(STATUS.rstrip())
        client.shutdown(socket.SHUT_WR)
        assert result(read_all(client))


def test_a_torn_request_is_refused(serving: Serving, verbs: SampleVerbs) -> None:
    """A request that is cut off is not performed."""
    with serving.connect() as client:
        client.sendall(ask("open")[:-5])
        client.shutdown(socket.SHUT_WR)
        assert fault(read_all(client))[0] == "bad-request"
    assert not verbs.began


def test_a_client_that_sends_nothing_leaves_nothing_behind(serving: Serving) -> None:
    """Connections that are closed without a request leave nothing behind."""
    for _ in range(50):
        serving.connect().close()
    eventually(lambda: serving.tasks() == 0)
    assert result(serving.request(STATUS))


def test_a_silent_client_holds_up_nobody(serving: Serving) -> None:
    """Other clients are served while some have not sent their request yet."""
    with serving.connect(), serving.connect() as slow:
        slow.sendall(b'{"v": 1')
        assert result(serving.request(STATUS))
        # The other two are still connected: neither was dropped before the answer arrived.
        assert serving.tasks() >= 2


def test_a_silent_client_is_dropped(quick: Serving) -> None:
    """A client whose request does not arrive in time gets an answer that says so, and is disconnected."""
    with quick.connect() as silent, quick.connect() as slow:
        slow.sendall(b'{"v": 1')
        for client in (silent, slow):
            assert fault(read_all(client)) == ("bad-request", "no complete request arrived within 0.5 s")


def test_a_slow_reader_is_dropped(quick: Serving, verbs: SampleVerbs) -> None:
    """A client that does not read its answer in time gets an incomplete one, without the newline at the end."""
    with quick.connect() as slow:
        slow.sendall(ask("show", revision=1))
        eventually(lambda: verbs.began == ["show"])
        assert result(quick.request(STATUS))
        eventually(lambda: quick.tasks() == 0)
        data = read_all(slow)
    assert 0 < len(data) < LARGE
    assert not data.endswith(b"\n")


def test_a_large_answer_arrives_whole(serving: Serving) -> None:
    """A client that reads gets the whole of an answer that is far larger than the buffer of the socket."""
    assert len(result(serving.request(ask("show", revision=1)))["text"]) == LARGE


def test_a_client_that_goes_away_does_not_cancel_its_verb(serving: Serving, verbs: SampleVerbs) -> None:
    """A verb that has begun is completed, though its client has disconnected."""
    client = serving.connect()
    client.sendall(ask("reload"))
    eventually(lambda: verbs.began == ["reload"])
    client.close()
    assert result(serving.request(STATUS))
    assert verbs.ended == ["status"]
    verbs.release.set()
    eventually(lambda: verbs.ended == ["status", "reload"])


def test_a_hundred_clients_at_once(serving: Serving, verbs: SampleVerbs) -> None:
    """As many clients as there are places are served, and all others are answered "busy"; each gets an answer."""
    clients = [serving.connect() for _ in range(100)]
    for client in clients:
        with contextlib.suppress(BrokenPipeError):
            client.sendall(ask("drift"))
    answers = [json.loads(read_all(client)) for client in clients]
    for client in clients:
        client.close()
    served = sum(answer["ok"] for answer in answers)
    assert served >= 32
    assert [answer["code"] for answer in answers if not answer["ok"]] == ["busy"] * (100 - served)
    assert verbs.most_at_once <= 32
    eventually(lambda: serving.tasks() == 0)
    assert result(serving.request(STATUS))


def test_many_faulty_clients_at_once(quick: Serving) -> None:
    """Many clients that send nothing, incomplete requests or garbage, or disconnect, leave nothing behind."""
    pieces = (b"", b"{", b"\x00\xff\n", STATUS, STATUS[:-1], ask("show", revision=1), b" " * 70000)
    for _ in range(5):
        clients = [quick.connect() for _ in range(60)]
        for number, client in enumerate(clients):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(pieces[number % len(pieces)])
        for client in clients:
            client.close()
    eventually(lambda: quick.tasks() == 0)
    assert result(quick.request(STATUS))
    assert not quick.faults


def test_without_descriptors_the_server_pauses(serving: Serving) -> None:
    """When the process has no descriptor left, that is reported, and clients wait until there is one again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # poll(2), by which Python waits with a timeout, takes no more descriptors than the limit either.
    client = socket.socket(socket.AF_UNIX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        client.connect(str(serving.path))
        client.sendall(STATUS)
        eventually(lambda: bool(serving.faults))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with client:
        client.settimeout(LONGEST)
        assert result(read_all(client))
    assert len(serving.faults) <= 2
    assert "accepts no clients for 1 s" in serving.faults[0]["message"]


def test_verbs_may_end_when_the_server_closes(path: Path, verbs: SampleVerbs) -> None:
    """A closing server accepts no new clients; a client that waits for a verb gets its answer."""
    with Serving(path, verbs) as serving, serving.connect() as client, serving.connect() as silent:
        client.sendall(ask("reload"))
        eventually(lambda: verbs.began == ["reload"])
        serving.stop()
        eventually(lambda: not path.exists())
        assert read_all(silent) == b""
        verbs.release.set()
        assert result(read_all(client)) == {"verb": "reload"}


def test_a_verb_that_does_not_end_does_not_delay_the_close(path: Path, verbs: SampleVerbs) -> None:
    """After some seconds a closing server no longer waits for a verb, and answers that its outcome is unknown."""
    before = descriptors()
    with Serving(path, verbs, limits=QUICK) as serving, serving.connect() as client:
        client.sendall(ask("reload"))
        eventually(lambda: verbs.began == ["reload"])
        serving.stop()
        assert fault(read_all(client)) == ("failed", "fwguardd is stopping; reload may have been carried out or not")
        verbs.release.set()
    assert descriptors() == before


def test_a_stale_socket_is_removed(path: Path, verbs: SampleVerbs) -> None:
    """The socket of a daemon that was killed is replaced."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Serving(path, verbs) as serving:
        assert result(serving.request(STATUS))


def test_a_live_socket_is_left_alone(serving: Serving, verbs: SampleVerbs) -> None:
    """A socket that another process serves is not replaced."""
    with pytest.raises(ControlSocketError, match="another process serves"), Serving(serving.path, verbs):
        pass
    assert result(serving.request(STATUS))


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_file_that_is_not_a_socket_is_left_alone(path: Path, verbs: SampleVerbs, kind: str) -> None:
    """Any other file in the place of the socket is named in the error and not removed."""
    target = path.with_name("target")
    target.write_text("precious")
    if kind == "link":
        path.symlink_to(target)
    elif kind == "directory":
        path.mkdir()
    else:
        path.touch()
    with pytest.raises(ControlSocketError, match="in the way"), Serving(path, verbs):
        pass
    assert path.lstat()
    assert target.read_text() == "precious"


def test_a_socket_that_cannot_be_created_is_named(path: Path, verbs: SampleVerbs) -> None:
    """For a missing directory, or a path that is too long for a socket, the error names the socket."""
    for impossible in (path.parent / "none" / "control.sock", path.parent / ("x" * 120)):
        with pytest.raises(ControlSocketError, match=impossible.name), Serving(impossible, verbs):
            pass


def test_another_socket_in_its_place_is_not_unlinked(path: Path, verbs: SampleVerbs) -> None:
    """A closing server removes its own socket only."""
    with Serving(path, verbs):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


def test_the_socket_is_never_open_to_others(path: Path, verbs: SampleVerbs) -> None:
    """The mode does not depend on the umask: 0600, and 0660 only for a group that was named."""
    before = os.umask(0)
    try:
        with Serving(path, verbs):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Serving(path, verbs, group=os.getgid()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert path.stat().st_gid == os.getgid()
    finally:
        os.umask(before)


def test_a_socket_that_can_be_seen_accepts_connections(
    path: Path, verbs: SampleVerbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that finds the file of the socket is never refused: the file exists only after listen(2)."""
    seen: list[bool] = []
    listen = socket.socket.listen

    def noting(self: socket.socket, backlog: int = 0) -> None:
        seen.append(os.path.lexists(path))
        listen(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", noting)
    with Serving(path, verbs):
        assert seen == [False]
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_unfinished_socket_is_in_nobodys_way(path: Path, verbs: SampleVerbs) -> None:
    """What a daemon left that was killed before its socket was complete is removed."""
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(f"{str(path)[:-1]}~")
    with Serving(path, verbs):
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_longest_path_of_a_socket_can_be_used(verbs: SampleVerbs) -> None:
    """sockaddr_un(7) has room for 107 bytes and a zero byte; the server needs no more than the path itself."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        longest = Path(folder) / ("s" * (107 - len(folder) - 1))
        with Serving(longest, verbs) as serving:
            assert result(serving.request(ask("status")))
