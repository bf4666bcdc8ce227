"""Kernel messages from the journal, for hosts where /dev/kmsg is closed: a `journalctl` that follows, and its output.

A process of its own, and not a library in ours: it filters in C what the rest of the host says, so that we wake up for
kernel messages only; it needs no package that a Debian host does not have; and a damaged journal file is its problem.

Only what journald itself vouches for counts: `_TRANSPORT=kernel` is a trusted field (systemd.journal-fields(7)). But
whoever writes to /dev/kmsg comes by that way too, though never as facility 0 (devkmsg_write(), kernel/printk/printk.c).
What journald did not get itself, it says with a number, and so do we.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fwguardd.kernel.closing import Closing
from fwguardd.kernel.kmsg import Lost

if TYPE_CHECKING:
    from pathlib import Path

_MISSED_ID: Final = "e9bf28e6e834481bb6f48f548ad13606"
"""SD_MESSAGE_JOURNAL_MISSED, systemd/sd-messages.h."""
_MISSED: Final = re.compile(r"Missed ([0-9]{1,15}) kernel messages")
"""dev_kmsg_record() in journald-kmsg.c."""

_CURSOR: Final = re.compile(r"[0-9a-z]{1,3}=[0-9a-f]{1,32}(?:;[0-9a-z]{1,3}=[0-9a-f]{1,32}){1,9}")
"""What sd_journal_get_cursor(3) gives; nothing else is handed to a command."""

_USEC: Final = re.compile("[0-9]{1,17}")

_FIELDS: Final = "MESSAGE,MESSAGE_ID,SYSLOG_FACILITY,_TRANSPORT"
_PIECE: Final = 1 << 16
"""Bytes of one read: what a pipe holds."""
_LONGEST_COMPLAINT: Final = 500
_PATIENCE: Final = 10.0
"""Seconds that a question to the journal may take."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of the kernel's: its bytes as the kernel made them, and when journald got it, in seconds since 1970."""

    message: bytes
    when: float


Kept: TypeAlias = Entry | Lost


class JournalError(OSError):
    """The journal cannot be read, or not any more; the message says why and what to do."""


