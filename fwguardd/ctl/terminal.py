"""Findings and changes as text for a terminal, and findings as JSON."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.pager import is_terminal
from fwguardd.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.ruleset.model import Finding

_BOLD, _RED, _YELLOW, _GREEN, _DIM, _RESET = "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[32m", "\x1b[2m", "\x1b[0m"
LONGEST_SHOWN_LINE = 160


class Painter:
    """Colours text, if the output is a terminal and NO_COLOR is not set (no-color.org); ``colours`` overrides both."""

    def __init__(self, *, colours: bool | None = None) -> None:
        if colours is None:
            colours = is_terminal() and "NO_COLOR" not in os.environ
        self._on = colours

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
        lines = [f"{self._head(finding)} {self.dim(f'[{finding.code}]')}"]
        if finding.line_text:
            lines += self._excerpt(finding)
        if finding.hint:
            lines.append(f"    {self.dim('→')} {printable(finding.hint)}")
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


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as JSON objects with stable keys."""
    return [finding.document() for finding in findings]
