"""Denials while journald accepts nothing: the reader does not wait, no event is dropped, and all come when it is
back."""

from __future__ import annotations

import asyncio
import secrets
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from fwguardd import events
from fwguardd.denial_reader import CHECKPOINT, MOST_WAITING, DenialReader
from fwguardd.denials.model import Meaning, Watched
from fwguardd.denials.pipeline import SLICE
from fwguardd.denials.sources import SourceChoice
from fwguardd.kernel.privilege import boot_id
from fwguardd.settings import Settings
from fwguardd.sinks.journal import JournalSink, JournalSocket
from fwguardd.sinks.sink import dropped_events
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINES = 1800
BURST = 300


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something, while the loop turns."""
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


def read_entries(journald: socket.socket) -> list[dict[str, str]]:
    """The entries that have arrived."""
    entries: list[dict[str, str]] = []
    while True:
        try:
            entry = journald.recv(1 << 20).decode()
        except BlockingIOError:
            return entries
        entries.append(dict(line.split("=", 1) for line in entry.splitlines()))


class Host:
    """A rule that logs, a listener in this loop, and a journald that is not there yet."""

    def __init__(self, folder: Path) -> None:
        self.prefix = f"{secrets.token_hex(4)} "
        subprocess.run(
            ["iptables-nft", "-A", "INPUT", "-p", "udp", "-j", "LOG", "--log-prefix", self.prefix], check=True
        )
        watched = (Watched("test", self.prefix, Meaning.DENIED),)
        settings = Settings(runtime_dir=folder, prefixes=watched, denials_window=0.0, source=SourceChoice.KMSG)
        self.path = folder / "socket"
        self.journal = JournalSocket(str(self.path))
        self.log = JournalSink(self.journal)
        self.reader = DenialReader(settings, self.log, boot_id())

    async def deny(self, lines: int, switch_on: Callable[[], None]) -> None:
        """Let the rule log packets until so many lines are read, in bursts that the kernel's log holds at once. Some of
        them may be lost, when others write to the log at the same time."""
        deadline = time.monotonic() + LONGEST
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while (read := int(self.reader.counts()["lines"])) < lines:
                assert time.monotonic() < deadline
                switch_on()
                for number in range(BURST):
                    sender.sendto(b"", ("127.0.0.1", 10_000 + number))
                for _ in range(100):
                    if self.reader.counts()["lines"] >= read + BURST:
                        break
                    await asyncio.sleep(0.005)


def test_a_journal_that_comes_back_gets_all(tmp_path: Path, kernel_log_of_namespaces: Callable[[], None]) -> None:
    """While no journald runs a number of events is queued and the other lines are counted; the checkpoint is not
    written. When journald is back it gets events for every line, though no other line comes, and the checkpoint is
    written."""
    host = Host(tmp_path)

    async def live() -> tuple[list[dict[str, str]], int]:
        with host.reader.reading(asyncio.get_running_loop()):
            await host.deny(LINES, kernel_log_of_namespaces)
            counts = host.reader.counts()
            assert host.log.flush() <= MOST_WAITING + SLICE
            assert counts["waiting"] > 0
            assert not (tmp_path / CHECKPOINT).exists()
            return await _come_back(host), int(counts["lines"])

    entries, lines = asyncio.run(live())
    host.journal.close()
    denied = [entry for entry in entries if entry["FWGUARD_EVENT"] in ("denied", "denied.summary")]
    assert sum(int(entry.get("FWGUARD_COUNT", 1)) for entry in denied) == lines
    assert dropped_events(host.log) == 0
    assert (tmp_path / CHECKPOINT).exists()


async def _come_back(host: Host) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(host.path))
        journald.setblocking(False)  # noqa: FBT003 - the standard library's signature.

        def all_told() -> bool:
            entries.extend(read_entries(journald))
            counts: dict[str, Any] = host.reader.counts()
            return counts["waiting"] == 0 and host.log.flush() == 0

        await until(all_told, "all events")
        entries += read_entries(journald)
        await until((host.path.parent / CHECKPOINT).exists, "the checkpoint")
    return entries


def test_an_event_of_another_part_is_not_forgotten(tmp_path: Path) -> None:
    """An event that journald did not take is handed on when it is back, though nothing else happens."""
    host = Host(tmp_path)

    async def live() -> list[dict[str, str]]:
        with host.reader.reading(asyncio.get_running_loop()):
            await asyncio.get_running_loop().run_in_executor(None, host.log.emit, events.REPAIRED, "from a thread")
            return await _come_back(host)

    assert "from a thread" in [entry["MESSAGE"] for entry in asyncio.run(live())]
    host.journal.close()
