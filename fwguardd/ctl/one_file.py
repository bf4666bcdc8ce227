"""One rule file that is changed, checked together with the others, and applied, or put back as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ask
from fwguardd.ctl.reload_request import ask_for_reload
from fwguardd.ctl.rules_swap import SwapError
from fwguardd.escaping import printable_name
from fwguardd.ruleset.expiry import without_ended
from fwguardd.ruleset.model import RuleFile
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.ctl.whole_directory import Destination
    from fwguardd.enforce.rule_files import Snapshot

_APPLIED = frozenset({"applied", "settling"})
"""States of the files in which a reload applies nothing that somebody else has to decide about."""


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A file of the rules directory: what it has now and what it is to have; None where there is none."""

    path: Path
    before: bytes | None
    after: bytes | None


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let no second command change files of the directory at the same time. Raises SwapError."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SwapError(f"{directory} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def content_of(path: Path) -> bytes | None:
    """The bytes of a rule file; None where there is none. Raises SwapError."""
    if path.is_symlink():
        raise SwapError(f"{path} is a symbolic link to {path.readlink()}; replace it by a copy of that file")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SwapError(f"{path} cannot be read: {error.strerror}") from error


def with_change(snapshot: Snapshot, change: FileEdit, now: float) -> Snapshot:
    """The snapshot as it would be after the change."""
    path = printable_name(str(change.path))
    files = [file for file in snapshot.files if file.path != path]
    if change.after is not None:
        files.append(RuleFile(path, without_ended(path, change.after, now).data))
    files.sort(key=_name_as_bytes)
    return replace(snapshot, files=tuple(files), digest="")


def _name_as_bytes(file: RuleFile) -> bytes:
    return os.fsencode(file.path)


def check_that_files_are_applied(status: dict[str, Any]) -> None:
    """Raise SwapError if a reload would apply more than this change."""
    if status.get("state") == "open":
        raise SwapError("everything is accepted at the moment; close the firewall first: fwguardctl reload")
    files = status.get("files", "applied")
    if files not in _APPLIED:
        advice = "see fwguardctl status, and apply or correct them first: fwguardctl reload"
        raise SwapError(f"the rule files are {files}, and a reload would apply them all; {advice}")


def apply_change(change: FileEdit, target: Destination) -> dict[str, Any]:
    """Write the file and reload; the result of the reload. What is not applied is put back as it was.

    Raises SwapError and what the client raises.
    """
    ask(target.socket, "hold")
    try:
        _check_that_file_is(change.path, change.before)
        _write(change.path, change.after)
    except SwapError:
        ask(target.socket, "reload")
        raise
    result = dict(ask_for_reload(target.socket, target.reload_arguments))
    if result["outcome"] not in {"applied", "unchanged"}:
        _check_that_file_is(change.path, change.after)
        _write(change.path, change.before)
        ask(target.socket, "reload")
    return result


def _check_that_file_is(path: Path, data: bytes | None) -> None:
    """Raise SwapError if another program has written the file in the meantime: its work is not overwritten."""
    if content_of(path) != data:
        raise SwapError(f"{path} was changed by another program meanwhile, and is left as it is; try again")


def _write(path: Path, data: bytes | None) -> None:
    """Replace a file in one step, or remove it. Raises SwapError."""
    new = path.with_name(f".{path.name}.new")
    try:
        if data is None:
            path.unlink(missing_ok=True)
        else:
            _write_synced(new, data)
            new.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise SwapError(f"{path} cannot be written: {error.strerror}; it is unchanged") from error


def _write_synced(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o644)
        file.write(data)
        file.flush()
        os.fsync(fd)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
