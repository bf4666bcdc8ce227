"""Going back: confirm, rollback, and the undo of what was not confirmed in time.

Whatever is put in force here is a revision of its own, so that the history shows what was in force when. The files that
were undone are held: they are not applied again until a reload asks, however they change.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.confirmation import INTERRUPTED, hold, restore_held
from fwguardd.enforce.context import (
    Broken,
    Context,
    Done,
    Failed,
    Outcome,
    boottime,
    loaded_before,
    repaired_in,
    still_in_force,
)
from fwguardd.enforce.earlier import earlier_rules
from fwguardd.enforce.file_changes import changes_between, digests_of
from fwguardd.enforce.found import found_in_kernel
from fwguardd.enforce.interrupted import put_recoverably
from fwguardd.enforce.others import Newcomers
from fwguardd.enforce.record import (
    Cause,
    begin,
    end,
    in_force_of,
    keep,
    new_in_force,
    revision_of,
    store_errors_reported,
)
from fwguardd.enforce.repair import enforce
from fwguardd.enforce.reports import LOAD_ERRORS, load_failed, pass_failed, report_written
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.state import EMERGENCY_CAUSE, State
from fwguardd.enforce.transaction import Unchanged, UndoneError
from fwguardd.enforce.unknown import OF_FILES, UnknownState
from fwguardd.enforce.validate import Invalid
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.iptables import KernelError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.canonical import Owned
from fwguardd.ruleset.expiry import files_without_ended
from fwguardd.ruleset.model import FAMILIES
from fwguardd.store.model import Kept, NotKept, Unreadable
from fwguardd.store.revisions import Expired, RevisionKind, StoreError, evaluate_pending
from fwguardd.wording import local_time_of_day

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.enforce.state import InForce
    from fwguardd.ruleset.model import RuleFile
    from fwguardd.store.model import FileChange, Reading
    from fwguardd.store.revisions import PendingConfirmation, Revision


def confirm(context: Context, state: State) -> Outcome:
    """Keep the revision that waits to be confirmed; from now on the next boot loads it too."""
    if state.pending is None or state.in_force is None:
        return Failed(state, "no revision waits to be confirmed", retry=False)
    if state.pending.opening:
        until = local_time_of_day(state.pending.wall_deadline)
        advice = "to keep it open until a reload: fwguardctl open; to close it now: fwguardctl reload"
        return Failed(state, f"the firewall is open until {until}, and that cannot be confirmed; {advice}", retry=False)
    revision = _in_memory(context, state.in_force)
    try:
        context.store.clear_pending()
        context.store.write_boot_files(revision)
        context.store.mend(revision)
    except StoreError as error:
        return pass_failed(context, state, str(error), retry=False)
    context.emit(events.CONFIRMED, f"revision {state.pending.number} is confirmed", revision=state.pending.number)
    return Done(replace(state, pending=None, fallback=None))


def _in_memory(context: Context, in_force: InForce) -> Revision:
    """What is in force as a revision: as the disk has it, or without the rule files where that cannot be read."""
    reading = context.store.get(in_force.revision)
    if isinstance(reading, Kept):
        return reading.revision
    return revision_of(context, in_force, (), Cause(in_force.cause))


def expire(context: Context, state: State, authors: Authors = NO_AUTHORS) -> Outcome | None:
    """Undo a revision that was not confirmed in time; None where nothing has to be undone yet."""
    pending = state.pending
    if pending is None:
        return None
    reason = _expiry(context, state, pending)
    if not reason:
        return None
    outcome = _undo_pending(context, state, pending, reason, authors)
    if isinstance(outcome, Failed):
        return replace(outcome, retry=True, overdue=True)
    return outcome


def _undo_pending(
    context: Context, state: State, pending: PendingConfirmation, reason: str, authors: Authors
) -> Outcome:
    if pending.opening:
        return _close(context, state, pending, reason, authors)
    cause = f"revision {pending.number} was not confirmed"
    way_back = _way_back(context, state, pending)
    if isinstance(way_back, Unreadable):
        return _no_way_back(context, state, pending, f"{cause}, and cannot be undone: {way_back.reason}", authors)
    context.emit(events.UNCONFIRMED, f"revision {pending.number} is undone: {reason}", revision=pending.number)
    undone = _hold_undone(context, replace(state, pending=None), pending.digest, cause)
    return _undo_ended(context, _put_back(context, undone, way_back, Cause(cause)), pending)


def _close(context: Context, state: State, pending: PendingConfirmation, reason: str, authors: Authors) -> Outcome:
    """End an opening for a time: put in force what was in force before. The files are not held because of it."""
    way_back = _way_back(context, state, pending)
    if isinstance(way_back, Unreadable):
        return _no_way_back(context, state, pending, f"the firewall cannot be closed: {way_back.reason}", authors)
    message = f"the firewall was opened for a time, as revision {pending.number}, and is closed: {reason}"
    context.emit(events.CLOSED, message, revision=pending.number)
    why = Cause("closed at the end of its time")
    return _undo_ended(context, _put_back(context, replace(state, pending=None), way_back, why), pending)


def _hold_undone(context: Context, state: State, digest: str, reason: str) -> State:
    """Hold the files that are undone; files that were held since stay so, as they are in the directory now."""
    if state.held is not None and state.held.digest != digest:
        return state
    return hold(context, state, digest, reason)


def _undo_ended(context: Context, outcome: Outcome, pending: PendingConfirmation) -> Outcome:
    """After an undo: nothing is pending any more, or it stays pending and is tried again."""
    if isinstance(outcome, Done):
        with store_errors_reported(context):
            context.store.clear_pending()
        return replace(outcome, state=replace(outcome.state, fallback=None))
    return replace(outcome, state=replace(outcome.state, pending=pending))


def _way_back(context: Context, state: State, pending: PendingConfirmation) -> Revision | Unreadable:
    """The revision that an undo puts in force: from its file, from memory, or from the boot files."""
    number = pending.back_to
    if number is None:
        return Unreadable(0, "no revision was recorded that could be put in force instead")
    reading = context.store.get(number)
    if isinstance(reading, Kept):
        return reading.revision
    copy = _copy_of(context, state, number)
    if copy is not None:
        return copy
    if isinstance(reading, Unreadable):
        return reading
    return Unreadable(number, f"revision {number} is not kept")


def _copy_of(context: Context, state: State, number: int) -> Revision | None:
    """A revision from memory, or from the boot files; None if neither has it."""
    for known in (state.fallback, state.in_force):
        if known is not None and known.revision == number:
            return revision_of(context, known, (), Cause(known.cause))
    copy = context.store.boot_copy()
    if isinstance(copy, Kept) and copy.revision.number == number:
        return copy.revision
    return None


def _no_way_back(
    context: Context, state: State, pending: PendingConfirmation, reason: str, authors: Authors
) -> Outcome:
    """Keep what the kernel holds, and try again later; load the emergency set if the kernel holds nothing."""
    reported = state.held is not None and state.held.reason == reason
    if not reported:
        state = _hold_undone(context, state, pending.digest, reason)
    owned = state.owned | Owned((family, "filter") for family in FAMILIES)
    try:
        found = found_in_kernel(context, owned, Cause("found in the kernel"))
    except KernelError as error:
        return pass_failed(context, state, f"{reason}. The kernel cannot be read either: {error}", retry=True)
    if not found.canonical.restricts and context.emergency_dir is not None:
        report = f"{reason}. The kernel holds no rules, so the emergency set is loaded"
        context.emit(events.UNCONFIRMED, report, revision=pending.number)
        undone = replace(state, pending=None)
        return _undo_ended(context, load_emergency_set(context, undone, context.emergency_dir), pending)
    advice = "What the kernel holds is kept, and this is tried again; fwguardctl history lists what can be put in force"
    failed = Failed(state, f"{reason}. {advice}", retry=True)
    if not reported:
        failed = pass_failed(context, state, failed.reason, retry=True)
    enforced = enforce(context, state, authors)
    if isinstance(enforced, Broken):
        return enforced
    return replace(failed, state=enforced.state)


def _expiry(context: Context, state: State, pending: PendingConfirmation) -> str:
    """Why a pending revision has to be undone now; "" while it can still be confirmed."""
    meaning = evaluate_pending(pending, context.host.boot_id, boottime())
    if isinstance(meaning, Expired):
        return meaning.reason
    if state.revision != pending.number:
        return "fwguardd ended while it was put in force"
    return ""


def rollback(context: Context, state: State, number: int | None, by: str) -> Outcome:
    """Put an earlier revision in force, by default the one before that held rules; the files are held.

    While a revision waits to be confirmed, the default is what the end of its time would put in force. Only a number
    leads to a revision that was opened.
    """
    reading = _target(context, state, number)
    advice = f"fwguardctl history lists the revisions that are kept. {still_in_force(state)}"
    if reading is None:
        return Failed(state, f"no earlier revision with rules is kept; {advice}", retry=False)
    if isinstance(reading, Unreadable):
        message = f"revision {reading.number} cannot be put in force: {reading.reason}; {advice}"
        return Failed(state, message, retry=False)
    if isinstance(reading, NotKept):
        return Failed(state, f"revision {reading.number} is not kept; {advice}", retry=False)
    revision = reading.revision
    digest = take_snapshot(context.rules_dir).digest
    # If fwguardd ends after the load, the next start does not apply the files that were undone.
    hold(context, state, digest, f"a rollback to revision {revision.number}{INTERRUPTED}")
    outcome = _put_back(context, state, revision, Cause(f"rollback to revision {revision.number}", by))
    if not isinstance(outcome, Done):
        restore_held(context, state)
    if not isinstance(outcome, Done):
        return outcome
    return files_held(context, outcome, digest, f"rolled back to revision {revision.number}")


def _target(context: Context, state: State, number: int | None) -> Reading | None:
    if number is not None:
        return context.store.get(number)
    return _before_pending(context, state) or earlier_rules(context.store, state.in_force)


def _before_pending(context: Context, state: State) -> Kept | None:
    """The revision that the end of a pending confirmation would put in force; None for one that was opened."""
    pending = state.pending
    if pending is None or pending.back_to is None or pending.number != state.revision:
        return None
    reading = context.store.get(pending.back_to)
    if isinstance(reading, Kept) and reading.revision.kind is not RevisionKind.OPEN:
        return reading
    return None


def hold_files(context: Context, state: State, by: str) -> Outcome:
    """Apply no changed files until a reload."""
    digest = take_snapshot(context.rules_dir).digest
    return Done(hold(context, state, digest, f"held by {by}"))


def load_emergency_set(context: Context, state: State, directory: Path) -> Outcome:
    """After an undo that failed: put the emergency set in force, the rule files of a directory of the package."""
    try:
        result = context.validator.validate(take_snapshot(directory))
    except NamespaceError as error:
        return pass_failed(context, state, f"the emergency set cannot be rehearsed: {error}", retry=False)
    if isinstance(result, Invalid):
        reason = f"the emergency set is refused: {result.findings.errors[0]}"
        return pass_failed(context, state, reason, retry=False)
    why = Cause(EMERGENCY_CAUSE)
    return put_recorded(context, state, new_in_force(context, "", result.rehearsed, why), why)


def _put_back(context: Context, state: State, revision: Revision, why: Cause) -> Outcome:
    """Put a kept revision in force, without its rules that have ended since."""
    now = time.time()
    earlier, files = in_force_of(revision).without_ended(now), files_without_ended(revision.files, now)
    restored = new_in_force(context, revision.digest, earlier.canonical, why, revision.kind)
    restored = replace(restored, restored=revision.number, file_digests=digests_of(files), ends=earlier.ends)
    return put_recorded(context, state, restored, why, files)


def put_recorded(
    context: Context,
    state: State,
    new: InForce,
    why: Cause,
    files: tuple[RuleFile, ...] = (),
    *,
    for_boot: bool = True,
) -> Outcome:
    """Put a ruleset in force as a new revision, and record it."""
    begin(context, state, new)
    preserve = context.preserve.owning(loaded_before(state.in_force))
    newcomers = Newcomers(context, state, preserve)
    try:
        release = state.release(new.owned)
        applied = put_recoverably(context, state, new.canonical, preserve, release, newcomers)
    except UndoneError as error:
        return _not_put(context, state, error)
    except LOAD_ERRORS as error:
        return load_failed(context, state, error)
    changes = _file_changes(state, new)
    unrecorded = keep(context, new, files, why, for_boot=for_boot, changes=changes)
    end(context)
    state = replace(
        state.seen((), time.time()),
        touched=Owned(),
        interrupted=None,
        in_force=new,
        refused=None,
        blocked="",
        unverified=None,
        unknown=state.unknown - {UnknownState.REVISION},
        unrecorded=unrecorded,
        others=newcomers.others,
    )
    if isinstance(applied, Unchanged):
        message = f"revision {new.revision} is in force ({why.cause}); the kernel held it already"
        context.emit(
            events.UNCHANGED,
            message,
            revision=new.revision,
            rules=new.rule_count,
            cause=why.cause,
            state=state.kernel_state.value,
        )
        return Done(state)
    return Done(report_written(context, state, new, applied, f"({why.cause})"), len(applied.changes))


def _not_put(context: Context, state: State, error: UndoneError) -> Outcome:
    """After a load that failed and was undone: enforce what was in force before, and report what the kernel holds."""
    if not state.touched:
        end(context)
    enforced = enforce(context, state, NO_AUTHORS)
    if isinstance(enforced, Broken):
        return enforced
    failed = load_failed(context, enforced.state, error)
    if isinstance(failed, Failed):
        return replace(failed, repaired=repaired_in(enforced))
    return failed


def _file_changes(state: State, new: InForce) -> tuple[FileChange, ...]:
    """The files that differ from those of the revision in force before."""
    if state.in_force is None or new.restored is None:
        return ()
    return changes_between(state.in_force.file_digests, new.file_digests)


def files_held(context: Context, outcome: Done | Failed, digest: str, reason: str) -> Done | Failed:
    """After a deliberate step back: no revision waits to be confirmed any more, and the files are held."""
    state = outcome.state
    if state.pending is not None or context.store.pending() is not None:
        with store_errors_reported(context):
            context.store.clear_pending()
    state = replace(state, pending=None, fallback=None, unknown=state.unknown - OF_FILES)
    return replace(outcome, state=hold(context, state, digest, reason))
