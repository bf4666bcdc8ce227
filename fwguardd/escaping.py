"""Text that is safe to print: for any text, and for names of files, of which no two may become the same.

There are two functions because they promise different things. `printable` is for whole messages. It leaves a backslash
as it is, so that text which is escaped already stays as it is, and so does an escaped quote in a rule. `printable_name`
is for one path. It escapes the backslash too, so that a name with a control character and a name with the escape
sequence for that character in it stay two names: rule files are distinguished by it.

This module is pure.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with everything that could move a terminal's cursor escaped. Escaping it again changes nothing."""
    if text.isprintable():
        return text
    return "".join(map(_printable_character, text))


def printable_name(name: str) -> str:
    """A file name or path with control characters, undecodable bytes and backslashes escaped; different for each."""
    return printable(name.replace("\\", "\\\\"))


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
