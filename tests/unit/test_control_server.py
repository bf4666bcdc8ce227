"""The daemon's end of the control socket, against well-behaved, clumsy and hostile clients on a real socket."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.control.protocol import LARGEST_REQUEST
from fwguardd.control.server import Caller, ControlSocketError, ServerLimits
from tests.unit.serving import (
    LARGE,
    STATUS,
    Deeds,
    Serving,
    ask,
    descriptors,
    eventually,
    fault,
    hear,
    let_everyone_in,
    no_leak,
    result,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

QUICK = ServerLimits(request_within=0.5, answer_within=0.5, verbs_end_within=0.3)


@pytest.fixture
def deeds() -> Deeds:
    """What the verbs do."""
    return Deeds()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket goes: a directory that anyone can enter."""
    let_everyone_in(tmp_path)
    return tmp_path / "control.sock"


@pytest.fixture
def serving(path: Path, deeds: Deeds) -> Iterator[Serving]:
    """A server that must be clean when the test is over, running and closed."""
    before = descriptors()
    with Serving(path, deeds) as server, no_leak(server, deeds):
        yield server
    assert descriptors() == before
    assert not path.exists()


@pytest.fixture
def quick(path: Path, deeds: Deeds) -> Iterator[Serving]:
    """The same with little patience."""
    before = descriptors()
    with Serving(path, deeds, limits=QUICK) as server, no_leak(server, deeds):
        yield server
    assert descriptors() == before
    assert not path.exists()


def test_a_verb_is_performed_for_the_one_who_connected(serving: Serving) -> None:
    """The performer learns from the kernel who asks: user, group, process and its name."""
    told = result(serving.say(STATUS))
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    assert told == {"uid": os.getuid(), "gid": os.getgid(), "caller": f"uid {os.getuid()}, pid {os.getpid()} ({name})"}


def test_a_hostile_process_name_moves_no_cursor() -> None:
    """A process calls itself what it likes; what is told of it is printable."""
    assert str(Caller(0, 0, 812, "fwguardctl")) == "uid 0, pid 812 (fwguardctl)"
    assert str(Caller(0, 0, 812, "a\x1b[2J\n")) == "uid 0, pid 812 (a?[2J?)"
    assert str(Caller(7, 7, 0, "")) == "uid 7, pid 0"


def test_a_refusal_is_an_answer(serving: Serving) -> None:
    """A verb that is refused answers with the code and sentence of whoever refused it."""
    assert fault(serving.say(ask("rollback"))) == ("not-found", "there is no revision before this one")


def test_a_defect_is_answered_and_told(serving: Serving) -> None:
    """A defect in a verb gives the client an answer and the loop the exception; the server goes on."""
    code, message = fault(serving.say(ask("confirm")))
    assert (code, message) == ("failed", "confirm failed because of a bug in fwguardd: ZeroDivisionError: a defect")
    assert [type(context["exception"]) for context in serving.faults] == [ZeroDivisionError]
    assert result(serving.say(STATUS))


def test_a_result_that_cannot_be_told_is_a_failure(serving: Serving) -> None:
    """A result that JSON has no words for does not leave the client without an answer."""
    assert fault(serving.say(ask("history")))[0] == "failed"


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
def test_garbage_is_answered_with_a_reason(serving: Serving, deeds: Deeds, data: bytes, code: str) -> None:
    """What is no request is refused, nothing is performed, and the next client is served."""
    assert fault(serving.say(data))[0] == code
    assert not deeds.began
    assert result(serving.say(STATUS))


def test_a_request_of_the_largest_size_is_read(serving: Serving) -> None:
    """The bound includes the newline and nothing more."""
    assert result(serving.say(STATUS[:-1].ljust(LARGEST_REQUEST - 1) + b"\n"))


@pytest.mark.parametrize("size", [LARGEST_REQUEST, LARGEST_REQUEST + 1, 4 << 20])
def test_an_oversize_request_is_refused_unread(serving: Serving, size: int) -> None:
    """The server reads no more than the bound, and says so, also to a client that still writes."""
    with serving.connect() as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b" " * size)
        assert fault(hear(client)) == ("bad-request", f"a request has at most {LARGEST_REQUEST} bytes")


