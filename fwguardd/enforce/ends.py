"""The end of rules with an end, where a pass does not apply the rule files: they are refused, held, or cannot be read.

A pass that applies the files leaves out what has ended. Any other pass takes it out of the revision in force, as a
revision of its own: what was accepted for an hour must not stay open because somebody has made a mistake in another
file. The rest of the revision stays as it was loaded, so this needs no rehearsal.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.enforce.confirmation import restore_pending
from fwguardd.enforce.context import Broken, Context, Done, Outcome
from fwguardd.enforce.file_changes import digests_of
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.record import Cause, new_in_force
from fwguardd.enforce.rollback import put_recorded
from fwguardd.ruleset.expiry import files_without_ended
from fwguardd.store.model import Kept

if TYPE_CHECKING:
    from fwguardd.enforce.state import InForce, State
    from fwguardd.ruleset.model import RuleFile

ENDED = "rules that have ended"
"""The cause of a revision that lacks only what has ended."""

_WITH_RULES = (KernelState.IN_FORCE, KernelState.DRIFTED)


def next_end(directory: float | None, in_force: InForce | None, now: float) -> float | None:
    """When rules of the directory, or of the revision in force, end next; None where none do."""
    ends = [directory]
    if in_force is not None:
        ends.append(in_force.next_end(now))
    return min(filter(None, ends), default=None)


def end_rules(context: Context, outcome: Outcome) -> Outcome:
    """After a pass: take out of the revision in force what has ended, if the pass has left it there."""
    current = outcome.state.in_force
    if current is None or _is_for_later(outcome):
        return outcome
    now = time.time()
    left = current.without_ended(now)
    if left is current:
        return outcome
    return _joined(outcome, _put(context, outcome.state, current, left, now))


def _is_for_later(outcome: Outcome) -> bool:
    """Whether a later pass does it: the one that applies files which have just changed, or that closes the firewall, or
    that can read the kernel again."""
    match outcome:
        case Broken() | Done(files_changed=True):
            return True
    return outcome.state.kernel_state not in _WITH_RULES


def _put(context: Context, state: State, current: InForce, left: InForce, now: float) -> Outcome:
    """Put in force what is left of the current revision. What waits to be confirmed is the new revision from now on."""
    why = Cause(ENDED)
    new = new_in_force(context, current.digest, left.canonical, why, current.kind)
    files = _files_left(context, current, now)
    new = replace(new, restored=current.restored, file_digests=digests_of(files), ends=left.ends)
    moved = state
    if state.pending is not None:
        moved = replace(state, pending=replace(state.pending, number=new.revision))
        restore_pending(context, moved)
    ended = put_recorded(context, moved, new, why, files, for_boot=state.pending is None)
    if not isinstance(ended, Done):
        restore_pending(context, state)
        return replace(ended, state=replace(ended.state, pending=state.pending))
    return replace(ended, state=replace(ended.state, refused=state.refused, blocked=state.blocked))


def _files_left(context: Context, current: InForce, now: float) -> tuple[RuleFile, ...]:
    """The rule files of the current revision, without what has ended; none where they cannot be read."""
    reading = context.store.get(current.revision)
    if isinstance(reading, Kept):
        return files_without_ended(reading.revision.files, now)
    return ()


def _joined(outcome: Outcome, ended: Outcome) -> Outcome:
    """The outcome of a pass after which rules were taken out."""
    if not isinstance(ended, Done):
        return ended
    if isinstance(outcome, Done):
        return replace(outcome, state=ended.state, changes=outcome.changes + ended.changes)
    return replace(outcome, state=ended.state)
