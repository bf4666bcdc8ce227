"""Keeps the kernel's sets equal to the set files beside the rule files.

Sets are loaded before the rules that name them. A changed file is loaded by itself, without a pass of the rules: its
entries take the place of those before in one instant. A file that cannot be read, or has an error, leaves the set as it
was. Entries that another program has added or removed are drift: their number is compared in every pass, and the
entries themselves as often as that takes a small share of the time.
"""

from __future__ import annotations

import hashlib
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.answering import answered
from fwguardd.enforce.set_reading import is_missing, read_set, set_files_in
from fwguardd.kernel.ipset_program import (
    SetFacts,
    SetsNotLoadedError,
    destroy_set,
    facts_of_sets,
    restore_sets,
    save_set,
)
from fwguardd.ruleset.list_sources import STALE_AFTER, ListSource
from fwguardd.ruleset.model import FAMILIES, Family, Finding, RuleFile
from fwguardd.ruleset.set_files import SetFile, kernel_name, name_of, read_set_file
from fwguardd.ruleset.set_scripts import NEW, LiveSet, boot_script, differences, load_script, matches, read_live
from fwguardd.values import dataclass
from fwguardd.wording import counted, local_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.enforce.set_copies import SetCopies
    from fwguardd.events import Emit

COMPARE_SHARE = 0.01
"""The share of the time that comparing the entries of sets may take."""

LOOK_GAP = 1.0
"""The shortest time between two looks at sets whose files have not changed, in seconds."""

SHORTEST_GAP = 30.0
"""The shortest time between two comparisons of the entries of a set, in seconds."""

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A set as it was loaded: the file that it came from, and the number of entries of each family."""

    signature: _Signature
    digest: bytes
    counts: Mapping[Family, int]
    timeout: int | None
    compare_at: float


@dataclass(frozen=True, slots=True)
class SetInUse:
    """A set that is loaded: the number of its entries, when its file was written last, in seconds since 1970, and how
    often its list is fetched, in seconds; None for a set file of the rules directory."""

    entries: int
    written: float
    every: float | None


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of the settings, and the directory that they are fetched into. Another user may own that: its files are
    read as addresses and nothing else."""

    directory: Path
    sources: tuple[ListSource, ...]

    @property
    def names(self) -> set[str]:
        """The names of their sets."""
        return {source.name for source in self.sources}

    def path_of(self, source: ListSource) -> Path:
        """The file of a list."""
        return self.directory / f"{source.name}.set"


NO_LISTS = Lists(Path("/var/lib/fwguard-lists"), ())