def test_only_the_first_line_counts(serving: Serving, deeds: Deeds) -> None:
    """One connection is one request; what follows it is not performed."""
    assert result(serving.say(STATUS + ask("open")))
    assert deeds.began == ["status"]


def test_a_request_may_come_in_pieces(serving: Serving) -> None:
    """A stream has no records: a request is whole when its newline has come, in however many pieces."""
    with serving.connect() as client:
        for byte in STATUS:
            client.sendall(bytes([byte]))
            time.sleep(0.001)
        assert result(hear(client))


def test_a_half_open_client_is_answered(serving: Serving) -> None:
    """A client that has closed its sending side still gets the answer, and needs no newline."""
    with serving.connect() as client:
        client.sendall(STATUS.rstrip())
        client.shutdown(socket.SHUT_WR)
        assert result(hear(client))


def test_a_torn_request_is_refused(serving: Serving, deeds: Deeds) -> None:
    """A client that breaks off in the middle of a request has nothing performed."""
    with serving.connect() as client:
        client.sendall(ask("open")[:-5])
        client.shutdown(socket.SHUT_WR)
        assert fault(hear(client))[0] == "bad-request"
    assert not deeds.began


def test_a_client_that_hangs_up_without_a_word_is_forgotten(serving: Serving) -> None:
    """Connections that say nothing and go leave nothing behind."""
    for _ in range(50):
        serving.connect().close()
    eventually(lambda: serving.tasks() == 0)
    assert result(serving.say(STATUS))


def test_a_silent_client_holds_up_nobody(serving: Serving) -> None:
    """Others are served while some have not yet said a word."""
    with serving.connect(), serving.connect() as slow:
        slow.sendall(b'{"v": 1')
        assert result(serving.say(STATUS))
        # The other two still wait: neither was let go before the answer came.
        assert serving.tasks() >= 2


def test_a_silent_client_is_let_go(quick: Serving) -> None:
    """A client from which no whole request comes in time is told so and let go."""
    with quick.connect() as silent, quick.connect() as slow:
        slow.sendall(b'{"v": 1')
        for client in (silent, slow):
            assert fault(hear(client)) == ("bad-request", "no complete request arrived within 0.5 s")


def test_a_slow_reader_is_dropped(quick: Serving, deeds: Deeds) -> None:
    """A client that does not take its answer in time gets a torn one, without the newline that ends a whole one."""
    with quick.connect() as slow:
        slow.sendall(ask("show", revision=1))
        eventually(lambda: deeds.began == ["show"])
        assert result(quick.say(STATUS))
        eventually(lambda: quick.tasks() == 0)
        heard = hear(slow)
    assert 0 < len(heard) < LARGE
    assert not heard.endswith(b"\n")


def test_a_large_answer_arrives_whole(serving: Serving) -> None:
    """A client that reads gets all of an answer that is far larger than the socket's buffer."""
    assert len(result(serving.say(ask("show", revision=1)))["text"]) == LARGE


def test_a_client_that_goes_away_does_not_cancel_its_verb(serving: Serving, deeds: Deeds) -> None:
    """A verb that has begun ends, though nobody waits for it any more."""
    client = serving.connect()
    client.sendall(ask("reload"))
    eventually(lambda: deeds.began == ["reload"])
    client.close()
    assert result(serving.say(STATUS))
    assert deeds.ended == ["status"]
    deeds.release.set()
    eventually(lambda: deeds.ended == ["status", "reload"])


def test_a_hundred_clients_at_once(serving: Serving, deeds: Deeds) -> None:
    """As many as there are places for are served, and all others hear at once that it is busy; nobody is left over."""
    clients = [serving.connect() for _ in range(100)]
    for client in clients:
        with contextlib.suppress(BrokenPipeError):
            client.sendall(ask("drift"))
    answers = [json.loads(hear(client)) for client in clients]
    for client in clients:
        client.close()
    served = sum(answer["ok"] for answer in answers)
    assert served >= 32
    assert [answer["code"] for answer in answers if not answer["ok"]] == ["busy"] * (100 - served)
    assert deeds.most_at_once <= 32
    eventually(lambda: serving.tasks() == 0)
    assert result(serving.say(STATUS))


