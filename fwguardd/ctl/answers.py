"""What the daemon answered, in words for a person at a terminal: short, aligned, trouble in colour.

Every function takes the result object of a verb and gives the lines to print. Nothing here prints or decides. What
comes from the daemon may repeat file names and rule text, so control characters are shown escaped.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.terminal import Painter
from fwguardd.ruleset.model import Family, Finding, Origin, Severity
from fwguardd.sinks.console import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Result = Mapping[str, Any]

_RED, _YELLOW = "\x1b[1;31m", "\x1b[33m"
MOST_SHOWN = 20
"""Differences that status spells out; the verb drift spells out all."""


class AnswerPainter(Painter):
    """The colours of findings, and those of a state of affairs."""

    def bad(self, text: str) -> str:
        """Something that needs somebody now."""
        return self._in(_RED, text)

    def warn(self, text: str) -> str:
        """Something that should not stay as it is."""
        return self._in(_YELLOW, text)


def status(result: Result, ink: AnswerPainter, now: float) -> list[str]:
    """The state of the firewall, one fact a line, what matters most first."""
    rows = [
        ("in force", _in_force(result["in_force"], ink, now)),
        *_troubles(result, ink, now),
        ("drift", _drift(result["drift"], ink)),
        *[("", f"  {_difference(text, ink)}") for text in result["drift"]["differences"][:MOST_SHOWN]],
        ("denials", _denials(result["denials"], ink)),
        *[("", f"  {reason}") for reason in _reason(result["denials"])],
        ("daemon", ink.dim(f"fwguardd {told(result['version'])}, {_tool(result)}")),
        ("files", ink.dim(told(result["rules_dir"]))),
    ]
    well = result["in_force"] and result["in_force"]["kind"] == "rules" and len(_troubles(result, ink, now)) == 0
    sentence = told(result["sentence"])
    calm = not result["drift"]["count"] and not result["drift"].get("unseen")
    head = ink.good(sentence) if well and calm else ink.warn(sentence)
    refusal = result["last_refusal"]
    findings = ["", *_findings(refusal["findings"], ink)] if refusal else []
    return [head, "", *[_row(*row) for row in rows], *findings]


def _row(name: str, text: str) -> str:
    return f"{name:10}{text}"


def _in_force(in_force: Result | None, ink: AnswerPainter, now: float) -> str:
    if in_force is None:
        return ink.bad("nothing by fwguardd")
    since = f"since {_when(in_force['since'])} ({_ago(now - in_force['since'])} ago, {told(in_force['cause'])})"
    if in_force["kind"] == "open":
        return f"{ink.bad('OPEN: everything is accepted')}, {since}; to end that: fwguardctl reload"
    rules = in_force["rules"]
    return f"{ink.bold('revision ' + str(in_force['revision']))}, {_rules(rules)}, {since}"


def _troubles(result: Result, ink: AnswerPainter, now: float) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if pending := result["pending"]:
        rows.append(("pending", f"{ink.warn(_pending(pending))}; to keep it: fwguardctl confirm"))
    if held := result["held"]:
        rows.append(("held", ink.warn(told(held["reason"]))))
    if refusal := result["last_refusal"]:
        errors = sum(finding["severity"] == "error" for finding in refusal["findings"])
        ago = _ago(now - refusal["when"])
        rows.append(("refused", ink.bad(f"the rule files, {ago} ago, {_count(errors, 'error')}: see below")))
    return rows


def _drift(drift: Result, ink: AnswerPainter) -> str:
    habit = "repaired when seen" if drift["repair"] else "reported only (on_drift: report)"
    if drift["paused_seconds"] is not None:
        habit = ink.warn(f"repairs are held for {_span(drift['paused_seconds'])}") + "; to end that: fwguardctl resume"
    elif fight := drift.get("fight"):
        who = told(fight["culprit"] or "somebody")
        again = f"{told(fight['chain'])} is changed again each time"
        what = f"repairs are given up for {_span(fight['seconds_left'])}: {again}"
        habit = f"{ink.bad(what)}, by {who}; to repair it now: fwguardctl resume"
    if drift.get("unseen"):
        return ink.bad("not known: the kernel cannot be looked at")
    count = ink.bad(_count(drift["count"], "difference")) if drift["count"] else "none"
    return f"{count}; {habit}"


def _denials(denials: Result, ink: AnswerPainter) -> str:
    if denials.get("source") is None:
        return ink.warn(f"not read; {told(denials.get('why') or 'see: journalctl -u fwguardd')}")
    lines = denials["lines"]
    fates = f"{denials['told']} told + {denials['summarised']} in summaries + {denials['waiting']} waiting"
    adds_up = all(
        lines == sum(denials[key] for key in parts)
        for parts in (("denied", "logged", "unparsed"), ("told", "summarised", "waiting"))
    )
    kinds = ", ".join(f"{denials[key]} {key}" for key in ("denied", "logged"))
    troubles = [f"{denials[key]} {key}" for key in ("unparsed", "lost") if denials[key]]
    troubles += [f"{denials['dropped_events']} events dropped"] if denials.get("dropped_events") else []
    troubles += [] if adds_up else ["the sum is wrong: a defect of fwguardd"]
    trouble = f"; {ink.warn(', '.join(troubles))}" if troubles else ", none lost"
    return f"{_count(lines, 'line')} from {told(denials['source'])}: {kinds}{trouble} ({fates})"


def _reason(denials: Result) -> list[str]:
    """Why denials come from where they come, unless it is the plainest case: the host's own kernel log."""
    source, why = denials.get("source"), denials.get("why")
    if source is None or not why or (source == "kmsg" and "(not better: " not in why):
        return []
    return [f"from {told(source)}: {told(why)}"]


