"""The daemon's answers as text for a terminal: short, aligned, problems in colour.

Every function takes the result of a verb (`control.documents`) and returns the lines to print. Nothing here prints or
decides. What comes from the daemon may repeat file names and rule text, so control characters are shown escaped.
"""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

from fwguardd.ctl.terminal import Painter
from fwguardd.escaping import printable
from fwguardd.ruleset.model import Family, Finding, Origin, Severity
from fwguardd.wording import counted, local_time, local_time_of_day, span, words_for_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fwguardd.control.documents import (
        DriftDocument,
        FileChangeDocument,
        FindingDocument,
        HistoryDocument,
        OutcomeDocument,
        PauseDocument,
        PendingDocument,
        RevisionDocument,
        RuleCounts,
        ShowDocument,
    )

_RED, _YELLOW = "\x1b[1;31m", "\x1b[33m"

_FAMILIES = {family.value: family for family in Family}
_SEVERITIES = {severity.value: severity for severity in Severity}


class AnswerPainter(Painter):
    """The colours of findings, and those of a state."""

    def bad(self, text: str) -> str:
        """Something that has to be dealt with now."""
        return self._in(_RED, text)

    def warn(self, text: str) -> str:
        """Something that should not stay as it is."""
        return self._in(_YELLOW, text)


def row(name: str, text: str) -> str:
    """A fact: its name, and what it is."""
    return f"{name:10}{text}"


def change(result: OutcomeDocument, ink: AnswerPainter, confirm: str) -> list[str]:
    """The result of a reload, a rollback or an opening: findings, why it failed, the state, the next step. ``confirm``
    is the command that keeps a change that waits to be confirmed."""
    outcome = result["outcome"]
    lines = finding_lines(result["findings"], ink)
    head = f"{_paint_of(outcome, ink)(escaped(outcome))}{_change_count(result['changes'])}"
    if result["reason"]:
        lines.append(ink.fit(f"{head}: {escaped(result['reason'])}"))
        lines.append(ink.fit(f"    {escaped(result['sentence'])}"))
    elif outcome == "refused" and result["findings"]:
        # The first error, which the sentence goes on with, is above.
        state, _, _ = result["sentence"].partition("; files refused: ")
        lines.append(ink.fit(f"{head}: nothing was changed; {escaped(state)}"))
    else:
        lines.append(ink.fit(f"{head}: {escaped(result['sentence'])}"))
    if pending := result["pending"]:
        lines += [ink.fit(ink.warn(pending_words(pending))), ink.fit(_next_step(pending, ink, confirm))]
    return lines


def _next_step(pending: PendingDocument, ink: AnswerPainter, confirm: str) -> str:
    if pending.get("opening"):
        return f"to close it now: {ink.bold('fwguardctl reload')}"
    return f"to keep it: {ink.bold(confirm)}"


def confirmed(result: OutcomeDocument, ink: AnswerPainter, confirm: str) -> list[str]:
    """The result of a confirmation."""
    if result["outcome"] not in {"applied", "unchanged"}:
        return change(result, ink, confirm)
    return [f"{ink.good('confirmed')}: revision {result['revision']} stays, also after a reboot"]


def _paint_of(outcome: str, ink: AnswerPainter) -> Callable[[str], str]:
    return ink.bad if outcome in {"refused", "failed"} else ink.good


def _change_count(number: int) -> str:
    if number == 0:
        return ""
    return f" ({counted(number, 'change')})"


def history(result: HistoryDocument, ink: AnswerPainter) -> list[str]:
    """The revisions as a table, the one in force marked."""
    lines = ["No revision is kept yet."]
    if result["revisions"]:
        lines = _revisions(result["revisions"], ink)
    if result.get("state", "in-force") != "in-force":
        lines.append(ink.bad(escaped(result.get("sentence"))))
    for sentence in result["damaged"]:
        lines.append(ink.warn(f"damaged: {escaped(sentence)}"))
    return lines


_HEAD = ("", "REVISION", "WHEN", "IPV4", "IPV6", "FILES", "CAUSE", "BY")


