"""A rules directory that is replaced as a whole: the new one is written beside it, and the two exchange their names.

renameat2(2) with RENAME_EXCHANGE does that in one step, so a reader sees the old directory or the new one, never parts
of both. The old one stays beside it, as ``.NAME.before``, until the next exchange.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Self

from fwguardd.enforce.rule_files import ENDINGS
from fwguardd.escaping import printable_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755


class SwapError(Exception):
    """The directory was not replaced. The message names it and the reason."""


class StagedRules:
    """A copy of the rules directory beside it, to be changed and then exchanged with it.

    Leaving a with block removes the copy, unless it was exchanged or kept.
    """

    def __init__(self, rules_dir: Path) -> None:
        """Make an empty directory that only this user may enter. Raises SwapError."""
        self._rules_dir = rules_dir.resolve()
        self._kept = False
        try:
            made = tempfile.mkdtemp(prefix=f".{self._rules_dir.name}.new-", dir=self._rules_dir.parent)
        except OSError as error:
            raise SwapError(f"{self._rules_dir.parent}: no directory can be made here: {error.strerror}") from error
        self.path = self._rules_dir.parent / made
        self.before = self._rules_dir.parent / f".{self._rules_dir.name}.before"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            shutil.rmtree(self.path, ignore_errors=True)

    def keep(self) -> None:
        """Leave the copy where it is."""
        self._kept = True

    def copy_all(self) -> None:
        """Copy everything of the rules directory; symbolic links stay what they are. Raises SwapError."""
        self._copy(lambda _entry: True)

    def copy_others(self) -> None:
        """Copy what is not a rule or tests file: subdirectories, hidden files, notes. Raises SwapError."""
        self._copy(lambda entry: entry.is_dir(follow_symlinks=False) or not entry.name.endswith(ENDINGS))

    def copy_hidden(self) -> None:
        """Copy subdirectories and hidden files, such as those of a version control system. Raises SwapError."""
        self._copy(lambda entry: entry.is_dir(follow_symlinks=False) or entry.name.startswith("."))

    def _copy(self, wanted: Callable[[os.DirEntry[str]], bool]) -> None:
        try:
            with os.scandir(self._rules_dir) as entries:
                for entry in entries:
                    if wanted(entry):
                        _copy_entry(entry, self.path / entry.name)
        except (OSError, shutil.Error) as error:
            raise SwapError(f"{self._rules_dir} cannot be copied: {error}") from error

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files, with the owner and the mode that the daemon expects of rule files. Raises SwapError."""
        try:
            for name, data in files.items():
                path = self.path / name
                path.unlink(missing_ok=True)
                path.write_bytes(data)
        except OSError as error:
            raise SwapError(f"{self.path} cannot be written: {error}") from error

    def exchange(self) -> Path:
        """Let the copy take the place of the rules directory; where the old directory is now. Raises SwapError."""
        try:
            self._prepare()
            _exchange(self.path, self._rules_dir)
        except OSError as error:
            advice = "nothing was changed; copy the files yourself, and run: fwguardctl reload"
            raise SwapError(f"{self._rules_dir} cannot be exchanged: {_reason(error)}; {advice}") from error
        self._kept = True
        try:
            if self.before.exists():
                shutil.rmtree(self.before)
            self.path.rename(self.before)
        except OSError:
            return self.path
        return self.before

    def take_back(self, old: Path) -> None:
        """Let the old directory take its place again. Raises SwapError."""
        try:
            _exchange(old, self._rules_dir)
        except OSError as error:
            raise SwapError(f"{old} cannot be put back as {self._rules_dir}: {_reason(error)}") from error

    def _prepare(self) -> None:
        """Set owners and modes, and force the files to the disk. Raises OSError."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    os.chown(entry.path, os.geteuid(), os.getegid())
                    os.chmod(entry.path, _FILE_MODE)  # noqa: PTH101
                    _sync(entry.path)
        self.path.chmod(_DIRECTORY_MODE)
        _sync(self.path)


def _copy_entry(entry: os.DirEntry[str], target: Path) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.copytree(entry.path, target, symlinks=True)
    else:
        shutil.copy2(entry.path, target, follow_symlinks=False)


def _sync(path: Path | str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _exchange(first: Path, second: Path) -> None:
    """renameat2(2): both names change places in one step. Raises OSError."""
    names = (os.fsencode(first), os.fsencode(second))
    if _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _reason(error: OSError) -> str:
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        return "this file system cannot exchange two names"
    if error.errno in (errno.EBUSY, errno.EXDEV):
        return "it is a mount point"
    return printable_name(str(error.strerror))
