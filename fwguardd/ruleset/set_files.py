"""Set files: ``NAME.set`` beside the rule files holds the entries of the set NAME, for IPv4 and IPv6.

Each line has an address, a network or a range (192.0.2.1-192.0.2.9); ``#`` begins a comment. The kernel has one set for
each family: NAME for IPv4 and NAME-v6 for IPv6. Networks and ranges that overlap or touch are merged. A first line
``# fwguard: set hash:net timeout=1h`` states the type of the set, and that entries may be added that end by themselves.
Entries of other types have several parts, such as 192.0.2.1,tcp:443 (`fwguardd.ruleset.set_entries`). Types without
addresses, as hash:mac, are one set for both families, under both names.

A file with an error is not used at all: what it would make instead, half a list or an empty one, nobody has written.

Files of a million lines are read in about the time that the kernel takes for the entries, so plain IPv4 addresses,
which most lists have, take a way of their own.

This module is pure.
"""

from __future__ import annotations

import itertools
from dataclasses import field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.model import FAMILIES, Family, Finding, Findings, Origin
from fwguardd.ruleset.references import LONGEST_SET_NAME
from fwguardd.ruleset.set_entries import COMPOUND, WITHOUT_FAMILY, entries_of, forms_of
from fwguardd.ruleset.set_ranges import OCTET, Ranges, SetLineError, merged_ranges, networks_of, range_of
from fwguardd.values import dataclass
from fwguardd.wording import duration, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ENDING = ".set"
IPV6_SUFFIX = "-v6"
"""What the name of the kernel's set for IPv6 has behind that of the file."""

NEW_NAME = "fwguard-new"
"""The name of the set that new entries are loaded into; no file may have it."""

PLAIN_TYPES = ("hash:net", "hash:ip")
"""Types whose entries are addresses or networks alone."""

TYPES = (*PLAIN_TYPES, *COMPOUND)
LONGEST_NAME = LONGEST_SET_NAME - len(IPV6_SUFFIX)
_LONGEST_TIMEOUT = 2_147_483
"""Seconds that an entry can have (ipset(8))."""

_NAME = pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HEAD = pattern(r"#[ \t]*fwguardd?:[ \t]*set\b[ \t]*(.*)")
_PLAIN = pattern(rf"(?:{OCTET}\.{OCTET}\.{OCTET}\.{OCTET}\n)+")
_MOST_FINDINGS = 20
MOST_ENTRIES = 2_000_000
"""Entries of one family. A range of IPv6 may be 250 of them, so a small file can mean more than there is memory for."""


@dataclass(frozen=True, slots=True)
class SetFile:
    """A set file that was read. ``timeout`` is in seconds, None if entries have none. ``entries`` are those of each
    family, merged, in order, as ipset(8) prints them."""

    name: str
    entries: Mapping[Family, Sequence[str]]
    kind: str = TYPES[0]
    timeout: int | None = None

    @property
    def count(self) -> int:
        """The number of entries, of both families."""
        if self.kind in WITHOUT_FAMILY:
            return len(self.entries[Family.IPV4])
        return sum(map(len, self.entries.values()))


def kernel_name(name: str, family: Family) -> str:
    """The name of the kernel's set that has the entries of a family."""
    if family is Family.IPV6:
        return name + IPV6_SUFFIX
    return name


def name_of(path: str) -> str:
    """The name of the set that a file holds the entries of."""
    return path.rpartition("/")[2].removesuffix(ENDING)


def bad_name(path: str) -> Finding | None:
    """The finding for a file whose name can be no set's."""
    name = name_of(path)
    if _NAME.fullmatch(name) is None:
        hint = "use letters, digits, and the signs _ . -"
        return Finding("bad-set", f"{quoted(name)} is not a name that a set can have", Origin(path, 0), hint=hint)
    if len(name) > LONGEST_NAME:
        message = f"the name of the set has {len(name)} characters; it may have {LONGEST_NAME}"
        return Finding("bad-set", message, Origin(path, 0), hint="shorten the name of the file")
    if name in {kernel_name(NEW_NAME, family) for family in FAMILIES}:
        message = f"new entries of all sets are loaded under the name {name}"
        return Finding("bad-set", message, Origin(path, 0), hint="give the file another name")
    return None


def read_set_file(path: str, data: bytes) -> SetFile | Findings:
    """The set that a file makes; the errors where it has some."""
    problem = bad_name(path)
    if problem is not None:
        return Findings((problem,))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Findings((Finding("bad-set", "not UTF-8", Origin(path, line), hint="convert the file to UTF-8"),))
    reading = _Reading(path)
    reading.read(text.replace("\r\n", "\n"))
    if reading.findings:
        return Findings(reading.findings)
    entries = reading.entries()
    for family in FAMILIES:
        if len(entries[family]) > MOST_ENTRIES:
            return Findings((_too_many_entries(path, family),))
    return SetFile(name_of(path), entries, reading.kind, reading.timeout)


