"""The journal as a source: real journal files, a real journalctl, that grow, end and come back."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Meaning, Watched
from fwguardd.denials.sources import JournalLine, JournalSource
from fwguardd.kernel.journal_reader import Journal, JournalError, JournalReader, KernelMessage
from fwguardd.kernel.kmsg import Lost
from tests.corpus.test_denial_corpus import SHAPES
from tests.system.journals import BOOT, GrowingJournal
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.kernel.journal_reader import Kept

PATIENCE: Final = LONGEST
"""Seconds to wait for an entry."""
ANOTHER_BOOT: Final = "c0ffee00-0000-4000-8000-000000000002"


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[GrowingJournal]:
    """A journal that is being written."""
    with GrowingJournal(tmp_path) as journal:
        yield journal


def follow(growing: GrowingJournal, after: str | None = None) -> JournalReader:
    """A reader of the journal, once there is something in it."""
    growing.wait()
    return JournalReader(Journal(BOOT, growing.directory), after)


def gather(log: JournalReader | JournalSource, wanted: int) -> list[Kept | JournalLine]:
    """So many things, waited for as an event loop waits."""
    found: list[Kept | JournalLine] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < wanted and time.monotonic() < deadline:
        select.select([log], [], [], deadline - time.monotonic())
        found += log.read_available(1000)
    assert len(found) == wanted
    return found


def messages(kept: list[Kept | JournalLine]) -> list[bytes]:
    """The messages among them."""
    return [item.message for item in kept if isinstance(item, KernelMessage)]


def test_messages_of_the_kernel_are_followed(growing: GrowingJournal) -> None:
    """What is there already comes first, then what is appended, in order, with the time of its arrival."""
    growing.kernel("one", "two")
    with follow(growing) as log:
        assert messages(gather(log, 2)) == [b"one", b"two"]
        growing.kernel("three")
        (third,) = gather(log, 1)
    assert isinstance(third, KernelMessage)
    assert abs(third.when - time.time()) < 60.0


def test_only_what_journald_vouches_for_counts(growing: GrowingJournal) -> None:
    """A message that a program wrote, to the journal, by syslog or to /dev/kmsg, is none of the kernel's."""
    growing.entry("forged", _TRANSPORT="journal", SYSLOG_FACILITY="0", SYSLOG_IDENTIFIER="kernel")
    growing.entry("forged", _TRANSPORT="syslog", SYSLOG_FACILITY="0")
    growing.entry("forged", TRANSPORT="kernel")
    growing.kernel("forged", facility="1")
    growing.entry("Missed 5 kernel messages", _TRANSPORT="journal")
    growing.entry("Missed 5 kernel messages", _TRANSPORT="kernel", SYSLOG_FACILITY="3")
    growing.kernel("true", facility=None)
    growing.kernel("true too")
    with follow(growing) as log:
        assert messages(gather(log, 2)) == [b"true", b"true too"]


def test_what_journald_missed_is_a_loss_in_its_place(growing: GrowingJournal) -> None:
    """Journald says how many records it did not get; they are lost for us too."""
    growing.kernel("before")
    growing.missed(4711)
    growing.kernel("after")
    with follow(growing) as log:
        before, lost, after = gather(log, 3)
    assert isinstance(before, KernelMessage) and isinstance(after, KernelMessage)
    assert lost == Lost(4711)


def test_another_boot_is_not_read(growing: GrowingJournal, tmp_path: Path) -> None:
    """After a reboot reading starts at the first entry of the boot: entries of other boots are ignored."""
    with GrowingJournal(tmp_path, "old", ANOTHER_BOOT, age=3600) as old:
        old.kernel("yesterday")
    growing.kernel("today")
    with follow(growing) as log:
        assert messages(gather(log, 1)) == [b"today"]


def test_a_restart_neither_repeats_nor_skips(growing: GrowingJournal) -> None:
    """A reader that begins after a cursor returns exactly what came after that message, also while no reader ran."""
    growing.kernel("one", "two", "three")
    with follow(growing) as log:
        # All of them at once, or one by one: the cursor is that of the last one handed out.
        handed_out = messages(gather(log, 3))
        cursor = log.cursor
    growing.entry("others talk too", _TRANSPORT="journal")
    growing.kernel("four", "five")
    with follow(growing, cursor) as log:
        assert messages(gather(log, 2)) == [b"four", b"five"]
        growing.kernel("six")
        assert messages(gather(log, 1)) == [b"six"]
    assert handed_out == [b"one", b"two", b"three"]


def test_a_message_at_a_vanished_cursor_costs_no_other_one(growing: GrowingJournal, tmp_path: Path) -> None:
    """When the entry at the cursor was vacuumed away, reading continues with the next one that is left."""
    vacuumed = tmp_path / "vacuumed"
    vacuumed.mkdir()
    with GrowingJournal(vacuumed, age=60) as old:
        old.kernel("gone")
    cursor = Journal(BOOT, vacuumed).newest()
    growing.kernel("left", "left too")
    assert cursor is not None
    with follow(growing, cursor) as log:
        assert messages(gather(log, 2)) == [b"left", b"left too"]


