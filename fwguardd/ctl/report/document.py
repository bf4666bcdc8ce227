"""A report as JSON values. The keys are a contract; what is not known is null, and named under ``unknown``.

Times are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.report.answers import notices_of, state_of
from fwguardd.ctl.report.changes import changes_of, open_periods, revisions_since
from fwguardd.ctl.report.episodes import Episode, episodes_of
from fwguardd.ctl.report.facts import MissingPart
from fwguardd.ctl.report.holdings import unused_rules

if TYPE_CHECKING:
    from fwguardd.ctl.counters_verb import Line
    from fwguardd.ctl.report.account import Account
    from fwguardd.ctl.report.changes import ReportedChange
    from fwguardd.ctl.report.facts import Facts
    from fwguardd.ctl.report.outline import Notice

SHOWN: Final = 100


def document_of(facts: Facts) -> dict[str, Any]:
    """The whole report."""
    unknown: dict[str, str] = {}
    for part in ("status", "history", "rules", "sets", "account", "exposure"):
        value = getattr(facts, part)
        if isinstance(value, MissingPart):
            unknown[_NAMES.get(part, part)] = value.reason
    return {
        "host": facts.host,
        "version": facts.version,
        "since": facts.since,
        "until": facts.now,
        "state": state_of(facts),
        "unknown": unknown,
        "attention": list(map(_notice, notices_of(facts))),
        "status": _known(facts.status),
        **_changes(facts),
        **_of_journal(facts.account),
        **_of_host(facts),
        "journal_begins": facts.journal_begins,
    }


_NAMES: Final = {"history": "revisions", "account": "journal"}


def _known(value: object) -> object:
    if isinstance(value, MissingPart):
        return None
    return value


def _notice(notice: Notice) -> dict[str, str]:
    return {"tone": notice.tone.value, "text": notice.text, "advice": notice.advice}


def _changes(facts: Facts) -> dict[str, Any]:
    revisions = None
    if not isinstance(facts.history, MissingPart):
        revisions = revisions_since(facts.history, facts.since)
    happenings = () if isinstance(facts.account, MissingPart) else facts.account.changes
    return {
        "revisions": revisions,
        "changes": list(map(_change, changes_of(facts.history, happenings, facts.since))),
        "open": list(map(asdict, open_periods(facts.history, facts.since))),
    }


def _change(change: ReportedChange) -> dict[str, Any]:
    return {"when": change.when, "what": change.what, "by": change.by, "detail": list(change.detail)}


def _of_journal(account: Account | MissingPart) -> dict[str, Any]:
    if isinstance(account, MissingPart):
        return {"drift": None, "denials": None, "events": None, "incomplete": ""}
    scans = account.scans.highest(SHOWN)
    return {
        "drift": list(map(Episode.document, episodes_of(account.drift))),
        "denials": {
            "packets": account.denied,
            "sources": account.sources.number,
            "sources_is_exact": account.sources.is_exact,
            "over_time": account.hours.document(),
            "incoming": account.incoming.document(SHOWN),
            "outgoing": account.outgoing.document(SHOWN),
            "scans": [{"src": src, "event": name, "targets": targets} for (src, name), targets in scans],
        },
        "events": dict(account.totals),
        "incomplete": account.incomplete,
    }


def _of_host(facts: Facts) -> dict[str, Any]:
    exposure = unused = sets = None
    if not isinstance(facts.exposure, MissingPart):
        exposure = facts.exposure.document()
    if not isinstance(facts.rules, MissingPart):
        unused = list(map(_line, unused_rules(facts.rules, facts.now)))
    if not isinstance(facts.sets, MissingPart):
        sets = list(map(asdict, facts.sets))
    return {"exposure": exposure, "unused_rules": unused, "sets": sets}


def _line(line: Line) -> dict[str, Any]:
    return {"place": line.place, "rule": line.text, "since": line.since}
