"""The bytes of a rule file -> lines of text, or the reason why they are none.

What iptables-restore 1.8.9 would misread without a word is refused here: a NUL drops the rest of its line, a carriage
return becomes part of the last word, another encoding than UTF-8 becomes who knows what.

Words of a rule, cut exactly as iptables-restore cuts them.

The reference is the behaviour of iptables-restore 1.8.9, both backends: words are separated by spaces and tabs and
by nothing else; a double quote opens anywhere and its closing quote ends the word; inside quotes a backslash makes
the next character literal, outside it is an ordinary character; single quotes are ordinary characters.

A line of a rule file -> its words, up to a trailing comment; what cannot be cut into words is refused.

This module is pure.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from fwguardd.ruleset.families import is_free_text
from fwguardd.ruleset.model import Finding, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


MOST_LINES = 200_000
"""Lines of one file. What has more is a list of addresses, for which the kernel has sets."""

LONGEST_LINE = 10_000
"""Bytes of a line. iptables-restore cuts lines after 10,239; the rest is room for the counters that go before a rule,
and for what the canonical text adds to it."""

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")


def unusable_file(path: str, data: bytes) -> Finding | None:
    """What makes the file as a whole unreadable: encodings and bytes that iptables-restore would misread."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or _is_mostly_nul(data):
        return Finding("utf-16", "the file is UTF-16 text", Origin(path, 1), hint="save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        hint = "save it as UTF-8 without a byte order mark"
        return Finding("byte-order-mark", "the file starts with a byte order mark", Origin(path, 1), hint=hint)
    if b"\0" in data or b"\r" in data:
        return _misread_byte(path, data)
    lines = data.count(b"\n")
    if lines > MOST_LINES:
        message = f"{lines:,} lines are more than a rule file may have ({MOST_LINES:,})"
        return Finding("too-many-lines", message, Origin(path, 0), hint="use an ipset for long lists of addresses")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the line holds the byte 0x{data[error.start]:02X}, which is not UTF-8 here"
        hint = f"save the file as UTF-8; from Latin-1: iconv -f latin1 -t utf-8 -o NEW {_in_a_shell(path)}"
        return Finding("bad-utf-8", message, _origin_at(path, data, error.start), hint=hint)
    return None


def _is_mostly_nul(data: bytes) -> bool:
    """Whether it is UTF-16 without its mark: of Latin text every second byte is NUL."""
    return data.count(b"\0") * 3 > len(data)


def _misread_byte(path: str, data: bytes) -> Finding:
    """A NUL or a carriage return that iptables would misread; line ends of Windows are of the whole file."""
    position = data.find(b"\0")
    if position >= 0:
        hint = "write the line anew: iptables would drop what comes after that byte"
        return Finding("nul-byte", "the line holds a NUL byte", _origin_at(path, data, position), hint=hint)
    if data.count(b"\r") == data.count(b"\r\n"):
        hint = f"convert it with: sed -i 's/\\r$//' {_in_a_shell(path)}"
        origin = _origin_at(path, data, data.find(b"\r"))
        return Finding("carriage-return", "the file has Windows line ends", origin, hint=hint)
    # Told at the first that ends no line: the command would do nothing about it.
    position = data.replace(b"\r\n", b"  ").find(b"\r")
    hint = "write the line anew: iptables would take it for a letter"
    return Finding("carriage-return", "the line holds a carriage return", _origin_at(path, data, position), hint=hint)


def _in_a_shell(path: str) -> str:
    """The path as a word for a shell; FILE where it would have to be quoted."""
    return path if _PLAIN_PATH.fullmatch(path) else "FILE"


def _origin_at(path: str, data: bytes, position: int) -> Origin:
    return Origin(path, data.count(b"\n", 0, position) + 1)


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


_COMMENT = re.compile(r"[ \t]#")
_BARE_WORD = re.compile(r"[^ \t]+")


# Control characters, and those that turn the direction of writing, so that a line reads otherwise than it is.
_DECEIVING = "\x01-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LOOKALIKES = (
    "\xa0\xad\u1680\u2000-\u200d\u2010-\u2015\u2018-\u201f\u2028\u2029\u202f\u205f-\u2064\u2212\u3000\ufeff"
    "\ufe58\ufe63\uff02\uff07\uff0d"
)
ODD_CHARACTER = re.compile(f"[{_DECEIVING}{_LOOKALIKES}]")
_DECEIVING_CHARACTER = re.compile(f"[{_DECEIVING}]")


