"""Comparing the kernel with the revision in force, and repairing what other programs changed."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.context import Context, Done, Failed, Outcome
from fwguardd.enforce.record import end
from fwguardd.enforce.reports import (
    LOAD_ERRORS,
    load_failed,
    pass_failed,
    report_drift,
    report_unverified,
    report_verified,
)
from fwguardd.enforce.state import InForce, State, UnverifiedState
from fwguardd.enforce.transaction import Applied, RolledBackError, Unchanged, Unverified, find_drift, put_in_force
from fwguardd.kernel.iptables import KernelBusyError, KernelError, UnknownContentError
from fwguardd.ruleset.canonical import Owned
from fwguardd.wording import counted

if TYPE_CHECKING:
    from fwguardd.kernel.attribution import Authors


def enforce(context: Context, state: State, authors: Authors) -> Outcome:
    """Compare the kernel with the revision in force, and repair it if that is wanted.

    Nothing is compared where nothing is in force, or where everything is accepted on purpose. ``authors`` are the
    processes that are known to have changed the kernel.
    """
    in_force = state.in_force
    if in_force is None:
        return Done(replace(state, unverified=None))
    if state.is_open and state.unverified is None:
        return Done(state)
    if state.touched:
        state = _release_touched(context, state, in_force)
    return _compare_and_repair(context, state, in_force, authors)


def _compare_and_repair(context: Context, state: State, in_force: InForce, authors: Authors) -> Outcome:
    undo_delayed = state.unverified is UnverifiedState.UNDO
    try:
        drift = find_drift(context.kernel, in_force.canonical, context.preserve)
        # Compared as sets: one more copy of a rule that was reported is not news. What a failed load left is no drift.
        if drift and frozenset(drift) != frozenset(state.drift) and not undo_delayed:
            report_drift(context, in_force, drift, authors)
        state = state.seen(drift, time.time())
        if not drift or not (context.repair or undo_delayed):
            return Done(report_verified(context, state, as_wanted=not drift))
    except KernelError as error:
        return _not_comparable(context, state, error, authors)
    return _repair(context, state, in_force, authors)


def _repair(context: Context, state: State, in_force: InForce, authors: Authors) -> Outcome:
    """Repair the drift of this state. Where that fails, it stays the drift, and the repair is tried again."""
    try:
        outcome = put_in_force(context.kernel, in_force.canonical, context.preserve)
    except RolledBackError as error:
        reason = f"{counted(len(state.drift), 'difference')} could not be repaired: {error}. fwguardd tries again"
        return pass_failed(context, state, reason, retry=True)
    except KernelError as error:
        return _not_comparable(context, state, error, authors)
    except LOAD_ERRORS as error:
        return load_failed(context, state, error)
    return _repaired(context, replace(state, drift=()), in_force, outcome, authors)


def _not_comparable(context: Context, state: State, error: KernelError, authors: Authors) -> Failed:
    """The kernel could not be read. An undo that is delayed stays so, whatever the reason is now."""
    hidden = isinstance(error, UnknownContentError)
    unverified = state.unverified or UnverifiedState.LOOK
    if hidden and unverified is not UnverifiedState.UNDO:
        unverified = UnverifiedState.HIDDEN
    elif unverified is UnverifiedState.HIDDEN:
        unverified = UnverifiedState.LOOK
    retry = unverified is not UnverifiedState.HIDDEN
    return Failed(report_unverified(context, state, unverified, str(error), authors), str(error), retry)


def _repaired(
    context: Context, state: State, in_force: InForce, outcome: Applied | Unverified | Unchanged, authors: Authors
) -> Done:
    """Report a repair."""
    if isinstance(outcome, Unverified):
        state = report_unverified(context, state, UnverifiedState.WRITTEN, outcome.reason, authors)
    else:
        state = report_verified(context, state, as_wanted=True)
    if isinstance(outcome, Unchanged):
        return Done(state)
    changes = len(outcome.changes)
    message = f"{counted(changes, 'difference')} repaired; revision {in_force.revision} is in force again"
    context.emit(events.REPAIRED, message, revision=in_force.revision, changes=changes)
    return Done(state, changes, frozenset(change.place for change in outcome.changes))


def _release_touched(context: Context, state: State, in_force: InForce) -> State:
    """Empty the tables that an interrupted pass had begun to write and that the revision in force does not name."""
    release = state.release(in_force.owned)
    try:
        outcome = put_in_force(context.kernel, in_force.canonical, context.preserve, release)
    except KernelBusyError:
        return state  # The comparison that comes next fails for the same reason, and reports it.
    except LOAD_ERRORS as error:
        return load_failed(context, state, error).state
    if isinstance(outcome, Unverified):
        return report_unverified(context, state, UnverifiedState.UNDO, outcome.reason)
    if release.tables:
        names = ", ".join(sorted(f"{family.value} {name}" for family, name in release.tables))
        message = (
            f"emptied {names}, which an interrupted pass had begun to write; revision {state.revision} is in force"
        )
        context.emit(events.REPAIRED, message, revision=in_force.revision, changes=len(release.tables))
    end(context)
    return replace(state, touched=Owned())
