"""What `fwguardctl denials` reads: lines of a file, a pipe or standard input, and events of the journal by journalctl.

Lines are returned as soon as they are there, in bounded memory.

Any program may write a journal entry that looks like a denial. Only entries count of which journald itself says that
the writer was root, or was in the unit of fwguardd (the fields that begin with an underscore,
systemd.journal-fields(7)).
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.denials.event import EVENT_NAMES, Event, from_entry
from fwguardd.ctl.denials.line_search import lines_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


class UnreadableError(Exception):
    """The input cannot be read. The message names the place, the fault and the next step."""


class FileNotPermittedError(UnreadableError):
    """The user may not read it."""


class TimeSpecError(Exception):
    """journalctl does not understand --since or --until."""


LONGEST_LINE: Final = 1 << 20
"""Bytes. Of a longer line the rest is ignored: no kernel line has more than 8 KiB."""

_CHUNK: Final = 1 << 17
_STANDARD_INPUT, _STANDARD_OUTPUT = 0, 1
_COMPRESSED: Final = {b"\x1f\x8b": "zcat", b"\xfd7": "xzcat", b"BZ": "bzcat", b"(\xb5": "zstdcat"}
_JOURNAL_FILE: Final = b"LPKSHHRH"
"""The first bytes of a journal file (systemd's JOURNAL_FILE_FORMAT)."""


@contextmanager
def opened(path: Path | None) -> Iterator[tuple[int, datetime]]:
    """A descriptor of the file (None is standard input), and when it was last written to, in local time; for a pipe
    that is now. Raises UnreadableError."""
    if path is None:
        yield _STANDARD_INPUT, _written(_STANDARD_INPUT)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise FileNotPermittedError(f"{path}: {error.strerror}; run this as root, or pipe it: … | --read -") from error
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}; --read takes a file, or - for standard input") from error
    try:
        yield descriptor, _written(descriptor)
    finally:
        os.close(descriptor)


def _written(descriptor: int) -> datetime:
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        raise UnreadableError(f"standard input: {error.strerror}") from error
    if stat.S_ISREG(status.st_mode):
        return datetime.fromtimestamp(status.st_mtime)  # noqa: DTZ006 - stamps are in local time.
    return datetime.now()  # noqa: DTZ005 - as above.


def lines_of(descriptor: int, place: str, *, live: bool = False) -> Iterator[bytes]:
    """The lines, without their ends; as `blocks_of`."""
    return lines_in(blocks_of(descriptor, place, live=live))


def blocks_of(descriptor: int, place: str, *, live: bool = False) -> Iterator[bytes]:
    """The lines, as many at once as are there. Each block ends with the end of a line; a last line without one gets it.
    With ``live`` standard output is flushed before each wait, and the wait ends with BrokenPipeError when nobody reads
    standard output any more.

    Raises UnreadableError.
    """
    rest, skipping = b"", False
    for chunk in _chunks(descriptor, place, live=live):
        start = 0
        if skipping:
            start = chunk.find(b"\n") + 1
            if not start:
                continue
            skipping = False
        end = chunk.rfind(b"\n") + 1
        if end > start:
            yield rest + chunk[start:end]
            rest = chunk[end:]
        else:
            rest += chunk[start:]
        if len(rest) > LONGEST_LINE:
            yield rest[:LONGEST_LINE] + b"\n"
            rest, skipping = b"", True
    if rest:
        yield rest + b"\n"


def _chunks(descriptor: int, place: str, *, live: bool) -> Iterator[bytes]:
    chunk = _read(descriptor, place, live=live)
    _refuse_other_formats(chunk, place)
    while chunk:
        yield chunk
        chunk = _read(descriptor, place, live=live)


def _read(descriptor: int, place: str, *, live: bool) -> bytes:
    if live:
        _wait(descriptor)
    try:
        return os.read(descriptor, _CHUNK)
    except OSError as error:
        raise UnreadableError(f"{place}: {error.strerror} while reading") from error


def _wait(descriptor: int) -> None:
    """Wait until there is something to read, or until standard output has no reader."""
    sys.stdout.flush()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(_STANDARD_OUTPUT, 0)
    for ready, _ in poll.poll():
        if ready != descriptor:
            raise BrokenPipeError


