"""Putting accepted rule files in force: as a new revision, which may have to be confirmed."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.context import Context, Done, Outcome, boottime, still_in_force
from fwguardd.enforce.look import look_at
from fwguardd.enforce.record import (
    Cause,
    begin,
    earlier_revision,
    end,
    keep,
    new_in_force,
    store_errors_reported,
    write_boot_files,
)
from fwguardd.enforce.reports import LOAD_ERRORS, load_failed, pass_failed, report_written
from fwguardd.enforce.state import InForce, State
from fwguardd.enforce.transaction import Applied, Unchanged, UndoDelayedError, UndoFailedError, Unverified, put_in_force
from fwguardd.kernel.iptables import KernelError
from fwguardd.ruleset.canonical import Canonical
from fwguardd.store.revisions import PendingConfirmation, RevisionKind, StoreError
from fwguardd.wording import counted

if TYPE_CHECKING:
    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.enforce.validate import Valid

CHANGED = "change"
"""The cause of a pass that a change in the directory caused."""

RECENT = 600.0
"""Seconds after a change for which ``reload --confirm`` refers to that change."""


def apply_files(
    context: Context, state: State, snapshot: Snapshot, accepted: Valid, why: Cause, confirm_within: float | None
) -> Outcome:
    """Put accepted files in force and record them. A pending confirmation is recorded first."""
    before = state.in_force
    if before is None and confirm_within is not None:
        try:
            before = _found(context, accepted)
        except KernelError as error:
            return load_failed(context, state, error)
    new = _named(context, before, snapshot.digest, accepted, why)
    try:
        pending = _pending_after(context, state, before, new, confirm_within)
    except StoreError as error:
        return pass_failed(context, state, f"nothing was changed: {error}. {still_in_force(state)}", retry=False)
    begin(context, state, new)
    release = replace(state, in_force=before).release(new.owned)
    try:
        outcome = put_in_force(context.kernel, new.canonical, context.preserve, release)
    except LOAD_ERRORS as error:
        _forget_attempt(context, state, error)
        return load_failed(context, state, error)
    _release_held(context, state)
    if before is None or new.revision != before.revision:
        keep(context, new, snapshot.files, why, for_boot=pending is None)
    elif pending is not None and pending != state.pending:
        write_boot_files(context, pending.back_to)  # The next boot loads what an undo would put in force.
    end(context)
    return _applied(context, State(new, pending=pending), new, outcome, why)


def _forget_attempt(context: Context, state: State, error: Exception) -> None:
    """After a load that failed: what was recorded for it does not apply, unless it may have left something behind."""
    _restore_pending(context, state)
    if not isinstance(error, (UndoFailedError, UndoDelayedError)) and not state.touched:
        end(context)


def _applied(
    context: Context, state: State, new: InForce, outcome: Applied | Unverified | Unchanged, why: Cause
) -> Done:
    """Report what was put in force."""
    if isinstance(outcome, Unchanged):
        rules = counted(new.rule_count, "rule")
        message = f"the kernel already holds what {context.rules_dir} says, {rules}; nothing was written"
        context.emit(events.UNCHANGED, message, revision=new.revision, rules=new.rule_count, cause=why.cause)
        return Done(state)
    state = report_written(context, state, new, outcome, f"from {context.rules_dir} ({why.cause})")
    return Done(state, len(outcome.changes))


def _named(context: Context, before: InForce | None, digest: str, accepted: Valid, why: Cause) -> InForce:
    """What was accepted, under its number: a new one only if it is another ruleset than the one before."""
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


def _pending_after(
    context: Context, state: State, before: InForce | None, new: InForce, confirm_within: float | None
) -> PendingConfirmation | None:
    """The confirmation that is pending once ``new`` is in force, recorded before it is. Raises StoreError."""
    waiting = state.pending
    if confirm_within is not None:
        pending = _requested(context, waiting, before, new, confirm_within)
    elif waiting is not None and (before is None or new.revision != before.revision):
        pending = replace(waiting, number=new.revision, digest=new.digest)  # Both changes are undone together.
    else:
        return waiting
    if pending is not None:
        context.store.set_pending(pending)
    return pending


def _requested(
    context: Context, waiting: PendingConfirmation | None, before: InForce | None, new: InForce, seconds: float
) -> PendingConfirmation | None:
    """The confirmation that a reload asks for; None where it has nothing to refer to.

    A reload right after a change that the directory's watch has put in force already refers to that change. A change
    that comes while another is pending is undone together with it.
    """
    back_to = None
    if before is not None:
        back_to = before.revision
        if new.revision == before.revision:
            recent = before.cause == CHANGED and time.time() - before.since < RECENT
            if waiting is None and not recent:
                return None
            back_to = earlier_revision(context, before)
    if waiting is not None:
        back_to = waiting.back_to
    return PendingConfirmation(
        number=new.revision,
        back_to=back_to,
        deadline=boottime() + seconds,
        boot_id=context.host.boot_id,
        wall_deadline=time.time() + seconds,
        digest=new.digest,
    )


def _restore_pending(context: Context, state: State) -> None:
    """Record the confirmation that was pending before: nothing was put in force, so nothing new has to be confirmed."""
    with contextlib.suppress(StoreError):
        if state.pending is not None:
            context.store.set_pending(state.pending)
        elif context.store.pending() is not None:
            context.store.clear_pending()


def _release_held(context: Context, state: State) -> None:
    if state.held is not None or context.store.held() is not None:
        with store_errors_reported(context):
            context.store.release()
