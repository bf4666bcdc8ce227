"""Findings and rulesets for a terminal, or for a program that reads them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from fwguardd.ruleset.model import Finding, Severity
from fwguardd.sinks.console import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

_BOLD, _RED, _YELLOW, _GREEN, _DIM, _RESET = "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m", "\x1b[32m", "\x1b[2m", "\x1b[0m"
LONGEST_SHOWN_LINE = 160


class Painter:
    """Colours, if the output is a terminal and NO_COLOR is not set (no-color.org)."""

    def __init__(self, *, colours: bool | None = None) -> None:
        self._on = sys.stdout.isatty() and "NO_COLOR" not in os.environ if colours is None else colours

    def good(self, text: str) -> str:
        """Something that is as it should be."""
        return self._in(_GREEN, text)

    def dim(self, text: str) -> str:
        """Something of less weight."""
        return self._in(_DIM, text)

    def bold(self, text: str) -> str:
        """A headline."""
        return self._in(_BOLD, text)

    def change(self, sign: str, text: str) -> str:
        """A line of a diff: what goes is red, what comes is green."""
        colours = {"-": _RED, "+": _GREEN}
        return self._in(colours[sign], text) if sign in colours else text

    def finding(self, finding: Finding) -> str:
        """A finding as compilers print one: place, severity, message, code; below it the line, and what to do."""
        colour = _RED if finding.severity is Severity.ERROR else _YELLOW
        place = f"{self._in(_BOLD, printable(str(finding.origin)))}: " if finding.origin else ""
        family = f" ({finding.family.value})" if finding.family else ""
        code = self.dim(f"[{finding.code}]")
        lines = [f"{place}{self._in(colour, finding.severity.value)}: {printable(finding.message)}{family} {code}"]
        if finding.line_text:
            lines += self._excerpt(finding)
        if finding.hint:
            lines.append(f"    {self.dim('→')} {printable(finding.hint)}")
        return "\n".join(lines)

    def _excerpt(self, finding: Finding) -> list[str]:
        line = finding.line_text.replace("\t", " ")
        shown = printable(line[:LONGEST_SHOWN_LINE])
        lines = [f"    {shown}{'…' if len(finding.line_text) > LONGEST_SHOWN_LINE else ''}"]
        if 0 < finding.column <= min(len(finding.line_text), LONGEST_SHOWN_LINE):
            before = len(printable(line[: finding.column - 1]))
            lines.append(f"    {' ' * before}{self._in(_GREEN, '^')}")
        return lines

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._on else text


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings with stable keys."""
    return [finding.document() for finding in findings]
