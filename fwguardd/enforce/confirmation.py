"""Changes that have to be confirmed: the promise to undo them is on the disk before anything of them is in force.

A reload that has to be confirmed first holds the files, on the disk. From then on they come in force only together with
a pending confirmation: whatever fails, and if this process is killed, they are held until another reload. Before the
load the pending confirmation is recorded, and the files are released only after it. The time to confirm counts from the
end of the load.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.enforce.context import boottime
from fwguardd.enforce.earlier import earlier_rules
from fwguardd.enforce.record import Cause, earlier_revision, in_force_of, revision_of, store_errors_reported
from fwguardd.store.model import Kept, Unreadable
from fwguardd.store.revisions import HeldFiles, PendingConfirmation, StoreError
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.state import InForce, State
    from fwguardd.store.revisions import Revision

CHANGED = "change"
"""The cause of a pass that a change in the directory caused."""

RELOAD = "reload"
"""The cause of what a reload does."""

RECENT = 600.0
"""Seconds after a change for which ``reload --confirm`` refers to that change."""

INTERRUPTED = " was interrupted"
"""The end of the reason why files are held while a rollback is under way: the next start reads it only if fwguardd
ended meanwhile."""

UNFINISHED = "a reload that has to be confirmed did not end"
"""Why files are held from the beginning of such a reload."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What is pending once a ruleset is in force, and a copy in memory of the revision that an undo puts in force."""

    pending: PendingConfirmation
    fallback: InForce | None


def hold(context: Context, state: State, digest: str, reason: str) -> State:
    """Hold files with this digest, in memory also where the disk cannot be written, which is reported."""
    with store_errors_reported(context):
        context.store.hold(digest, reason)
    return replace(state, held=HeldFiles(digest, reason))


def restore_held(context: Context, state: State) -> None:
    """Record which files were held before a step that failed."""
    with store_errors_reported(context):
        if state.held is not None:
            context.store.hold(state.held.digest, state.held.reason)
        else:
            context.store.release()


def make_promise(
    context: Context, state: State, before: InForce | None, new: InForce, confirm_within: float | None
) -> Promise | None:
    """The promise for ``new``, recorded before it is in force; None if nothing will be pending. Raises StoreError."""
    promise = None
    if confirm_within is not None:
        promise = _requested(context, state, before, new, confirm_within)
    elif state.pending is not None:
        if state.pending.opening:
            return None  # The end of the opening stays recorded until the files are in force.
        promise = Promise(state.pending, state.fallback)
        if before is not None and new.revision == before.revision:
            return promise
        # Both changes are undone together.
        promise = replace(promise, pending=replace(state.pending, number=new.revision, digest=new.digest))
    _record_or_clear(context, promise, before)
    return promise


def _record_or_clear(context: Context, promise: Promise | None, before: InForce | None) -> None:
    """Record a promise; without one, remove the note of one that has ended, or that cannot be read."""
    if promise is not None:
        _record(context, promise, before)
    elif context.store.pending() is not None:
        with store_errors_reported(context):
            context.store.clear_pending()


def arm(context: Context, state: State, digest: str, seconds: float) -> State:
    """Before anything else of a reload that has to be confirmed: the files with this digest apply only as such.

    Files that a recent change has put in force already wait to be confirmed from now on; others are held. Raises
    StoreError where it cannot be recorded that they are held, or where there is nothing to go back to.
    """
    in_force = state.in_force
    if in_force is None or state.is_open or in_force.digest != digest:
        context.store.hold(digest, UNFINISHED)
        return replace(state, held=HeldFiles(digest, UNFINISHED))
    promise = _requested(context, state, in_force, in_force, seconds)
    if promise is None:
        return state
    _record(context, promise, in_force)
    return replace(state, pending=promise.pending, fallback=promise.fallback)


def _record(context: Context, promise: Promise, in_force: InForce | None) -> None:
    """Record a promise. Raises StoreError where that fails before the load.

    A ruleset that is in force already must not lose its way back to a full disk: this process knows the promise, the
    failure is reported, and each step tries to record it again.
    """
    if in_force is None or in_force.revision != promise.pending.number:
        context.store.set_pending(promise.pending)
        return
    with store_errors_reported(context):
        context.store.set_pending(promise.pending)