def _widths(rows: Iterable[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _revisions(revisions: Iterable[RevisionDocument], ink: AnswerPainter) -> list[str]:
    rows = [(_revision(revision), revision.get("changes", [])) for revision in revisions]
    widths = _widths([_HEAD, *(cells for cells, _ in rows)])
    lines = [ink.dim(_aligned(_HEAD, widths))]
    for cells, changes in rows:
        lines.append(_history_line(cells, widths, ink))
        if changes:
            lines += _file_changes(changes, ink)
    return lines


def _history_line(cells: Sequence[str], widths: Sequence[int], ink: AnswerPainter) -> str:
    """A revision; the one in force, which has a mark in the first column, is painted."""
    line = ink.fit(_aligned(cells, widths), 12)
    if cells[0]:
        return ink.good(line)
    return line


_CHANGE_SIGNS = {"added": "+", "changed": "~", "removed": "-"}
MOST_CHANGES_SHOWN = 8
"""Changed files that history prints of a revision; --json has all."""


def _file_changes(changes: Sequence[FileChangeDocument], ink: AnswerPainter) -> list[str]:
    """The files that changed: + was added, ~ changed, - was removed."""
    texts = []
    for change in changes[:MOST_CHANGES_SHOWN]:
        name = change["file"].rpartition("/")[2]
        texts.append(f"{_CHANGE_SIGNS.get(change['change'], '?')}{escaped(name)}")
    left = len(changes) - len(texts)
    if left > 0:
        texts.append(f"… and {left} more")
    indent = " " * 12
    lines = textwrap.wrap(
        " ".join(texts), 79, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [ink.dim(line) for line in lines]


def _revision(revision: RevisionDocument) -> tuple[str, ...]:
    ipv4, ipv6 = str(revision["rules"]["ipv4"]), str(revision["rules"]["ipv6"])
    if revision["kind"] == "open":
        ipv4 = ipv6 = "open"
    return (
        "*" * revision["in_force"],
        str(revision["revision"]),
        local_time(revision["when"]),
        ipv4,
        ipv6,
        str(revision["files"]),
        escaped(revision["cause"]),
        escaped(words_for_caller(revision["by"])),
    )


_NUMBER_COLUMNS = frozenset({1, 3, 4, 5})


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        if column in _NUMBER_COLUMNS:
            cells.append(cell.rjust(width))
        else:
            cells.append(cell.ljust(width))
    return "  ".join(cells).rstrip()


def show(result: ShowDocument, ink: AnswerPainter) -> list[str]:
    """One revision: its origin, its files as they were, and the rulesets that the kernel made of them."""
    cause = escaped(result["cause"])
    if result["by"]:
        cause = f"{cause}, by {escaped(result['by'])}"
    tool = tool_name(result["iptables"], result["backend"])
    lines = [
        ink.bold(f"revision {result['revision']}"),
        row("when", local_time(result["when"])),
        row("cause", cause),
        row("made with", f"{tool}, Linux {escaped(result['kernel'])}"),
    ]
    for file in result["files"]:
        lines += _section(escaped(file["path"]), file["text"], ink)
    for family, text in result["texts"].items():
        lines += _section(f"{escaped(family)}, as iptables-save prints it", text, ink)
    return lines


def _section(title: str, text: str, ink: AnswerPainter) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    return ["", ink.bold(f"# {title}"), *[printable(line.expandtabs()) for line in lines]]


def drift(result: DriftDocument, ink: AnswerPainter) -> list[str]:
    """Every difference between the kernel and the revision in force."""
    count, undecided = result["count"], result.get("undecided", [])
    if not count and not undecided:
        return [f"{ink.good('no drift')}: the kernel holds the revision in force"]
    lines = [difference_line(text, ink) for text in result["differences"]]
    left = count - len(lines)
    if left > 0:
        lines.append(ink.dim(f"… and {left} more"))
    if count:
        lines.append(ink.bad(counted(count, "difference")))
    if undecided:
        lines += [difference_line(f"+ {text}", ink) for text in undecided]
        lines.append(ink.fit(f"{ink.bad(undecided_words(len(undecided)))}: fwguardctl adopt"))
    return lines


def undecided_words(number: int) -> str:
    """What is to be said of rules of unknown processes."""
    rules = counted(number, "rule of an unknown process stays", "rules of an unknown process stay")
    return f"{rules} until you decide"


def difference_line(text: str, ink: AnswerPainter) -> str:
    """A difference: - is missing in the kernel, + should not be in it, ~ has moved, ! is a policy."""
    line = escaped(text)
    sign = line[:1]
    if sign in {"~", "!"}:
        return ink.warn(line)
    return ink.change(sign, line)


def pause(result: PauseDocument, ink: AnswerPainter) -> list[str]:
    """Whether repairs are paused, and for how long."""
    seconds = result["paused_seconds"]
    if seconds is None:
        return [f"{ink.good('resumed')}: drift is repaired again, unless on_drift is report"]
    until = local_time_of_day(time.time() + seconds)
    paused = f"drift is not repaired for {span(seconds)}, until {until}"
    return [f"{ink.warn('paused')}: {paused}; to end that: fwguardctl resume"]


def pending_words(pending: PendingDocument) -> str:
    """What happens to a revision that waits to be confirmed, or to a firewall that is open for a time."""
    if pending.get("opening"):
        left = f"the firewall is closed by itself in {span(pending['seconds_left'])}"
    else:
        left = (
            f"revision {pending['revision']} is rolled back in {span(pending['seconds_left'])} unless it is confirmed"
        )
    if pending["back_to"] is None:
        return left
    return f"{left}; revision {pending['back_to']} comes back"


def finding_lines(findings: Iterable[FindingDocument], ink: AnswerPainter) -> list[str]:
    """Findings, as check prints them."""
    return [ink.finding(_finding(finding)) for finding in findings]


def _finding(document: FindingDocument) -> Finding:
    """The finding that `Finding.document` made this of."""
    return Finding(
        code=document["code"],
        message=document["message"],
        origin=_origin(document),
        severity=_SEVERITIES[document["severity"]],
        hint=document["hint"] or "",
        column=document["column"] or 0,
        line_text=document["text"] or "",
        family=_FAMILIES.get(document["family"] or ""),
    )


def _origin(document: FindingDocument) -> Origin | None:
    if not document["file"]:
        return None
    return Origin(document["file"], document["line"] or 0)


def tool_name(version: str, backend: str) -> str:
    """The iptables that is in use."""
    return escaped(f"iptables {version}, {backend} backend")


def rule_counts(rules: RuleCounts) -> str:
    """The number of rules of each family, in words."""
    return f"{rules['ipv4']} IPv4 and {rules['ipv6']} IPv6 rules"


def ago(seconds: float) -> str:
    """How long ago something was."""
    # The clock may have been set back since.
    return span(max(0.0, seconds))


def escaped(value: object) -> str:
    """The text of a value, with control characters escaped."""
    return printable(str(value))
