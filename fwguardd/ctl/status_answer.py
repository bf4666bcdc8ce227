"""The answer to ``fwguardctl status`` as text: the state first, then one fact a line. See `fwguardd.ctl.answers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.ctl.answers import (
    AnswerPainter,
    ago,
    difference_line,
    escaped,
    finding_lines,
    pending_words,
    row,
    rule_counts,
    tool_name,
    undecided_words,
)
from fwguardd.wording import counted, local_time, local_time_of_day, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.control.documents import (
        DenialsDocument,
        DriftStateDocument,
        FightDocument,
        InForceDocument,
        RefusalDocument,
        StatusDocument,
    )

    Row = tuple[str, str]

_NAMES_WIDTH = len(row("", ""))

MOST_SHOWN = 20
"""Differences that status prints; the verb drift prints all."""


def _headline(result: StatusDocument, ink: AnswerPainter) -> str:
    sentence = escaped(result["sentence"])
    if _is_guarded(result):
        return ink.good(sentence)
    if result.get("state") in _ALARMS:
        return ink.bad(sentence)
    return ink.warn(sentence)


def status(result: StatusDocument, ink: AnswerPainter, now: float) -> list[str]:
    """The state of the firewall, one fact a line, the most important first."""
    lines = [ink.fit(_headline(result, ink)), ""]
    for name, text in _facts(result, ink, now):
        lines.append(ink.fit(row(name, text), _NAMES_WIDTH))
    if result["last_refusal"] is not None:
        lines += ["", *finding_lines(result["last_refusal"]["findings"], ink)]
    return lines


_ALARMS = frozenset({"drifted", "emergency", "open", "unmanaged"})
"""The states in which this host is not protected as the rule files say."""


def _is_guarded(result: StatusDocument) -> bool:
    """Whether the rules of a revision are in force, without drift, and nothing has to be done."""
    in_force, drift = result["in_force"], result["drift"]
    if in_force is None or in_force["kind"] != "rules" or result.get("state", "in-force") != "in-force":
        return False
    to_be_done = (result["pending"], result["held"], result["last_refusal"], result.get("damaged"))
    return not any((*to_be_done, _settings_are_refused(result), drift["count"], drift.get("unseen")))


def _settings_are_refused(result: StatusDocument) -> bool:
    settings = result.get("settings")
    return settings is not None and settings["state"] == "refused"


def _facts(result: StatusDocument, ink: AnswerPainter, now: float) -> Iterator[Row]:
    yield from _state(result, ink, now)
    yield "revision", _revision_loaded(result["in_force"], ink, now)
    yield from _problems(result, ink, now)
    yield "drift", _drift(result, ink)
    for text in _shown_differences(result):
        yield "", f"  {difference_line(text, ink)}"
    yield "denials", _denials(result["denials"], ink)
    yield from _fates(result["denials"])
    yield from _source_reason(result["denials"])
    tool = tool_name(result["iptables"], result["backend"])
    yield "daemon", ink.dim(f"fwguardd {escaped(result['version'])}, {tool}")
    yield "files", _files(result, ink)


def _state(result: StatusDocument, ink: AnswerPainter, now: float) -> Iterator[Row]:
    """What the kernel held when it was compared last. A daemon of an earlier version does not say it."""
    state, compared = result.get("state"), result.get("compared")
    if state is None:
        return
    paint = ink.bad
    if state == "in-force":
        paint = ink.good
    when = ", never compared"
    if compared is not None:
        when = f", compared at {local_time_of_day(compared)} ({ago(now - compared)} ago)"
    yield "state", f"{paint(escaped(state))}{when}"


def _files(result: StatusDocument, ink: AnswerPainter) -> str:
    files, directory = result.get("files"), escaped(result["rules_dir"])
    if files is None:
        return ink.dim(directory)
    if files == "applied":
        return ink.dim(f"{directory}: applied")
    return f"{directory}: {ink.warn(escaped(files))}"


def _revision_loaded(in_force: InForceDocument | None, ink: AnswerPainter, now: float) -> str:
    """The revision that was loaded last; whether the kernel holds it is the state."""
    if in_force is None:
        return ink.bad("none")
    loaded = f"{local_time(in_force['since'])} ({ago(now - in_force['since'])} ago, {escaped(in_force['cause'])})"
    if in_force["kind"] == "open":
        return f"{in_force['revision']}, {ink.bad('everything is accepted')}, {loaded}; to close it: fwguardctl reload"
    return f"{ink.bold(str(in_force['revision']))}, {rule_counts(in_force['rules'])}, loaded {loaded}"


def _problems(result: StatusDocument, ink: AnswerPainter, now: float) -> Iterator[Row]:
    yield from _pending(result, ink)
    yield from _held(result, ink)
    if refusal := result["last_refusal"]:
        yield "refused", ink.bad(_refusal(refusal, now))
    yield from _refused_settings(result, ink, now)
    for sentence in result.get("set_problems", ()):
        yield "sets", ink.warn(escaped(sentence))
    for sentence in result.get("damaged", ()):
        yield "damaged", ink.warn(escaped(sentence))


def _pending(result: StatusDocument, ink: AnswerPainter) -> Iterator[Row]:
    pending = result["pending"]
    if not pending:
        return
    keep = "; to keep it: fwguardctl confirm"
    if pending.get("opening"):
        keep = ""
    yield "pending", f"{ink.warn(pending_words(pending))}{keep}"


def _held(result: StatusDocument, ink: AnswerPainter) -> Iterator[Row]:
    held = result["held"]
    # Files that were held and have errors now are refused: a reload would not apply them.
    if held is not None and result.get("files") != "refused":
        reason, advice = (
            f"{escaped(held['reason'])}; the rule files are not applied",
            "to apply them: fwguardctl reload",
        )
        if result.get("state") == "unmanaged" and result.get("others", {}).get("undecided"):
            advice = "to decide about the rules: fwguardctl adopt; to remove them: fwguardctl reload --take-over"
        yield "held", f"{ink.warn(reason)}; {advice}"


def _refused_settings(result: StatusDocument, ink: AnswerPainter, now: float) -> Iterator[Row]:
    settings = result.get("settings")
    if settings is None or not _settings_are_refused(result):
        return
    since = f"since {local_time(settings['since'] or now)}"
    advice = "correct them and run: fwguardctl reload"
    yield "settings", f"{ink.bad('refused')} {since}: {escaped(settings['message'])}; {advice}"


def _refusal(refusal: RefusalDocument, now: float) -> str:
    errors = sum(finding["severity"] == "error" for finding in refusal["findings"])
    return f"the rule files, {ago(now - refusal['when'])} ago, {counted(errors, 'error')}: see below"


_NOT_COMPARED: Final = {
    "open": "not compared, because everything is accepted",
    "unmanaged": "not compared, because no revision is in force",
}
"""What is said in place of drift, by the state."""


def _shown_differences(result: StatusDocument) -> list[str]:
    """The first differences; none while the emergency set is loaded, which differs in everything."""
    if result.get("state") == "emergency":
        return []
    return result["drift"]["differences"][:MOST_SHOWN]


def _drift(result: StatusDocument, ink: AnswerPainter) -> str:
    drift, reason = result["drift"], _NOT_COMPARED.get(result.get("state", ""))
    if reason is not None:
        return reason
    if drift.get("unseen"):
        return ink.bad("unknown: the kernel cannot be compared with the revision in force")
    count = "none"
    if drift["count"]:
        count = ink.bad(counted(drift["count"], "difference"))
    if undecided := drift.get("undecided"):
        count = f"{count}; {ink.bad(undecided_words(len(undecided)))}: fwguardctl adopt"
    return f"{count}; {_repairs(drift, ink)}"


def _fight(fight: FightDocument, ink: AnswerPainter) -> str:
    what = f"{escaped(fight['chain'])} is changed again after each repair"
    suspended = ink.bad(f"repairs are suspended for {span(fight['seconds_left'])}: {what}")
    who = escaped(fight["culprit"] or "an unknown process")
    return f"{suspended}, by {who}; to repair it now: fwguardctl resume"


def _recent(drift: DriftStateDocument) -> str:
    """The repairs of the last hour."""
    repairs = drift.get("repairs")
    if not repairs:
        return ""
    who = escaped(repairs["culprit"] or "an unknown process")
    return f"; {counted(repairs['count'], 'repair')} within an hour, of changes by {who}"


def _repairs(drift: DriftStateDocument, ink: AnswerPainter) -> str:
    """What is done about drift."""
    if drift["paused_seconds"] is not None:
        return ink.warn(f"repairs are paused for {span(drift['paused_seconds'])}") + "; to end that: fwguardctl resume"
    if fight := drift.get("fight"):
        return _fight(fight, ink)
    if drift["repair"] and drift["count"]:
        return f"not repaired yet: see the first line{_recent(drift)}"
    if drift["repair"]:
        return f"repaired when found{_recent(drift)}"
    return "reported only (on_drift: report)"


def _denials(denials: DenialsDocument, ink: AnswerPainter) -> str:
    if denials.get("source") is None:
        return ink.warn(f"not read; {escaped(denials.get('why') or 'see: journalctl -u fwguardd')}")
    kinds = f"{denials['denied']} denied, {denials['logged']} logged"
    problems = ", ".join(_problems_with_denials(denials))
    loss = ", none lost"
    if problems:
        loss = f"; {ink.warn(problems)}"
    return f"{counted(denials['lines'], 'line')} from {escaped(denials['source'])}: {kinds}{loss}"


def _fates(denials: DenialsDocument) -> list[Row]:
    """What became of the lines: their sum is all of them."""
    if denials.get("source") is None or not denials["lines"]:
        return []
    fates = f"{denials['told']} reported + {denials['summarised']} in summaries + {denials['waiting']} waiting"
    return [("", f"  {fates}")]


def _problems_with_denials(denials: DenialsDocument) -> Iterator[str]:
    if denials["unparsed"]:
        yield f"{denials['unparsed']} unparsed"
    if denials["lost"]:
        yield f"{denials['lost']} lost"
    if dropped := denials.get("dropped_events"):
        yield f"{counted(dropped, 'event')} dropped"
    if not _add_up(denials):
        yield "the counts do not add up: a bug in fwguardd"


def _add_up(denials: DenialsDocument) -> bool:
    """Whether each line was counted once by its kind, and once by what was done with it."""
    by_kind = denials["denied"] + denials["logged"] + denials["unparsed"]
    by_fate = denials["told"] + denials["summarised"] + denials["waiting"]
    return denials["lines"] == by_kind == by_fate


def _source_reason(denials: DenialsDocument) -> list[Row]:
    """Why denials are read from this source. The kernel log is the first choice and needs no reason."""
    source, why = denials.get("source"), denials.get("why")
    if source in {None, "kmsg"} or not why:
        return []
    return [("", f"  from {escaped(source)}: {escaped(why)}")]
