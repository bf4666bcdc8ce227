"""The boot files: what a boot loader in POSIX sh needs to put a revision in force before there is a network.

``boot`` in the state directory is a symlink to a directory ``boot-NNNNNN-K``, which holds ``ipv4.rules`` and
``ipv6.rules``, complete tables for iptables-restore, and ``manifest``. A new set is a new directory, forced to the
disk, and then the symlink is replaced in one step: a reader that follows it finds the old set whole, or the new one.

The manifest has one ``key=value`` in a line. The values of ``sha256`` are lines for ``sha256sum -c``; that of ``seal``,
the last line, is the sha256 of all lines before it. ``digest`` and ``when`` are those of the revision, so that it can
be put together again from the boot files where its own file is damaged::

    cd /var/lib/fwguard/boot || exit 1
    [ "$(sed '$d' manifest | sha256sum)" = "$(sed -n '$s/^seal=//p' manifest)  -" ] || exit 1
    sed -n 's/^sha256=//p' manifest | sha256sum -c --quiet || exit 1

Before each rule that ends stands a comment with its end, ``# until 1795870410``, and for each of these times there is
a line ``# ends 1795870410`` behind the last table: the boot loader leaves out what has ended.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.expiry import ends_of
from fwguardd.ruleset.model import FAMILIES, NOT_STATED, Ruleset, Table
from fwguardd.ruleset.save_format import UnreadableSaveError, read_saved, render
from fwguardd.store.durable import (
    NotRegularError,
    make_directory,
    read_file,
    remove_tree,
    replace_symlink,
    sync_directory,
    write_new,
)
from fwguardd.store.model import DamagedError, Fault, FaultKind, Kept, NotKept, Revision, RevisionKind, Unreadable
from fwguardd.store.sealed_files import revision_number

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from fwguardd.ruleset.expiry import Ends
    from fwguardd.ruleset.model import Family
    from fwguardd.store.durable import System
    from fwguardd.store.model import Reading
    from fwguardd.store.sealed_files import DamagedFiles

LINK = "boot"
MANIFEST = "manifest"
RULES = {family: f"{family.value}.rules" for family in FAMILIES}
RECOVERED = "recovered from the boot files"
"""The cause of a revision that was read from the boot files."""
_FORM = "1"
_UNSTATED = "# no file states the policy of "


class BootFiles:
    """The boot files in one state directory."""

    def __init__(self, system: System, state_dir: Path) -> None:
        self._system = system
        self._state_dir = state_dir
        self.link = state_dir / LINK

    def write(self, revision: Revision, files: Mapping[str, bytes] | None = None) -> None:
        """Make the boot files hold a revision. ``files`` are its `boot_texts`, where they are made already.

        Raises OSError, NotSyncedError if the new set is in place but may not be on the disk, and UnicodeEncodeError for
        rule text that no kernel could have printed.
        """
        files = files or boot_texts(revision)
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
        found = self._read_set()
        if found is None:
            return None
        return _checked(*found, {}).number

    def copy(self) -> Reading:
        """The revision that the boot files hold, without its rule files and the origins of its rules."""
        try:
            found = self._read_set()
            if found is None:
                return NotKept(0)
            return Kept(_checked(*found, _parsed_all(found[1])))
        except DamagedError as damage:
            return Unreadable(0, f"{self.link} {damage}")
        except OSError as error:
            return Unreadable(0, f"{error.filename or self.link} cannot be read: {error.strerror}")

    def _read_set(self) -> tuple[bytes, Mapping[str, bytes]] | None:
        """The manifest, and the texts of the rules by the names of their files."""
        directory = self.directory()
        if directory is None:
            return None
        return self._read_directory(directory)

    def _read_directory(self, directory: Path) -> tuple[bytes, Mapping[str, bytes]]:
        try:
            manifest = read_file(self._system, directory / MANIFEST)
            rules = {name: read_file(self._system, directory / name) for name in RULES.values()}
        except FileNotFoundError as error:
            raise DamagedError("is not complete") from error
        except NotRegularError as error:
            raise DamagedError("holds something that is not a regular file") from error
        return manifest, rules

    def check(self, damaged: DamagedFiles) -> Fault | None:
        """Read the boot files, and move them aside if they are damaged. What is wrong, if anything; raises nothing."""
        directory: Path | None = None
        try:
            directory = self.directory()
            self.read()
        except DamagedError as damage:
            return self._move_aside(directory, damage, damaged)
        except OSError as error:
            message = f"{error.filename or self.link} cannot be read: {error.strerror}"
            return Fault(FaultKind.INACCESSIBLE, message)
        return None

    def _move_aside(self, directory: Path | None, damage: DamagedError, damaged: DamagedFiles) -> Fault:
        # A symlink to a damaged set says nothing more; anything else that has its name is kept for inspection.
        if directory is not None:
            with contextlib.suppress(OSError):
                self._system.unlink(self.link)
        moved = damaged.take(directory or self.link, str(damage))
        message = f"{moved}; until the boot files are written again, the next boot has no revision to load"
        return Fault(FaultKind.DAMAGED, message)

    def directory(self) -> Path | None:
        """The directory that the symlink leads to, whether it exists or not; None without a symlink.

        Raises OSError, and DamagedError where it is not a symlink to a set of boot files.
        """
        try:
            target = self._target()
        except FileNotFoundError:
            return None
        if "/" in target or revision_number(target) is None:
            raise DamagedError("leads to something that is not a set of boot files")
        return self._state_dir / target

    def _target(self) -> str:
        try:
            return self._system.readlink(self.link)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise DamagedError("is not a symlink") from error
            raise

    def others(self) -> tuple[Path, ...]:
        """The sets that the symlink does not lead to: what an interrupted write left. Raises OSError, DamagedError."""
        current = self.directory()
        others: list[Path] = []
        for name in self._system.listdir(self._state_dir):
            path = self._state_dir / name
            if _is_set(name) and path != current:
                others.append(path)
        return tuple(others)

    def remove_others(self) -> None:
        """Remove the sets that the symlink does not lead to. What cannot be removed is tried again the next time."""
        with contextlib.suppress(OSError, DamagedError):
            for path in self.others():
                remove_tree(self._system, path)

    def _fresh_directory(self, number: int) -> Path:
        """A path for a set of this revision that nothing has yet. Raises OSError."""
        names = set(self._system.listdir(self._state_dir))
        count = 1
        while f"{LINK}-{number:06d}-{count}" in names:
            count += 1
        return self._state_dir / f"{LINK}-{number:06d}-{count}"


def _is_set(name: str) -> bool:
    """Whether a directory of this name is a set of boot files."""
    return name.startswith(f"{LINK}-") and revision_number(name) is not None


def boot_texts(revision: Revision) -> dict[str, bytes]:
    """The boot files of a revision, by name. A family without rules has an empty file, which changes nothing."""
    files = dict.fromkeys(RULES.values(), b"")
    for family, ruleset in revision.rulesets.items():
        text = _rules(ruleset, ends_of(revision.files)) + "".join(f"{line}\n" for line in _unstated_policies(ruleset))
        files[RULES[family]] = text.encode("utf-8", "surrogateescape")
    return {**files, MANIFEST: _manifest(revision, files)}


def _rules(ruleset: Ruleset, ends: Ends) -> str:
    """The rules as iptables-restore takes them; those that end behind a comment that says when."""
    rendered = render(ruleset)
    if not ends:
        return rendered.text
    until = {end.origin: f"{end.until:.0f}" for end in ends}
    lines: list[str] = []
    found: set[str] = set()
    for line, origin in zip(rendered.text.splitlines(), rendered.origins, strict=True):
        if origin in until and line.startswith("-A "):
            lines.append(f"# until {until[origin]}")
            found.add(until[origin])
        lines.append(line)
    lines += (f"# ends {end}" for end in sorted(found))
    return "\n".join(lines) + "\n"


def _unstated_policies(ruleset: Ruleset) -> Iterator[str]:
    """Comments that name the chains whose policy is not stated, and is therefore ACCEPT after a boot."""
    for table, chain in ruleset.chains():
        if chain.policy == NOT_STATED:
            yield f"{_UNSTATED}{table.name} {chain.name}"


def _manifest(revision: Revision, rules: Mapping[str, bytes], *, described: bool = True) -> bytes:
    """The manifest; one that is not ``described`` lacks what was added for a start that cannot read the revision."""
    kind, backend = revision.kind.value, revision.backend.value
    lines = [f"form={_FORM}", f"revision={revision.number}", f"kind={kind}", f"backend={backend}"]
    for name, data in rules.items():
        lines.append(f"sha256={hashlib.sha256(data).hexdigest()}  {name}")
    if described:
        lines += [f"digest={json.dumps(revision.digest)}", f"when={revision.when!r}"]
    text = ("\n".join(lines) + "\n").encode()
    return text + f"seal={hashlib.sha256(text).hexdigest()}\n".encode()


def _checked(manifest: bytes, rules: Mapping[str, bytes], rulesets: Mapping[Family, Ruleset]) -> Revision:
    """The revision of a manifest that is, byte for byte, the one that belongs to these rules, with these rulesets."""
    fields = dict(_pairs(manifest))
    if fields.get("form") != _FORM:
        raise DamagedError(f"holds a manifest in a form that this version does not know ({fields.get('form')!r:.60})")
    try:
        number, kind, backend = int(fields["revision"]), RevisionKind(fields["kind"]), Backend(fields["backend"])
        digest, when = _string(fields.get("digest", '""')), float(fields.get("when", "0"))
    except (KeyError, ValueError) as error:
        raise DamagedError("holds a manifest that cannot be understood") from error
    revision = Revision(number, when, RECOVERED, "", backend, "", "", digest, (), rulesets, kind)
    if manifest != _manifest(revision, rules, described="digest" in fields):
        raise DamagedError("is not what was written: a checksum is wrong")
    return revision


def _string(text: str) -> str:
    """A string of JSON. Raises ValueError."""
    value = json.loads(text)
    if not isinstance(value, str):
        raise ValueError(text)  # noqa: TRY004 - the caller catches one kind of error.
    return value


def _parsed_all(rules: Mapping[str, bytes]) -> Mapping[Family, Ruleset]:
    """The rulesets of the boot files; none for a file that is empty. Raises DamagedError."""
    rulesets: dict[Family, Ruleset] = {}
    for family, name in RULES.items():
        if rules[name]:
            rulesets[family] = _parsed(family, rules[name])
    return rulesets


def _with_counters(line: str) -> str:
    if line.startswith("-A "):
        return f"[0:0] {line}"
    return line


def _parsed(family: Family, text: bytes) -> Ruleset:
    """The ruleset of a boot file: what iptables-save would print, but for the counters of the rules."""
    lines = [_with_counters(line) for line in text.decode("utf-8", "surrogateescape").split("\n")]
    try:
        ruleset = read_saved(family, "\n".join(lines)).shown
        return _without_unstated(ruleset, frozenset(line for line in lines if line.startswith(_UNSTATED)))
    except UnreadableSaveError as error:
        raise DamagedError(f"cannot be understood: {error}") from error


def _without_unstated(ruleset: Ruleset, comments: Collection[str]) -> Ruleset:
    """A ruleset without the policies that its comments say are not stated."""
    tables: dict[str, Table] = {}
    for name, table in ruleset.tables.items():
        chains = dict(table.chains)
        for chain in table.chains.values():
            if f"{_UNSTATED}{name} {chain.name}" in comments:
                chains[chain.name] = replace(chain, policy=NOT_STATED)
        tables[name] = Table(name, chains)
    return Ruleset(ruleset.family, tables)


def _pairs(manifest: bytes) -> Iterator[tuple[str, str]]:
    for line in manifest.decode("ascii", "replace").splitlines():
        key, _, value = line.partition("=")
        yield key, value
