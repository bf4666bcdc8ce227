"""What does not belong in a rule file, though iptables would take it or look like it: refused, each with its reason.

Options that run a program as root (``--modprobe``), print a text and end with success instead of adding a rule
(``-h``, ``-V``), name a table, or ask for something (``-L``); verbs that make sense in a shell and none in a
declaration; and characters that look like a dash, a quote or a space and are none, as web pages have them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.ruleset.words import Word

_ODD_CHARACTER = re.compile(
    "[\x01-\x08\x0b-\x1f\x7f\xa0\u2010-\u2015\u2018-\u201f\u2000-\u200f\u2028\u2029\u202f\u3000\ufeff]"
)
IMPERATIVES = {
    **dict.fromkeys(("-D", "--delete"), "remove the line that adds the rule instead"),
    **dict.fromkeys(("-R", "--replace"), "edit the line that adds the rule instead"),
    **dict.fromkeys(("-F", "--flush"), "leave it out: only what the files say is in force, every time"),
    **dict.fromkeys(("-X", "--delete-chain"), "leave it out: a chain that no file declares is removed"),
    **dict.fromkeys(("-Z", "--zero"), "leave it out: counters are not part of a ruleset"),
    **dict.fromkeys(("-E", "--rename-chain"), "declare the chain under its new name instead"),
    **dict.fromkeys(("-L", "--list", "-S", "--list-rules"), "leave it out, and run it in a shell"),
    **dict.fromkeys(("-C", "--check"), "leave it out, and run it in a shell"),
}
# Options that do something else than describe a packet, by their short letter and by the long name's unique start.
_FORBIDDEN_LETTERS = "MhVtwWvnxSLCDRFZXEPNAI"
_FORBIDDEN_LONG = (
    "--modprobe",
    "--help",
    "--version",
    "--table",
    "--wait",
    "--verbose",
    "--numeric",
    "--exact",
    "--line-numbers",
)
TRAP = re.compile(
    r"(?:^|[ \t\"])(?:-[MhVtwWvnxSLCDRFZXEPNAI46]|--(?:mo[^d]|modp|he|ver|ta|wa|nu|ex|lin|ipv|mod(?:[ \t=]|$)))"
)


class LineFault(Exception):  # noqa: N818 - it carries a finding to be, and ends inside `read_rules`.
    """One line cannot be used, and why."""

    def __init__(self, code: str, message: str, hint: str = "", column: int = 0) -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.column = code, message, hint, column


def refuse_odd_characters(raw: str, words: Sequence[Word]) -> None:
    """Control characters anywhere; look-alikes of dash, quote and space where they are not inside a quoted text."""
    for match in _ODD_CHARACTER.finditer(raw):
        place, character = match.start(), match.group()
        quoted = any(word.start <= place < word.end and '"' in raw[word.start : word.end] for word in words)
        if quoted and character >= "\xa0":
            continue
        name = f"U+{ord(character):04X}"
        hint = 'it often comes from a web page: type the line anew with plain -, " and spaces'
        raise LineFault("odd-character", f"character {name} at column {place + 1} is no plain text", hint, place + 1)


def refuse_forbidden(word: Word) -> None:
    """Options that run a program, print a text, or name a table: none of them describes a packet."""
    value = word.value
    name = value.split("=", 1)[0]
    if value[:1] != "-" or len(value) < 2:
        return
    long = next((option for option in _FORBIDDEN_LONG if len(name) > 4 and option.startswith(name)), "")
    if (
        not long
        and name not in ("--mo", "--mod", "--he", "--ta", "--wa", "--nu", "--ex")
        and (value[1] == "-" or value[1] not in _FORBIDDEN_LETTERS)
    ):
        return
    shown = long or value[:2]
    message = f"{shown} does not belong in a rule"
    hints = {
        "-M": "it would run a program as root",
        "--modprobe": "it would run a program as root",
        "-t": "write *table on a line above",
        "--table": "write *table on a line above",
    }
    raise LineFault("forbidden-option", message, hints.get(shown, "leave it out"), word.start + 1)
