r"""The bytes of a rule file -> lines -> words, cut as iptables-restore cuts them.

The reference is the behaviour of iptables-restore 1.8.9 with both backends. Words are separated by spaces and tabs and
nothing else. A double quote opens anywhere in a word, and its closing quote ends the word; inside quotes a backslash
makes the next character literal. Single quotes, and backslashes outside quotes, are ordinary characters. A word that
begins with # starts a comment, which is an extension.

What iptables-restore would accept and misread is refused: a NUL drops the rest of its line, a carriage return becomes
part of the last word, a quote that is never closed swallows the rest of the line. So are characters that cannot be
seen, or that look like a dash, a quote or a space and are not one.

This module is pure.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from fwguardd.patterns import pattern
from fwguardd.ruleset.families import is_free_text
from fwguardd.ruleset.model import Finding, Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_LINES = 200_000
"""Lines of one file. A file with more of them is a list of addresses, for which the kernel has sets."""

LONGEST_LINE = 10_000
"""Bytes of a line. iptables-restore cuts lines after 10,239; the rest is room for the counters that go before a rule,
and for what the canonical text adds to it."""

_PLAIN_PATH = pattern(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")
_PLAIN_WORD = pattern(r"[^ \t]+")
# No possessive quantifiers: those of Python 3.11.2, which Debian 12 has, take what they must not (cpython#106052).
_WORD = pattern(r'([^ \t"]*)(?:(")((?:[^"\\]|\\.)*)("?))?', re.DOTALL)
_BLANKS = pattern(r"[ \t]*")
_ESCAPED = pattern(r"\\(.)", re.DOTALL)
_NEEDS_QUOTES = pattern(r"""[ \t"\\]|^$|^[#']""")
_COMMENT = pattern(r"[ \t]#")

# Control characters, and those that change the direction of writing, so that a line reads otherwise than it is.
_INVISIBLE = "\x01-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LOOKALIKES = (
    "\xa0\xad\u1680\u2000-\u200d\u2010-\u2015\u2018-\u201f\u2028\u2029\u202f\u205f-\u2064\u2212\u3000\ufeff"
    "\ufe58\ufe63\uff02\uff07\uff0d"
)
ODD_CHARACTER = pattern(f"[{_INVISIBLE}{_LOOKALIKES}]")
_INVISIBLE_CHARACTER = pattern(f"[{_INVISIBLE}]")
_REPLACEMENTS = {
    **dict.fromkeys(("Pd", "Sm"), "-"),
    **dict.fromkeys(("Pi", "Pf", "Ps", "Po"), '"'),
    "Zs": "a space",
}
"""The ASCII character to write for a look-alike, by its Unicode category."""


class Word(NamedTuple):
    """One word: its value after quoting is undone, and its place in the line (0-based, end exclusive)."""

    value: str
    start: int
    end: int


class TokenizedLine(NamedTuple):
    """A line with its words, up to a trailing comment."""

    text: str
    words: tuple[Word, ...]
    origin: Origin


class LineFault(Exception):  # noqa: N818 - it becomes a finding, and never leaves `parser.read_rules`.
    """The reason why a line is refused."""

    def __init__(self, code: str, message: str, hint: str = "", column: int = 0) -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.column = code, message, hint, column


class UnterminatedQuoteError(ValueError):
    """A double quote that is never closed. ``column`` counts from 1."""

    def __init__(self, column: int) -> None:
        super().__init__(f"the double quote at column {column} is never closed")
        self.column = column


def values_of(words: Iterable[Word]) -> list[str]:
    """The values of words."""
    return [word.value for word in words]


