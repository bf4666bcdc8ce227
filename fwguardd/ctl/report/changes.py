"""What changed in a period, and by whom: the revisions of the daemon, and what the journal says beside them.

This module is pure.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from fwguardd import events
from fwguardd.ctl.report.authors import author
from fwguardd.ctl.report.facts import MissingPart
from fwguardd.ctl.report.outline import Tone
from fwguardd.values import dataclass
from fwguardd.wording import counted, words_for_caller

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.control.documents import FileChangeDocument, HistoryDocument, RevisionDocument
    from fwguardd.ctl.report.account import Happening

MOST_FILES: Final = 8
MOST_FINDINGS: Final = 3
LONGEST: Final = 400
"""Characters of a message that are shown."""


@dataclass(frozen=True, slots=True)
class ReportedChange:
    """Something that changed: when, in seconds since 1970, what, by whom ("" if that is not known), and details."""

    when: float
    what: str
    by: str
    detail: tuple[str, ...] = ()
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class OpenPeriod:
    """A time in which everything was accepted. ``ended`` is None while it lasts."""

    begun: float
    ended: float | None
    by: str


_CAUSES: Final = {
    "change": "changed files",
    "start": "start of the daemon",
    "opened": "opened, everything is accepted",
}


def revisions_since(history: HistoryDocument | MissingPart, since: float) -> list[RevisionDocument]:
    """The revisions of the period, newest first; none where they are not known."""
    if isinstance(history, MissingPart):
        return []
    return [revision for revision in history["revisions"] if revision["when"] >= since]


def changes_of(
    history: HistoryDocument | MissingPart, happenings: Iterable[Happening], since: float
) -> list[ReportedChange]:
    """All changes of the period, newest first."""
    found = list(_of_revisions(history, since))
    known: set[int] = set()
    if not isinstance(history, MissingPart):
        known.update(revision["revision"] for revision in history["revisions"])
    found += map(_of_happening, itertools.filterfalse(lambda one: _is_known(one, known), happenings))
    found.sort(key=lambda change: change.when, reverse=True)
    return found


def _is_known(happening: Happening, revisions: set[int]) -> bool:
    """Whether an event says what a revision says."""
    return happening.name == events.APPLIED.name and happening.fields.get("revision") in revisions


def _of_revisions(history: HistoryDocument | MissingPart, since: float) -> Iterator[ReportedChange]:
    if isinstance(history, MissingPart):
        return
    revisions = history["revisions"]
    before: Sequence[RevisionDocument | None] = [*revisions[1:], None]
    for revision, earlier in zip(revisions, before, strict=True):
        if revision["when"] >= since:
            yield _of_revision(revision, earlier)


def _of_revision(revision: RevisionDocument, earlier: RevisionDocument | None) -> ReportedChange:
    cause = _CAUSES.get(revision["cause"], revision["cause"])
    tone = Tone.PLAIN
    detail = _rules(revision, earlier)
    if revision["kind"] == "open":
        tone, detail = Tone.BAD, ""
    details = tuple(filter(None, (detail, files_in_words(revision))))
    return ReportedChange(
        revision["when"], f"revision {revision['revision']}: {cause}", words_for_caller(revision["by"]), details, tone
    )


def _rule_count(revision: RevisionDocument) -> int:
    return revision["rules"]["ipv4"] + revision["rules"]["ipv6"]


def _rules(revision: RevisionDocument, earlier: RevisionDocument | None) -> str:
    count = _rule_count(revision)
    words = counted(count, "rule")
    if earlier is None or earlier["kind"] == "open":
        return words
    more = count - _rule_count(earlier)
    if not more:
        return words
    return f"{words} ({more:+})"


_SIGNS: Final = {"added": "+", "changed": "~", "removed": "−"}


def files_in_words(revision: RevisionDocument) -> str:
    """The files that changed: + was added, ~ changed, − was removed."""
    changes = revision.get("changes", [])
    names = list(map(_file_in_words, changes[:MOST_FILES]))
    if len(changes) > MOST_FILES:
        names.append(f"… and {len(changes) - MOST_FILES} more")
    return " ".join(names)


def _file_in_words(change: FileChangeDocument) -> str:
    return f"{_SIGNS.get(change['change'], '?')}{change['file'].rpartition('/')[2]}"


_TITLES: Final = {
    events.APPLIED.name: ("rules applied", Tone.PLAIN),
    events.REJECTED.name: ("rule files refused", Tone.WARN),
    events.APPLY_FAILED.name: ("loading failed", Tone.BAD),
    events.BROKEN.name: ("loading failed half-way", Tone.BAD),
    events.HELD.name: ("rule files held", Tone.WARN),
    events.TAKEN_BACK.name: ("refused change reverted", Tone.PLAIN),
    events.PENDING.name: ("waits to be confirmed", Tone.PLAIN),
    events.CONFIRMED.name: ("confirmed", Tone.PLAIN),
    events.UNCONFIRMED.name: ("not confirmed in time, undone", Tone.WARN),
    events.CLOSED.name: ("closed at the end of its time", Tone.PLAIN),
    events.UNMANAGED.name: ("nothing loaded: rules of other programs", Tone.BAD),
    events.SETTINGS_REJECTED.name: ("settings refused", Tone.WARN),
    events.SET_REFUSED.name: ("set file refused", Tone.WARN),
    events.BOOT_REPORT.name: ("boot", Tone.PLAIN),
    events.STATE_DAMAGED.name: ("state directory damaged", Tone.WARN),
    events.STATE_FAILED.name: ("state directory not written", Tone.WARN),
    events.FAULT.name: ("defect in fwguardd", Tone.BAD),
    events.OTHERS_KEPT.name: ("rules of other programs kept", Tone.PLAIN),
}
"""What each event is called in the table of changes."""


def _of_happening(happening: Happening) -> ReportedChange:
    title, tone = _TITLES.get(happening.name, (happening.name, Tone.PLAIN))
    fields = happening.fields
    if happening.name == events.BOOT_REPORT.name and fields.get("state"):
        tone = Tone.BAD
    detail: tuple[str, ...] = (shortened(happening.message),)
    findings = fields.get("finding")
    if isinstance(findings, tuple) and findings:
        detail = tuple(map(shortened, findings[:MOST_FINDINGS]))
    return ReportedChange(happening.when, title, author(fields), detail, tone)


def shortened(text: str) -> str:
    """A message, cut where it is long."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}…"


def open_periods(history: HistoryDocument | MissingPart, since: float) -> list[OpenPeriod]:
    """When everything was accepted within the period, oldest first."""
    if isinstance(history, MissingPart):
        return []
    oldest_first = history["revisions"][::-1]
    ends: list[float | None] = [revision["when"] for revision in oldest_first[1:]]
    found: list[OpenPeriod] = []
    for revision, ended in zip(oldest_first, [*ends, None], strict=False):
        if revision["kind"] == "open" and (ended is None or ended >= since):
            found.append(OpenPeriod(revision["when"], ended, words_for_caller(revision["by"])))
    return found
