"""Writes an HTML file as a whole: a reader never sees a part of it, and a failure leaves the file that was there."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

from fwguardd.errors import ReportedError
from fwguardd.escaping import printable_name

STANDARD_OUTPUT = "-"
_MODE = 0o640
"""A report has addresses in it."""


class PageNotWrittenError(ReportedError):
    """The file cannot be written."""


def write_page(file: str, text: str) -> None:
    """Write a page to a file, or to standard output, and say where it is. Raises PageNotWrittenError."""
    data = text.encode()
    if file == STANDARD_OUTPUT:
        _print(data)
        return
    path = Path(file)
    try:
        _replace(path, data)
    except OSError as error:
        reason = f"{printable_name(file)}: {error.strerror}; the report is not written"
        raise PageNotWrittenError(reason) from error
    print(f"{printable_name(file)}: {len(data):,} bytes")


def _print(data: bytes) -> None:
    """Raises PageNotWrittenError."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        raise PageNotWrittenError("standard output is closed; the report is not written")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def _replace(path: Path, data: bytes) -> None:
    """Raises OSError."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # A device or a pipe.
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(data)
        Path(name).chmod(_MODE)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
