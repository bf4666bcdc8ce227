"""The boot files: what a boot loader in POSIX sh needs to put a revision in force before there is a network.

``boot`` in the state directory is a symlink to a directory ``boot-NNNNNN-K``, which holds ``ipv4.rules`` and
``ipv6.rules``, complete tables for iptables-restore, and ``manifest``. A new set is a new directory, forced to the
disk, and then the symlink is replaced in one step: whoever follows it finds the old set whole, or the new set whole.

The manifest has one ``key=value`` in a line. The values of ``sha256`` are lines for ``sha256sum -c``; that of ``seal``,
the last line, is the sha256 of all lines before it::

    cd /var/lib/fwguard/boot || exit 1
    [ "$(sed '$d' manifest | sha256sum)" = "$(sed -n '$s/^seal=//p' manifest)  -" ] || exit 1
    sed -n 's/^sha256=//p' manifest | sha256sum -c --quiet || exit 1
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from typing import TYPE_CHECKING

from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.model import FAMILIES
from fwguardd.ruleset.save_format import render
from fwguardd.store.durable import (
    NotRegularError,
    make_directory,
    read_file,
    remove_tree,
    replace_symlink,
    sync_directory,
    write_new,
)
from fwguardd.store.model import DamagedError, RevisionKind
from fwguardd.store.sealed_files import revision_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fwguardd.store.durable import System
    from fwguardd.store.model import Revision
    from fwguardd.store.sealed_files import DamagedFiles

LINK = "boot"
MANIFEST = "manifest"
RULES = {family: f"{family.value}.rules" for family in FAMILIES}
_FORM = "1"


class BootFiles:
    """The boot files in one state directory."""

    def __init__(self, system: System, state_dir: Path) -> None:
        self._system = system
        self._state_dir = state_dir
        self.link = state_dir / LINK

    def write(self, revision: Revision) -> None:
        """Make the boot files hold a revision. Raises OSError, NotSyncedError where the new set stands already, and
        UnicodeEncodeError for rule text that no kernel could have printed.
        """
        files = boot_texts(revision)
        fresh = self._fresh_directory(revision.number)
        try:
            make_directory(self._system, fresh)
            for name, data in files.items():
                write_new(self._system, fresh / name, data)
            sync_directory(self._system, fresh)
            replace_symlink(self._system, self.link, fresh.name)
        except OSError:
            # Where the symlink leads to the new set, or leads back to the old one after a power cut, both must stay.
            with contextlib.suppress(OSError, DamagedError):
                if self.directory() != fresh:
                    remove_tree(self._system, fresh)
            raise
        self.remove_others()

    def read(self) -> int | None:
        """The number of the revision that the boot files hold; None if there are none. Raises DamagedError, OSError."""
        directory = self.directory()
        if directory is None:
            return None
        try:
            manifest = read_file(self._system, directory / MANIFEST)
            rules = {name: read_file(self._system, directory / name) for name in RULES.values()}
        except FileNotFoundError as error:
            raise DamagedError("is not complete") from error
        except NotRegularError as error:
            raise DamagedError("holds something that is no plain file") from error
        return _checked(manifest, rules)

    def check(self, damaged: DamagedFiles) -> str | None:
        """Read the boot files, and set aside what is damaged. What was amiss, as a sentence; raises nothing."""
        directory: Path | None = None
        try:
            directory = self.directory()
            self.read()
        except DamagedError as damage:
            # A symlink is worth nothing to whoever looks for what happened; anything else by its name may be.
            if directory is not None:
                with contextlib.suppress(OSError):
                    self._system.unlink(self.link)
            taken = damaged.take(directory or self.link, str(damage))
            return f"{taken}; the next boot has none until they are written anew"
        except OSError as error:
            return f"{error.filename or self.link} cannot be read: {error.strerror}"
        return None

    def directory(self) -> Path | None:
        """The directory that the symlink leads to, there or not. Raises DamagedError where it is no such symlink."""
        try:
            target = self._system.readlink(self.link)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise DamagedError("is no symlink") from error
            raise
        if "/" in target or revision_number(target) is None:
            raise DamagedError("leads to something that is no set of boot files")
        return self._state_dir / target

    def others(self) -> tuple[Path, ...]:
        """The sets that the symlink does not lead to: what an interrupted write left. Raises OSError, DamagedError."""
        current = self.directory()
        names = self._system.listdir(self._state_dir)
        paths = (self._state_dir / name for name in names if name.startswith(f"{LINK}-") and revision_number(name))
        return tuple(path for path in paths if path != current)

    def remove_others(self) -> None:
        """Remove the sets that the symlink does not lead to, as far as that goes: what is left goes the next time."""
        with contextlib.suppress(OSError, DamagedError):
            for path in self.others():
                remove_tree(self._system, path)

    def _fresh_directory(self, number: int) -> Path:
        names = set(self._system.listdir(self._state_dir))
        count = next(count for count in range(1, len(names) + 2) if f"{LINK}-{number:06d}-{count}" not in names)
        return self._state_dir / f"{LINK}-{number:06d}-{count}"


def boot_texts(revision: Revision) -> dict[str, bytes]:
    """The boot files of a revision, by name. A family without rules has an empty file, which changes nothing."""
    files = {
        name: render(revision.rulesets[family]).text.encode("utf-8", "surrogateescape")
        if family in revision.rulesets
        else b""
        for family, name in RULES.items()
    }
    return {**files, MANIFEST: _manifest(revision.number, revision.kind, revision.backend, files)}


def _manifest(number: int, kind: RevisionKind, backend: Backend, rules: Mapping[str, bytes]) -> bytes:
    lines = [f"form={_FORM}", f"revision={number}", f"kind={kind.value}", f"backend={backend.value}"]
    lines += [f"sha256={hashlib.sha256(data).hexdigest()}  {name}" for name, data in rules.items()]
    text = "".join(f"{line}\n" for line in lines).encode()
    return text + f"seal={hashlib.sha256(text).hexdigest()}\n".encode()


def _checked(manifest: bytes, rules: Mapping[str, bytes]) -> int:
    """The revision's number in a manifest that is, byte for byte, the one that these rules call for."""
    told = dict(_pairs(manifest))
    if told.get("form") != _FORM:
        raise DamagedError(f"holds a manifest in a form that this version does not know ({told.get('form')!r:.60})")
    try:
        number, kind, backend = int(told["revision"]), RevisionKind(told["kind"]), Backend(told["backend"])
    except (KeyError, ValueError) as error:
        raise DamagedError("holds a manifest that is not understood") from error
    if manifest != _manifest(number, kind, backend, rules):
        raise DamagedError("is not what was written: a checksum is wrong")
    return number


def _pairs(manifest: bytes) -> Iterator[tuple[str, str]]:
    for line in manifest.decode("ascii", "replace").splitlines():
        key, _, value = line.partition("=")
        yield key, value
