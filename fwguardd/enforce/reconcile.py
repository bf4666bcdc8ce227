"""One pass: the road of a rule file, from the directory to the kernel, as plain blocking code read top to bottom.

A pass is the same whatever woke it. It reads the directory; if the files changed since they were last judged, it
judges them; then it makes the kernel hold the newest ruleset that was accepted. Files that cannot be put in force
change nothing: the ruleset in force stays, and goes on being guarded. Passes never overlap.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.context import Broken, Context, Done, Failed, Outcome, Refused, boottime, still
from fwguardd.enforce.look import look_at
from fwguardd.enforce.record import Cause, begin, end, keep, new_in_force
from fwguardd.enforce.reports import report_unverified, report_verified
from fwguardd.enforce.rule_files import Snapshot, take_snapshot
from fwguardd.enforce.state import InForce, RefusedFiles, State, UnverifiedState
from fwguardd.enforce.transaction import (
    Applied,
    RolledBackError,
    Unchanged,
    UndoDelayedError,
    UndoFailedError,
    Unverified,
    find_drift,
    put_in_force,
)
from fwguardd.enforce.validate import Invalid, Valid
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.iptables import KernelBusyError, KernelError, KernelStarvedError, UnknownContentError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.canonical import Canonical, Owned
from fwguardd.store.revisions import PendingConfirmation, RevisionKind, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.model import Finding, Findings

STARTED = "start"
"""The cause of the first pass."""

CHANGED = "change"
"""The cause of a pass that a change in the directory woke."""

RECENT = 600.0
"""Seconds after a change for which a reload that wants a confirmation means that change."""

LOAD_ERRORS = (RolledBackError, UndoFailedError, UndoDelayedError, KernelError)
"""What putting a ruleset in force may raise; `apply_failed` tells it."""

MOST_SHOWN = 20
"""Findings or differences that one event spells out."""


@dataclass(frozen=True, slots=True)
class PassRequest:
    """What a pass was asked for: why, and within how many seconds somebody has to confirm it, None for nobody.

    ``look_only`` guards what is in force, and leaves files that changed to a pass that comes once they have settled.
    ``authors`` are known to have changed the kernel since the pass before.
    """

    why: Cause
    confirm_within: float | None = None
    look_only: bool = False
    authors: Authors = NO_AUTHORS


def reconcile(context: Context, state: State, ask: PassRequest) -> Outcome:
    """Make the kernel hold what the rule files say."""
    current = state.in_force
    if current is not None and current.kind is RevisionKind.OPEN and current.digest:
        return _keep(context, state, ask)  # It stays open until a reload, which takes the digest away.
    snapshot = take_snapshot(context.rules_dir)
    if not state.settles(snapshot.digest):
        if ask.look_only:
            outcome = _keep(context, state, ask)
            return replace(outcome, files_changed=True) if isinstance(outcome, Done) else outcome
        return _judge_and_apply(context, state, snapshot, ask)
    if current is None or current.kind is RevisionKind.OPEN:
        return _keep(context, state, ask)
    if snapshot.digest == current.digest and state.refused is not None:
        state = replace(state, refused=None)
        message = f"the refused change was taken back: the files are those of revision {current.revision}, in force"
        context.emit(events.TAKEN_BACK, message, revision=current.revision)
    outcome = _keep(context, state, ask)
    if ask.why.cause == STARTED and isinstance(outcome, Done) and not outcome.changes and not outcome.state.drift:
        message = f"the kernel holds revision {current.revision}, {current.rule_count} rules; nothing was written"
        context.emit(events.UNCHANGED, message, revision=current.revision, rules=current.rule_count, cause=STARTED)
    return outcome


def _keep(context: Context, state: State, ask: PassRequest) -> Outcome:
    """Guard what is in force, unless that is nothing, or everything was opened on purpose."""
    current = state.in_force
    if current is None:
        return Done(replace(state, unverified=None))
    if current.kind is RevisionKind.OPEN and state.unverified is None:
        return Done(state)
    return _guard(context, state, current, ask.authors)


def validate_ahead(context: Context, state: State) -> None:
    """Judge the files while they settle, so that a pass finds the result ready. Tells nothing and changes nothing."""
    snapshot = take_snapshot(context.rules_dir)
    if not state.settles(snapshot.digest):
        with contextlib.suppress(NamespaceError):
            context.validator.validate_early(snapshot)


def _judge_and_apply(context: Context, state: State, snapshot: Snapshot, ask: PassRequest) -> Outcome:
    try:
        result = context.validator.validate(snapshot)
    except NamespaceError as error:
        return failed(context, state, f"no rehearsal was possible: {error}. {still(state)}", passing=True)
    if isinstance(result, Invalid):
        return _refused(context, state, snapshot, result.findings, ask.authors)
    for warning in result.findings:
        context.emit(events.FINDING, str(warning), code=warning.code, file=str(warning.origin or snapshot.directory))
    return _apply(context, state, snapshot, result, ask)


def _refused(context: Context, state: State, snapshot: Snapshot, findings: Findings, authors: Authors) -> Refused:
    errors = findings.errors
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    message = f"{snapshot.directory} is refused, {count}. {errors[0]}. {still(state)}"
    context.emit(
        events.REJECTED,
        message,
        finding=_shown(errors),
        code=errors[0].code,
        file=str(errors[0].origin or snapshot.directory),
        revision=state.in_force.revision if state.in_force else 0,
    )
    state = replace(state, refused=RefusedFiles(snapshot.digest, time.time(), findings))
    if state.in_force is not None and state.in_force.kind is RevisionKind.RULES:
        state = _guard(context, state, state.in_force, authors).state
    return Refused(state, findings)


def _apply(context: Context, state: State, snapshot: Snapshot, accepted: Valid, ask: PassRequest) -> Outcome:
    """Put accepted files in force and record them. Where somebody has to confirm, the promise to undo comes first."""
    before = state.in_force
    if before is None and ask.confirm_within is not None:
        try:
            before = _found(context, accepted)
        except KernelError as error:
            return apply_failed(context, state, error)
    new = _named(context, before, snapshot.digest, accepted, ask.why)
    try:
        pending = _promised(context, state, before, new, ask)
        begin(context, state, new)
        release = replace(state, in_force=before).release(new.owned)
        outcome = put_in_force(context.kernel, new.canonical, context.preserve, release)
    except StoreError as error:
        return failed(context, state, f"nothing was changed: {error}. {still(state)}", passing=False)
    except LOAD_ERRORS as error:
        _break_promise(context, state)
        _end_unless_broken(context, state, error)
        return apply_failed(context, state, error)
    _release(context, state)
    if before is None or new.revision != before.revision:
        keep(context, new, snapshot.files, ask.why, for_boot=pending is None)
    elif pending is not None and pending != state.pending:
        _boot_earlier(context, pending)
    end(context)
    state = State(new, pending=pending)
    if isinstance(outcome, Unchanged):
        message = f"the kernel already holds what {context.rules_dir} says, {new.rule_count} rules; nothing was written"
        context.emit(events.UNCHANGED, message, revision=new.revision, rules=new.rule_count, cause=ask.why.cause)
        return Done(state)
    state = report_written(context, state, outcome, f"from {context.rules_dir} ({ask.why.cause})")
    return Done(state, len(outcome.changes))


def _named(context: Context, before: InForce | None, digest: str, accepted: Valid, why: Cause) -> InForce:
    """What was accepted, under the number that it has: a new one only if it is another ruleset."""
    if before is not None and before.kind is RevisionKind.RULES and before.canonical == accepted.rehearsed:
        return replace(before, digest=digest, canonical=accepted.rehearsed)
    return new_in_force(context, digest, accepted.rehearsed, why)


def _found(context: Context, accepted: Valid) -> InForce:
    """What the kernel held in these tables before, recorded as a revision to go back to. Raises KernelError."""
    wanted = accepted.rehearsed.rulesets
    look = look_at(context.kernel, wanted, context.preserve)
    why = Cause("found in the kernel")
    in_force = new_in_force(context, "", Canonical.from_kernel(look.own, wanted), why)
    keep(context, in_force, (), why, for_boot=False)
    return in_force


def _promised(
    context: Context, state: State, before: InForce | None, new: InForce, ask: PassRequest
) -> PendingConfirmation | None:
    """What waits to be confirmed once ``new`` is in force, written down before it is. Raises StoreError.

    Who asks for a confirmation right after a change that the directory's watch has put in force already means that
    change. A change that comes while another waits is undone together with it.
    """
    waiting, current = state.pending, before.revision if before else None
    if ask.confirm_within is None:
        if waiting is None or new.revision == current:
            return waiting
        pending = replace(waiting, number=new.revision, digest=new.digest)
    else:
        back_to = current
        if new.revision == current and before is not None:
            if not waiting and not (before.cause == CHANGED and time.time() - before.since < RECENT):
                return None
            back_to = earlier_revision(context, before)
        pending = PendingConfirmation(
            number=new.revision,
            back_to=waiting.back_to if waiting else back_to,
            deadline=boottime() + ask.confirm_within,
            boot_id=context.host.boot_id,
            wall_deadline=time.time() + ask.confirm_within,
            digest=new.digest,
        )
    context.store.set_pending(pending)
    return pending


def _boot_earlier(context: Context, pending: PendingConfirmation) -> None:
    """Let the next boot load what the revision that waits would be undone to."""
    earlier = context.store.get(pending.back_to) if pending.back_to is not None else None
    if earlier is not None:
        try:
            context.store.write_boot_files(earlier)
        except StoreError as error:
            context.emit(events.STATE_FAILED, str(error))


def earlier_revision(context: Context, current: InForce | None) -> int | None:
    """The newest kept revision before this one."""
    number = current.revision if current else context.store.next_number()
    return max((summary.number for summary in context.store.summaries() if summary.number < number), default=None)


def _break_promise(context: Context, state: State) -> None:
    """Nothing was put in force, so there is nothing new to undo."""
    with contextlib.suppress(StoreError):
        if state.pending is not None:
            context.store.set_pending(state.pending)
        elif context.store.pending() is not None:
            context.store.clear_pending()


def _release(context: Context, state: State) -> None:
    if state.held is not None or context.store.held() is not None:
        try:
            context.store.release()
        except StoreError as error:
            context.emit(events.STATE_FAILED, str(error))


def _guard(context: Context, state: State, in_force: InForce, authors: Authors) -> Outcome:
    """Compare the kernel with what is in force, and repair it if that is wanted."""
    if state.touched:
        state = _let_go(context, state, in_force)
    owed = state.unverified is UnverifiedState.UNDO
    try:
        drift = find_drift(context.kernel, in_force.canonical, context.preserve)
        # As sets: a rule that somebody adds once more tells nobody anything new.
        if drift and frozenset(drift) != frozenset(state.drift) and not owed:
            _tell_drift(context, in_force, drift, authors)
        if not drift or not (context.repair or owed):
            return Done(replace(report_verified(context, state, as_wanted=not drift), drift=drift))
        outcome = put_in_force(context.kernel, in_force.canonical, context.preserve)
    except KernelStarvedError as error:
        state = report_unverified(context, state, state.unverified or UnverifiedState.LOOK, str(error), authors)
        return Failed(state, str(error), passing=True)
    except UnknownContentError as error:
        unverified = UnverifiedState.UNDO if owed else UnverifiedState.HIDDEN
        return Failed(report_unverified(context, state, unverified, str(error), authors), str(error), passing=owed)
    except LOAD_ERRORS as error:
        return apply_failed(context, state, error)
    state = replace(state, drift=())
    if isinstance(outcome, Unverified):
        state = report_unverified(context, state, UnverifiedState.WRITTEN, outcome.reason, authors)
    else:
        state = report_verified(context, state, as_wanted=True)
    if isinstance(outcome, Unchanged):
        return Done(state)
    count = "1 difference" if len(outcome.changes) == 1 else f"{len(outcome.changes)} differences"
    message = f"{count} repaired; revision {in_force.revision} is in force again"
    context.emit(events.REPAIRED, message, revision=in_force.revision, changes=len(outcome.changes))
    return Done(state, len(outcome.changes), frozenset(change.place for change in outcome.changes))


def _let_go(context: Context, state: State, in_force: InForce) -> State:
    """Empty the tables that a killed pass had begun to write and that are not ours in the revision in force."""
    release = state.release(in_force.owned)
    try:
        outcome = put_in_force(context.kernel, in_force.canonical, context.preserve, release)
    except KernelStarvedError:
        return state  # The look for drift, which comes next, will not be had either, and says so.
    except LOAD_ERRORS as error:
        return apply_failed(context, state, error).state
    if isinstance(outcome, Unverified):
        return report_unverified(context, state, UnverifiedState.UNDO, outcome.reason)
    names = ", ".join(sorted(f"{family.value} {name}" for family, name in release.tables))
    if names:
        message = f"a pass cut short had begun to write {names}: let go; revision {in_force.revision} is in force"
        context.emit(events.REPAIRED, message, revision=in_force.revision, changes=len(release.tables))
    end(context)
    return replace(state, touched=Owned())


def _end_unless_broken(context: Context, state: State, error: Exception) -> None:
    """A load that was undone touched nothing in the end, beyond what an earlier pass had."""
    if not isinstance(error, (UndoFailedError, UndoDelayedError)) and not state.touched:
        end(context)


def _tell_drift(context: Context, in_force: InForce, drift: Sequence[Difference], authors: Authors) -> None:
    action = "it will be repaired" if context.repair else f"it is left alone: {context.why_not}"
    places = "1 place" if len(drift) == 1 else f"{len(drift)} places"
    author = f"; changed by {authors}" if authors else ""
    context.emit(
        events.DRIFT,
        f"the kernel differs from revision {in_force.revision} in {places}: {drift[0]}{author}; {action}",
        **authors.fields(),
        revision=in_force.revision,
        changes=len(drift),
        difference=_shown(drift),
    )


def report_written(context: Context, state: State, written: Applied | Unverified, where: str) -> State:
    """The one event of a ruleset that was written: it is in force, or nobody could see yet whether it is."""
    new = state.in_force
    assert new is not None
    if isinstance(written, Unverified):
        return report_unverified(context, state, UnverifiedState.WRITTEN, written.reason)
    context.emit(
        events.APPLIED,
        f"revision {new.revision} is in force: {new.rule_count} rules {where}",
        revision=new.revision,
        rules=new.rule_count,
        cause=new.cause,
        changes=len(written.changes),
        difference=_shown(written.changes),
    )
    return state


def apply_failed(context: Context, state: State, error: Exception) -> Failed | Broken:
    """Tell of a load that failed: undone, so that nothing changed, or not even that."""
    if isinstance(error, UndoFailedError):
        message = f"a load failed half-way and could not be undone: {error}"
        context.emit(events.BROKEN, message, revision=state.in_force.revision if state.in_force else 0)
        return Broken(state, message)
    if isinstance(error, UndoDelayedError):
        state = replace(state, touched=state.touched | context.store.touched())
        return Failed(report_unverified(context, state, UnverifiedState.UNDO, str(error)), str(error), passing=True)
    passing = isinstance(error, KernelBusyError) or isinstance(error.__cause__, KernelBusyError)
    return failed(context, state, f"nothing was changed: {error}. {still(state)}", passing=passing)


def failed(context: Context, state: State, reason: str, *, passing: bool) -> Failed:
    """Tell of a pass that failed for a reason that is not in the files."""
    context.emit(events.APPLY_FAILED, reason, revision=state.in_force.revision if state.in_force else 0)
    return Failed(state, reason, passing)


def _shown(items: Sequence[Finding] | Sequence[Difference]) -> list[str]:
    """What one event spells out, and how much it does not."""
    left = len(items) - MOST_SHOWN
    return [str(item) for item in items[:MOST_SHOWN]] + ([f"… and {left} more"] if left > 0 else [])
