"""Others who write rules at the same time: the lock of legacy iptables, and inserts that must not be lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

FIRST = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"
MORE = "-A INPUT -p tcp --dport 8080 -j ACCEPT\n"
OPEN_8080 = "-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"
INSERTS, RELOADS = scaled(gate=200, long=5000), scaled(gate=12, long=250)
"""At least so many rules are added by others while at least so many reloads are put in force."""

FLOOD = scaled(gate=200, long=4000)
"""Rules that others add without a pause."""

ONLY_RELOADS = "settle: 30s\nsettle_max: 60s\ndrift_interval: 1h\n"
legacy = pytest.mark.parametrize("backend", ["legacy"])


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A file that the daemon and this test's own iptables take for /run/xtables.lock."""
    path = tmp_path / "xtables.lock"
    path.touch()
    return path


@pytest.fixture
def hold(lock: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a process that holds the lock until it is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["flock", "--no-fork", str(lock), "sleep", "infinity"]))
        name = Path(f"/proc/{started[-1].pid}/comm")
        wait_until(lambda: name.read_text() == "sleep\n", "the lock")
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@legacy
def test_a_lock_that_is_held_for_a_while_delays_a_load(
    start_daemon: Start, saved: Saved, lock: Path, hold: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """While somebody holds the lock nothing is written; once it is free, within the daemon's patience, the load is."""
    daemon = start_daemon({"10-first.rules": FIRST}, XTABLES_LOCKFILE=str(lock))
    daemon.event("rules.applied")
    before = saved()
    holder = hold()
    daemon.drop("20-more.rules", MORE)
    wait_until(lambda: _has_open(daemon.process.pid, lock), "the daemon at the lock")
    assert saved() == before
    holder.kill()
    daemon.event("rules.applied", revision=2, cause="change")
    assert all(OPEN_8080 in lines for lines in saved().values())
    daemon.stop()
    daemon.event("daemon.stopping")
    assert not [event for event in daemon.seen if event["event"] == "rules.failed"]


@legacy
def test_a_lock_that_is_held_too_long_fails_a_load(
    start_daemon: Start, saved: Saved, lock: Path, hold: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A load that cannot have the lock in time changes nothing and names the holder; it is tried again by itself, and
    succeeds once the lock is free."""
    daemon = start_daemon({"10-first.rules": FIRST}, XTABLES_LOCKFILE=str(lock))
    daemon.event("rules.applied")
    before = saved()
    holder = hold()
    daemon.drop("20-more.rules", MORE)
    message = daemon.event("rules.failed", revision=1)["message"]
    assert f"{lock} has been held by process {holder.pid} (sleep) for over 5 s" in message
    assert "Revision 1 stays in force" in message
    assert saved() == before
    holder.kill()
    daemon.event("rules.applied", revision=2)
    assert all(OPEN_8080 in lines for lines in saved().values())


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open: fwguardd has the lock's for as long as it waits for it or holds it."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if descriptor.readlink() == path:
                return True
    return False


@legacy
def test_the_lock_is_free_between_passes(start_daemon: Start, lock: Path) -> None:
    """The daemon holds the lock while it writes and no longer: others need not wait for a daemon that waits."""
    daemon = start_daemon({"10-first.rules": FIRST}, XTABLES_LOCKFILE=str(lock))
    daemon.event("rules.applied")
    daemon.end_pass()
    subprocess.run(["flock", "--nonblock", str(lock), "true"], check=True)


class Others:
    """Somebody who adds rules to a chain of theirs, one by one, until it is enough."""

    def __init__(self, backend: str, lock: Path) -> None:
        self.added: list[str] = []
        self._backend, self._variables = backend, os.environ | {"XTABLES_LOCKFILE": str(lock)}
        self._enough = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._run("-w", "-N", "f2b-test")

    def begin(self, pause: float) -> Future[None]:
        """Add rules from now on, with a pause after each."""
        return self._pool.submit(self._add, pause)

    def _add(self, pause: float) -> None:
        while not self._enough.wait(pause):
            number = len(self.added)
            rule = f"-A f2b-test -s 10.1.{number // 250}.{number % 250}/32 -j DROP"
            self._run("-w", *rule.split())
            self.added.append(rule)

    def _run(self, *arguments: str) -> None:
        argv = [f"iptables-{self._backend}", *arguments]
        ended = subprocess.run(argv, env=self._variables, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr

    def end(self) -> None:
        """It is enough."""
        self._enough.set()
        self._pool.shutdown()


@pytest.fixture
def others(backend: str, lock: Path) -> Iterator[Others]:
    """Somebody else who writes."""
    made = Others(backend, lock)
    yield made
    made.end()


@pytest.mark.long
def test_no_insert_of_others_is_lost(start_daemon: Start, saved: Saved, lock: Path, others: Others) -> None:
    """Of hundreds of rules that another program adds one by one to its own chain, while dozens of reloads take place,
    each is there in the end, where it belongs: between the daemon's look and its write no other program writes."""
    daemon = start_daemon({"10-first.rules": FIRST}, ONLY_RELOADS, XTABLES_LOCKFILE=str(lock))
    daemon.event("rules.applied")
    adding = others.begin(pause=0.002)
    number = 0
    while number < RELOADS or (len(others.added) < INSERTS and number < 10 * RELOADS):
        daemon.drop("20-more.rules", MORE if number % 2 == 0 else "# Closed again.\n-P INPUT DROP\n")
        done = ask(lock.parent / "run" / "control.sock", "reload")
        assert done["outcome"] == "applied", done["reason"]
        number += 1
    others.end()
    adding.result()
    print(f"{len(others.added)} rules added during {number} reloads")
    assert len(others.added) >= INSERTS
    assert [line for line in saved()["ipv4"] if line.startswith("-A f2b-test")] == others.added


@pytest.mark.long
def test_a_flood_of_others_breaks_nothing(start_daemon: Start, saved: Saved, lock: Path, others: Others) -> None:
    """While somebody adds rule upon rule without a pause a load may have to wait; it is in force once they are done, or
    before, and none of theirs is lost."""
    daemon = start_daemon({"10-first.rules": FIRST}, ONLY_RELOADS, XTABLES_LOCKFILE=str(lock))
    daemon.event("rules.applied")
    adding = others.begin(pause=0.0)
    wait_until(lambda: len(others.added) >= FLOOD // 2 or adding.done(), "half of the flood")
    daemon.drop("20-more.rules", MORE)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(others.added) >= FLOOD or adding.done(), "the flood")
    others.end()
    adding.result()
    daemon.event("rules.applied", revision=2)
    assert [line for line in saved()["ipv4"] if line.startswith("-A f2b-test")] == others.added
    assert all(OPEN_8080 in lines for lines in saved().values())
    assert daemon.stop() == 0
    daemon.event("daemon.stopping")
    assert not {"rules.failed", "rules.broken"} & {event["event"] for event in daemon.seen}


def test_a_look_for_drift_takes_no_files_that_still_change(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Files that are being put in place one after the other are one change: a look at the kernel, whatever calls for
    it, neither loads nor refuses the half that is there before the directory has been quiet for the settle time."""
    daemon = start_daemon({"10-first.rules": FIRST}, "settle: 60s\nsettle_max: 600s\ndrift_interval: 200ms\n")
    daemon.event("rules.applied")
    daemon.drop("20-jump.rules", "-A INPUT -p tcp --dport 8080 -j WEB\n")
    daemon.repair()
    daemon.drop("30-web.rules", ":WEB -\n-A WEB -j ACCEPT\n")
    daemon.repair()
    assert "-A WEB -j ACCEPT" not in saved()["ipv4"]
    assert ask(tmp_path / "run" / "control.sock", "reload")["outcome"] == "applied"
    assert "-A WEB -j ACCEPT" in saved()["ipv4"]
    assert "rules.rejected" not in {event["event"] for event in daemon.seen}