class Sets:
    """The sets of the set files. Belongs to the worker thread."""

    def __init__(self, directory: Path, copies: SetCopies, emit: Emit) -> None:
        self._directory, self._copies, self._emit = directory, copies, emit
        self._loaded: dict[str, Loaded] = {}
        self._reported: dict[str, str] = {}
        self._intervals: dict[str, float] = {}
        self._seen: object = None
        self._look_at = 0.0

    def update(self, lists: Lists = NO_LISTS, *, repair: bool) -> None:
        """Load the files that have changed, remove sets whose files are gone, and compare what others may change.

        ``repair`` says whether drift is repaired, and not only reported. What fails is an event.
        """
        own = self._own()
        if own is None or not (own or lists.sources or self._known()):
            return
        if self._was_just_looked_at(own, lists):
            return
        try:
            facts = facts_of_sets()
        except SetsNotLoadedError as error:
            self._refuse("", str(self._directory), f"the sets cannot be loaded: {error}")
            return
        self._reported.pop("", None)
        paths = [*own, *self._fetched(lists, frozenset(map(_name, own)), facts)]
        self._update_all(paths, facts, repair=repair)
        for name in sorted(self._known() - set(map(_name, paths)) - lists.names):
            self._remove(name, facts)

    def _own(self) -> list[Path] | None:
        """The set files of the directory; None where it cannot be read, or does not answer."""
        try:
            return answered(self._directory, partial(set_files_in, self._directory))
        except OSError:
            return None

    def _update_all(self, paths: Iterable[Path], facts: Mapping[str, SetFacts], *, repair: bool) -> None:
        for path in paths:
            try:
                self._update(path, facts, repair=repair)
            except SetsNotLoadedError as error:
                self._refuse(_name(path), str(path), f"set {_name(path)} is not loaded: {error}")

    def _fetched(self, lists: Lists, own: frozenset[str], facts: Mapping[str, SetFacts]) -> list[Path]:
        """The files of the lists, without those that have a set file of the same name beside the rules."""
        paths: list[Path] = []
        self._intervals = {}
        for source in lists.sources:
            path = lists.path_of(source)
            if source.name in own:
                self._refuse(source.name, str(path), f"list {source.name} is not used: a set file has the same name")
            elif not is_missing(path):
                paths.append(path)
                self._intervals[source.name] = source.every
                self._report_stale(source, path)
            else:
                self._make_empty(source, path, facts)
        return paths

    def _report_stale(self, source: ListSource, path: Path) -> None:
        """Report a list that has not been fetched for several intervals, once."""
        fetched, key = _signature_of(path)[0] / 1e9, f"stale {source.name}"
        if time.time() - fetched < STALE_AFTER * source.every:
            self._reported.pop(key, None)
            return
        since = f"list {source.name} is stale: it was fetched last at {local_time(fetched)} from {source.origin}"
        self._refuse(key, str(path), f"{since}; see: systemctl status fwguardd-lists")

    def _make_empty(self, source: ListSource, path: Path, facts: Mapping[str, SetFacts]) -> None:
        """Rules that name a list can be loaded before it was fetched; what the boot loader has loaded stays."""
        if kernel_name(source.name, Family.IPV4) in facts:
            return
        advice = "fwguardd-lists.timer fetches it, if it is enabled; for errors see: journalctl -u fwguardd-lists"
        empty = SetFile(source.name, dict.fromkeys(FAMILIES, ()))
        try:
            restore_sets(boot_script(empty))
            self._keep_for_boot(empty)  # The boot loader would refuse the rules that name it.
        except SetsNotLoadedError as error:
            advice = str(error)
        message = f"list {source.name} has not been fetched yet, and its set is empty; {advice}"
        self._refuse(source.name, str(path), message)

    def _was_just_looked_at(self, own: Sequence[Path], lists: Lists) -> bool:
        """Whether nothing has changed since a moment ago: on a busy host one pass follows the other."""
        seen, now = (lists, tuple((path, _signature_of(path)) for path in own)), time.monotonic()
        if seen == self._seen and now < self._look_at:
            return True
        self._seen, self._look_at = seen, now + LOOK_GAP
        return False

    def in_use(self) -> dict[str, SetInUse]:
        """The sets that are loaded, with their entries of IPv4 and IPv6 together."""
        found: dict[str, SetInUse] = {}
        for name, loaded in self._loaded.items():
            count = sum(loaded.counts.values())
            found[name] = SetInUse(count, loaded.signature[0] / 1e9, self._intervals.get(name))
        return found

    def problems(self) -> tuple[str, ...]:
        """What is wrong with sets now: files that are refused, lists that are stale, drift that is not repaired."""
        return tuple(self._reported.values())

    def _known(self) -> set[str]:
        """The sets that were loaded, also before this start."""
        return set(self._loaded) | self._copies.names

    def _update(self, path: Path, facts: Mapping[str, SetFacts], *, repair: bool) -> None:
        """Load a file if it has changed, or else look for drift."""
        name, signature = _name(path), _signature_of(path)
        known = self._loaded.get(name)
        if known is None or known.signature != signature:
            self._load(path, signature, facts)
        elif self._may_differ(name, known, facts):
            self._compare(path, known, facts, repair=repair)

    def _load(self, path: Path, signature: _Signature, facts: Mapping[str, SetFacts]) -> None:
        """Read a file and load it, unless it makes what is loaded already. Raises SetsNotLoadedError."""
        was_refused = _name(path) in self._reported
        file = self._read(path)
        if file is None:
            return
        parsed, digest = file
        known = self._loaded.get(parsed.name)
        begun = time.monotonic()
        changed = False
        if known is None or known.digest != digest:
            changed = self._make_equal(parsed, facts, compare=known is None)
            self._keep_for_boot(parsed)
        self._remember(parsed, signature, digest, time.monotonic() - begun)
        if changed or was_refused:
            self._report_loaded(parsed, path)

    def _report_loaded(self, file: SetFile, path: Path) -> None:
        entries = " and ".join(f"{len(file.entries[family]):,} of IPv{family.number}" for family in FAMILIES)
        message = f"set {file.name} has the entries of {path}: {entries}"
        self._emit(events.SET_LOADED, message, set=file.name, entries=file.count, file=str(path))

    def _make_equal(self, file: SetFile, facts: Mapping[str, SetFacts], *, compare: bool) -> bool:
        """Give the kernel's sets the entries of a file. False where they have them. Raises SetsNotLoadedError.

        What the kernel holds is not read where the file is known to be another one, unless entries have to be kept.
        """
        live = _live(file, facts, read=compare or file.timeout is not None)
        if compare and matches(file, live) and _drift(file, live) is None:
            return False
        restore_sets(load_script(file, live), [name for name in NEW.values() if name in facts])
        return True

    def _may_differ(self, name: str, known: Loaded, facts: Mapping[str, SetFacts]) -> bool:
        """Whether the entries have to be compared: their number is another one, or it is time to look."""
        if time.monotonic() >= known.compare_at:
            return True
        return not all(_has(facts, name, family, known) for family in FAMILIES)

    def _compare(self, path: Path, known: Loaded, facts: Mapping[str, SetFacts], *, repair: bool) -> None:
        """Compare the entries with those of the file, and repair them. Raises SetsNotLoadedError."""
        file = self._read(path)
        if file is None:
            return
        parsed, digest = file
        begun = time.monotonic()
        drift = _drift(parsed, _live(parsed, facts, read=True))
        if drift is not None:
            self._repair(parsed, drift, path, facts, repair=repair)
        self._remember(parsed, known.signature, digest, time.monotonic() - begun)

    def _repair(self, file: SetFile, drift: _Drift, path: Path, facts: Mapping[str, SetFacts], *, repair: bool) -> None:
        """Repair drift, or only report it. Raises SetsNotLoadedError."""
        if repair:
            self._make_equal(file, facts, compare=False)
        self._report_drift(file.name, drift, path, repair=repair)

    def _report_drift(self, name: str, found: _Drift, path: Path, *, repair: bool) -> None:
        message = f"set {name} differs from {path}: {found.words}"
        if not repair:
            message = f"{message}; drift is not repaired"
        if repair or self._reported.get(name) != message:
            self._emit(events.DRIFT, message, changes=found.count, difference=(f"set {name}: {found.words}",))
        self._reported[name] = message
        if repair:
            del self._reported[name]
            self._emit(events.REPAIRED, f"set {name} is repaired", changes=found.count)

    def _read(self, path: Path) -> tuple[SetFile, bytes] | None:
        """The set that a file makes, and the digest of its bytes. What is wrong with it is reported, once."""
        try:
            outcome = answered(path.parent, partial(read_set, path, fetched=path.parent != self._directory))
        except OSError:
            return None  # The pass reports that its file system does not answer.
        if isinstance(outcome, RuleFile):
            parsed = read_set_file(outcome.path, outcome.data)
            if isinstance(parsed, SetFile):
                self._reported.pop(parsed.name, None)
                return parsed, hashlib.sha256(outcome.data).digest()
            outcome = parsed[0]
        self._refuse(_name(path), str(path), f"{outcome}. Set {_name(path)} stays as it was", outcome)
        return None

    def _refuse(self, name: str, path: str, message: str, finding: Finding | None = None) -> None:
        """Report that a set is not loaded, once until something else is the matter."""
        if self._reported.get(name) == message:
            return
        self._reported[name] = message
        code = ""
        if finding is not None:
            code, path = finding.code, str(finding.origin)
        self._emit(events.SET_REFUSED, message, set=name, file=path, code=code)

    def _remember(self, file: SetFile, signature: _Signature, digest: bytes, took: float) -> None:
        counts = {family: len(entries) for family, entries in file.entries.items()}
        compare_at = time.monotonic() + max(SHORTEST_GAP, took / COMPARE_SHARE)
        self._loaded[file.name] = Loaded(signature, digest, counts, file.timeout, compare_at)

    def _keep_for_boot(self, file: SetFile) -> None:
        try:
            self._copies.write(file.name, boot_script(file))
        except OSError as error:
            self._refuse(file.name, file.name, f"set {file.name} cannot be kept for the next boot: {error.strerror}")

    def _remove(self, name: str, facts: Mapping[str, SetFacts]) -> None:
        """Remove a set whose file is gone. As long as rules name it, it stays, and the next pass tries again."""
        try:
            for family in FAMILIES:
                if kernel_name(name, family) in facts:
                    destroy_set(kernel_name(name, family))
            self._copies.remove(name)
        except (SetsNotLoadedError, OSError):
            return
        self._loaded.pop(name, None)
        for key in (name, f"stale {name}"):
            self._reported.pop(key, None)


