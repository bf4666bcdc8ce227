"""The daemon's answers as text for a terminal: short, aligned, problems in colour.

Every function takes the result of a verb (`control.documents`) and returns the lines to print. Nothing here prints or
decides. What comes from the daemon may repeat file names and rule text, so control characters are shown escaped.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fwguardd.ctl.terminal import Painter
from fwguardd.escaping import printable
from fwguardd.ruleset.model import Family, Finding, Origin, Severity
from fwguardd.wording import counted, local_time, local_time_of_day

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fwguardd.control.documents import (
        DenialsDocument,
        DriftDocument,
        DriftStateDocument,
        FindingDocument,
        HistoryDocument,
        InForceDocument,
        OutcomeDocument,
        PauseDocument,
        PendingDocument,
        RefusalDocument,
        RevisionDocument,
        RuleCounts,
        ShowDocument,
        StatusDocument,
    )

    Row = tuple[str, str]

_RED, _YELLOW = "\x1b[1;31m", "\x1b[33m"
MOST_SHOWN = 20
"""Differences that status prints; the verb drift prints all."""

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


def status(result: StatusDocument, ink: AnswerPainter, now: float) -> list[str]:
    """The state of the firewall, one fact a line, the most important first."""
    paint = ink.warn
    if _is_guarded(result):
        paint = ink.good
    lines = [paint(escaped(result["sentence"])), ""]
    for name, text in _facts(result, ink, now):
        lines.append(_row(name, text))
    if result["last_refusal"] is not None:
        lines += ["", *_findings(result["last_refusal"]["findings"], ink)]
    return lines


def _is_guarded(result: StatusDocument) -> bool:
    """Whether the rules of a revision are in force, without drift, and nothing has to be done."""
    in_force, drift = result["in_force"], result["drift"]
    if in_force is None or in_force["kind"] != "rules":
        return False
    to_be_done = (result["pending"], result["held"], result["last_refusal"], result.get("damaged"))
    return not any((*to_be_done, drift["count"], drift.get("unseen")))


def _facts(result: StatusDocument, ink: AnswerPainter, now: float) -> Iterator[Row]:
    yield "in force", _in_force(result["in_force"], ink, now)
    yield from _problems(result, ink, now)
    yield "drift", _drift(result["drift"], ink)
    for text in result["drift"]["differences"][:MOST_SHOWN]:
        yield "", f"  {_difference(text, ink)}"
    yield "denials", _denials(result["denials"], ink)
    yield from _source_reason(result["denials"])
    tool = _tool(result["iptables"], result["backend"])
    yield "daemon", ink.dim(f"fwguardd {escaped(result['version'])}, {tool}")
    yield "files", ink.dim(escaped(result["rules_dir"]))


def _row(name: str, text: str) -> str:
    return f"{name:10}{text}"


def _in_force(in_force: InForceDocument | None, ink: AnswerPainter, now: float) -> str:
    if in_force is None:
        return ink.bad("nothing that fwguardd loaded")
    since = f"since {local_time(in_force['since'])} ({_ago(now - in_force['since'])} ago, {escaped(in_force['cause'])})"
    if in_force["kind"] == "open":
        return f"{ink.bad('OPEN: everything is accepted')}, {since}; to close it: fwguardctl reload"
    return f"{ink.bold('revision ' + str(in_force['revision']))}, {_rules(in_force['rules'])}, {since}"


def _problems(result: StatusDocument, ink: AnswerPainter, now: float) -> Iterator[Row]:
    if pending := result["pending"]:
        yield "pending", f"{ink.warn(_pending(pending))}; to keep it: fwguardctl confirm"
    if held := result["held"]:
        reason = f"{escaped(held['reason'])}; the rule files are not applied"
        yield "held", f"{ink.warn(reason)}; to apply them: fwguardctl reload"
    if refusal := result["last_refusal"]:
        yield "refused", ink.bad(_refusal(refusal, now))
    for sentence in result.get("damaged", ()):
        yield "damaged", ink.warn(escaped(sentence))


def _refusal(refusal: RefusalDocument, now: float) -> str:
    errors = sum(finding["severity"] == "error" for finding in refusal["findings"])
    return f"the rule files, {_ago(now - refusal['when'])} ago, {counted(errors, 'error')}: see below"


def _drift(drift: DriftStateDocument, ink: AnswerPainter) -> str:
    if drift.get("unseen"):
        return ink.bad("unknown: the kernel cannot be compared with the revision in force")
    count = "none"
    if drift["count"]:
        count = ink.bad(counted(drift["count"], "difference"))
    return f"{count}; {_repairs(drift, ink)}"


def _repairs(drift: DriftStateDocument, ink: AnswerPainter) -> str:
    """What is done about drift."""
    if drift["paused_seconds"] is not None:
        return ink.warn(f"repairs are paused for {_span(drift['paused_seconds'])}") + "; to end that: fwguardctl resume"
    if fight := drift.get("fight"):
        what = f"{escaped(fight['chain'])} is changed again after each repair"
        suspended = ink.bad(f"repairs are suspended for {_span(fight['seconds_left'])}: {what}")
        who = escaped(fight["culprit"] or "an unknown process")
        return f"{suspended}, by {who}; to repair it now: fwguardctl resume"
    if drift["repair"]:
        return "repaired when found"
    return "reported only (on_drift: report)"


def _denials(denials: DenialsDocument, ink: AnswerPainter) -> str:
    if denials.get("source") is None:
        return ink.warn(f"not read; {escaped(denials.get('why') or 'see: journalctl -u fwguardd')}")
    fates = f"{denials['told']} reported + {denials['summarised']} in summaries + {denials['waiting']} waiting"
    kinds = f"{denials['denied']} denied, {denials['logged']} logged"
    problems = ", ".join(_problems_with_denials(denials))
    loss = ", none lost"
    if problems:
        loss = f"; {ink.warn(problems)}"
    return f"{counted(denials['lines'], 'line')} from {escaped(denials['source'])}: {kinds}{loss} ({fates})"


def _problems_with_denials(denials: DenialsDocument) -> Iterator[str]:
    if denials["unparsed"]:
        yield f"{denials['unparsed']} unparsed"
    if denials["lost"]:
        yield f"{denials['lost']} lost"
    if dropped := denials.get("dropped_events"):
        yield f"{counted(dropped, 'event')} dropped"
    by_kind = denials["denied"] + denials["logged"] + denials["unparsed"]
    by_fate = denials["told"] + denials["summarised"] + denials["waiting"]
    if not denials["lines"] == by_kind == by_fate:
        yield "the counts do not add up: a bug in fwguardd"


def _source_reason(denials: DenialsDocument) -> list[Row]:
    """Why denials are read from this source. The kernel log is the first choice and needs no reason."""
    source, why = denials.get("source"), denials.get("why")
    if source in {None, "kmsg"} or not why:
        return []
    return [("", f"  from {escaped(source)}: {escaped(why)}")]


def change(result: OutcomeDocument, ink: AnswerPainter, confirm: str) -> list[str]:
    """The result of a reload, a rollback or an opening: findings, one sentence, the next step. ``confirm`` is the
    command that keeps a change that waits to be confirmed."""
    outcome = result["outcome"]
    lines = _findings(result["findings"], ink)
    changes = ""
    if result["changes"]:
        changes = f" ({counted(result['changes'], 'change')})"
    lines.append(f"{_paint_of(outcome, ink)(escaped(outcome))}{changes}: {escaped(result['sentence'])}")
    if result["reason"]:
        lines.append(f"    {ink.dim('→')} {escaped(result['reason'])}")
    if pending := result["pending"]:
        lines += [ink.warn(_pending(pending)), f"to keep it: {ink.bold(confirm)}"]
    return lines


def confirmed(result: OutcomeDocument, ink: AnswerPainter, confirm: str) -> list[str]:
    """The result of a confirmation."""
    if result["outcome"] not in {"applied", "unchanged"}:
        return change(result, ink, confirm)
    return [f"{ink.good('confirmed')}: revision {result['revision']} stays, also after a reboot"]


def _paint_of(outcome: str, ink: AnswerPainter) -> Callable[[str], str]:
    return ink.bad if outcome in {"refused", "failed"} else ink.good


def history(result: HistoryDocument, ink: AnswerPainter) -> list[str]:
    """The revisions as a table, the one in force marked."""
    lines = ["No revision is kept yet."]
    if result["revisions"]:
        lines = _revisions(result["revisions"], ink)
    for sentence in result["damaged"]:
        lines.append(ink.warn(f"damaged: {escaped(sentence)}"))
    return lines


_HEAD = ("", "REVISION", "WHEN", "IPV4", "IPV6", "FILES", "CAUSE", "BY")


def _revisions(revisions: Iterable[RevisionDocument], ink: AnswerPainter) -> list[str]:
    rows = [_revision(revision) for revision in revisions]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    lines = [ink.dim(_aligned(_HEAD, widths))]
    for row in rows:
        line = _aligned(row, widths)
        if row[0]:
            line = ink.good(line)
        lines.append(line)
    return lines


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
        escaped(revision["by"] or ""),
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
    tool = _tool(result["iptables"], result["backend"])
    lines = [
        ink.bold(f"revision {result['revision']}"),
        _row("when", local_time(result["when"])),
        _row("cause", cause),
        _row("made with", f"{tool}, Linux {escaped(result['kernel'])}"),
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
    count = result["count"]
    if not count:
        return [f"{ink.good('no drift')}: the kernel holds the revision in force"]
    lines = [_difference(text, ink) for text in result["differences"]]
    left = count - len(lines)
    if left > 0:
        lines.append(ink.dim(f"… and {left} more"))
    lines.append(ink.bad(counted(count, "difference")))
    return lines


def _difference(text: str, ink: AnswerPainter) -> str:
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
        return [f"{ink.good('resumed')}: drift is handled as on_drift says"]
    until = local_time_of_day(time.time() + seconds)
    paused = f"drift is not repaired for {_span(seconds)}, until {until}"
    return [f"{ink.warn('paused')}: {paused}; to end that: fwguardctl resume"]


def _pending(pending: PendingDocument) -> str:
    left = f"revision {pending['revision']} is rolled back in {_span(pending['seconds_left'])} unless it is confirmed"
    if pending["back_to"] is None:
        return left
    return f"{left}; revision {pending['back_to']} comes back"


def _findings(findings: Iterable[FindingDocument], ink: AnswerPainter) -> list[str]:
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


def _tool(version: str, backend: str) -> str:
    return escaped(f"iptables {version}, {backend} backend")


def _rules(rules: RuleCounts) -> str:
    return f"{rules['ipv4']} IPv4 and {rules['ipv6']} IPv6 rules"


def _ago(seconds: float) -> str:
    # The clock may have been set back since.
    return _span(max(0.0, seconds))


_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def _span(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    for unit, name, below, below_name in _UNITS:
        if whole >= unit:
            large, small = whole // unit, whole % unit // below
            return f"{large} {name} {small} {below_name}" if small else f"{large} {name}"
    return f"{whole} s"


def escaped(value: object) -> str:
    """The text of a value, with control characters escaped."""
    return printable(str(value))
