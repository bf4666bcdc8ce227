"""Input for ``ipset restore`` that replaces the entries of a set in one instant, and reading of ``ipset save``.

The new entries go into a set of another name, which then changes places with the one that rules name (ipset(8), swap).

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.ruleset.set_entries import WITHOUT_FAMILY
from fwguardd.ruleset.set_files import NEW_NAME, TYPES, kernel_name, read_set_file
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fwguardd.ruleset.set_files import SetFile

NEW = {family: kernel_name(NEW_NAME, family) for family in FAMILIES}
"""The names that new entries are loaded under; the sets exist for the time of the load only."""

_INET = {Family.IPV4: "inet", Family.IPV6: "inet6"}
_ROOM = 65_536
"""Entries that ipset(8) leaves room for by default."""

_CREATE = pattern(r"create \S+ (\S+)(?: .*)?")
_TIMEOUT = pattern(r" timeout ([0-9]+)")
_ADDED = pattern(r"add \S+ (\S+)(?: timeout ([0-9]+))?")


@dataclass(frozen=True, slots=True)
class LiveSet:
    """What the kernel's set of one family holds. ``added`` are entries that end by themselves, each with the seconds
    that are left: rules and other programs have added them, and they stay."""

    kind: str
    timeout: int | None
    entries: Collection[str]
    added: Mapping[str, int]


def create_line(file: SetFile, family: Family, name: str, more: int = 0) -> str:
    """The command that makes an empty set with room for the entries of the file and as many more."""
    if file.kind == "bitmap:port":
        return f"create {name} bitmap:port range 0-65535" + _ending(file, " timeout {}")
    count = len(file.entries[family]) + more
    room, buckets = _ROOM, 1024
    while room < count:
        room *= 2
    while buckets < min(count, room) // 2:
        buckets *= 2
    of_family = f" family {_INET[family]}"
    if file.kind in WITHOUT_FAMILY:
        of_family = ""
    line = f"create {name} {file.kind}{of_family} hashsize {buckets} maxelem {room}"
    return line + _ending(file, " timeout {}")


def _ending(file: SetFile, form: str) -> str:
    """The timeout of a set in this form; "" for one without."""
    if file.timeout is None:
        return ""
    return form.format(file.timeout)


def add_lines(file: SetFile, family: Family, name: str) -> str:
    """The commands that add the entries of the file, which do not end."""
    entries = file.entries[family]
    if not entries:
        return ""
    ending = ""
    if file.timeout is not None:
        ending = " timeout 0"
    return f"add {name} " + f"{ending}\nadd {name} ".join(entries) + f"{ending}\n"


def boot_script(file: SetFile) -> str:
    """Input for ``ipset -exist restore`` where no rules are loaded yet."""
    parts: list[str] = []
    for family in FAMILIES:
        name = kernel_name(file.name, family)
        parts += [create_line(file, family, name) + "\n", add_lines(file, family, name)]
    return "".join(parts)


def load_script(file: SetFile, live: Mapping[Family, LiveSet]) -> str:
    """Input for ``ipset -exist restore`` that puts the entries of a file into the kernel's sets.

    ``live`` are those that exist. Both families change right after each other, once all entries are there.
    """
    parts: list[str] = []
    for family in FAMILIES:
        added: Mapping[str, int] = {}
        if family in live and file.timeout is not None:
            added = live[family].added
        parts += [create_line(file, family, NEW[family], len(added)) + "\n", add_lines(file, family, NEW[family])]
        parts += [f"add {NEW[family]} {entry} timeout {seconds}\n" for entry, seconds in added.items()]
    for family in FAMILIES:
        parts.append(_put_in_place(kernel_name(file.name, family), NEW[family], exists=family in live))
    return "".join(parts)


def _put_in_place(name: str, new: str, *, exists: bool) -> str:
    if exists:
        return f"swap {new} {name}\ndestroy {new}\n"
    return f"rename {new} {name}\n"


def read_live(saved: str) -> LiveSet | None:
    """The set that ``ipset save NAME`` has printed; None for a type that no file makes."""
    first, _, rest = saved.partition("\n")
    created = _CREATE.fullmatch(first)
    if created is None or created[1] not in TYPES:
        return None
    timeout = _TIMEOUT.search(first)
    if timeout is None:
        # Hot path: a million lines.
        return LiveSet(created[1], None, {line.rpartition(" ")[2] for line in rest.splitlines()}, {})
    entries: set[str] = set()
    added: dict[str, int] = {}
    for match in _ADDED.finditer(rest):
        if match[2] in (None, "0"):
            entries.add(match[1])
        else:
            added[match[1]] = int(match[2])
    return LiveSet(created[1], int(timeout[1]), entries, added)


def differences(file: SetFile, family: Family, live: LiveSet) -> SetDifference:
    """How the kernel's set differs from the file. Entries are compared as ipset(8) prints them."""
    wanted = set(file.entries[family])
    missing, extra = wanted - set(live.entries), set(live.entries) - wanted
    if missing and extra:
        missing, extra = _in_one_spelling(missing, file), _in_one_spelling(extra, file)
        missing, extra = missing - extra, extra - missing
    return SetDifference(len(missing), len(extra))


@dataclass(frozen=True, slots=True)
class SetDifference:
    """The entries of a file that the kernel lacks, and those that it has beside them."""

    missing: int = 0
    extra: int = 0


def _in_one_spelling(entries: Collection[str], file: SetFile) -> set[str]:
    """The entries, each as it is written here: ipset(8) writes some IPv6 addresses in another way."""
    text = "\n".join((f"# fwguard: set {file.kind}", *entries))
    read = read_set_file(f"{file.name}.set", text.encode())
    if isinstance(read, tuple):
        return set(entries)
    return {entry for texts in read.entries.values() for entry in texts}


def matches(file: SetFile, live: Mapping[Family, LiveSet]) -> bool:
    """Whether the kernel's sets are made as the file says; their entries may differ."""
    return all(family in live and _is_made_so(file, live[family]) for family in FAMILIES)


def _is_made_so(file: SetFile, live: LiveSet) -> bool:
    return (live.kind, live.timeout) == (file.kind, file.timeout)