def _has(facts: Mapping[str, SetFacts], name: str, family: Family, known: Loaded) -> bool:
    """Whether the kernel's set has as many entries as were loaded; with a timeout, it may have more."""
    there, count = facts.get(kernel_name(name, family)), known.counts[family]
    if there is None:
        return False
    return there.count == count or (known.timeout is not None and there.count > count)


def _name(path: Path) -> str:
    return name_of(path.name)


def _signature_of(path: Path) -> _Signature:
    """What changes when a file is written or replaced. All zero where it cannot be looked at."""
    try:
        status = answered(path.parent, path.stat)
    except OSError:
        return (0, 0, 0)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _live(file: SetFile, facts: Mapping[str, SetFacts], *, read: bool) -> dict[Family, LiveSet]:
    """The kernel's sets of a file that exist, without their entries if these are not to be read.

    Raises SetsNotLoadedError.
    """
    live: dict[Family, LiveSet] = {}
    for family in FAMILIES:
        name = kernel_name(file.name, family)
        if name in facts:
            live[family] = _live_set(name, facts[name], read=read)
    return live


def _live_set(name: str, facts: SetFacts, *, read: bool) -> LiveSet:
    saved = None
    if read:
        saved = read_live(save_set(name))
    return saved or LiveSet(facts.kind, None, (), {})


@dataclass(frozen=True, slots=True)
class _Drift:
    """How the kernel's sets differ from a file: the number of entries, and words."""

    count: int
    words: str


def _drift(file: SetFile, live: Mapping[Family, LiveSet]) -> _Drift | None:
    """How the kernel's sets differ from a file; None if they do not."""
    missing = extra = 0
    for family in FAMILIES:
        if family not in live:
            return _Drift(len(file.entries[family]), f"there is no set {kernel_name(file.name, family)}")
        found = differences(file, family, live[family])
        missing += found.missing
        extra += found.extra
    if missing or extra:
        return _Drift(missing + extra, _in_words(missing, extra))
    return None


def _in_words(missing: int, extra: int) -> str:
    parts: list[str] = []
    if missing:
        parts.append(f"{counted(missing, 'entry was', 'entries were')} missing")
    if extra:
        parts.append(f"{counted(extra, 'entry was', 'entries were')} added")
    return ", ".join(parts)
