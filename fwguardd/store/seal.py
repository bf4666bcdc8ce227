"""Sealed files: a header line that says what the rest must be, and the rest.

The header names the form, the number of bytes that follow, and their sha256. It is spelled in exactly one way, so any
byte of the file that is not as it was written is noticed, those of the header included. The body begins with a line of
its own, the lead, which `scan` hands out without holding the rest in memory.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.store.durable import NotRegularError, read_chunks
from fwguardd.store.model import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.store.durable import System

_LONGEST_HEADER = 400


@dataclass(frozen=True, slots=True)
class Scanned:
    """A sealed file that is whole: its header, which tells it from any other, and the first line of its body."""

    header: bytes
    lead: bytes


def seal(form: str, body: bytes) -> bytes:
    """The bytes of a sealed file."""
    return _header(form, len(body), hashlib.sha256(body).hexdigest()) + b"\n" + body


def unseal(system: System, path: Path, form: str) -> bytes:
    """The body of a sealed file. Raises DamagedError if it is not whole or not of this form, and OSError."""
    header, pieces = _opened(system, path)
    body = b"".join(pieces)
    _compare(form, header, len(body), hashlib.sha256(body).hexdigest())
    return body


def scan(system: System, path: Path, form: str) -> Scanned:
    """Read a sealed file to its end, keeping only the lead. Raises as `unseal` does."""
    header, pieces = _opened(system, path)
    digest, size, lead, in_lead = hashlib.sha256(), 0, bytearray(), True
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        if in_lead:
            part, newline, _ = piece.partition(b"\n")
            lead += part
            in_lead = not newline
    _compare(form, header, size, digest.hexdigest())
    return Scanned(header, bytes(lead))


def _opened(system: System, path: Path) -> tuple[bytes, Iterator[bytes]]:
    """The header, without its newline, and the pieces of the body."""
    chunks = read_chunks(system, path)
    try:
        header, _, rest = next(chunks, b"").partition(b"\n")
    except NotRegularError as error:
        raise DamagedError("is no plain file") from error
    return header, itertools.chain((rest,), chunks)


def _header(form: str, size: int, sha256: str) -> bytes:
    return json.dumps({"form": form, "bytes": size, "sha256": sha256}).encode()


def _compare(form: str, header: bytes, size: int, sha256: str) -> None:
    if header == _header(form, size, sha256):
        return
    if not header and not size:
        raise DamagedError("is empty")
    try:
        told = json.loads(header[:_LONGEST_HEADER])
    except ValueError as error:
        raise DamagedError("does not begin with a header that can be read") from error
    if not isinstance(told, dict) or told.get("form") != form:
        name = told.get("form") if isinstance(told, dict) else None
        raise DamagedError(f"is in a form that this version does not know ({str(name)[:60]!r}, not {form!r})")
    if told.get("bytes") != size:
        raise DamagedError(f"is torn: {size:,} bytes follow its header, which tells of {str(told.get('bytes'))[:20]}")
    raise DamagedError("is not what was written: its checksum is wrong")
