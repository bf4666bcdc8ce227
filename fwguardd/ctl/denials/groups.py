"""Packets counted by any keys, with the number of different values of another one: ``--by`` and ``--unique``.

The memory is bounded by `fwguardd.ctl.denials.top.BoundedCount`, and by `UniqueCount` for each group.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, ip_address, ip_network
from math import log
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.denials.network_database import NAME_KEYS
from fwguardd.ctl.denials.table import rule
from fwguardd.ctl.denials.top import MOST_KEYS, BoundedCount, port
from fwguardd.escaping import printable
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.network_database import NetworkNames

_FIELDS: Final = ("src", "dst", "proto", "in", "out", "uid", "prefix")
KEYS: Final = (
    "src", "net", "net/N", "country", "as", "dst", "dport", "proto", "rule", "in", "out", "uid", "host", "hour", "day",
)  # fmt: skip
"""The keys that a user may give. ``net`` is the /24 or /64 of the source."""

TIME_KEYS: Final = frozenset({"hour", "day"})
_TIME_FORMS: Final = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}
_NET: Final = re.compile(r"net(?:/([0-9]{1,3}))?")
_IPV4_BITS, _IPV6_BITS = 24, 64
_MOST_BITS: Final = (32, 128)
_KEPT: Final = 65_536
"""Addresses whose networks are remembered: to compute one takes as long as to parse a line."""

NOTHING: Final = "-"
"""What is shown for a packet that does not have the key."""


def keys(text: str) -> tuple[str, ...]:
    """The value of --by and --unique: keys with commas between them. Raises ArgumentTypeError."""
    found = tuple(text.split(","))
    for key in found:
        if key not in KEYS and not _is_net(key):
            raise ArgumentTypeError(f"{key!r} is not a key; write one of {', '.join(KEYS)}")
    return found


def key(text: str) -> str:
    """The value of --unique. Raises ArgumentTypeError."""
    (*others, found) = keys(text)
    if others:
        raise ArgumentTypeError(f"{text!r} has several keys; --unique takes one")
    return found


def _is_net(key: str) -> bool:
    match = _NET.fullmatch(key)
    return match is not None and int(match[1] or 0) <= _MOST_BITS[1]


def value(event: Event, key: str) -> str:
    """The value of an event under a key; `NOTHING` where it has none."""
    if key in _FIELDS:
        found: object = event.fields.get(key)
    elif key.startswith("net"):
        found = _net(str(event.fields.get("src")), key)
    elif key in TIME_KEYS:
        found = _time(event.realtime, _TIME_FORMS[key])
    else:
        found = _other(event, key)
    if found in (None, ""):
        return NOTHING
    return str(found)


def _other(event: Event, key: str) -> str | None:
    if key == "dport":
        return port(event.fields)
    if key == "rule":
        return rule(event.fields)
    if key == "host":
        return event.host
    return None


def _time(realtime: int | None, form: str) -> str | None:
    """The local time; None for a time that the calendar does not have."""
    if realtime is None:
        return None
    return _time_of_minute(realtime // 60_000_000, form)


@lru_cache(maxsize=4096)
def _time_of_minute(minute: int, form: str) -> str | None:
    try:
        return datetime.fromtimestamp(60 * minute).strftime(form)  # noqa: DTZ006 - local time is meant.
    except (ValueError, OverflowError, OSError):
        return None


@lru_cache(maxsize=_KEPT)
def _net(src: str, key: str) -> str | None:
    """The network of an address: of IPv4 with the bits of the key up to 32, of IPv6 with those above."""
    try:
        address = ip_address(src)
    except ValueError:
        return None
    bits = _IPV6_BITS
    if isinstance(address, IPv4Address):
        bits = _IPV4_BITS
    wanted = int(key.partition("/")[2] or bits)
    if (wanted <= _MOST_BITS[0]) == isinstance(address, IPv4Address):
        bits = wanted
    return str(ip_network((address, bits), strict=False))


EXACT: Final = 1024


class UniqueCount:
    """The number of different values: exact up to a limit, and from there on estimated with 1024 registers
    (HyperLogLog, Flajolet and others, 2007), within about 3 percent."""

    _BITS: Final = 10

    def __init__(self, exact: int = EXACT) -> None:
        self._exact: set[str] | None = set()
        self._limit = exact
        self._registers = bytearray()

    def add(self, text: str) -> None:
        """Count a value."""
        if self._exact is None:
            self._register(text)
            return
        self._exact.add(text)
        if len(self._exact) > self._limit:
            values, self._exact, self._registers = self._exact, None, bytearray(1 << self._BITS)
            for one in values:
                self._register(one)

    @property
    def is_exact(self) -> bool:
        """Whether `number` is not an estimate."""
        return self._exact is not None

    @property
    def number(self) -> int:
        """How many different values there were."""
        if self._exact is not None:
            return len(self._exact)
        return self._estimate()

    def _register(self, text: str) -> None:
        """Keep the greatest number of leading zeros of the hashes that belong to a register."""
        hashed = int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        place, rest = hashed & ((1 << self._BITS) - 1), hashed >> self._BITS
        zeros = 64 - self._BITS - rest.bit_length() + 1
        self._registers[place] = max(self._registers[place], zeros)

    def _estimate(self) -> int:
        count = len(self._registers)
        raw = 0.7213 / (1 + 1.079 / count) * count**2 / sum(2.0**-one for one in self._registers)
        empty = self._registers.count(0)
        if raw <= 2.5 * count and empty:
            return round(count * log(count / empty))
        return round(raw)


class Groups:
    """Packets by the values of some keys; ``unique`` is the key whose different values are counted. ``most`` is the
    number of groups that are kept, ``exact`` the number of different values of one up to which they are exact."""

    def __init__(
        self,
        by: Sequence[str],
        unique: str | None,
        names: NetworkNames | None = None,
        *,
        most: int = MOST_KEYS,
        exact: int = EXACT,
    ) -> None:
        self.by, self.unique, self._names_of, self._exact = tuple(by), unique, names, exact
        self._counts: BoundedCount[tuple[str, ...]] = BoundedCount(most)
        self._unique: dict[tuple[str, ...], UniqueCount] = {}
        self.total = 0

    def add(self, events: Iterable[Event]) -> None:
        """Count the events that are about packets. Raises DatabaseError."""
        for event in events:
            if event.is_of_packets:
                self.count(event)

    def count(self, event: Event) -> None:
        """Count an event that is about packets. Raises DatabaseError."""
        key = tuple(self._value(event, name) for name in self.by)
        weight = event.weight
        self.total += weight
        if self._counts.add(key, weight):
            self._unique = {kept: count for kept, count in self._unique.items() if kept in self._counts}
        if self.unique is not None:
            self._unique_of(key).add(self._value(event, self.unique))

    def _unique_of(self, key: tuple[str, ...]) -> UniqueCount:
        found = self._unique.get(key)
        if found is None:
            found = self._unique[key] = UniqueCount(self._exact)
        return found

    def _value(self, event: Event, name: str) -> str:
        """The value of a key. Raises DatabaseError."""
        if self._names_of is not None and name in NAME_KEYS:
            return self._names_of.name(str(event.fields.get("src", "")), name) or NOTHING
        return value(event, name)

    def _rows(self, number: int | None) -> list[tuple[tuple[str, ...], int]]:
        """The groups with most packets; in the order of time if that is the first key."""
        rows = self._counts.highest(number)
        if self.by and self.by[0] in TIME_KEYS:
            rows.sort()
        return rows

    def _names(self) -> list[str]:
        if self.unique is None:
            return []
        return [f"unique {self.unique}"]

    def _number_of_unique(self, key: tuple[str, ...]) -> list[int]:
        if key not in self._unique:
            return []
        return [self._unique[key].number]

    def table(self, number: int | None) -> tuple[list[str], list[list[str | int]]]:
        """The heading and the rows, for CSV."""
        rows: list[list[str | int]] = []
        for key, count in self._rows(number):
            rows.append([*key, count, *self._number_of_unique(key)])
        return [*self.by, "packets", *self._names()], rows

    def document(self, number: int | None) -> dict[str, Any]:
        """The groups as JSON, with stable keys."""
        groups: list[dict[str, Any]] = []
        for key, count in self._rows(number):
            group: dict[str, Any] = {**dict(zip(self.by, key, strict=True)), "count": count}
            if key in self._unique:
                found = self._unique[key]
                group |= {"unique": found.number, "unique_is_exact": found.is_exact}
            groups.append(group)
        return {
            "packets": self.total,
            "by": self.by,
            "unique": self.unique,
            "groups": groups,
            "count_error": self._counts.error,
        }

    def lines(self, number: int | None, ink: AnswerPainter) -> list[str]:
        """The groups as a table, with the number of all packets above it."""
        head = ["PACKETS", "", *(name.upper() for name in self._names()), *(name.upper() for name in self.by)]
        rows = [self._cells(key, count) for key, count in self._rows(number)]
        lines = [counted(self.total, "packet")]
        if rows:
            lines += ["", *_aligned(head, rows, ink, numbers=len(head) - len(self.by))]
        if self._counts.error:
            lines.append(
                ink.warn(f"too many to count each: every number may be too small by up to {self._counts.error}")
            )
        return lines

    def _cells(self, key: tuple[str, ...], count: int) -> list[str]:
        cells = [str(count), f"{100 * count / self.total:.1f}%"]
        if key in self._unique:
            cells.append(_shown(self._unique[key]))
        return [*cells, *map(printable, key)]


def _shown(found: UniqueCount) -> str:
    if found.is_exact:
        return str(found.number)
    return f"~{found.number}"


def _aligned(head: list[str], rows: list[list[str]], ink: AnswerPainter, *, numbers: int) -> list[str]:
    """Rows under a heading; the first columns are numbers, aligned to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines: list[str] = []
    for row in (head, *rows):
        cells: list[str] = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            if place < numbers:
                cells.append(cell.rjust(width))
            else:
                cells.append(cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    lines[0] = ink.dim(lines[0])
    return lines