def opening_promise(context: Context, state: State, new: InForce, seconds: float) -> Promise:
    """The promise to close the firewall after so many seconds, recorded before it is opened. Raises StoreError.

    What comes back is what was in force before, the revision before a change that waits to be confirmed, or, if
    everything is accepted already, the newest revision that held rules. A reboot loads it too.
    """
    before = state.in_force
    if before is None:
        raise StoreError(
            "nothing is in force that could be put in force again; load rules first, or open without --for"
        )
    back_to: int | None = before.revision
    if state.pending is not None:
        back_to = state.pending.back_to
    elif state.is_open:
        earlier = earlier_rules(context.store, before)
        back_to = None
        if isinstance(earlier, Kept):
            back_to = earlier.revision.number
    fallback = _copy_of(context, state, before, back_to)
    pending = PendingConfirmation(
        number=new.revision,
        back_to=back_to,
        deadline=boottime() + seconds,
        boot_id=context.host.boot_id,
        wall_deadline=time.time() + seconds,
        digest=new.digest,
        opening=True,
    )
    context.store.set_pending(pending)
    if context.store.read_boot_revision() != back_to:
        context.store.write_boot_files(_revision_to_boot(context, fallback))
    return Promise(pending, fallback)


def _revision_to_boot(context: Context, fallback: InForce) -> Revision:
    """What the next boot loads, as a revision: from its file, or from memory."""
    reading = context.store.get(fallback.revision)
    if isinstance(reading, Kept):
        return reading.revision
    return revision_of(context, fallback, (), Cause(fallback.cause))


def after_the_load(context: Context, promise: Promise | None, seconds: float | None) -> Promise | None:
    """The promise with its time counted from now. Where that cannot be recorded, the deadline before it stays."""
    if promise is None or seconds is None:
        return promise
    pending = replace(promise.pending, deadline=boottime() + seconds, wall_deadline=time.time() + seconds)
    try:
        context.store.set_pending(pending)
    except StoreError:
        return promise
    return replace(promise, pending=pending)


def restore_pending(context: Context, state: State) -> None:
    """Record the confirmation that was pending before: nothing was put in force, so nothing new has to be confirmed."""
    with store_errors_reported(context):
        if state.pending is not None:
            context.store.set_pending(state.pending)
        elif context.store.pending() is not None:
            context.store.clear_pending()


def _requested(context: Context, state: State, before: InForce | None, new: InForce, seconds: float) -> Promise | None:
    """The promise that a reload asks for; None where there is no change that it could refer to.

    A reload right after a change that the directory's watch has put in force already refers to that change. A change
    that comes while another is pending is undone together with it. Raises StoreError where there is no way back.
    """
    if before is None:
        return None
    back_to: int | None = before.revision
    if state.pending is not None:
        back_to = state.pending.back_to
    elif new.revision == before.revision:
        if before.cause != CHANGED or not _is_recent(before):
            return None
        back_to = earlier_revision(context, before)
    pending = PendingConfirmation(
        number=new.revision,
        back_to=back_to,
        deadline=boottime() + seconds,
        boot_id=context.host.boot_id,
        wall_deadline=time.time() + seconds,
        digest=new.digest,
    )
    return Promise(pending, _copy_of(context, state, before, back_to))


def _is_recent(before: InForce) -> bool:
    """Whether a revision was put in force a short time ago. The wall clock decides only after a restart of fwguardd."""
    if before.loaded_at is not None:
        return boottime() - before.loaded_at < RECENT
    return abs(time.time() - before.since) < RECENT


def _copy_of(context: Context, state: State, before: InForce, back_to: int | None) -> InForce:
    """The revision to go back to. Raises StoreError if there is none that can be read."""
    for known in (before, state.fallback):
        if known is not None and known.revision == back_to:
            return known
    if back_to is None:
        raise StoreError("there is no earlier revision to go back to")
    reading = context.store.get(back_to)
    if isinstance(reading, Kept):
        return in_force_of(reading.revision)
    reason = f"revision {back_to} is not kept"
    if isinstance(reading, Unreadable):
        reason = reading.reason
    raise StoreError(f"there is no way back: {reason}")
