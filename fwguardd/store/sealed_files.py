"""Sealed files: a header line that says what the rest must be, and the rest.

The header names the form, the number of bytes that follow, and their sha256. It is spelled in exactly one way, so a
change of any byte of the file is noticed, the header included. The body begins with a line of its own, the lead, which
`scan` returns without holding the rest in memory.

`SealedValue` keeps one small value in a sealed file of its own. `DamagedFiles` is the folder that damaged files are
moved to.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fwguardd.store.durable import (
    TEMPORARY,
    NotRegularError,
    NotSyncedError,
    make_directory,
    read_chunks,
    remove_file,
    remove_tree,
    replace_file,
    sync_directory,
)
from fwguardd.store.model import DamagedError, Fault, FaultKind, StoreError, UnreadableNote
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
        raise DamagedError("is not a regular file") from error
    return header, _no_more_than_stated(header, itertools.chain((rest,), chunks))


def _no_more_than_stated(header: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, up to the one that exceeds the stated size: a damaged file may seem to have any size."""
    left = _stated_bytes(header)
    for piece in pieces:
        yield piece
        left -= len(piece)
        if left < 0:
            return


def _stated_bytes(header: bytes) -> int:
    """The number of bytes that a header states; 0 if it states none."""
    try:
        fields = json.loads(header[:_LONGEST_HEADER])
    except ValueError:
        return 0
    if isinstance(fields, dict) and isinstance(fields.get("bytes"), int):
        return int(fields["bytes"])
    return 0


def _header(form: str, size: int, sha256: str) -> bytes:
    return json.dumps({"form": form, "bytes": size, "sha256": sha256}).encode()


def _header_fields(header: bytes) -> dict[str, Any]:
    """What a header states; nothing if it is JSON of another kind. Raises DamagedError."""
    try:
        fields = json.loads(header[:_LONGEST_HEADER])
    except ValueError as error:
        raise DamagedError("does not begin with a readable header") from error
    if not isinstance(fields, dict):
        return {}
    return fields


def _compare(form: str, header: bytes, size: int, sha256: str) -> None:
    if header == _header(form, size, sha256):
        return
    if not header and not size:
        raise DamagedError("is empty")
    fields = _header_fields(header)
    name, stated = str(fields.get("form"))[:60], fields.get("bytes")
    if name != form:
        raise DamagedError(f"is in a form that this version does not know ({name!r}, not {form!r})")
    _compare_size(stated, size)
    raise DamagedError("is not what was written: its checksum is wrong")


def _compare_size(stated: object, size: int) -> None:
    if isinstance(stated, int) and stated < size:
        raise DamagedError(f"is longer than what was written: its header states {stated:,} bytes, and more follow")
    if stated != size:
        raise DamagedError(f"is incomplete: its header states {str(stated)[:20]} bytes, and {size:,} follow")


def check_trust(system: System, directory: Path) -> None:
    """Raise StoreError if another user may have written in a state directory; and OSError."""
    status = system.stat(directory)
    refusal = f"the state directory {directory} cannot be trusted"
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError(f"{refusal}: it is not a directory; remove it")
    if status.st_uid not in (0, os.geteuid()):
        raise StoreError(f"{refusal}: user {status.st_uid} owns it; check its contents, then chown root it")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o} lets others write to it"
        raise StoreError(f"{refusal}: {mode}; check its contents, then chmod 700 it")


