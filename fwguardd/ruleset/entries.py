"""Entries of rule files: what ``fwguardctl allow``, ``deny`` and ``block`` write, and ``remove`` takes out.

An entry begins with the command that wrote it, as a comment, and ends at an empty line::

    # fwguardctl allow postgresql --from 192.0.2.0/24
    # office
    # fwguard: until 2026-11-28T12:00:00Z
    -A INPUT -s 192.0.2.0/24 -p tcp --dport 5432 -m conntrack --ctstate NEW -j ACCEPT

A second entry with the same first line is not written, and the first line is all that ``remove`` needs. Everything else
in a file belongs to its author and is left as it is.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.expiry import read_until, written_until
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMAND = "# fwguardctl "
"""How the first line of an entry begins."""

_BEGINNINGS = tuple(f"{COMMAND}{verb} " for verb in ("allow", "deny", "block", "forward"))

HEAD = "# Written by fwguardctl: each entry begins with its command. To take one out: fwguardctl remove"
"""The first line of a file that was made for entries."""

KEPT_SHARE = 0.1
"""An entry whose end is asked for again keeps its end if less than this share of the time is gone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, written or to be written.

    ``command`` is the command line without the name of the program and without --comment and --for. ``until`` is its
    end in seconds since 1970, None for none. ``line`` is the number of its first line, 0 for one that is not written.
    """

    command: str
    rules: tuple[str, ...]
    comment: str = ""
    until: float | None = None
    line: int = 0

    @property
    def text(self) -> str:
        """The lines of the entry."""
        lines = [COMMAND + self.command]
        if self.comment:
            lines.append(f"# {self.comment}")
        if self.until is not None:
            lines.append(written_until(self.until))
        return "\n".join((*lines, *self.rules)) + "\n"

    @property
    def verb(self) -> str:
        """allow, deny, block or forward."""
        return self.command.partition(" ")[0]

    @property
    def what(self) -> str:
        """The service, or the addresses to block."""
        return self.command.partition(" ")[2].partition(" ")[0]

    def has_ended(self, now: float) -> bool:
        """Whether its rules are not loaded any more."""
        return self.until is not None and self.until <= now


def entries_in(text: str) -> list[Entry]:
    """The entries of a rule file, in order."""
    lines = text.split("\n")
    return [_read(lines[start:end], start + 1) for start, end in _spans(lines)]


def entry_in(text: str, command: str) -> Entry | None:
    """The entry with this command; None where there is none."""
    for entry in entries_in(text):
        if entry.command == command:
            return entry
    return None


def _span_of(lines: Sequence[str], command: str) -> tuple[int, int] | None:
    """The first line of the entry with this command, and the line after its last one."""
    for start, end in _spans(lines):
        if lines[start].removeprefix(COMMAND).strip() == command:
            return start, end
    return None


def _spans(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The first line of each entry, and the line after its last one."""
    start = None
    for number, line in enumerate((*lines, "")):
        begins = line.startswith(_BEGINNINGS)
        if start is not None and (begins or not line.strip()):
            yield start, number
            start = None
        if begins:
            start = number


def _read(lines: Sequence[str], number: int) -> Entry:
    comments: list[str] = []
    rules: list[str] = []
    until: float | None = None
    for line in lines[1:]:
        stated = _until(line)
        if stated is not None:
            until = stated
        elif line.startswith("#"):
            comments.append(line.removeprefix("#").strip())
        else:
            rules.append(line)
    return Entry(lines[0].removeprefix(COMMAND).strip(), tuple(rules), " ".join(comments), until, number)


def _until(line: str) -> float | None:
    """The end that a comment states; None for other lines, and for a time that cannot be read."""
    try:
        return read_until(line.encode("utf-8", "surrogateescape"))
    except ValueError:
        return None


def with_entry(text: str | None, entry: Entry) -> str:
    """The file with the entry, in place of one with the same command, or at its end. None stands for no file."""
    if text is None:
        return f"{HEAD}\n\n{entry.text}"
    lines = text.split("\n")
    span = _span_of(lines, entry.command)
    if span is None:
        return f"{_closed(text)}\n{entry.text}"
    start, end = span
    lines[start:end] = entry.text.rstrip("\n").split("\n")
    return "\n".join(lines)


def _closed(text: str) -> str:
    """The text with a line break at its end."""
    if text and not text.endswith("\n"):
        return text + "\n"
    return text


def without_entry(text: str, command: str) -> str | None:
    """The file without the entry with this command; None if nothing is left that somebody else has written."""
    lines = text.split("\n")
    span = _span_of(lines, command)
    if span is not None:
        start, end = span
        del lines[_with_blank_line(lines, start) : end]
    left = "\n".join(lines)
    if left.strip() in ("", HEAD):
        return None
    return left


def _with_blank_line(lines: Sequence[str], start: int) -> int:
    """The empty line before an entry goes with it."""
    if start and not lines[start - 1].strip():
        return start - 1
    return start


def without_ended_entries(text: str, now: float) -> str | None:
    """The file without the entries that have ended; None if nothing is left."""
    left: str | None = text
    for entry in entries_in(text):
        if left is not None and entry.has_ended(now):
            left = without_entry(left, entry.command)
    return left


def merged(written: Entry | None, wanted: Entry, now: float) -> Entry:
    """What has to stand in the file: the entry that is wanted, with what need not change of the one that is written.

    The comment stays unless another one is given. An end that is wanted again stays if it is nearly the same.
    """
    if written is None or written.has_ended(now):
        return wanted
    until = _end_of(written.until, wanted.until, now)
    return Entry(wanted.command, wanted.rules, wanted.comment or written.comment, until, written.line)


def _end_of(written: float | None, wanted: float | None, now: float) -> float | None:
    """The later end; the one that is written if the other one is not much later."""
    if written is None or wanted is None:
        return None
    if written - now >= (1 - KEPT_SHARE) * (wanted - now):
        return written
    return wanted
