"""The events that fwguardd told, from the journal, by journalctl.

Any program may write an entry that calls itself a denial. What counts is what journald itself says of the writer: its
user is root, or its unit is fwguardd's (the fields that begin with an underscore, systemd.journal-fields(7)).

Lines from a file, a pipe or standard input, in bounded memory, as soon as they are there.
"""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.denials.event import EVENT_NAMES, Event, of_entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TRUSTED: Final = ("_UID=0", "_SYSTEMD_UNIT=fwguardd.service")
"""Either is enough: fwguardd run by hand is in no unit of its own."""

_OLD_LINES: Final = "for old kernel log lines: fwguardctl denials --read FILE"


class TimeSpecError(Exception):
    """journalctl does not understand --since or --until."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask journalctl for; ``since`` and ``until`` in its own words, ``directory`` None for this host's."""

    directory: Path | None = None
    since: str | None = None
    until: str | None = None
    follow: bool = False

    def arguments(self) -> list[str]:
        """The command line, less what says how many lines, and in what form."""
        words = ["journalctl", "--all", "--no-pager"]
        words += [f"--directory={self.directory}"] if self.directory is not None else []
        words += [f"--since={self.since}"] if self.since is not None else []
        words += [f"--until={self.until}"] if self.until is not None else []
        names = [f"FWGUARD_EVENT={name}" for name in EVENT_NAMES]
        return [*words, *names, TRUSTED[0], "+", *names, TRUSTED[1]]


def events_in_journal(query: Query) -> Iterator[Event]:
    """The events, oldest first; a following query begins with the last ten, unless it says since when, and never ends.

    Raises UnreadableError, WrongTimeError; on the way UnreadableError, and BrokenPipeError when it follows for nobody.
    """
    _try(query)
    return _stream(query)


def _stream(query: Query) -> Iterator[Event]:
    arguments = query.arguments()
    arguments[1:1] = ["--output=json"]
    if query.follow:
        arguments[1:1] = ["--follow", "--no-tail"] if query.since is not None else ["--follow", "--lines=10"]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=complaints, env=_environment()) as process,
    ):
        assert process.stdout is not None
        try:
            for line in lines_of(process.stdout.fileno(), "journalctl", live=query.follow):
                event = _event(line)
                if event is not None:
                    yield event
        finally:
            process.terminate()
        if process.wait() > 0:
            complaints.seek(0)
            raise _error(query, complaints.read(4096).decode("utf-8", "replace"))


def _event(line: bytes) -> Event | None:
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return of_entry(entry) if isinstance(entry, dict) else None


def _try(query: Query) -> None:
    """Ask for no line at all: it tells whether there is a journal, and whether this user may read it. Not for JSON,
    since then journalctl says nothing of a journal that is not there."""
    arguments = query.arguments()
    arguments[1:1] = ["--lines=0"]
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, errors="replace", env=_environment(), check=False
        )
    except FileNotFoundError:
        raise UnreadableError(
            f"journalctl: no such program; without systemd's journal no event is kept; {_OLD_LINES}"
        ) from None
    except OSError as error:
        raise UnreadableError(f"journalctl: {error.strerror}; {_OLD_LINES}") from error
    if done.returncode or "No journal files were" in done.stderr or "not seeing messages" in done.stderr:
        raise _error(query, done.stderr)


def _error(query: Query, complaint: str) -> Exception:
    """What to raise for a complaint of journalctl's (src/journal/journalctl.c, src/shared/journal-util.c)."""
    place = str(query.directory) if query.directory is not None else "the journal"
    said = " ".join(complaint.split()) or "journalctl failed and did not say why"
    if "Failed to parse timestamp" in said or "--since= must be before --until" in said:
        return TimeSpecError(f"{said}; systemd.time(7) tells how to write a time")
    if "insufficient permissions" in said or "not seeing messages" in said or "Permission denied" in said:
        return FileNotPermittedError(f"{place}: not permitted; run it as root or in the group systemd-journal")
    if "No journal files were found" in said:
        return UnreadableError(f"{place}: there are no journal files; is systemd-journald running? {_OLD_LINES}")
    return UnreadableError(f"{place}: {said}; {_OLD_LINES}")


