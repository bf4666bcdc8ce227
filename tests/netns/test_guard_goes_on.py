"""Nothing that waits stops the guard: while a log, a disk or a client hangs, a foreign flush is repaired."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import RequestRefusedError, ask
from tests.processes import end, ended_on_error
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Saved = Callable[[], dict[str, list[str]]]

pytestmark = pytest.mark.either_backend

ROOT = Path(__file__).resolve().parents[2]
FAST = "settle: 50ms\ndrift_interval: 200ms\n"
RULES = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"


class Disk:
    """A file system of the state directory that can be frozen: ext4 on a loop device, and fsfreeze(8)."""

    def __init__(self, folder: Path, place: Path) -> None:
        image = folder / "disk"
        with image.open("wb") as file:
            file.truncate(32 << 20)
        place.mkdir()
        self._place = place
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
        place.chmod(0o700)
        self.frozen = False

    def freeze(self) -> None:
        """From now on whatever would write to it waits."""
        subprocess.run(["fsfreeze", "--freeze", str(self._place)], check=True)
        self.frozen = True

    def thaw(self) -> None:
        """What waited is carried out."""
        subprocess.run(["fsfreeze", "--unfreeze", str(self._place)], check=True)
        self.frozen = False

    def close(self) -> None:
        """Away with it."""
        if self.frozen:
            self.thaw()
        subprocess.run(["umount", "--lazy", str(self._place)], check=True)


@pytest.fixture
def disk(tmp_path: Path, start_daemon: Callable[..., Any]) -> Iterator[Disk]:  # noqa: ARG001 - it has to end later.
    """A file system of its own for the state directory. It is thawed before daemons are ended: one that waits for it
    cannot be killed."""
    made = Disk(tmp_path, tmp_path / "state")
    yield made
    made.close()


class Quiet:
    """A real daemon with a log of the test's making; what it does is seen in the kernel and by its control socket."""

    def __init__(self, folder: Path, backend: str, log: int, rules: str = RULES) -> None:
        self.rules, self.control, self._backend = folder / "rules", folder / "run" / "control.sock", backend
        self.rules.mkdir()
        (self.rules / "10.rules").write_text(rules)
        (folder / "fwguardd.yaml").write_text(FAST)
        argv = [sys.executable, "-m", "fwguardd", "--log", "json", "--backend", backend]
        argv += ["--config", str(folder / "fwguardd.yaml"), "--rules-dir", str(self.rules)]
        argv += ["--state-dir", str(folder / "state"), "--runtime-dir", str(folder / "run")]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=subprocess.DEVNULL)
        with ended_on_error(self.process):
            wait_until(self.control.exists, "the control socket")
            wait_until(lambda: ask(self.control, "status")["in_force"] is not None, "the first pass", pause=0.05)

    def flush(self) -> None:
        """What another program does."""
        for program in ("iptables", "ip6tables"):
            subprocess.run([f"{program}-{self._backend}", "-F", "INPUT"], check=True)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONGEST)


@pytest.fixture
def started(tmp_path: Path, backend: str) -> Iterator[Callable[..., Quiet]]:
    """Starts a daemon that logs to this descriptor."""
    daemons: list[Quiet] = []

    def start(log: int, rules: str = RULES) -> Quiet:
        daemons.append(Quiet(tmp_path, backend, log, rules))
        return daemons[-1]

    yield start
    for daemon in daemons:
        end(daemon.process)


def _repairs(daemon: Quiet, saved: Saved, times: int) -> None:
    before = saved()
    for _ in range(times):
        ask(daemon.control, "resume")  # So many repairs of one chain would be a fight.
        daemon.flush()
        wait_until(lambda: saved() == before, "the repair", pause=0.05)