@contextlib.contextmanager
def writing(failure: str, path: Path, meaning: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that says what failed, where, why, and the consequence."""
    try:
        yield
    except NotSyncedError as error:
        doubt = "it is written, but a power cut may undo that"
        raise StoreError(f"{failure} durably: {path}: {error.strerror}; {doubt}") from error
    except OSError as error:
        raise StoreError(f"{failure}: {error.filename or path}: {error.strerror}; {meaning}") from error


MOST_KEPT = 20
"""Entries that the folder of damaged files holds at most."""

_ENTRY = re.compile(r"([0-9]{6,})-(.+)")
_REVISION = re.compile(r"([0-9]{6,})\.json|boot-([0-9]{6,})-[0-9]+")


def revision_number(name: str) -> int | None:
    """The number of the revision that a file or a boot directory of this name is for; None for any other name."""
    match = _REVISION.fullmatch(name)
    if match is None:
        return None
    return int(match[1] or match[2]) or None


def number_in(name: str) -> int:
    """The number of the revision that a file is for, also if it is not completely written; 0 for another file."""
    return revision_number(name.removesuffix(TEMPORARY)) or 0


class DamagedFiles:
    """The folder of damaged files. Entries are named ``NNNNNN-NAME``, in the order in which they came."""

    def __init__(self, system: System, path: Path) -> None:
        self._system = system
        self._path = path

    def take(self, damaged: Path, fault: str) -> str:
        """Move a file or directory here. A sentence that names it, the fault, and its new place; raises nothing."""
        try:
            make_directory(self._system, self._path)
            target = self._path / f"{self._next():06d}-{damaged.name}"
            self._system.rename(damaged, target)
        except OSError as error:
            return f"{damaged} {fault}; it could not be moved aside: {error.strerror}"
        # If a power cut undoes the move, or no room can be made, the next start does it again.
        with contextlib.suppress(OSError):
            sync_directory(self._system, self._path)
            sync_directory(self._system, damaged.parent)
            self._make_room()
        return f"{damaged} {fault}; moved to {target}"

    def revisions(self) -> tuple[int, ...]:
        """The numbers of the revisions that were moved here. Raises OSError."""
        numbers: list[int] = []
        for _, name in self._entries():
            number = revision_number(name)
            if number is not None:
                numbers.append(number)
        return tuple(numbers)

    def _next(self) -> int:
        entries = self._entries() or [(0, "")]
        return entries[-1][0] + 1

    def _entries(self) -> list[tuple[int, str]]:
        """The entries, oldest first. Raises OSError."""
        entries: list[tuple[int, str]] = []
        with contextlib.suppress(FileNotFoundError):
            for name in self._system.listdir(self._path):
                match = _ENTRY.fullmatch(name)
                if match is not None:
                    entries.append((int(match[1]), match[2]))
        return sorted(entries)

    def _make_room(self) -> None:
        """Remove the oldest entries, but not the one with the highest revision: its number must not be used again."""
        entries = self._entries()
        surplus = max(0, len(entries) - MOST_KEPT)
        entries.remove(max(entries, key=lambda entry: (revision_number(entry[1]) or 0, entry[0])))
        for place, name in entries[:surplus]:
            remove_tree(self._system, self._path / f"{place:06d}-{name}")


Value = TypeVar("Value")

LOST_FORM = "fwguardd lost note 1"
"""The form of the file that takes the place of a damaged one, so that the next start knows that there was one."""


class SealedValue(Generic[Value]):
    """A value and the file that keeps it. ``value`` is always what a reader of the file would find.

    A file that is there and cannot be read is an `UnreadableNote`. ``consequence`` is a clause for messages: what that
    means.
    """

    def __init__(
        self,
        system: System,
        path: Path,
        form: str,
        encode: Callable[[Value], bytes],
        decode: Callable[[bytes], Value],
        consequence: str,
    ) -> None:
        self.path = path
        self.value: Value | UnreadableNote | None = None
        self._system = system
        self._form = form
        self._encode = encode
        self._decode = decode
        self._consequence = consequence

    def load(self, damaged: DamagedFiles) -> Fault | None:
        """Read the file. What is wrong with it, if anything; the value is an `UnreadableNote` then.

        A damaged file is moved aside, and a file that says so takes its place until a value is written or removed.
        """
        try:
            self.value = self._decode(unseal(self._system, self.path, self._form))
        except FileNotFoundError:
            self.value = None
        except DamagedError as damage:
            return self._lost(damaged, damage)
        except OSError as error:
            message = f"{self.path} cannot be read: {error.strerror}; {self._consequence}"
            self.value = UnreadableNote(message, lost=False)
            return Fault(FaultKind.INACCESSIBLE, message)
        return None

    def write(self, value: Value) -> None:
        """Keep a value in place of the one before. Raises OSError, and NotSyncedError where it is in place."""
        try:
            replace_file(self._system, self.path, seal(self._form, self._encode(value)))
        except NotSyncedError:
            self.value = value
            raise
        self.value = value

    def forget(self) -> None:
        """Hold no value in memory: a large one is loaded again when it is asked for."""
        self.value = None

    def keep(self, value: Value) -> None:
        """Write a value; remove the file where it is empty. Raises what these raise."""
        if value:
            self.write(value)
        else:
            self.remove()

    def remove(self) -> None:
        """Keep no value. Raises OSError, and NotSyncedError where it is gone."""
        try:
            remove_file(self._system, self.path)
        except NotSyncedError:
            self.value = None
            raise
        self.value = None

    def _lost(self, damaged: DamagedFiles, damage: DamagedError) -> Fault | None:
        """What a damaged file means; None if it is the one that took the place of a damaged one before."""
        with contextlib.suppress(DamagedError, OSError):
            unseal(self._system, self.path, LOST_FORM)
            self.value = UnreadableNote(f"{self.path} was damaged; {self._consequence}", lost=True)
            return None
        message = f"{damaged.take(self.path, str(damage))}; {self._consequence}"
        self.value = UnreadableNote(message, lost=True)
        with contextlib.suppress(OSError):
            replace_file(self._system, self.path, seal(LOST_FORM, b"\n"))
        return Fault(FaultKind.DAMAGED, message)