def _environment() -> dict[str, str]:
    """Ours, but for the language: complaints are told apart by their words."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


LONGEST_LINE: Final = 1 << 20
"""Bytes. A longer line is read up to here, and its rest is passed over: no kernel line has more than 8 KiB."""

_CHUNK: Final = 1 << 17
_STANDARD_INPUT, _STANDARD_OUTPUT = 0, 1
_COMPRESSED: Final = {b"\x1f\x8b": "zcat", b"\xfd7": "xzcat", b"BZ": "bzcat", b"(\xb5": "zstdcat"}
_JOURNAL_FILE: Final = b"LPKSHHRH"
"""The first bytes of a journal file (systemd's JOURNAL_FILE_FORMAT)."""


class UnreadableError(Exception):
    """What should be read cannot be read. The message names the place, the fault and the next step."""


class FileNotPermittedError(UnreadableError):
    """The user may not read it."""


@contextmanager
def opened(path: Path | None) -> Iterator[tuple[int, datetime]]:
    """A descriptor of the file (None is standard input), and when it was last written to, in local time: for what
    has no such time, now. Raises UnreadableError."""
    if path is None:
        yield _STANDARD_INPUT, _written(_STANDARD_INPUT)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise FileNotPermittedError(f"{path}: {error.strerror}; read it as root, or pipe it: … | --read -") from error
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}; --read wants a file, or - for standard input") from error
    try:
        yield descriptor, _written(descriptor)
    finally:
        os.close(descriptor)


def _written(descriptor: int) -> datetime:
    """In local time, as stamps are read."""
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        raise UnreadableError(f"standard input: {error.strerror}") from error
    return datetime.fromtimestamp(status.st_mtime) if stat.S_ISREG(status.st_mode) else datetime.now()  # noqa: DTZ005, DTZ006


def lines_of(descriptor: int, place: str, *, live: bool = False) -> Iterator[bytes]:
    """The lines, without their ends. A last line without an end counts too. With ``live``, all that was printed
    is out before more is waited for, and the wait ends with BrokenPipeError when nobody reads our standard output.

    Raises UnreadableError.
    """
    rest, skipping, first = b"", False, True
    while chunk := _read(descriptor, place, live=live):
        if first:
            _refuse_other_formats(chunk, place)
            first = False
        *lines, rest = (rest + chunk).split(b"\n")
        if skipping and lines:
            skipping = False
            del lines[0]
        if len(rest) > LONGEST_LINE:
            if not skipping:
                lines.append(rest[:LONGEST_LINE])
            rest, skipping = b"", True
        yield from lines
    if rest and not skipping:
        yield rest


def _read(descriptor: int, place: str, *, live: bool) -> bytes:
    if live:
        _wait(descriptor)
    try:
        return os.read(descriptor, _CHUNK)
    except OSError as error:
        raise UnreadableError(f"{place}: {error.strerror} while reading") from error


def _wait(descriptor: int) -> None:
    """Wait until there is something to read, or nobody to write for."""
    sys.stdout.flush()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(_STANDARD_OUTPUT, 0)
    for ready, _ in poll.poll():
        if ready != descriptor:
            raise BrokenPipeError


def _refuse_other_formats(chunk: bytes, place: str) -> None:
    if chunk.startswith(_JOURNAL_FILE):
        raise UnreadableError(f"{place}: a journal file; to read its kernel lines: journalctl -k --file … -o json")
    program = next((program for magic, program in _COMPRESSED.items() if chunk.startswith(magic)), None)
    if program is not None:
        raise UnreadableError(f"{place}: compressed; unpack it on the way: {program} {place} | … --read -")
