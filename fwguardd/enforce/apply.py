"""Putting accepted rule files in force: as a new revision, which may have to be confirmed."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.confirmation import CHANGED, RELOAD, Promise, after_the_load, make_promise, restore_pending
from fwguardd.enforce.context import Context, Done, Outcome, loaded_before, still_in_force
from fwguardd.enforce.file_changes import changes_between, digests_of, with_owners
from fwguardd.enforce.found import found_in_kernel
from fwguardd.enforce.interrupted import put_recoverably
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.look import look_of
from fwguardd.enforce.others import Newcomers, record, without_removed
from fwguardd.enforce.record import (
    Cause,
    Recording,
    begin,
    end,
    keep,
    new_in_force,
    revision_of,
    store_errors_reported,
    write_boot_files,
)
from fwguardd.enforce.reports import (
    LOAD_ERRORS,
    load_failed,
    pass_failed,
    report_drift,
    report_pending,
    report_repaired,
    report_written,
)
from fwguardd.enforce.state import InForce, State
from fwguardd.enforce.tracking import track_before
from fwguardd.enforce.transaction import Applied, Unchanged, UndoDelayedError, UndoFailedError, Unverified
from fwguardd.enforce.unknown import OF_FILES, UnverifiedState
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.iptables import KernelError
from fwguardd.ruleset.expiry import ends_of
from fwguardd.store.revisions import RevisionKind, StoreError
from fwguardd.wording import counted

if TYPE_CHECKING:
    from fwguardd.enforce.file_changes import Digests
    from fwguardd.enforce.look import Look
    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.enforce.validate import Valid
    from fwguardd.ruleset.expiry import Ends
    from fwguardd.ruleset.others import Others
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.store.model import FileChange
    from fwguardd.store.revisions import Revision


class _DriftBefore:
    """Drift that is found right before other files are loaded: it is reported, and the load replaces it. Rules of other
    programs that stay are recognized before that. ``preserve`` is what the load preserves in any case."""

    def __init__(self, context: Context, state: State, authors: Authors, preserve: Preserve) -> None:
        self._context, self._authors, self._preserve = context, authors, preserve
        self.state = state

    def __call__(self, look: Look) -> Preserve:
        """Compare what the kernel holds with the revision in force. Raises KernelError."""
        track_before(self._context, look)
        state = self.state
        undo_delayed = state.unverified is UnverifiedState.UNDO
        if state.in_force is None or undo_delayed or state.kernel_state in (KernelState.OPEN, KernelState.EMERGENCY):
            return self._preserve
        newcomers = Newcomers(self._context, state, self._preserve, self._authors)
        preserve = newcomers(look)
        self._report(look, replace(state, others=newcomers.others), state.in_force, preserve)
        return preserve

    def _report(self, look: Look, state: State, in_force: InForce, preserve: Preserve) -> None:
        rulesets = in_force.canonical.rulesets
        wanted = {family: ruleset for family, ruleset in rulesets.items() if family in look.saved}
        drift = look_of(look.saved, wanted, preserve).differences()
        if drift and frozenset(drift) != frozenset(state.drift):
            authors = self._context.by_now(self._authors)
            report_drift(self._context, in_force, drift, authors, "the files that are being applied replace it")
        self.state = state.seen(drift, time.time())


def apply_files(
    context: Context,
    state: State,
    snapshot: Snapshot,
    accepted: Valid,
    why: Cause,
    confirm_within: float | None,
    authors: Authors = NO_AUTHORS,
) -> Outcome:
    """Put accepted files in force and record them. A pending confirmation is recorded first.

    Drift that is found before the load is reported with its ``authors``.
    """
    if why.cause == CHANGED and context.confirmation_asked():
        return Done(state, files_changed=True)  # The reload that waits applies them, as a change to be confirmed.
    try:
        before = _before(context, state, accepted, why, confirm_within)
        new = _named(context, before, snapshot, accepted, why)
        if why.cause != RELOAD and _is_promised(state, before, new):
            confirm_within = None
        promise = make_promise(context, state, before, new, confirm_within)
    except KernelError as error:
        return load_failed(context, state, error)
    except StoreError as error:
        reason = f"nothing was changed: {error}. {still_in_force(state)}"
        return pass_failed(context, state, reason, retry=why.cause != RELOAD)
    begin(context, state, new)
    release = replace(state, in_force=before).release(new.owned)
    preserve = context.preserve.owning(loaded_before(state.in_force))
    with Recording(context, _to_record(context, before, new, snapshot, why)) as recording:
        drift = _DriftBefore(context, state, authors, preserve)
        try:
            outcome = put_recoverably(context, state, new.canonical, preserve, release, drift, beside=recording.begin)
        except LOAD_ERRORS as error:
            _forget_attempt(context, drift.state, error)
            return load_failed(context, drift.state, error)
        promise = after_the_load(context, promise, confirm_within)
        unrecorded = state.unrecorded
        if recording.revision is None:
            _let_boot_undo(context, state, promise)
        else:
            unrecorded = recording.keep(for_boot=promise is None)
    _release_held(context, state)
    end(context)
    _report_promise(context, state, promise)
    others = _forget_removed(context, drift.state.others)
    unknown = drift.state.unknown - OF_FILES
    after = replace(_with_promise(new, promise), unrecorded=unrecorded, others=others, unknown=unknown)
    after = after.seen((), time.time())
    return _with_repair(context, new, outcome, drift, _applied(context, after, new, outcome, why))


def _to_record(
    context: Context, before: InForce | None, new: InForce, snapshot: Snapshot, why: Cause
) -> Revision | None:
    """A new revision, with the files that have changed and their owners; None where it is the one in force."""
    if before is not None and new.revision == before.revision:
        return None
    changes = _file_changes(before, new)
    return revision_of(context, new, snapshot.files, why.with_owners(changes), changes)


def _forget_removed(context: Context, others: Others) -> Others:
    """What is remembered of other programs, without what the load has removed as an administrator wanted."""
    left = without_removed(others)
    if left != others:
        record(context, left)
    return left


def _with_repair(
    context: Context, new: InForce, outcome: Applied | Unverified | Unchanged, drift: _DriftBefore, done: Done
) -> Done:
    """The outcome with the drift that the load has replaced, which is reported as repaired once that was verified."""
    if not isinstance(outcome, Applied) or not drift.state.drift:
        return done
    report_repaired(context, new, len(drift.state.drift))
    return replace(done, repaired=frozenset(drift.state.drift))


def _is_promised(state: State, before: InForce | None, new: InForce) -> bool:
    """Whether a change of files needs no promise of its own: the ruleset is the same, or it is undone together with the
    change before, at the time of that one."""
    if before is not None and new.revision == before.revision:
        return True
    return state.pending is not None and not state.pending.opening


def _before(
    context: Context, state: State, accepted: Valid, why: Cause, confirm_within: float | None
) -> InForce | None:
    """What an undo puts in force; before the first revision that is what the kernel holds. Raises KernelError."""
    if state.in_force is None and (confirm_within is not None or why.cause == CHANGED):
        return _found(context, accepted)
    return state.in_force


def _file_changes(before: InForce | None, new: InForce) -> tuple[FileChange, ...]:
    """The files that differ from those of the revision in force before, with their owners."""
    earlier: Digests = ()
    if before is not None:
        earlier = before.file_digests
    return with_owners(changes_between(earlier, new.file_digests))


def _report_promise(context: Context, state: State, promise: Promise | None) -> None:
    """Report a promise that was not made before."""
    if promise is not None and promise.pending != state.pending:
        report_pending(context, promise.pending)


def _let_boot_undo(context: Context, state: State, promise: Promise | None) -> None:
    """For a promise about what is in force already: let the next boot load what an undo would put in force."""
    if promise is not None and promise.pending != state.pending and promise.pending.back_to is not None:
        write_boot_files(context, promise.pending.back_to)


def _with_promise(new: InForce, promise: Promise | None) -> State:
    if promise is None:
        return State(new)
    return State(new, pending=promise.pending, fallback=promise.fallback)


def _forget_attempt(context: Context, state: State, error: Exception) -> None:
    """After a load that failed: what was recorded for it does not apply, unless it may have left something behind."""
    restore_pending(context, state)
    if not isinstance(error, (UndoFailedError, UndoDelayedError)) and not state.touched:
        end(context)


def _applied(
    context: Context, state: State, new: InForce, outcome: Applied | Unverified | Unchanged, why: Cause
) -> Done:
    """Report what was put in force."""
    if isinstance(outcome, Unchanged):
        rules = counted(new.rule_count, "rule")
        message = f"the kernel already holds what {context.rules_dir} says, {rules}; nothing was written"
        context.emit(
            events.UNCHANGED,
            message,
            revision=new.revision,
            rules=new.rule_count,
            cause=why.cause,
            state=state.kernel_state.value,
        )
        return Done(state)
    state = report_written(context, state, new, outcome, f"from {context.rules_dir} ({why.cause})")
    return Done(state, len(outcome.changes))


def _named(context: Context, before: InForce | None, snapshot: Snapshot, accepted: Valid, why: Cause) -> InForce:
    """What was accepted, under its number: a new one only if it is another ruleset than the one before, or ends at
    other times, or the other backend loaded that."""
    ends, digests = ends_of(snapshot.files), digests_of(snapshot.files)
    if before is not None and _is_same(context, before, accepted, ends):
        new = replace(before, digest=snapshot.digest, canonical=accepted.rehearsed)
    else:
        new = new_in_force(context, snapshot.digest, accepted.rehearsed, why)
    return replace(new, file_digests=digests, ends=ends)


def _is_same(context: Context, before: InForce, accepted: Valid, ends: Ends) -> bool:
    """Whether a revision is the ruleset that was accepted, loaded by this backend, and ends when that does."""
    is_here = before.backend in (None, context.host.tool.backend)
    at_same_times = [end.until for end in before.ends] == [end.until for end in ends]
    return is_here and at_same_times and before.kind is RevisionKind.RULES and before.canonical == accepted.rehearsed


def _found(context: Context, accepted: Valid) -> InForce:
    """What the kernel held in these tables before, recorded as a revision to go back to. Raises KernelError."""
    why = Cause("found in the kernel")
    in_force = found_in_kernel(context, accepted.rehearsed.owned, why)
    keep(context, in_force, (), why, for_boot=False)
    return in_force


def _release_held(context: Context, state: State) -> None:
    if state.held is not None or context.store.held() is not None:
        with store_errors_reported(context):
            context.store.release()
