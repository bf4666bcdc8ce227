"""A line of a rule file -> its words, up to a trailing comment; what cannot be cut into words is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from fwguardd.ruleset.families import is_free_text
from fwguardd.ruleset.traps import LineFault, refuse_odd_characters
from fwguardd.ruleset.words import UnterminatedQuoteError, Word, iterate_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.ruleset.model import Origin

_COMMENT = re.compile(r"[ \t]#")
_BARE_WORD = re.compile(r"[^ \t]+")


class Line(NamedTuple):
    """A line on its way from bytes to a statement."""

    text: str
    words: tuple[Word, ...]
    origin: Origin


def cut_words(raw: str, origin: Origin) -> Line:
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
    return Line(raw, tuple(words), origin)


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
