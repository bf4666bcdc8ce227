"""Notifications to systemd and its watchdog, on a real socket and with a real worker thread."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
from typing import TYPE_CHECKING, cast

import pytest

from fwguardd.interpreter import STEP_ALLOCATIONS
from fwguardd.progress import SECONDS_PER_RULE, Progress
from fwguardd.settings import Settings
from fwguardd.systemd import SystemdNotifier, Watchdog, extend_start_until_cancelled, watchdog_interval
from fwguardd.whole_check import WholeCheck
from fwguardd.worker import Worker
from fwguardd.worker_report import Orders
from fwguardd.worker_thread import WorkerThread
from tests.unit.serving import eventually
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The other end of $NOTIFY_SOCKET."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as reader:
        reader.bind(path)
        yield reader


def received(reader: socket.socket) -> list[str]:
    """The notifications that have arrived."""
    messages = []
    while True:
        try:
            messages.append(reader.recv(65536).decode("utf-8"))
        except BlockingIOError:
            return messages


def fill(notifier: SystemdNotifier) -> None:
    """Send until the socket takes no more."""
    for number in range(10_000):
        notifier.notify(FILL=number)
        if notifier._unsent:
            return
    raise AssertionError("the socket never filled")


@pytest.fixture
def notifier(systemd: socket.socket) -> Iterator[SystemdNotifier]:  # noqa: ARG001 - the socket has to be there first.
    """A notifier that is connected to it."""
    made = SystemdNotifier()
    yield made
    made.close()


def test_without_a_socket_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of systemd a notification is no error."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    SystemdNotifier().notify(READY=1)


def test_a_status_is_utf_8(systemd: socket.socket, notifier: SystemdNotifier) -> None:
    """Characters beyond Latin-1, as file names have them, arrive; bytes that are not UTF-8 are escaped."""
    notifier.notify(STATUS="rules → 接続 \udcff")
    assert received(systemd) == ["STATUS=rules → 接続 \\udcff"]


def test_a_full_socket_does_not_block(systemd: socket.socket, notifier: SystemdNotifier) -> None:
    """Notifications to a reader that does not read return; what it did not get comes with the next one: the newest
    value of each variable, the newest phase only, and no stale sign of life."""
    fill(notifier)
    notifier.notify(RELOADING=1, MONOTONIC_USEC=5)
    notifier.notify(READY=1, STATUS="old")
    notifier.notify(STATUS="new")
    notifier.notify(WATCHDOG=1)
    received(systemd)
    notifier.notify(MARK="end")
    (message,) = received(systemd)
    lines = message.splitlines()
    assert lines[0].startswith("FILL=")
    assert lines[1:] == ["READY=1", "STATUS=new", "MARK=end"]


def test_what_was_not_sent_follows_when_there_is_room(systemd: socket.socket, notifier: SystemdNotifier) -> None:
    """The event loop sends it by itself, and then no longer waits for the socket."""

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        notifier.resend_in(loop)
        fill(notifier)
        notifier.notify(READY=1)
        assert not any("READY=1" in message for message in received(systemd))
        messages: list[str] = []
        async with asyncio.timeout(LONGEST):
            while not messages:
                await asyncio.sleep(0.01)
                messages = received(systemd)
        assert not loop.remove_writer(cast("socket.socket", notifier._socket))
        return messages

    (message,) = asyncio.run(run())
    assert message.endswith("READY=1")


def test_a_reader_that_is_gone_is_no_error(systemd: socket.socket, notifier: SystemdNotifier) -> None:
    """A socket that nobody reads any more costs nothing: no exception, and no loop that waits for room in it."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        notifier.resend_in(loop)
        systemd.close()
        notifier.notify(STATUS="x")
        assert not loop.remove_writer(cast("socket.socket", notifier._socket))

    asyncio.run(run())


class _Idle:
    """Stands in the worker's place: it owns nothing but a check that is never made."""

    rule_count = 0

    def __init__(self) -> None:
        self.check = WholeCheck("nft", Progress())

    def close(self, orders: Orders) -> None:
        """Nothing to close."""


def test_files_that_change_while_the_worker_thread_ends_are_no_fault() -> None:
    """They are read at the next start. A thread that has ended takes no step."""
    thread = WorkerThread(lambda: cast("Worker", _Idle()), Orders(Settings()), Progress())
    thread.close()
    thread.expect_rehearsal()
    with pytest.raises(RuntimeError):
        thread.submit(Worker.expect_rehearsal)


def test_a_step_of_the_worker_is_hardly_searched_for_cycles() -> None:
    """A pass over many rules makes many objects that form none."""
    thread = WorkerThread(lambda: cast("Worker", _Idle()), Orders(Settings()), Progress())
    assert thread.submit(lambda _worker, _orders: gc.get_threshold()[0]).result(LONGEST) == STEP_ALLOCATIONS
    thread.close()


