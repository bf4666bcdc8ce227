"""The top of a report: the state, the facts, and what needs attention.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd import events
from fwguardd.ctl.report.changes import OpenPeriod, open_periods, revisions_since
from fwguardd.ctl.report.episodes import episodes_of
from fwguardd.ctl.report.facts import MissingPart
from fwguardd.ctl.report.outline import Fact, Notice, Tone
from fwguardd.ctl.report.spans import ago, minute
from fwguardd.wording import counted, span, words_for_caller

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.control.documents import StatusDocument
    from fwguardd.ctl.report.account import Account
    from fwguardd.ctl.report.facts import Facts

UNKNOWN_STATE: Final = "unknown"
LOST: Final = (events.DENIALS_LOST, events.DROPPED)

_TONES: Final = {"in-force": Tone.GOOD, "unverified": Tone.WARN, UNKNOWN_STATE: Tone.WARN}
_ADVICE: Final = {
    "drifted": "fwguardctl drift shows the differences",
    "emergency": "fwguardctl status says why; then fwguardctl reload",
    "open": "fwguardctl reload closes it",
    "unverified": "fwguardctl status says why; see also fwguardctl doctor",
    "unmanaged": "fwguardctl adopt lists the rules to decide about",
}
_FILES: Final = {
    "refused": "fwguardctl check shows the errors",
    "held": "fwguardctl reload applies them",
    "waiting": "fwguardctl status says for what",
}


def state_of(facts: Facts) -> str:
    """The state of the firewall in one word."""
    if isinstance(facts.status, MissingPart):
        return UNKNOWN_STATE
    return facts.status.get("state", UNKNOWN_STATE)


def tone_of(state: str) -> Tone:
    """How a state is to be taken."""
    return _TONES.get(state, Tone.BAD)


def headline_of(facts: Facts) -> str:
    """The state in a sentence; where the daemon does not answer, what an event said last, which may be over."""
    if not isinstance(facts.status, MissingPart):
        return facts.status["sentence"].partition(": ")[2] or facts.status["sentence"]
    if isinstance(facts.account, MissingPart) or facts.account.last_state is None:
        return "What the kernel holds is not known."
    when, state = facts.account.last_state
    return f"What the kernel holds is not known. The last event that says it is of {minute(when)}: {state}."


def facts_of(facts: Facts) -> tuple[Fact, ...]:
    """The facts at the top, in the order in which a person asks for them."""
    return (
        _revision(facts),
        _files(facts),
        _changes(facts),
        _drift(facts),
        _denied(facts),
        _scans(facts),
        _lost(facts),
    )


_NOT_KNOWN: Final = "?"
_WHY: Final = "not known"


def _revision(facts: Facts) -> Fact:
    if isinstance(facts.status, MissingPart):
        return Fact("Revision", _NOT_KNOWN, _WHY, Tone.WARN)
    loaded = facts.status["in_force"]
    if loaded is None:
        return Fact("Revision", "none", "nothing was loaded", Tone.BAD)
    rules = counted(sum((loaded["rules"]["ipv4"], loaded["rules"]["ipv6"])), "rule")
    since = f"loaded {ago(facts.now, loaded['since'])}"
    by = words_for_caller(loaded.get("by"))
    words = ", ".join(filter(None, (rules, since, by and f"by {by}")))
    return Fact("Revision", str(loaded["revision"]), words)


def _files(facts: Facts) -> Fact:
    if isinstance(facts.status, MissingPart):
        return Fact("Rule files", _NOT_KNOWN, _WHY, Tone.WARN)
    files = facts.status.get("files", UNKNOWN_STATE)
    tone = Tone.WARN
    if files in ("applied", "settling"):
        tone = Tone.PLAIN
    return Fact("Rule files", files, facts.status["rules_dir"], tone)


def _changes(facts: Facts) -> Fact:
    refused = 0
    applied = len(revisions_since(facts.history, facts.since))
    if not isinstance(facts.account, MissingPart):
        refused = facts.account.total(events.REJECTED)
        if isinstance(facts.history, MissingPart):
            applied = facts.account.total(events.APPLIED)
    elif isinstance(facts.history, MissingPart):
        return Fact("Changes", _NOT_KNOWN, _WHY, Tone.WARN)
    words = "none refused"
    if refused:
        words = f"{refused:,} refused"
    return Fact("Changes", f"{applied:,}", words)


def _drift(facts: Facts) -> Fact:
    if isinstance(facts.account, MissingPart):
        return Fact("Drift", _NOT_KNOWN, _WHY, Tone.WARN)
    count, left = facts.account.total(events.DRIFT), not_repaired(facts.account)
    if not count:
        return Fact("Drift", "none", "nobody else changed the rules")
    if left:
        return Fact("Drift", f"{count:,}", f"{left:,} not repaired", Tone.BAD)
    return Fact("Drift", f"{count:,}", "all repaired")


def not_repaired(account: Account) -> int:
    """How much of the drift no repair is known of."""
    left = 0
    for episode in episodes_of(account.drift):
        left += episode.name == events.DRIFT.name and episode.repaired is None
    return left


def _denied(facts: Facts) -> Fact:
    if isinstance(facts.account, MissingPart):
        return Fact("Denied packets", _NOT_KNOWN, _WHY, Tone.WARN)
    about = ""
    if not facts.account.sources.is_exact:
        about = "about "
    sources = facts.account.sources.number
    words = f"from {about}{sources:,} sources"
    if sources == 1:
        words = "from 1 source"
    return Fact("Denied packets", f"{facts.account.denied:,}", words)


def _scans(facts: Facts) -> Fact:
    if isinstance(facts.account, MissingPart):
        return Fact("Scans", _NOT_KNOWN, _WHY, Tone.WARN)
    scans, sweeps = facts.account.total(events.SCAN), facts.account.total(events.SWEEP)
    return Fact("Scans", f"{scans + sweeps:,}", f"{scans:,} of ports, {sweeps:,} of hosts")


def _lost(facts: Facts) -> Fact:
    if isinstance(facts.account, MissingPart):
        return Fact("Lost", _NOT_KNOWN, _WHY, Tone.WARN)
    lost = facts.account.total(*LOST)
    if not lost:
        return Fact("Lost", "none", "no record is missing")
    return Fact("Lost", f"{lost:,}", "records and events", Tone.WARN)


def notices_of(facts: Facts) -> tuple[Notice, ...]:
    """What needs attention, the most urgent first."""
    found = [*_of_status(facts), *_of_period(facts), *_of_gaps(facts)]
    return tuple(sorted(found, key=lambda notice: notice.tone is not Tone.BAD))


def _of_status(facts: Facts) -> Iterator[Notice]:
    status = facts.status
    if isinstance(status, MissingPart):
        yield Notice(Tone.WARN, f"The state is not known: {status.reason}")
        return
    state = status.get("state", "")
    if state in _ADVICE:
        yield Notice(tone_of(state), f"The state is {status['sentence']}", _ADVICE[state])
    yield from _of_files(status)
    yield from _of_answers(status)


def _of_files(status: StatusDocument) -> Iterator[Notice]:
    files = status.get("files", "")
    if files in _FILES:
        why = status.get("files_why", "").partition("; fwguardctl")[0]
        text = ": ".join(filter(None, (f"The rule files are {files}", why)))
        yield Notice(Tone.WARN, text, _FILES[files])
    pending = status["pending"]
    if pending is not None:
        left = span(pending["seconds_left"])
        yield Notice(Tone.WARN, f"Revision {pending['revision']} is undone in {left}", "fwguardctl confirm keeps it")


def _of_answers(status: StatusDocument) -> Iterator[Notice]:
    settings = status.get("settings")
    if settings is not None and settings["state"] == "refused":
        yield Notice(Tone.WARN, f"The settings are refused: {settings['message']}", "fwguardctl reload, once corrected")
    fight = status["drift"].get("fight")
    if fight:
        who = fight["culprit"] or "an unknown process"
        text = f"Repairs of {fight['chain']} are suspended; it is changed again by {who}"
        yield Notice(Tone.BAD, text, "stop that program; then fwguardctl resume")
    for sentence in (*status.get("set_problems", ()), *status.get("damaged", ())):
        yield Notice(Tone.WARN, f"{sentence[:1].upper()}{sentence[1:]}")
    undecided = status.get("others", {"undecided": 0, "kept": 0})["undecided"]
    if undecided:
        text = f"{counted(undecided, 'rule')} of other programs to be decided about"
        yield Notice(Tone.WARN, text, "fwguardctl adopt")


def _of_period(facts: Facts) -> Iterator[Notice]:
    for period in open_periods(facts.history, facts.since):
        yield Notice(Tone.BAD, open_in_words(period, facts.now))
    account = facts.account
    if isinstance(account, MissingPart):
        return
    faults = account.total(events.FAULT, events.BROKEN)
    if faults:
        yield Notice(
            Tone.BAD, f"{counted(faults, 'defect or failed undo', 'defects or failed undos')}", "see the changes"
        )
    lost = account.total(*LOST)
    if lost:
        yield Notice(
            Tone.WARN,
            f"{counted(lost, 'record was lost', 'records were lost')}",
            "a limit of the rules that log makes the kernel log less",
        )


def open_in_words(period: OpenPeriod, now: float) -> str:
    """A time in which everything was accepted, in a sentence."""
    by = ""
    if period.by:
        by = f", by {period.by}"
    if period.ended is None:
        return f"Everything is accepted since {minute(period.begun)}, for {span(now - period.begun)}{by}"
    return f"Everything was accepted for {span(period.ended - period.begun)} from {minute(period.begun)} on{by}"


def _of_gaps(facts: Facts) -> Iterator[Notice]:
    """What the report does not know."""
    account = facts.account
    if isinstance(account, MissingPart):
        yield Notice(Tone.WARN, f"Events and denials are not known: {account.reason}")
    elif account.incomplete:
        yield Notice(Tone.WARN, f"The journal was not read to its end: {account.incomplete}")
    if facts.journal_begins is not None:
        text = f"The journal begins at {minute(facts.journal_begins)}; what was before is not in this report"
        yield Notice(Tone.WARN, text, "SystemMaxUse= in journald.conf(5) keeps more")