def test_an_unread_pipe_stops_nothing(started: Callable[..., Quiet], saved: Saved) -> None:
    """The log is a pipe that is full, and nobody reads it: drift is repaired, requests are answered, and the daemon can
    be stopped."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for size in (1 << 16, 1):
        try:
            while True:
                os.write(writing, b"\n" * size)
        except BlockingIOError:
            continue
    os.set_blocking(writing, True)
    daemon = started(writing)
    _repairs(daemon, saved, 3)
    assert daemon.stop() == 0
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("log", ["closed pipe", "full disk"])
def test_a_log_that_takes_nothing_ends_nothing(started: Callable[..., Quiet], saved: Saved, log: str) -> None:
    """The reader of the pipe is gone, or the disk is full: events are lost, and are counted, and nothing else is."""
    if log == "full disk":
        writing = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, writing = os.pipe()
        os.close(reading)
    daemon = started(writing)
    os.close(writing)
    _repairs(daemon, saved, 3)
    assert ask(daemon.control, "status")["denials"]["dropped_events"] > 0
    assert daemon.stop() == 0


MANY = RULES + "".join(f"-A OUTPUT -d 10.{n >> 8}.{n & 255}.0/24 -j ACCEPT\n" for n in range(4_000))


@pytest.mark.parametrize("backend", ["nft"])
def test_a_storm_of_show_stops_nothing(started: Callable[..., Quiet], saved: Saved) -> None:
    """Clients that ask for a revision of 4,000 rules again and again get it, or are refused as busy; the guard does
    not wait for them."""
    log = os.open("/dev/null", os.O_WRONLY)
    daemon = started(log, MANY)
    os.close(log)
    stop = threading.Event()
    answers: Counter[str] = Counter()

    def storm() -> None:
        while not stop.is_set():
            try:
                shown = ask(daemon.control, "show", {"revision": 1}, timeout=LONGEST)
                assert "10.15.159.0/24" in shown["texts"]["ipv4"]
                answers["shown"] += 1
            except RequestRefusedError as refusal:
                answers[refusal.code] += 1
                stop.wait(0.01)

    clients = [threading.Thread(target=storm) for _ in range(24)]
    for client in clients:
        client.start()
    try:
        wait_until(lambda: answers["shown"] > 0 and answers["busy"] > 0, "the storm")
        _repairs(daemon, saved, 2)
        before = answers["shown"]
        wait_until(lambda: answers["shown"] > before, "an answer after the repairs")
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert set(answers) == {"shown", "busy"}
    assert daemon.stop() == 0


def test_a_frozen_disk_stops_nothing(
    disk: Disk, start_daemon: Callable[..., Any], saved: Saved, backend: str, tmp_path: Path
) -> None:
    """While the state directory hangs, drift is repaired, requests are answered and changed files come in force; what
    needs a promise on the disk is refused. When the disk answers again, everything is on it. A start does not wait for
    such a disk."""
    daemon = start_daemon({"10.rules": RULES}, FAST)
    control = tmp_path / "run" / "control.sock"
    daemon.event("rules.applied", revision=1)
    daemon.end_pass()
    disk.freeze()
    for _ in range(2):
        before = saved()
        subprocess.run([f"iptables-{backend}", "-F", "INPUT"], check=True)
        daemon.event("drift.repaired")
        assert saved() == before
        daemon.drop("20.rules", f"-A INPUT -p tcp --dport {ask(control, 'status')['in_force']['revision']} -j ACCEPT\n")
        daemon.event("rules.applied")
        wait_until(lambda: "has not answered since" in ask(control, "status")["sentence"], "the sentence", pause=0.05)
        assert "has not answered since" in ask(control, "status")["damaged"][-1]
    assert "has not answered since" in daemon_events(daemon, "state.failed")
    refused = ask(control, "reload", {"confirm_seconds": 60}, timeout=LONGEST)
    assert refused["outcome"] == "failed"
    assert "has not answered since" in refused["reason"]
    disk.thaw()
    daemon.event("state.answers")
    wait_until(lambda: [one["revision"] for one in _history(control)] == [3, 2, 1], "the revisions", pause=0.05)
    wait_until(lambda: (tmp_path / "state" / "boot").readlink().name.startswith("boot-000003"), "the boot files")
    wait_until(lambda: len(ask(control, "status")["damaged"]) == 1, "the end of the fault", pause=0.05)
    assert not (tmp_path / "state" / "pending.json").exists()
    assert not (tmp_path / "state" / "touched.json").exists()
    assert daemon.stop() == 0
    disk.freeze()
    again = start_daemon(settings=FAST)
    again.event("rules.unchanged", revision=3)
    again.repair()
    disk.thaw()
    assert again.stop() == 0


def test_a_disk_that_is_frozen_for_good_lets_the_daemon_end(
    disk: Disk, start_daemon: Callable[..., Any], tmp_path: Path
) -> None:
    """SIGTERM ends the event loop and the guard though a write hangs; the process is gone once the disk answers."""
    daemon = start_daemon({"10.rules": RULES}, FAST)
    daemon.event("rules.applied", revision=1)
    daemon.end_pass()
    disk.freeze()
    daemon.drop("20.rules", "-A INPUT -p tcp --dport 80 -j ACCEPT\n")
    daemon.event("rules.applied", revision=2)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.event("daemon.stopping")
    disk.thaw()
    assert daemon.process.wait(LONGEST) == 0
    assert not (tmp_path / "run" / "control.sock").exists()


def daemon_events(daemon: Any, name: str) -> str:
    """The messages of all events of this name so far."""
    return "; ".join(event["message"] for event in daemon.seen if event["event"] == name)


def _history(control: Path) -> list[dict[str, Any]]:
    return list(ask(control, "history")["revisions"])
