"""Findings and changes as text for a terminal, and findings as JSON."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.pager import is_terminal, terminal_columns
from fwguardd.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.ruleset.model import Finding

_BOLD, _RED, _YELLOW, _GREEN, _DIM, _RESET = "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[32m", "\x1b[2m", "\x1b[0m"
LONGEST_SHOWN_LINE = 160
_WORD = re.compile(r" *[^ ]+")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Painter:
    """Colours text, if the output is a terminal and NO_COLOR is not set (no-color.org), and folds it to the width of
    the terminal; ``colours`` and ``width`` override these. For programs a line stays a line."""

    def __init__(self, *, colours: bool | None = None, width: int | None = None) -> None:
        if colours is None:
            colours = is_terminal() and "NO_COLOR" not in os.environ
        if width is None and is_terminal():
            width = terminal_columns()
        self._on, self._width = colours, width

    def fit(self, line: str, indent: int = 4) -> str:
        """A line, folded to the width of the terminal; what does not fit is indented below it."""
        if self._width is None:
            return line
        return folded(line, self._width, indent)

    def with_tail(self, line: str, tail: str) -> str:
        """A rule with a remark behind it; where both do not fit, the remark is below. The rule stays whole."""
        if self._width is None or _length(f"{line}  {tail}") <= self._width:
            return f"{line}  {tail}"
        return f"{line}\n{self.fit(f'    {tail}')}"

    def good(self, text: str) -> str:
        """A good result."""
        return self._in(_GREEN, text)

    def bad(self, text: str) -> str:
        """A bad result."""
        return self._in(_RED, text)

    def dim(self, text: str) -> str:
        """Less important text."""
        return self._in(_DIM, text)

    def bold(self, text: str) -> str:
        """A heading."""
        return self._in(_BOLD, text)

    def change(self, sign: str, text: str) -> str:
        """A line of a diff: red if it is removed, green if it is added."""
        colours = {"-": _RED, "+": _GREEN}
        if sign not in colours:
            return text
        return self._in(colours[sign], text)

    def _head(self, finding: Finding) -> str:
        colour = {"error": _RED, "warning": _YELLOW}[finding.severity.value]
        head = f"{self._in(colour, finding.severity.value)}: {printable(finding.message)}"
        if finding.origin:
            head = f"{self._in(_BOLD, printable(str(finding.origin)))}: {head}"
        if finding.family:
            head += f" ({finding.family.value})"
        return head

    def finding(self, finding: Finding) -> str:
        """A finding as compilers print it: place, severity, message, code; below it the line, and what to do."""
        lines = [self.fit(f"{self._head(finding)} {self.dim(f'[{finding.code}]')}")]
        if finding.line_text:
            lines += self._excerpt(finding)
        if finding.hint:
            lines.append(self.fit(f"    {self.dim('→')} {printable(finding.hint)}", 6))
        return "\n".join(lines)

    def _excerpt(self, finding: Finding) -> list[str]:
        """The line, and below it a mark at the column."""
        line = finding.line_text.replace("\t", " ")
        shown = printable(line[:LONGEST_SHOWN_LINE])
        if len(line) > LONGEST_SHOWN_LINE:
            shown += "…"
        lines = [f"    {shown}"]
        if 0 < finding.column <= min(len(finding.line_text), LONGEST_SHOWN_LINE):
            before = len(printable(line[: finding.column - 1]))
            lines.append(f"    {' ' * before}{self._in(_GREEN, '^')}")
        return lines

    def _in(self, colour: str, text: str) -> str:
        if not self._on:
            return text
        return f"{colour}{text}{_RESET}"


def folded(line: str, width: int, indent: int) -> str:
    """A line in as many as it takes, those after the first with so many blanks before them. Colours take no room. A
    word that is longer stays whole, so that it can be copied."""
    if _length(line) <= width:
        return line
    lines, shown = [], ""
    for word in _WORD.findall(line):
        if shown.strip() and _length(shown + word) > width:
            lines.append(shown)
            shown = " " * indent + word.lstrip(" ")
        else:
            shown += word
    return "\n".join([*lines, shown])


def _length(text: str) -> int:
    """The columns that a text takes."""
    return len(_COLOUR.sub("", text))


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as JSON objects with stable keys."""
    return [finding.document() for finding in findings]