def test_a_check_gives_way_to_each_step_that_waits() -> None:
    """A step that was asked for counts until it begins; what is done behind a step, when nobody waits, does not."""
    worker, release = _Idle(), threading.Event()
    thread = WorkerThread(lambda: cast("Worker", worker), Orders(Settings()), Progress())

    def wait_for_release(_worker: Worker, _orders: Orders) -> bool:
        return release.wait(LONGEST)

    running = thread.act(wait_for_release)
    eventually(running.running)
    assert worker.check._waiting == 0
    waiting = thread.submit(wait_for_release)
    assert worker.check._waiting == 1
    release.set()
    assert waiting.result(LONGEST)
    assert worker.check._waiting == 0
    thread.close()


def test_a_step_that_nobody_wants_any_more_does_not_wait() -> None:
    """One that was taken back before it began: a check is made again."""
    worker, release = _Idle(), threading.Event()
    thread = WorkerThread(lambda: cast("Worker", worker), Orders(Settings()), Progress())

    def wait_for_release(_worker: Worker, _orders: Orders) -> bool:
        return release.wait(LONGEST)

    eventually(thread.submit(wait_for_release).running)
    assert thread.submit(wait_for_release).cancel()
    release.set()
    assert worker.check._waiting == 0
    thread.close()


def test_a_stuck_worker_thread_stops_the_watchdog(systemd: socket.socket, notifier: SystemdNotifier) -> None:
    """Systemd gets signs of life while the worker thread waits or works; none, and one report that names the step,
    once a step takes longer than it may; and signs of life again should the step end after all."""
    progress, release, reports = Progress(seconds_per_mark=0.2), threading.Event(), list[str]()
    thread = WorkerThread(lambda: cast("Worker", _Idle()), Orders(Settings()), progress)
    watchdog = Watchdog(notifier, thread.overdue, reports.append)

    def hang_for_ever(_worker: Worker, _orders: Orders) -> None:
        release.wait(LONGEST)

    watchdog.feed()
    assert received(systemd) == ["WATCHDOG=1"]
    stuck = thread.submit(hang_for_ever)
    try:
        eventually(lambda: thread.overdue() is not None)
        watchdog.feed()
        watchdog.feed()
        assert received(systemd) == []
        assert reports == ["hang for ever"]
    finally:
        release.set()
    stuck.result(LONGEST)
    eventually(lambda: thread.overdue() is None)
    watchdog.feed()
    assert received(systemd) == ["WATCHDOG=1"]
    thread.close()


def test_a_start_is_extended_while_it_makes_progress(systemd: socket.socket, notifier: SystemdNotifier) -> None:
    """Systemd waits for as long as the first pass goes on; once that is stuck, no longer."""

    async def extend() -> None:
        task = asyncio.create_task(extend_start_until_cancelled(notifier, lambda: None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(extend_start_until_cancelled(notifier, lambda: "a rehearsal"), LONGEST)

    asyncio.run(extend())
    assert received(systemd) == ["EXTEND_TIMEOUT_USEC=120000000"]


def test_marks_and_rules_give_more_time() -> None:
    """A long step is not stuck while it sets marks, and a step with many rules has more time between two of them."""
    short, long = Progress(seconds_per_mark=0.0), Progress(seconds_per_mark=0.0)
    short.begin("a pass", rules=0)
    long.begin("a pass", rules=0)
    long.allow_for(int(3600 / SECONDS_PER_RULE))
    assert (short.overdue(), long.overdue()) == ("a pass", "a pass")
    short.mark("a rehearsal")
    long.mark("a rehearsal")
    assert (short.overdue(), long.overdue()) == ("a rehearsal", None)
    short.end()
    assert short.overdue() is None


def test_the_worker_lives_in_its_thread_only() -> None:
    """It is made and used in the worker thread, and steps run in the order in which they were queued."""
    made: list[int] = []

    def make() -> Worker:
        made.append(threading.get_ident())
        return cast("Worker", _Idle())

    def step(_worker: Worker, orders: Orders, number: int) -> tuple[int, int, Orders]:
        return threading.get_ident(), number, orders

    first, second = Orders(Settings(), "paused"), Orders(Settings())
    thread = WorkerThread(make, first, Progress())
    results = [thread.submit(step, 1).result(LONGEST)]
    thread.orders = second
    results.append(thread.submit(step, 2).result(LONGEST))
    thread.close()
    assert made[0] != threading.get_ident()
    assert results == [(made[0], 1, first), (made[0], 2, second)]


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("400000", "", 0.4), ("400000", str(os.getpid()), 0.4), ("400000", "1", None), ("", "", None), ("x", "", None)],
    ids=["no process", "this process", "another process", "no interval", "not a number"],
)
def test_the_interval_is_the_one_of_this_process(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, seconds: float | None
) -> None:
    """WATCHDOG_USEC counts where WATCHDOG_PID is this process or is not set."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_interval() == seconds