def test_many_clumsy_clients_at_once(quick: Serving) -> None:
    """Silent, torn, garbled and vanishing clients, many at once and again and again, leave nothing behind."""
    pieces = (b"", b"{", b"\x00\xff\n", STATUS, STATUS[:-1], ask("show", revision=1), b" " * 70000)
    for _ in range(5):
        clients = [quick.connect() for _ in range(60)]
        for number, client in enumerate(clients):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(pieces[number % len(pieces)])
        for client in clients:
            client.close()
    eventually(lambda: quick.tasks() == 0)
    assert result(quick.say(STATUS))
    assert not quick.faults


def test_without_descriptors_the_server_has_a_rest(serving: Serving) -> None:
    """When the process has no descriptor left, the loop is told, and clients wait until there is one again."""
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
        client.settimeout(20)
        assert result(hear(client))
    assert len(serving.faults) <= 2
    assert "accepts no clients for 1 s" in serving.faults[0]["message"]


def test_verbs_may_end_when_the_server_closes(path: Path, deeds: Deeds) -> None:
    """A closing server is gone for new clients at once; whoever waits for a verb gets its answer."""
    with Serving(path, deeds) as serving, serving.connect() as client, serving.connect() as silent:
        client.sendall(ask("reload"))
        eventually(lambda: deeds.began == ["reload"])
        serving.stop()
        eventually(lambda: not path.exists())
        assert hear(silent) == b""
        deeds.release.set()
        assert result(hear(client)) == {"verb": "reload"}


def test_a_verb_that_does_not_end_does_not_hold_up_the_close(path: Path, deeds: Deeds) -> None:
    """After some seconds a closing server gives up on a verb, and says that its outcome is not known."""
    before = descriptors()
    with Serving(path, deeds, limits=QUICK) as serving, serving.connect() as client:
        client.sendall(ask("reload"))
        eventually(lambda: deeds.began == ["reload"])
        serving.stop()
        assert fault(hear(client)) == ("failed", "fwguardd is stopping; reload may have been carried out or not")
        deeds.release.set()
    assert descriptors() == before


def test_a_stale_socket_is_taken_away(path: Path, deeds: Deeds) -> None:
    """The socket that a killed daemon left behind is no obstacle."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Serving(path, deeds) as serving:
        assert result(serving.say(STATUS))


def test_a_live_socket_is_left_alone(serving: Serving, deeds: Deeds) -> None:
    """A socket that another process serves is not taken from it."""
    with pytest.raises(ControlSocketError, match="another process serves"), Serving(serving.path, deeds):
        pass
    assert result(serving.say(STATUS))


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, deeds: Deeds, kind: str) -> None:
    """Anything else in the socket's place is named and not removed."""
    target = path.with_name("target")
    target.write_text("precious")
    if kind == "link":
        path.symlink_to(target)
    elif kind == "directory":
        path.mkdir()
    else:
        path.touch()
    with pytest.raises(ControlSocketError, match="in the way"), Serving(path, deeds):
        pass
    assert path.lstat()
    assert target.read_text() == "precious"


def test_a_socket_that_cannot_be_made_is_named(path: Path, deeds: Deeds) -> None:
    """A directory that is missing, or a path that is too long for a socket, is an error that names the socket."""
    for impossible in (path.parent / "none" / "control.sock", path.parent / ("x" * 120)):
        with pytest.raises(ControlSocketError, match=impossible.name), Serving(impossible, deeds):
            pass


def test_another_socket_in_its_place_is_not_unlinked(path: Path, deeds: Deeds) -> None:
    """A closing server removes its own socket only."""
    with Serving(path, deeds):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


def test_the_socket_is_never_open_to_others(path: Path, deeds: Deeds) -> None:
    """The mode does not depend on the umask: 0600, and 0660 only for a group that was named."""
    before = os.umask(0)
    try:
        with Serving(path, deeds):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Serving(path, deeds, group=os.getgid()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert path.stat().st_gid == os.getgid()
    finally:
        os.umask(before)