def _refuse_other_formats(chunk: bytes, place: str) -> None:
    if chunk.startswith(_JOURNAL_FILE):
        raise UnreadableError(
            f"{place}: this is a journal file; for its kernel lines: journalctl -k --file … -o json | … --read -"
        )
    for magic, program in _COMPRESSED.items():
        if chunk.startswith(magic):
            raise UnreadableError(f"{place}: this file is compressed; unpack it: {program} {place} | … --read -")


TRUSTED: Final = ("_UID=0", "_SYSTEMD_UNIT=fwguardd.service")
"""Either is enough: fwguardd that was started by hand is not in its own unit."""

_NO_ENTRIES: Final = re.compile("No journal files were|not seeing messages")
_NOT_PERMITTED: Final = re.compile("insufficient permissions|not seeing messages|Permission denied")
_WRONG_TIME: Final = re.compile("Failed to parse timestamp|--since= must be before --until")
"""What journalctl prints (src/journal/journalctl.c, src/shared/journal-util.c)."""

_OLD_LINES: Final = "for old kernel log lines: fwguardctl denials --read FILE"


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask journalctl for; ``since`` and ``until`` as journalctl takes them, ``directory`` None for the journal
    of this host."""

    directory: Path | None = None
    since: str | None = None
    until: str | None = None
    follow: bool = False

    @property
    def following(self) -> tuple[str, ...]:
        """The options to follow the journal: from ``since`` on, or else from the last ten events on."""
        if not self.follow:
            return ()
        if self.since is None:
            return ("--follow", "--lines=10")
        return ("--follow", "--no-tail")

    def command(self, *options: str) -> list[str]:
        """The command line, with some more options."""
        words = ["journalctl", *options, "--all", "--no-pager", *self._limits()]
        names = [f"FWGUARD_EVENT={name}" for name in EVENT_NAMES]
        return [*words, *names, TRUSTED[0], "+", *names, TRUSTED[1]]

    def _limits(self) -> Iterator[str]:
        for option, value in (("directory", self.directory), ("since", self.since), ("until", self.until)):
            if value is not None:
                yield f"--{option}={value}"


def events_in_journal(query: Query) -> Iterator[Event]:
    """The events, oldest first. A query that follows never ends, and begins with the last ten events unless it has a
    --since.

    Raises UnreadableError and TimeSpecError; while reading UnreadableError, and BrokenPipeError when it follows and
    nobody reads standard output any more.
    """
    _check(query)
    return _stream(query)


def _check(query: Query) -> None:
    """Ask for no line: that shows whether there is a journal, and whether this user may read it. Not in JSON, since
    then journalctl does not report a missing journal."""
    done = _run_journalctl(query.command("--lines=0"))
    if done.returncode or _NO_ENTRIES.search(done.stderr):
        raise _error(query, done.stderr)


def _run_journalctl(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Raises UnreadableError if the program cannot be started."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=_environment(), check=False
        )
    except FileNotFoundError:
        raise UnreadableError(
            f"journalctl: program not found; without systemd's journal no event is kept; {_OLD_LINES}"
        ) from None
    except OSError as error:
        raise UnreadableError(f"journalctl: {error.strerror}; {_OLD_LINES}") from error


def _stream(query: Query) -> Iterator[Event]:
    command = query.command("--output=json", *query.following)
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=_environment()) as process,
    ):
        assert process.stdout is not None
        try:
            yield from _events(lines_of(process.stdout.fileno(), "journalctl", live=query.follow))
        finally:
            process.terminate()
        if process.wait() > 0:
            errors.seek(0)
            raise _error(query, errors.read(4096).decode("utf-8", "replace"))


def _events(lines: Iterable[bytes]) -> Iterator[Event]:
    for line in lines:
        event = _event(line)
        if event is not None:
            yield event


def _event(line: bytes) -> Event | None:
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    return from_entry(entry)


def _error(query: Query, printed: str) -> Exception:
    """The error for what journalctl printed."""
    place = str(query.directory or "the journal")
    message = " ".join(printed.split()) or "journalctl failed and printed no reason"
    if _WRONG_TIME.search(message):
        return TimeSpecError(f"{message}; see systemd.time(7) for the form of a time")
    if _NOT_PERMITTED.search(message):
        return FileNotPermittedError(f"{place}: not permitted; run it as root or in the group systemd-journal")
    if "No journal files were found" in message:
        return UnreadableError(f"{place}: there are no journal files; is systemd-journald running? {_OLD_LINES}")
    return UnreadableError(f"{place}: {message}; {_OLD_LINES}")


def _environment() -> dict[str, str]:
    """The environment of this process with messages in English, since errors are recognized by them."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}