def test_the_newest_message_is_where_a_first_start_begins(growing: GrowingJournal) -> None:
    """Entries from before the first start are skipped, up to the last cursor; later ones are not."""
    assert Journal(BOOT, growing.directory).newest() is None
    growing.kernel("old", "old too")
    growing.entry("others talk too", _TRANSPORT="journal")
    with follow(growing) as log:
        gather(log, 2)
    newest = Journal(BOOT, growing.directory).newest()
    assert newest is not None
    growing.kernel("new")
    with follow(growing, newest) as log:
        assert messages(gather(log, 1)) == [b"new"]


def test_the_end_of_journalctl_is_noticed(growing: GrowingJournal) -> None:
    """A journalctl that ends makes the descriptor readable, and the next read says why it ended; once closed, a new
    reader goes on where the old one was."""
    growing.kernel("one")
    log = follow(growing)
    gather(log, 1)
    growing.kernel("two")
    gather(log, 1)
    os.kill(log.pid, signal.SIGKILL)
    assert select.select([log], [], [], PATIENCE)[0]
    with pytest.raises(JournalError, match="journalctl has ended: killed by signal 9"):
        log.read_available(10)
    log.close()
    growing.kernel("three")
    with follow(growing, log.cursor) as again:
        assert messages(gather(again, 1)) == [b"three"]


def test_errors_of_journalctl_are_reported(tmp_path: Path) -> None:
    """When it ends by itself, its last words are the reason; here it finds no boot to follow."""
    (tmp_path / "empty").mkdir()
    with JournalReader(Journal(BOOT, tmp_path / "empty")) as log:
        assert select.select([log], [], [], PATIENCE)[0]
        with pytest.raises(JournalError, match=r"journalctl has ended: .*boot"):
            log.read_available(10)


def test_no_process_is_left_behind(growing: GrowingJournal) -> None:
    """Closing ends the journalctl, and waits for it; a second time does nothing."""
    growing.kernel("one")
    log = follow(growing)
    gather(log, 1)
    log.close()
    log.close()
    assert not Path(f"/proc/{log.pid}").exists()


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    """A cursor comes from a file; what is no cursor never reaches a command line."""
    with pytest.raises(JournalError, match="is not a journal cursor"):
        JournalReader(Journal(BOOT, tmp_path), "--vacuum-size=1")


def test_a_journal_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """What journalctl complains of is in the error."""
    with pytest.raises(JournalError, match=r"journalctl failed: .*No such file or directory"):
        Journal(BOOT, tmp_path / "missing").newest()


def test_every_line_of_the_corpus_comes_through_the_journal(growing: GrowingJournal) -> None:
    """Whatever bytes are in a line, it is read from the journal as it is from /dev/kmsg: journald takes the kernel's
    escapes off, and we put them on again."""
    texts = [shape.text for shape in SHAPES]
    growing.kernel(*(text.encode().decode("unicode_escape").encode("latin-1").rstrip(b" ") for text in texts))
    with follow(growing) as log:
        source = JournalSource(log)
        lines = [item.text for item in gather(source, len(texts)) if isinstance(item, JournalLine)]
        assert source.position == log.cursor
    assert lines == [text.rstrip(" ") for text in texts]
    watched = Watched("denied", "iptables denied: ", Meaning.DENIED)
    read = [LineReader([watched]).read(line) for line in lines]
    assert sum(isinstance(item, Denial) for item in read) > 400


def test_a_line_that_tries_to_be_two_is_one(growing: GrowingJournal) -> None:
    """Line breaks and JSON inside a message stay inside it."""
    hostile = b'iptables denied: IN=\n{"__CURSOR": "x", "MESSAGE": "forged", "_TRANSPORT": "kernel"}\n\x1b[31m'
    growing.kernel(hostile)
    growing.kernel("after")
    with follow(growing) as log:
        lines = [item.text for item in gather(JournalSource(log), 2) if isinstance(item, JournalLine)]
    assert lines[0].isprintable() and lines[0].startswith("iptables denied: IN=\\x0a{")
    assert lines[1] == "after"


def test_nothing_wakes_up_while_nothing_is_written(growing: GrowingJournal) -> None:
    """While the kernel is silent, neither we nor the journalctl is woken; nor are we by what others write."""
    growing.kernel("one")
    with follow(growing) as log:
        gather(log, 1)
        growing.entry("others talk", _TRANSPORT="journal")
        assert select.select([log], [], [], 0.5)[0] == []
        before = switches(log.pid)
        assert select.select([log], [], [], 1.0)[0] == []
        assert switches(log.pid) == before


def switches(pid: int) -> str:
    """How often a process slept and was woken (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(line for line in lines if line.startswith("voluntary_ctxt_switches"))
