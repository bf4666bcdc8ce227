"""The structure of a shell script: its commands, here-documents, and loops over a list of words.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HERE = re.compile(r"(?<!<)<<(?!<)(?P<tabs>-?)[ \t]*(?P<quote>\\|['\"]?)(?P<end>[A-Za-z_][A-Za-z0-9_]*)['\"]?")
_FOR = re.compile(r"for[ \t]+([A-Za-z_][A-Za-z0-9_]*)[ \t]+in[ \t]+(.+)")
_LOOP = re.compile(r"(?:for|while|until|select)\b")
_LEAVES = re.compile(r"(?:.*[ \t|&])?(?:break|continue|return|exit)(?:[ \t].*)?")
_PART = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|(?P<comment>(?<![^ \t;])#.*)|(?P<end>;+)|[^'";\\ \t]+|.""")
_DO = re.compile(r"^do(?:[ \t]+|$)")


@dataclass(frozen=True, slots=True)
class HereDocument:
    """The lines after a command that has ``<<WORD``, each with its number. ``expands``: variables are filled in."""

    lines: tuple[tuple[int, str], ...]
    expands: bool


@dataclass(frozen=True, slots=True)
class ShellLine:
    """A part of a logical line, up to a semicolon: the number of the line in the file, counted from 1, the text of the
    part and of the whole line, with continued lines joined, and the here-document that the part begins."""

    number: int
    text: str
    whole: str
    here: HereDocument | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """``for VARIABLE in WORDS; do BODY; done``; ``lines`` are all its parts, with the first and the last."""

    variable: str
    words: str
    body: tuple[Statement, ...]
    lines: tuple[ShellLine, ...]


Statement: TypeAlias = ShellLine | Loop


def statements(lines: Sequence[str]) -> tuple[Statement, ...]:
    """The commands and loops of a script. A loop that a shell may leave early, or with a redirection, is no `Loop`:
    its parts are returned one by one."""
    return _statements([part for line in _logical_lines(lines) for part in _parts(line)])


def _statements(parts: Sequence[ShellLine]) -> tuple[Statement, ...]:
    found: list[Statement] = []
    position = 0
    while position < len(parts):
        loop = _loop_at(parts, position)
        if loop is None:
            found.append(parts[position])
            position += 1
        else:
            found.append(loop)
            position += len(loop.lines)
    return tuple(found)


def _loop_at(parts: Sequence[ShellLine], start: int) -> Loop | None:
    """The loop over words that begins with a part."""
    match = _FOR.fullmatch(parts[start].text)
    if match is None or start + 1 == len(parts) or parts[start + 1].text != "do":
        return None
    end = _end_of_loop(parts, start + 2)
    if end is None:
        return None
    body = _statements(parts[start + 2 : end])
    return Loop(match[1], match[2], body, tuple(parts[start : end + 1]))


def _end_of_loop(parts: Sequence[ShellLine], start: int) -> int | None:
    """Where the ``done`` is that belongs to the loop with this body."""
    depth = 0
    for position in range(start, len(parts)):
        text = parts[position].text
        if _LEAVES.fullmatch(text):
            return None
        if _LOOP.match(text):
            depth += 1
        elif text.startswith("done") and depth:
            depth -= 1
        elif text.startswith("done"):
            return _plain_end(text, position)
    return None


def _plain_end(text: str, position: int) -> int | None:
    if text == "done":
        return position
    return None


def _parts(line: ShellLine) -> Iterator[ShellLine]:
    """The parts of a logical line; ``do`` is one of its own, as if a semicolon stood behind it."""
    for part in _split(line.text):
        text = _DO.sub("", part, count=1)
        if text != part:
            yield ShellLine(line.number, "do", line.whole)
        if text:
            yield ShellLine(line.number, text, line.whole, _here_of(text, line))


def _here_of(text: str, line: ShellLine) -> HereDocument | None:
    """The here-document of a line, for the part that begins it."""
    if _HERE.search(text) is None:
        return None
    return line.here


def _split(text: str) -> Iterator[str]:
    """The text between semicolons that are not in quotes, without a comment."""
    part = ""
    for match in _PART.finditer(text):
        if match["comment"] is not None:
            break
        if match["end"] is None:
            part += match[0]
        else:
            yield part.strip()
            part = ""
    yield part.strip()


def without_here_mark(text: str) -> str:
    """The text of a command without ``<<WORD``."""
    return _HERE.sub("", text)


def _logical_lines(lines: Sequence[str]) -> Iterator[ShellLine]:
    r"""The lines of a script, those that end in ``\`` joined with the next, with their here-documents."""
    position = 0
    while position < len(lines):
        start = position
        text = lines[position]
        while _continues(text) and position + 1 < len(lines):
            position += 1
            text = f"{text[:-1]} {lines[position]}"
        position += 1
        here = None
        mark = _here_mark(text)
        if mark is not None:
            here, position = _here_document(lines, position, mark)
        yield ShellLine(start + 1, text, text.strip(), here)


def _continues(line: str) -> bool:
    """Whether the next line belongs to the same command."""
    return line.endswith("\\") and not line.lstrip().startswith("#")


def _here_mark(text: str) -> re.Match[str] | None:
    for part in _split(text):
        mark = _HERE.search(part)
        if mark is not None:
            return mark
    return None


def _here_document(lines: Sequence[str], start: int, mark: re.Match[str]) -> tuple[HereDocument, int]:
    """The here-document that begins with a line, and the number of lines up to its end."""
    body: list[tuple[int, str]] = []
    for position in range(start, len(lines)):
        line = lines[position]
        if mark["tabs"]:
            line = line.lstrip("\t")
        if line == mark["end"]:
            return HereDocument(tuple(body), not mark["quote"]), position + 1
        body.append((position + 1, line))
    return HereDocument(tuple(body), not mark["quote"]), len(lines)
