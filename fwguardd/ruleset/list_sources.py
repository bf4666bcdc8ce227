"""Lists that are fetched into sets: where each comes from, how often, and what is taken of what comes.

This module is pure.
"""

from __future__ import annotations

from fwguardd.patterns import pattern
from fwguardd.ruleset.set_files import SetFile, read_set_file
from fwguardd.values import dataclass

STALE_AFTER = 3.0
"""Intervals without a success after which a list is reported as stale."""

_COMMENT = pattern(r"[#;].*")


class ListError(Exception):
    """A list that cannot be used. The message says why."""


@dataclass(frozen=True, slots=True)
class ListSource:
    """A list: the name of its set, and its address, or the host names that it is the addresses of.

    ``every`` is the time between two fetches in seconds; host names are looked up earlier if their TTL ends before.
    """

    name: str
    url: str = ""
    hosts: tuple[str, ...] = ()
    every: float = 86400.0

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return self.url or " ".join(self.hosts)


_HOLDS = "# fwguard: holds until "


def holds_until(first_line: str) -> float | None:
    """The end of the TTL that a fetched file states, in seconds since 1970; None where it states none."""
    stated = first_line.removeprefix(_HOLDS)
    if stated == first_line or not stated.strip().isdecimal():
        return None
    return float(stated)


def set_of(source: ListSource, text: str, until: float | None = None) -> tuple[SetFile, bytes]:
    """The set that the text of a list makes, and its set file. ``until`` is the end of the TTL of names.

    Of each line the first word counts, and nothing behind # or ;. Raises ListError for a line that is no address, and
    for a list without any: an error page or a cut answer must not empty a set.
    """
    words = [_first_word(line) for line in text.splitlines()]
    first = f"# {source.origin}"
    if until is not None:
        first = f"{_HOLDS}{until:.0f}"
    data = "\n".join((first, *words, "")).encode()
    read = read_set_file(f"{source.name}.set", data)
    if not isinstance(read, SetFile):
        raise ListError(f"line {_line_of(read[0].origin)}: {read[0].message}")
    if read.count == 0:
        raise ListError("it has no address")
    return read, data


def _first_word(line: str) -> str:
    words = _COMMENT.sub("", line).split()
    return " ".join(words[:1])


def _line_of(origin: object) -> int:
    """The line of the list: its set file has a line more at the top."""
    return int(getattr(origin, "line", 1)) - 1
