"""Which revision a rollback goes to: the newest earlier one that held rules; each further rollback goes one back.

A rollback puts an earlier revision in force as a new one, which records the number of the earlier one. The next
rollback begins there, so it never goes forward again to a revision that was rolled back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fwguardd.enforce.file_changes import digests_of
from fwguardd.enforce.record import in_force_of
from fwguardd.enforce.state import EMERGENCY_CAUSE
from fwguardd.store.model import Kept, RevisionKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.enforce.file_changes import Digests
    from fwguardd.enforce.state import InForce
    from fwguardd.store.model import Reading, RevisionSummary
    from fwguardd.store.revisions import RevisionStore


def earlier_rules(store: RevisionStore, current: InForce | None) -> Reading | None:
    """The newest earlier revision that held rules, and other rules than those in force; None if there is none.

    Rules that have ended since do not count. If all earlier ones held the rules in force, it is the newest of them. A
    revision that cannot be read is not passed over: the result says so.
    """
    same: Reading | None = None
    now = time.time()
    for summary in _earlier(store.summaries(), current):
        reading = store.get(summary.number)
        if not isinstance(reading, Kept):
            return reading
        canonical = in_force_of(reading.revision).without_ended(now).canonical
        if not canonical.restricts:
            continue
        if current is None or not canonical.same_tables(current.canonical):
            return reading
        same = same or reading
    return same


def files_before_opening(store: RevisionStore) -> Digests:
    """The rule files of the newest revision that held rules: those to which the files are compared after an opening."""
    for summary in reversed(store.summaries()):
        if summary.kind is RevisionKind.RULES:
            reading = store.get(summary.number)
            if isinstance(reading, Kept):
                return digests_of(reading.revision.files)
            break
    return ()


def _earlier(summaries: Sequence[RevisionSummary], current: InForce | None) -> Iterator[RevisionSummary]:
    """The revisions of rules before the one that the current one restored, newest first."""
    restored = {summary.number: summary.restored for summary in summaries}
    limit: int | None = None
    if current is not None:
        limit = _first_of(current.restored or current.revision, restored)
    for summary in reversed(summaries):
        if _held_rules(summary) and (limit is None or _first_of(summary.number, restored) < limit):
            yield summary


def _held_rules(summary: RevisionSummary) -> bool:
    """Whether it held the rules of files: no opening, and no emergency set."""
    return summary.kind is RevisionKind.RULES and summary.cause != EMERGENCY_CAUSE


def _first_of(number: int, restored: Mapping[int, int | None]) -> int:
    """The revision that had these rules first, behind any number of rollbacks."""
    while (earlier := restored.get(number)) is not None and earlier < number:
        number = earlier
    return number