def is_cursor(text: str) -> bool:
    """Whether a text has the form of a cursor."""
    return _CURSOR.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Journal:
    """Which journal, and of which boot. ``directory`` None is this host's."""

    boot_id: str
    directory: Path | None = None

    def newest(self) -> str | None:
        """The cursor of the last kernel message of this boot; None when there is none. Raises JournalError."""
        try:
            done = subprocess.run(
                self.command("--lines=1"), check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unusable(error) from error
        if done.returncode != 0:
            raise JournalError(f"journalctl failed: {_last_line(done.stderr) or done.returncode}")
        documents = [_document(line) for line in done.stdout.splitlines()]
        return _text(documents[-1].get("__CURSOR")) if documents else None

    def command(self, *options: str) -> list[str]:
        """What to run."""
        boot = f"_BOOT_ID={self.boot_id.replace('-', '')}"
        where = ["--system"] if self.directory is None else [f"--directory={self.directory}"]
        kernel = [boot, "_TRANSPORT=kernel"]
        missed = [boot, "_TRANSPORT=driver", f"MESSAGE_ID={_MISSED_ID}"]
        output = ["--output=json", f"--output-fields={_FIELDS}", "--quiet", "--no-pager"]
        return ["journalctl", *where, *output, *options, *kernel, "+", *missed]


class JournalReader(Closing):
    """A journal, followed from after a cursor, or from the beginning of the boot.

    `read_available` gives each message of the kernel's once, in order, and a `Lost` where journald says that it missed
    some. It never waits: an event loop watches `fileno()`. Raises JournalError, also when the journalctl has ended.
    """

    def __init__(self, journal: Journal, after: str | None = None) -> None:
        if after is not None and not is_cursor(after):
            raise JournalError(f"{after!r} is no place in a journal")
        self.cursor = after
        # --after-cursor would skip a message when the one at the cursor is gone; so it is asked for, and dropped.
        self._skip = after
        self._rest = b""
        place = [] if after is None else [f"--cursor={after}"]
        # A pipe for its complaints could fill up while nobody reads it, and journalctl would wait for ever.
        self._errors = os.memfd_create("journalctl")
        try:
            self._child = subprocess.Popen(
                journal.command("--follow", "--no-tail", *place),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # What a terminal sends to the daemon, such as SIGINT, is for the daemon alone.
                process_group=0,
            )
        except OSError as error:
            os.close(self._errors)
            raise _unusable(error) from error
        assert self._child.stdout is not None
        self._output = self._child.stdout
        os.set_blocking(self._output.fileno(), False)

    @property
    def pid(self) -> int:
        """The process id of the journalctl."""
        return self._child.pid

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading."""
        return self._output.fileno()

    def close(self) -> None:
        """End the journalctl; a second time does nothing."""
        if not self._output.closed:
            self._child.kill()
            self._child.wait()
            self._output.close()
            os.close(self._errors)

    def read_available(self, limit: int) -> list[Kept]:
        """What has arrived, in order: about ``limit`` messages and one pipe full; empty when there is nothing.

        The list may be empty too when all that was read was not the kernel's; the descriptor stays readable while
        there is more. Raises JournalError.
        """
        kept: list[Kept] = []
        while len(kept) < limit:
            try:
                data = os.read(self.fileno(), _PIECE)
            except BlockingIOError:
                break
            if not data:
                if kept:
                    # The end is still there at the next read.
                    break
                raise JournalError(f"journalctl ended: {self._reason()}")
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                kept += self._keep(_document(line))
        return kept

    def _keep(self, document: dict[str, Any]) -> list[Kept]:
        cursor = _text(document.get("__CURSOR"))
        if cursor is None:
            return []
        skip, self._skip, self.cursor = self._skip, None, cursor
        if cursor == skip:
            return []
        kept = read_document(document)
        return [kept] if kept is not None else []

    def _reason(self) -> str:
        status = self._child.wait()
        size = os.fstat(self._errors).st_size
        said = _last_line(os.pread(self._errors, _LONGEST_COMPLAINT, max(0, size - _LONGEST_COMPLAINT)))
        return said or (f"killed by signal {-status}" if status < 0 else f"exit code {status}")


def read_document(document: dict[str, Any]) -> Entry | Lost | None:
    """What an entry of the journal says; None when it is neither the kernel's nor about its lost messages."""
    message = _bytes(document.get("MESSAGE"))
    if message is None:
        return None
    if document.get("_TRANSPORT") == "driver":
        missed = _MISSED.fullmatch(message.decode("utf-8", "replace"))
        return Lost(int(missed[1])) if missed is not None and document.get("MESSAGE_ID") == _MISSED_ID else None
    if document.get("_TRANSPORT") != "kernel" or document.get("SYSLOG_FACILITY", "0") != "0":
        return None
    usec = _text(document.get("__REALTIME_TIMESTAMP")) or ""
    if _USEC.fullmatch(usec) is None:
        return None
    return Entry(message, int(usec) / 1_000_000)


def _document(line: bytes) -> dict[str, Any]:
    """An entry as journalctl prints it; empty for a line that is none."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _bytes(value: object) -> bytes | None:
    """A field's bytes: journalctl prints a list of numbers where they are not all printable UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, list) and all(type(byte) is int and 0 <= byte < 256 for byte in value):
        return bytes(value)
    return None


def _last_line(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:_LONGEST_COMPLAINT]


def _unusable(error: Exception) -> JournalError:
    if isinstance(error, FileNotFoundError):
        return JournalError("there is no journalctl; is systemd the init system of this host?")
    return JournalError(f"journalctl cannot be used: {error}")
