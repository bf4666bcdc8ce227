"""Words of a rule, cut exactly as iptables-restore cuts them.

The reference is the behaviour of iptables-restore 1.8.9, both backends: words are separated by spaces and tabs and
by nothing else; a double quote opens anywhere and its closing quote ends the word; inside quotes a backslash makes
the next character literal, outside it is an ordinary character; single quotes are ordinary characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLAIN_WORD = re.compile(r"[^ \t]+")
_NEEDS_QUOTES = re.compile(r'[ \t"\\]|^$|^#')


@dataclass(frozen=True, slots=True)
class Word:
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
    if '"' not in line:
        return tuple(Word(m.group(), m.start(), m.end()) for m in _PLAIN_WORD.finditer(line))
    return _split_quoted(line)


def word_values(line: str) -> tuple[str, ...]:
    """The words of a line without their places. Raises UnterminatedQuoteError."""
    if '"' not in line:
        return tuple(_PLAIN_WORD.findall(line))
    return tuple(word.value for word in _split_quoted(line))


def quote(value: str) -> str:
    """A word that iptables-restore reads back as ``value``."""
    if not _NEEDS_QUOTES.search(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _split_quoted(line: str) -> tuple[Word, ...]:
    words: list[Word] = []
    position, length = 0, len(line)
    while position < length:
        if line[position] in " \t":
            position += 1
            continue
        word = _read_word(line, position)
        words.append(word)
        position = word.end
    return tuple(words)


def _read_word(line: str, start: int) -> Word:
    value: list[str] = []
    position, length = start, len(line)
    while position < length and line[position] not in " \t":
        if line[position] == '"':
            text, position = _read_quoted(line, position)
            value.append(text)
            break
        value.append(line[position])
        position += 1
    return Word("".join(value), start, position)


def _read_quoted(line: str, opening: int) -> tuple[str, int]:
    value: list[str] = []
    position = opening + 1
    while position < len(line):
        character = line[position]
        if character == '"':
            return "".join(value), position + 1
        if character == "\\":
            position += 1
            if position == len(line):
                break
            character = line[position]
        value.append(character)
        position += 1
    raise UnterminatedQuoteError(opening + 1)
