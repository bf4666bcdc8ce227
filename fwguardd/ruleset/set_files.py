"""Set files: ``NAME.set`` beside the rule files holds the entries of the set NAME, for IPv4 and IPv6.

Each line has an address, a network or a range (192.0.2.1-192.0.2.9); ``#`` begins a comment. The kernel has one set for
each family: NAME for IPv4 and NAME-v6 for IPv6. Networks and ranges that overlap or touch are merged. A first line
``# fwguard: set hash:net timeout=1h`` states the type of the set, and that entries may be added that end by themselves.

A file with an error is not used at all: what it would make instead, half a list or an empty one, nobody has written.

Files of a million lines are read in about the time that the kernel takes for the entries, so plain IPv4 addresses,
which most lists have, take a way of their own.

This module is pure.
"""

from __future__ import annotations

import itertools
from dataclasses import field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.model import FAMILIES, Family, Finding, Findings, Origin
from fwguardd.ruleset.references import LONGEST_SET_NAME
from fwguardd.ruleset.values import read_network
from fwguardd.values import dataclass
from fwguardd.wording import duration, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ENDING = ".set"
IPV6_SUFFIX = "-v6"
"""What the name of the kernel's set for IPv6 has behind that of the file."""

NEW_NAME = "fwguard-new"
"""The name of the set that new entries are loaded into; no file may have it."""

TYPES = ("hash:net", "hash:ip")
LONGEST_NAME = LONGEST_SET_NAME - len(IPV6_SUFFIX)
_LONGEST_TIMEOUT = 2_147_483
"""Seconds that an entry can have (ipset(8))."""

_NAME = pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HEAD = pattern(r"#[ \t]*fwguardd?:[ \t]*set\b[ \t]*(.*)")
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN = pattern(rf"(?:{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}\n)+")
_DOTTED = pattern(rf"{_OCTET}(?:\.{_OCTET}){{3}}(?:/|$)")
_ALL_ONES = {4: (1 << 32) - 1, 6: (1 << 128) - 1}
_MOST_FINDINGS = 20
MOST_ENTRIES = 2_000_000
"""Entries of one family. A range of IPv6 may be 250 of them, so a small file can mean more than there is memory for."""

_Ranges = list[tuple[int, int]]


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


class _LineError(Exception):
    """What is wrong with a line; it never leaves this module."""


@dataclass(slots=True)
class _Reading:
    """A file while its lines are read. ``plain`` are IPv4 addresses alone on their lines, ``ranges`` all other entries,
    by their versions."""

    path: str
    kind: str = TYPES[0]
    timeout: int | None = None
    plain: list[str] = field(default_factory=list)
    ranges: dict[int, _Ranges] = field(default_factory=lambda: {4: [], 6: []})
    findings: list[Finding] = field(default_factory=list)
    _line: int = 1

    def read(self, text: str) -> None:
        """Read the lines of the file, stretches of plain addresses at once."""
        first, _, _ = text.partition("\n")
        self._guard(first, self._read_head)
        if text and not text.endswith("\n"):
            text += "\n"
        position = 0
        while position < len(text):
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
        except _LineError as error:
            if len(self.findings) < _MOST_FINDINGS:
                self.findings.append(Finding("bad-set", str(error), Origin(self.path, self._line), hint=_FORMS))

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
            raise _LineError(f"{quoted(word)} is neither a type of set ({' or '.join(TYPES)}) nor timeout=1h")

    def _read_line(self, line: str) -> None:
        word = line.partition("#")[0].strip()
        if not word:
            return
        version, first, last = _range_of(word)
        if self.kind == "hash:ip" and first != last:
            raise _LineError(f"{word}: a set of the type hash:ip has single addresses only")
        self.ranges[version].append((first, last))

    def entries(self) -> Mapping[Family, Sequence[str]]:
        """The entries of each family."""
        ipv4 = dict.fromkeys((*self.plain, *self._texts(4, IPv4Address)))
        ipv6 = dict.fromkeys(self._texts(6, IPv6Address))
        return {Family.IPV4: list(ipv4), Family.IPV6: list(ipv6)}

    def _texts(self, version: int, address: type[IPv4Address | IPv6Address]) -> Iterator[str]:
        """The entries that are not plain, as ipset(8) prints them."""
        ranges = sorted(self.ranges[version])
        if self.kind == "hash:net":
            ranges = _merged(ranges)
        return itertools.islice(_networks(ranges, address), MOST_ENTRIES + 1)


_FORMS = "write an address, a network or a range: 192.0.2.1, 192.0.2.0/24, 192.0.2.1-192.0.2.9, 2001:db8::/32"


def _timeout(text: str) -> int:
    """The seconds of a timeout. Raises _LineError."""
    try:
        seconds = int(duration(text))
    except ValueError as error:
        raise _LineError(f"timeout: {error}") from error
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise _LineError(f"timeout={text} is out of range: from 1s to {_LONGEST_TIMEOUT}s")
    return seconds


def _range_of(word: str) -> tuple[int, int, int]:
    """The version of an entry, its first address and its last one. Raises _LineError."""
    if "-" in word:
        return _explicit_range(word)
    network = read_network(word)
    if network is None or network.has_holes or (network.version == 4 and _DOTTED.match(word) is None):
        raise _LineError(f"{quoted(word)} is neither an address nor a network nor a range")
    first = network.address & network.mask
    return network.version, first, first | ~network.mask & _ALL_ONES[network.version]


def _explicit_range(word: str) -> tuple[int, int, int]:
    first_text, _, last_text = word.partition("-")
    try:
        first, last = ip_address(first_text.strip()), ip_address(last_text.strip())
    except ValueError as error:
        raise _LineError(f"{quoted(word)} is not a range of addresses") from error
    if first.version != last.version or int(first) > int(last):
        raise _LineError(f"{word}: the range has to lead from an address to a larger one of the same family")
    return first.version, int(first), int(last)


def _merged(ranges: Iterable[tuple[int, int]]) -> _Ranges:
    """Sorted ranges without overlaps, neighbours together."""
    merged: _Ranges = []
    first, last = -2, -2
    for start, end in ranges:
        if start > last + 1:
            merged.append((first, last))
            first, last = start, end
        elif end > last:
            last = end
    merged.append((first, last))
    return merged[1:]


def _networks(ranges: Iterable[tuple[int, int]], address: type[IPv4Address | IPv6Address]) -> Iterator[str]:
    """The networks of ranges, as ipset(8) prints them. It has no network that is everything, but two halves."""
    width = address(0).max_prefixlen
    alone = f"/{width}"
    for first, last in ranges:
        begin = first
        while begin <= last:
            size = _largest_block(begin, last, 1 << (width - 1))
            yield f"{address(begin)}/{width + 1 - size.bit_length()}".removesuffix(alone)
            begin += size


def _largest_block(first: int, last: int, largest: int) -> int:
    """The addresses of the largest network that begins with an address, and has none beyond the last one."""
    size = min(1 << ((last - first + 1).bit_length() - 1), largest)
    if first == 0:
        return size
    return min(size, first & -first)
