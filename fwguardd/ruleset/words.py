"""Words of a rule, cut exactly as iptables-restore cuts them.

The reference is the behaviour of iptables-restore 1.8.9, both backends: words are separated by spaces and tabs and
by nothing else; a double quote opens anywhere and its closing quote ends the word; inside quotes a backslash makes
the next character literal, outside it is an ordinary character; single quotes are ordinary characters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN_WORD = re.compile(r"[^ \t]+")
# No possessive groups: those of Python 3.11.2, which Debian 12 has, take what they must not (cpython#106052).
_WORD = re.compile(r'([^ \t"]*)(?:(")((?:[^"\\]|\\.)*)("?))?', re.DOTALL)
_BLANKS = re.compile(r"[ \t]*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NEEDS_QUOTES = re.compile(r"""[ \t"\\]|^$|^[#']""")


class Word(NamedTuple):
    """One word: its value after quoting is undone, and where it stands in the line (0-based, end exclusive)."""

    value: str
    start: int
    end: int


class UnterminatedQuoteError(ValueError):
    """A double quote that the line never closes. iptables-restore would swallow the rest of the line without a word."""

    def __init__(self, column: int) -> None:
        super().__init__(f"double quote at column {column} is never closed")
        self.column = column


def split_words(line: str) -> tuple[Word, ...]:
    """The words of a line.

    Raises UnterminatedQuoteError where a quote stays open.
    """
    return tuple(iterate_words(line))


def word_values(line: str) -> tuple[str, ...]:
    """The words of a line without their places. Raises UnterminatedQuoteError."""
    if '"' not in line:
        return tuple(_PLAIN_WORD.findall(line))
    return tuple(word.value for word in iterate_words(line))


def iterate_words(line: str) -> Iterator[Word]:
    """The words of a line one by one, for who may not want them all: a quote that stays open in a part that is never
    asked for does no harm. Raises UnterminatedQuoteError."""
    if '"' not in line:
        for match in _PLAIN_WORD.finditer(line):
            yield Word(match.group(), match.start(), match.end())
        return
    position = _end_of_blanks(line, 0)
    while position < len(line):
        word = _read_word(line, position)
        yield word
        position = _end_of_blanks(line, word.end)


def quote(value: str) -> str:
    """A word that iptables-restore reads back as ``value``, which must not hold a line break."""
    if not _NEEDS_QUOTES.search(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _end_of_blanks(line: str, position: int) -> int:
    match = _BLANKS.match(line, position)
    assert match is not None
    return match.end()


def _read_word(line: str, start: int) -> Word:
    match = _WORD.match(line, start)
    assert match is not None
    before, opening, quoted, closing = match.groups()
    if opening is None:
        return Word(before, start, match.end())
    if not closing:
        raise UnterminatedQuoteError(match.start(2) + 1)
    if "\\" in quoted:
        quoted = _ESCAPED.sub(r"\1", quoted)
    return Word(before + quoted, start, match.end())
