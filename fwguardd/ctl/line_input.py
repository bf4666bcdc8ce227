"""Lines of a file, a pipe or standard input, as soon as they are there, in bounded memory."""

from __future__ import annotations

import os
import select
import stat
import sys
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.line_search import lines_in
from fwguardd.errors import NotPermittedError, ReportedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class UnreadableError(ReportedError):
    """The input cannot be read. The message names the place, the fault and the next step."""


class FileNotPermittedError(UnreadableError, NotPermittedError):
    """The user may not read it."""


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