def _too_many_entries(path: str, family: Family) -> Finding:
    message = f"the set would have more than {MOST_ENTRIES:,} entries of IPv{family.number}"
    hint = "split the file; a range is an entry for each network that it consists of"
    return Finding("bad-set", message, Origin(path, 0), hint=hint)


@dataclass(slots=True)
class _Reading:
    """A file while its lines are read. ``plain`` are IPv4 addresses alone on their lines, ``ranges`` all other entries,
    by their versions; ``compound`` are those that are not addresses alone."""

    path: str
    kind: str = TYPES[0]
    timeout: int | None = None
    plain: list[str] = field(default_factory=list)
    ranges: dict[int, Ranges] = field(default_factory=lambda: {4: [], 6: []})
    compound: dict[Family, dict[str, None]] = field(default_factory=lambda: {family: {} for family in FAMILIES})
    findings: list[Finding] = field(default_factory=list)
    _line: int = 1

    def read(self, text: str) -> None:
        """Read the lines of the file, stretches of plain addresses at once."""
        first, _, _ = text.partition("\n")
        self._guard(first, self._read_head)
        if text and not text.endswith("\n"):
            text += "\n"
        position, plain = 0, self.kind in PLAIN_TYPES
        while position < len(text):
            run = None
            if plain:
                run = _PLAIN.match(text, position)
            if run is not None:
                lines = run[0][:-1].split("\n")
                self.plain += lines
                self._line += len(lines)
                position = run.end()
            else:
                end = text.index("\n", position)
                self._guard(text[position:end], self._read_line)
                self._line += 1
                position = end + 1

    def _guard(self, line: str, read: Callable[[str], None]) -> None:
        """Read a line, or note what is wrong with it."""
        try:
            read(line)
        except SetLineError as error:
            if len(self.findings) < _MOST_FINDINGS:
                hint = _FORMS.get(self.kind) or forms_of(self.kind)
                self.findings.append(Finding("bad-set", str(error), Origin(self.path, self._line), hint=hint))

    def _read_head(self, line: str) -> None:
        match = _HEAD.match(line)
        if match is None:
            return
        for word in match[1].split():
            self._read_option(word)

    def _read_option(self, word: str) -> None:
        if word in TYPES:
            self.kind = word
        elif word.startswith("timeout="):
            self.timeout = _timeout(word.removeprefix("timeout="))
        else:
            raise SetLineError(f"{quoted(word)} is neither a type of set ({', '.join(TYPES)}) nor timeout=1h")

    def _read_line(self, line: str) -> None:
        word = line.partition("#")[0].strip()
        if not word:
            return
        if self.kind in COMPOUND:
            self._add_compound(word)
            return
        version, first, last = range_of(word)
        if self.kind == "hash:ip" and first != last:
            raise SetLineError(f"{word}: a set of the type hash:ip has single addresses only")
        self.ranges[version].append((first, last))

    def _add_compound(self, word: str) -> None:
        """Note the entries that a word of several parts stands for. Raises SetLineError."""
        for family, entry in itertools.islice(entries_of(self.kind, word), 2 * MOST_ENTRIES + 1):
            self.compound[family][entry] = None
            if len(self.compound[family]) > MOST_ENTRIES:
                raise SetLineError(f"the set would have more than {MOST_ENTRIES:,} entries")

    def entries(self) -> Mapping[Family, Sequence[str]]:
        """The entries of each family."""
        if self.kind in COMPOUND:
            return {family: list(entries) for family, entries in self.compound.items()}
        ipv4 = dict.fromkeys((*self.plain, *self._texts(4, IPv4Address)))
        ipv6 = dict.fromkeys(self._texts(6, IPv6Address))
        return {Family.IPV4: list(ipv4), Family.IPV6: list(ipv6)}

    def _texts(self, version: int, address: type[IPv4Address | IPv6Address]) -> Iterator[str]:
        """The entries that are not plain, as ipset(8) prints them."""
        ranges = sorted(self.ranges[version])
        if self.kind == "hash:net":
            ranges = merged_ranges(ranges)
        return itertools.islice(networks_of(ranges, address), MOST_ENTRIES + 1)


_NETWORKS = "write an address, a network or a range: 192.0.2.1, 192.0.2.0/24, 192.0.2.1-192.0.2.9, 2001:db8::/32"
_FORMS = {"hash:net": _NETWORKS, "hash:ip": "write addresses: 192.0.2.1, 2001:db8::1"}


def _timeout(text: str) -> int:
    """The seconds of a timeout. Raises SetLineError."""
    try:
        seconds = int(duration(text))
    except ValueError as error:
        raise SetLineError(f"timeout: {error}") from error
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise SetLineError(f"timeout={text} is out of range: from 1s to {_LONGEST_TIMEOUT}s")
    return seconds