class LineFault(Exception):  # noqa: N818 - it carries a finding to be, and ends inside `read_rules`.
    """One line cannot be used, and why."""

    def __init__(self, code: str, message: str, hint: str = "", column: int = 0) -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.column = code, message, hint, column


def refuse_odd_characters(raw: str, words: Sequence[Word]) -> None:
    """Deceiving characters anywhere; look-alikes of dash, quote and space where they are not inside a quoted text."""
    if raw.isascii() and raw.isprintable():
        return
    for match in ODD_CHARACTER.finditer(raw):
        place = match.start()
        quoted = any(word.start <= place < word.end and '"' in raw[word.start : word.end] for word in words)
        if quoted and not _DECEIVING_CHARACTER.match(raw, place):
            continue
        raise _odd_character(match.group(), place + 1)


_PLAIN = {
    **dict.fromkeys(("Pd", "Sm"), "-"),
    **dict.fromkeys(("Pi", "Pf", "Ps", "Po"), '"'),
    "Zs": "a space",
}
"""What is to be written for a look-alike, by its Unicode category."""


def _odd_character(character: str, column: int) -> LineFault:
    name = unicodedata.name(character, "a control character").lower()
    message = f"column {column} holds an odd character: {name} (U+{ord(character):04X})"
    plain = "--" if character == "\u2014" else _PLAIN.get(unicodedata.category(character))
    hint = "remove it: it cannot be seen, and the line is not what it seems"
    if plain is not None:
        hint = f"write {plain} in its place; such characters come from web pages and text editors"
    return LineFault("odd-character", message, hint, column)


class TokenizedLine(NamedTuple):
    """A line on its way from bytes to a statement."""

    text: str
    words: tuple[Word, ...]
    origin: Origin


def cut_words(raw: str, origin: Origin) -> TokenizedLine:
    """The words up to a trailing comment, in which quotes and odd characters mean nothing. Raises LineFault."""
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
        hint = (
            "close it; iptables would swallow the rest of the line and the next one, and load a rule without a target"
        )
        raise LineFault("unterminated-quote", str(error), hint, error.column) from None
    refuse_odd_characters(raw[:end], words)
    refuse_continuation(raw, words)
    return TokenizedLine(raw, tuple(words), origin)


def refuse_long_line(raw: str) -> None:
    """A line that iptables-restore would cut. Raises LineFault."""
    length = len(raw)
    if not raw.isascii():
        length = len(raw.encode())
    if length > LONGEST_LINE:
        message = f"the line has {length:,} bytes; iptables cuts lines of more than {LONGEST_LINE:,}"
        raise LineFault("line-too-long", message, "split the rule")


def refuse_continuation(raw: str, words: Sequence[Word]) -> None:
    """A backslash at the end of the words, as a shell has it. Raises LineFault."""
    if not words:
        return
    last = raw[words[-1].start : words[-1].end]
    if last == "\\" or (last.endswith("\\") and '"' not in last and words[-1].end == len(raw)):
        message = "a line cannot be continued on the next one"
        raise LineFault("line-continuation", message, "write the whole rule in one line", words[-1].end)


def bare_words(raw: str) -> list[Word]:
    """The words of a line that starts with * or : and knows no quotes, without that sign and a trailing comment."""
    said = before_comment(raw)
    refuse_odd_characters(said, ())
    first = len(said) - len(said.lstrip(" \t")) + 1
    return [Word(match.group(), match.start(), match.end()) for match in _BARE_WORD.finditer(said, first)]


def before_comment(text: str) -> str:
    """What stands before a trailing comment, in a line that knows no quotes."""
    return _COMMENT.split(text, maxsplit=1)[0]


def refuse_rest(rest: Sequence[Word], after: str) -> None:
    """Words behind the end of a statement. Raises LineFault."""
    if rest:
        message = f'"{rest[0].value}" has no meaning after {after}'
        raise LineFault("trailing-words", message, "leave it out", rest[0].start + 1)
