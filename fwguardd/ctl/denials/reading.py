"""Lines from a file, a pipe or standard input, in bounded memory, as soon as they are there."""

from __future__ import annotations

import os
import select
import stat
import sys
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST_LINE: Final = 1 << 20
"""Bytes. A longer line is read up to here, and its rest is passed over: no kernel line has more than 8 KiB."""

_CHUNK: Final = 1 << 17
_STANDARD_INPUT, _STANDARD_OUTPUT = 0, 1
_COMPRESSED: Final = {b"\x1f\x8b": "zcat", b"\xfd7": "xzcat", b"BZ": "bzcat", b"(\xb5": "zstdcat"}
_JOURNAL_FILE: Final = b"LPKSHHRH"
"""The first bytes of a journal file (systemd's JOURNAL_FILE_FORMAT)."""


class UnreadableError(Exception):
    """What should be read cannot be read. The message names the place, the fault and the next step."""


class NotPermittedError(UnreadableError):
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
        raise NotPermittedError(f"{path}: {error.strerror}; read it as root, or pipe it: … | --read -") from error
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
