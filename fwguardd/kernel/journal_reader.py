"""Kernel messages from the journal, for hosts where /dev/kmsg cannot be read: the output of `journalctl --follow`.

journalctl is a process of its own, not a library in the daemon, for three reasons: it filters the messages of other
programs in C, so that the daemon wakes up for kernel messages only; every Debian host has it; and a damaged journal
file cannot crash the daemon.

Only fields that journald itself sets are used: `_TRANSPORT=kernel` is a trusted field (systemd.journal-fields(7)).
Messages that a process writes to /dev/kmsg have it too, but never with facility 0 (devkmsg_write() in
kernel/printk/printk.c). journald reports how many messages it missed, and they are reported as lost.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fwguardd.kernel.kmsg import Lost
from fwguardd.patterns import pattern
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MISSED_ID: Final = "e9bf28e6e834481bb6f48f548ad13606"
"""SD_MESSAGE_JOURNAL_MISSED, systemd/sd-messages.h."""
_MISSED: Final = pattern(r"Missed ([0-9]{1,15}) kernel messages")
"""dev_kmsg_record() in journald-kmsg.c."""

_CURSOR: Final = pattern(r"[0-9a-z]{1,3}=[0-9a-f]{1,32}(?:;[0-9a-z]{1,3}=[0-9a-f]{1,32}){1,9}")
"""The form of a cursor (sd_journal_get_cursor(3)); no other text is passed to journalctl."""

_USEC: Final = pattern("[0-9]{1,17}")

_FIELDS: Final = "MESSAGE,MESSAGE_ID,SYSLOG_FACILITY,_TRANSPORT"
_READ_BYTES: Final = 1 << 16
"""Bytes of one read: the capacity of a pipe."""
_MAX_ERROR_LENGTH: Final = 500
_QUERY_SECONDS: Final = 10.0
"""The longest that a query of the journal may take."""


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """A message of the kernel: its bytes, and when journald received it, in seconds since 1970."""

    message: bytes
    when: float


Kept: TypeAlias = KernelMessage | Lost


class JournalError(OSError):
    """The journal cannot be read, or can no longer be read; the message says why and what to do."""


def is_cursor(text: str) -> bool:
    """Whether a text has the form of a cursor."""
    return _CURSOR.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal, and the boot whose messages are read. ``directory`` None is the journal of this host."""

    boot_id: str
    directory: Path | None = None

    def newest(self) -> str | None:
        """The cursor of the last kernel message of this boot; None when there is none. Raises JournalError."""
        try:
            done = subprocess.run(
                self.command("--lines=1"),
                check=False,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=_QUERY_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unusable(error) from error
        if done.returncode != 0:
            raise JournalError(f"journalctl failed: {_last_line(done.stderr) or done.returncode}")
        lines = done.stdout.splitlines()
        if not lines:
            return None
        return _text(_parse_document(lines[-1]).get("__CURSOR"))

    def command(self, *options: str) -> list[str]:
        """The command line of journalctl, with these options added."""
        boot = f"_BOOT_ID={self.boot_id.replace('-', '')}"
        where = "--system"
        if self.directory is not None:
            where = f"--directory={self.directory}"
        kernel = [boot, "_TRANSPORT=kernel"]
        missed = [boot, "_TRANSPORT=driver", f"MESSAGE_ID={_MISSED_ID}"]
        output = ["--output=json", f"--output-fields={_FIELDS}", "--quiet", "--no-pager"]
        return ["journalctl", where, *output, *options, *kernel, "+", *missed]


class JournalReader(AbstractContextManager["JournalReader"]):
    """A journal, followed from after a cursor, or from the beginning of the boot.

    `read_available` returns each kernel message once, in order, and a `Lost` where journald reports missed ones. It
    never waits: an event loop watches `fileno()`. Raises JournalError, also when journalctl has ended.
    """

    def __init__(self, journal: Journal, after: str | None = None) -> None:
        if after is not None and not is_cursor(after):
            raise JournalError(f"{after!r} is not a journal cursor")
        self.cursor = after
        # --after-cursor would skip a message if the one at the cursor no longer existed, so that one is read too, and
        # dropped.
        self._skip = after
        self._rest = b""
        begin: list[str] = []
        if after is not None:
            begin.append(f"--cursor={after}")
        # Not a pipe: it could fill up while it is not read, and journalctl would wait forever.
        self._errors = os.memfd_create("journalctl")
        try:
            self._child = _follow(journal, begin, self._errors)
        except OSError as error:
            os.close(self._errors)
            raise _unusable(error) from error
        assert self._child.stdout is not None
        self._output = self._child.stdout
        os.set_blocking(self._output.fileno(), False)

    @property
    def pid(self) -> int:
        """The process id of journalctl."""
        return self._child.pid

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading."""
        return self._output.fileno()

    def close(self) -> None:
        """End journalctl; a second time does nothing."""
        if not self._output.closed:
            self._child.kill()
            self._child.wait()
            self._output.close()
            os.close(self._errors)

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_available(self, limit: int) -> list[Kept]:
        """What has arrived, in order: about ``limit`` messages and the content of one pipe.

        The list is empty when there is nothing, and also when no message read was of the kernel; the descriptor stays
        readable while there is more. Raises JournalError.
        """
        kept: list[Kept] = []
        while len(kept) < limit:
            try:
                data = os.read(self.fileno(), _READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                if kept:
                    # The next call reports the end.
                    break
                raise JournalError(f"journalctl has ended: {self._reason()}")
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                kept += self._keep(_parse_document(line))
        return kept

    def _keep(self, document: dict[str, Any]) -> list[Kept]:
        cursor = _text(document.get("__CURSOR"))
        if cursor is None:
            return []
        skip, self._skip, self.cursor = self._skip, None, cursor
        if cursor == skip:
            return []
        kept = read_document(document)
        if kept is None:
            return []
        return [kept]

    def _reason(self) -> str:
        """The last line of journalctl's standard error, or how it ended."""
        status = self._child.wait()
        size = os.fstat(self._errors).st_size
        message = _last_line(os.pread(self._errors, _MAX_ERROR_LENGTH, max(0, size - _MAX_ERROR_LENGTH)))
        if message:
            return message
        if status < 0:
            return f"killed by signal {-status}"
        return f"exit code {status}"


def _follow(journal: Journal, begin: Sequence[str], errors: int) -> subprocess.Popen[bytes]:
    """Start journalctl. Raises OSError."""
    return subprocess.Popen(
        journal.command("--follow", "--no-tail", *begin),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        # Ctrl-C in a terminal is meant for the daemon, which ends journalctl itself.
        process_group=0,
    )


def _is_of_kernel(document: dict[str, Any]) -> bool:
    return document.get("_TRANSPORT") == "kernel" and document.get("SYSLOG_FACILITY", "0") == "0"


def read_document(document: dict[str, Any]) -> KernelMessage | Lost | None:
    """The kernel message or the loss that an entry of the journal reports; None for any other entry."""
    message = _bytes(document.get("MESSAGE"))
    if message is None:
        return None
    if document.get("_TRANSPORT") == "driver":
        return _parse_missed(document, message)
    if not _is_of_kernel(document):
        return None
    usec = _text(document.get("__REALTIME_TIMESTAMP")) or ""
    if _USEC.fullmatch(usec) is None:
        return None
    return KernelMessage(message, int(usec) / 1_000_000)


def _parse_missed(document: dict[str, Any], message: bytes) -> Lost | None:
    """The number of messages that journald missed; None for any other message of journald."""
    missed = _MISSED.fullmatch(message.decode("utf-8", "replace"))
    if missed is None or document.get("MESSAGE_ID") != _MISSED_ID:
        return None
    return Lost(int(missed[1]))


def _parse_document(line: bytes) -> dict[str, Any]:
    """An entry as journalctl prints it; empty for a line that is not a JSON object."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, dict):
        return document
    return {}


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return None


def _bytes(value: object) -> bytes | None:
    """A field's bytes: journalctl prints a list of numbers where they are not all printable UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, list) and all(map(_is_byte, value)):
        return bytes(value)
    return None


def _is_byte(value: object) -> bool:
    return type(value) is int and 0 <= value < 256


def _last_line(output: bytes) -> str:
    """The last line that is not empty."""
    text = output.decode("utf-8", "replace").strip()
    return text.split("\n")[-1].strip()[:_MAX_ERROR_LENGTH]


def _unusable(error: Exception) -> JournalError:
    if isinstance(error, FileNotFoundError):
        return JournalError("journalctl is not installed; is systemd the init system of this host?")
    return JournalError(f"cannot run journalctl: {error}")