def change(result: Result, ink: AnswerPainter, confirm: str) -> list[str]:
    """What a verb that changes the ruleset came to: the findings, then one sentence, then what to do. ``confirm`` is
    the command that keeps a change that waits for it."""
    outcome = result["outcome"]
    paint = {"refused": ink.bad, "failed": ink.bad}.get(outcome, ink.good)
    lines = _findings(result["findings"], ink)
    sentence, reason = told(result["sentence"]), told(result["reason"] or "")
    changes = f" ({_count(result['changes'], 'change')})" if result["changes"] else ""
    lines.append(f"{paint(told(outcome))}{changes}: {sentence}")
    if reason and reason not in sentence:
        lines.append(f"    {ink.dim('→')} {reason}")
    if pending := result["pending"]:
        lines += [ink.warn(_pending(pending)), f"to keep it: {ink.bold(confirm)}"]
    return lines


def history(result: Result, ink: AnswerPainter) -> list[str]:
    """The revisions as a table, the one in force marked."""
    head = ("", "REVISION", "WHEN", "IPV4", "IPV6", "FILES", "CAUSE", "BY")
    rows = [_revision(revision) for revision in result["revisions"]]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [ink.dim(_aligned(head, widths))] if rows else ["No revision is kept yet."]
    for row in rows:
        line = _aligned(row, widths)
        lines.append(ink.good(line) if row[0] else line)
    return lines + [ink.warn(f"damaged, set aside: {told(name)}") for name in result["damaged"]]


def _revision(revision: Result) -> tuple[str, ...]:
    opened = revision["kind"] == "open"
    return (
        "*" if revision["in_force"] else "",
        str(revision["revision"]),
        _when(revision["when"]),
        *("open" if opened else str(revision["rules"][family]) for family in ("ipv4", "ipv6")),
        str(revision["files"]),
        told(revision["cause"]),
        told(revision["by"] or ""),
    )


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    numbers = (1, 3, 4, 5)
    cells = [
        cell.rjust(width) if column in numbers else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def show(result: Result, ink: AnswerPainter) -> list[str]:
    """One revision: where it comes from, its files as they were, and what the kernel made of them."""
    lines = [
        ink.bold(f"revision {result['revision']}"),
        _row("when", _when(result["when"])),
        _row("cause", told(result["cause"]) + (f", by {told(result['by'])}" if result["by"] else "")),
        _row("made with", f"{_tool(result)}, Linux {told(result['kernel'])}"),
    ]
    for file in result["files"]:
        lines += _section(told(file["path"]), file["text"], ink)
    for family, text in result["texts"].items():
        lines += _section(f"{told(family)}, as the kernel has it", text, ink)
    return lines


def _section(title: str, text: str, ink: AnswerPainter) -> list[str]:
    return ["", ink.bold(f"# {title}"), *[printable(line.expandtabs()) for line in text.split("\n")[:-1] or [text]]]


def drift(result: Result, ink: AnswerPainter) -> list[str]:
    """Every difference between the kernel and the revision in force."""
    if not result["count"]:
        return [f"{ink.good('no drift')}: the kernel holds what is in force"]
    lines = [_difference(text, ink) for text in result["differences"]]
    left = result["count"] - len(lines)
    lines += [ink.dim(f"… and {left} more")] if left > 0 else []
    return [*lines, ink.bad(_count(result["count"], "difference"))]


def _difference(text: str, ink: AnswerPainter) -> str:
    """A difference: - is missing in the kernel, + is there and should not be, ~ is moved, ! is a policy."""
    line = told(text)
    return ink.warn(line) if line[:1] in ("~", "!") else ink.change(line[:1], line)


def pause(result: Result, ink: AnswerPainter) -> list[str]:
    """Whether repairs are held, and for how long."""
    seconds = result["paused_seconds"]
    if seconds is None:
        return [f"{ink.good('resumed')}: drift is dealt with again"]
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
    held = f"drift is not repaired for {_span(seconds)}, until {until}"
    return [f"{ink.warn('paused')}: {held}; to end that: fwguardctl resume"]


def _pending(pending: Result) -> str:
    left = f"revision {pending['revision']} is undone in {_span(pending['seconds_left'])} unless it is confirmed"
    return left + (f"; revision {pending['back_to']} comes back" if pending["back_to"] is not None else "")


def _findings(findings: Sequence[Result], ink: AnswerPainter) -> list[str]:
    return [ink.finding(_finding(finding)) for finding in findings]


def _finding(found: Result) -> Finding:
    """A finding again, from what `paint.as_json` made of it."""
    return Finding(
        code=str(found["code"]),
        message=str(found["message"]),
        origin=Origin(str(found["file"]), int(found["line"] or 0)) if found["file"] else None,
        severity=Severity.WARNING if found["severity"] == "warning" else Severity.ERROR,
        hint=str(found["hint"] or ""),
        column=int(found["column"] or 0),
        line_text=str(found["text"] or ""),
        family={family.value: family for family in Family}.get(found["family"]),
    )


def _tool(result: Result) -> str:
    return told(f"iptables {result['iptables']}, {result['backend']} backend")


def _rules(rules: Result) -> str:
    return " and ".join(f"{rules[key]} {name}" for key, name in (("ipv4", "IPv4"), ("ipv6", "IPv6"))) + " rules"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _ago(seconds: float) -> str:
    # The clock may have been set back since.
    return _span(max(0.0, seconds))


def _span(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    for unit, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"


def told(text: object) -> str:
    """The text of anything, with control characters escaped."""
    return printable(str(text))