def _other_encoding(path: str, data: bytes) -> Finding | None:
    """The finding for a file in UTF-16, or with a byte order mark."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or _is_mostly_nul(data):
        return Finding("utf-16", "the file is UTF-16 text", Origin(path, 1), hint="save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        hint = "save it as UTF-8 without a byte order mark"
        return Finding("byte-order-mark", "the file starts with a byte order mark", Origin(path, 1), hint=hint)
    return None


def unusable_file(path: str, data: bytes) -> Finding | None:
    """Why a whole file is refused: its number of lines, or an encoding or a byte that iptables would misread."""
    if data and not data.strip(b"\0"):
        message = "the file has only NUL bytes: its text was lost, as a power failure can do"
        return Finding("nul-byte", message, Origin(path, 1), hint="write it again, or restore it from a backup")
    other_encoding = _other_encoding(path, data)
    if other_encoding is not None:
        return other_encoding
    if b"\0" in data or b"\r" in data:
        return _misread_byte(path, data)
    return _too_many_lines(path, data) or _bad_utf_8(path, data)


def _too_many_lines(path: str, data: bytes) -> Finding | None:
    lines = data.count(b"\n")
    if lines <= MOST_LINES:
        return None
    message = f"the file has {lines:,} lines; a rule file may have {MOST_LINES:,}"
    return Finding("too-many-lines", message, Origin(path, 0), hint="use an ipset for long lists of addresses")


def _bad_utf_8(path: str, data: bytes) -> Finding | None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the line has the byte 0x{data[error.start]:02X}, which is not UTF-8"
        hint = f"save the file as UTF-8; from Latin-1: iconv -f latin1 -t utf-8 -o NEW {_in_a_shell(path)}"
        return Finding("bad-utf-8", message, _origin_at(path, data, error.start), hint=hint)
    return None


def _is_mostly_nul(data: bytes) -> bool:
    """Whether the data is UTF-16 without a byte order mark: every second byte of Latin text is NUL."""
    return data.rstrip(b"\0").count(b"\0") * 3 > len(data)


def _nul_byte(path: str, data: bytes) -> Finding:
    origin = _origin_at(path, data, data.find(b"\0"))
    if data.endswith(b"\0" * 64):
        message = "the file ends in NUL bytes: its end was lost, as a power failure can do"
        return Finding("nul-byte", message, origin, hint="write the end again, or restore the file from a backup")
    hint = "write the line again: iptables would drop what comes after that byte"
    return Finding("nul-byte", "the line has a NUL byte", origin, hint=hint)


def _misread_byte(path: str, data: bytes) -> Finding:
    """A NUL or a carriage return. Windows line ends are one finding for the file."""
    if b"\0" in data:
        return _nul_byte(path, data)
    if data.count(b"\r") == data.count(b"\r\n"):
        hint = f"convert it with: sed -i 's/\\r$//' {_in_a_shell(path)}"
        origin = _origin_at(path, data, data.find(b"\r"))
        return Finding("carriage-return", "the file has Windows line ends", origin, hint=hint)
    # The first one that does not end a line: the sed command would not remove it.
    position = data.replace(b"\r\n", b"  ").find(b"\r")
    hint = "write the line again: iptables would read it as part of a word"
    return Finding("carriage-return", "the line has a carriage return", _origin_at(path, data, position), hint=hint)


def _in_a_shell(path: str) -> str:
    """The path as a word for a shell; FILE where it would need quotes."""
    return path if _PLAIN_PATH.fullmatch(path) else "FILE"


def _origin_at(path: str, data: bytes, position: int) -> Origin:
    return Origin(path, data.count(b"\n", 0, position) + 1)


def split_words(line: str) -> tuple[Word, ...]:
    """The words of a line. Raises UnterminatedQuoteError."""
    return tuple(iterate_words(line))


def word_values(line: str) -> tuple[str, ...]:
    """The words of a line without their places. Raises UnterminatedQuoteError."""
    if '"' not in line:
        return tuple(_PLAIN_WORD.findall(line))
    return tuple(values_of(iterate_words(line)))


def iterate_words(line: str) -> Iterator[Word]:
    """The words of a line one by one, so that a caller who stops at a comment does not meet the quotes in it.

    Raises UnterminatedQuoteError.
    """
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
    """A word that iptables-restore reads back as ``value``, which must not have a line break in it."""
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


def cut_words(raw: str, origin: Origin) -> TokenizedLine:
    """The words up to a trailing comment, in which quotes and odd characters are allowed. Raises LineFault."""
    words: list[Word] = []
    values: list[str] = []
    end = len(raw)
    try:
        for word in iterate_words(raw):
            if raw[word.start] == "#" and not is_free_text(values, len(values)):
                end = word.start
                break
            words.append(word)
            values.append(word.value)
    except UnterminatedQuoteError as error:
        hint = "close it; iptables would add the next line to the quoted text, and load a rule without a target"
        raise LineFault("unterminated-quote", str(error), hint, error.column) from None
    _refuse_odd_characters(raw[:end], words)
    refuse_continuation(raw, words)
    return TokenizedLine(raw, tuple(words), origin)


def bare_words(raw: str) -> list[Word]:
    """The words of a line that starts with * or :, in which quotes mean nothing: without that sign and a trailing
    comment. Raises LineFault."""
    statement = before_comment(raw)
    _refuse_odd_characters(statement, ())
    first = len(statement) - len(statement.lstrip(" \t")) + 1
    return [Word(match.group(), match.start(), match.end()) for match in _PLAIN_WORD.finditer(statement, first)]


def before_comment(text: str) -> str:
    """What stands before a trailing comment, in a line in which quotes mean nothing."""
    return _COMMENT.split(text, maxsplit=1)[0]


def refuse_long_line(raw: str) -> None:
    """A line that iptables-restore could cut. Raises LineFault."""
    length = len(raw)
    if not raw.isascii():
        length = len(raw.encode())
    if length > LONGEST_LINE:
        message = f"the line has {length:,} bytes; a line may have {LONGEST_LINE:,}, because iptables cuts longer ones"
        raise LineFault("line-too-long", message, "split the rule")


def refuse_continuation(raw: str, words: Sequence[Word]) -> None:
    """A backslash at the end of the words, which continues the line in a shell. Raises LineFault.

    Blanks and a comment behind it are no exception: the text of the rule ends with it all the same.
    """
    if not words:
        return
    last = raw[words[-1].start : words[-1].end]
    if last.endswith("\\") and '"' not in last:
        message = "a line cannot be continued on the next one"
        raise LineFault("line-continuation", message, "write the whole rule in one line", words[-1].end)


def refuse_rest(rest: Sequence[Word], statement: str) -> None:
    """Words after the end of a statement. Raises LineFault."""
    if rest:
        message = f'"{rest[0].value}" has no meaning after {statement}'
        raise LineFault("trailing-words", message, "leave it out", rest[0].start + 1)


def _refuse_odd_characters(raw: str, words: Sequence[Word]) -> None:
    """Invisible characters anywhere; look-alikes of dash, quote and space outside quotes. Raises LineFault."""
    if raw.isascii() and raw.isprintable():
        return
    for match in ODD_CHARACTER.finditer(raw):
        invisible = _INVISIBLE_CHARACTER.match(match.group()) is not None
        if invisible or not _is_quoted(raw, words, match.start()):
            raise _odd_character(match.group(), match.start() + 1)


def _is_quoted(raw: str, words: Sequence[Word], place: int) -> bool:
    for word in words:
        if word.start <= place < word.end:
            return '"' in raw[word.start : word.end]
    return False


def _odd_character(character: str, column: int) -> LineFault:
    name = unicodedata.name(character, "a control character").lower()
    message = f"column {column} has an odd character: {name} (U+{ord(character):04X})"
    replacement = _REPLACEMENTS.get(unicodedata.category(character))
    if character == "\N{EM DASH}":
        replacement = "--"
    hint = "remove it: it is invisible, and the line is not what it seems"
    if replacement is not None:
        hint = f"write {replacement} in its place; such characters come from web pages and text editors"
    return LineFault("odd-character", message, hint, column)
