"""What the state directory has recorded, read at a start, and read again while it cannot be read.

The newest revision is kept twice: in a file of its own, and as text in the boot files. Where its file is damaged, the
boot files say what is in force; where the two disagree, the one that equals the kernel is believed. Where neither can
be read, what the kernel holds is kept as a revision of its own, and the files are validated again. An older revision is
never put in force in place of one that cannot be read.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.before_load import recall_before_load
from fwguardd.enforce.confirmation import INTERRUPTED, UNFINISHED, hold
from fwguardd.enforce.earlier import files_before_opening
from fwguardd.enforce.found import found_in_kernel
from fwguardd.enforce.interrupted import undo_interrupted
from fwguardd.enforce.recalled_notes import read_others, read_touched
from fwguardd.enforce.record import (
    Cause,
    earlier_revision,
    in_force_of,
    keep,
    report_faults,
    revision_of,
    stamp,
    store_errors_reported,
    write_boot_files,
)
from fwguardd.enforce.rollback import load_emergency_set
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.state import State
from fwguardd.enforce.transaction import find_drift
from fwguardd.enforce.unknown import UnknownState, UnverifiedState
from fwguardd.kernel.iptables import KernelError
from fwguardd.ruleset.canonical import Owned
from fwguardd.ruleset.model import FAMILIES
from fwguardd.store.model import Kept, NotKept, Reading, Unreadable, UnreadableNote
from fwguardd.store.revisions import HeldFiles, PendingConfirmation, Revision, RevisionKind, StoreError

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.state import InForce


def recall(context: Context) -> State:
    """The state that the disk has recorded. ``unknown`` says what could not be read.

    With another tool or kernel the files are validated again, since what these accept may differ.
    """
    return _read(context, State(unknown=frozenset(UnknownState)))


def recall_again(context: Context, state: State) -> State:
    """The state after another try to read what could not be read before; to be called before each step.

    Where the newest revision still cannot be read, what the kernel holds is kept in its place. A load that did not end
    is undone.
    """
    if state.unknown:
        state = _read(context, state)
    if UnknownState.REVISION in state.unknown:
        state = _keep_kernel(context, state)
    return undo_interrupted(context, state)


def _read(context: Context, state: State) -> State:
    unknown, state = state.unknown, read_touched(context, read_others(context, state))
    if UnknownState.BEFORE_LOAD in unknown:
        state = recall_before_load(context, state)
    if UnknownState.REVISION in unknown:
        state = _read_revision(context, state)
    if UnknownState.PENDING in unknown:
        state = _read_pending(context, state)
    if UnknownState.HELD in unknown:
        state = _read_held(context, state)
    report_faults(context)
    if unknown & {UnknownState.REVISION, UnknownState.PENDING} and not state.unknown & {
        UnknownState.REVISION,
        UnknownState.PENDING,
    }:
        _complete_boot_files(context, state)
    return state


def _read_revision(context: Context, state: State) -> State:
    newest = context.store.newest()
    if isinstance(newest, NotKept):
        return replace(state, unknown=state.unknown - {UnknownState.REVISION})
    revision = _newest_copy(context, newest, context.store.boot_copy())
    if revision is None:
        return state
    in_force = in_force_of(revision)
    if revision.kind is RevisionKind.OPEN:
        in_force = replace(in_force, file_digests=files_before_opening(context.store))
    state = replace(state, in_force=in_force, unknown=state.unknown - {UnknownState.REVISION})
    if (revision.backend, revision.tool_version, revision.kernel) != stamp(context) and not state.is_open:
        state = state.to_validate_again()
    return state


def _newest_copy(context: Context, newest: Kept | Unreadable, copy: Reading) -> Revision | None:
    """The newest revision, from its own file or from the boot files; None if neither can be read."""
    if not isinstance(copy, Kept) or copy.revision.number != number_of(newest):
        if isinstance(newest, Kept):
            return newest.revision
        return None
    if isinstance(newest, Kept):
        return _believed(context, newest.revision, copy.revision)
    message = f"{newest.reason}; revision {newest.number} is taken from the boot files"
    context.emit(events.STATE_DAMAGED, message)
    with store_errors_reported(context):
        context.store.mend(copy.revision)
    return copy.revision


def number_of(reading: Reading) -> int:
    """The number of the revision that was to be read."""
    if isinstance(reading, Kept):
        return reading.revision.number
    return reading.number


def _believed(context: Context, revision: Revision, copy: Revision) -> Revision:
    """Of two copies of a revision the one that equals the kernel, if they differ."""
    own, other = in_force_of(revision), in_force_of(copy)
    if own.canonical.same_tables(other.canonical):
        return revision
    believed, used = revision, "the file in the state directory is used"
    try:
        drifted = find_drift(context.kernel, own.canonical, context.preserve)
        if drifted and not find_drift(context.kernel, other.canonical, context.preserve):
            believed, used = copy, "the copy is used, which is what the kernel holds"
    except KernelError as error:
        used = f"the kernel cannot be read ({error}), and the file in the state directory is used"
    message = f"the file of revision {revision.number} and its copy in the boot files differ; {used}"
    context.emit(events.STATE_DAMAGED, message)
    with store_errors_reported(context):
        context.store.write_boot_files(believed)
    return believed


def _read_pending(context: Context, state: State) -> State:
    pending = context.store.pending()
    if isinstance(pending, UnreadableNote):
        if not pending.lost or UnknownState.REVISION in state.unknown:
            return state
        pending = _expired_confirmation(context, state)
        with store_errors_reported(context):
            context.store.set_pending(pending)
    state = replace(state, unknown=state.unknown - {UnknownState.PENDING})
    if pending is None:
        return state
    if UnknownState.REVISION not in state.unknown and pending.number < state.revision:
        # It could not be removed when it had ended. The revision in force is none of its concern.
        with store_errors_reported(context):
            context.store.clear_pending()
        return state
    return replace(state, pending=pending, fallback=_fallback(context, state, pending))


def _expired_confirmation(context: Context, state: State) -> PendingConfirmation:
    """What takes the place of a damaged note: the boot files hold what an undo puts in force, and it is due now."""
    back_to, number, digest = context.store.read_boot_revision(), state.revision, ""
    if state.in_force is not None:
        digest = state.in_force.digest
    if back_to is None:
        back_to = earlier_revision(context, state.in_force)
    if back_to is None or back_to >= number:
        number, digest = context.store.next_number(), take_snapshot(context.rules_dir).digest
    return PendingConfirmation(number, back_to, 0.0, context.host.boot_id, 0.0, digest)


def _fallback(context: Context, state: State, pending: PendingConfirmation) -> InForce | None:
    """A copy in memory of the revision to go back to."""
    if pending.back_to is None:
        return None
    if pending.back_to == state.revision:
        return state.in_force
    for reading in (context.store.get(pending.back_to), context.store.boot_copy()):
        if isinstance(reading, Kept) and reading.revision.number == pending.back_to:
            return in_force_of(reading.revision)
    return None


def _read_held(context: Context, state: State) -> State:
    held = context.store.held()
    if isinstance(held, UnreadableNote):
        return _hold_all(context, state, held)
    if held is not None and held.reason == UNFINISHED and _is_in_force(state, held):
        # A reload that had to be confirmed has put them in force, and ended before it could say so. After a rollback
        # to the revision of the same files they stay held.
        with store_errors_reported(context):
            context.store.release()
        held = None
    state = replace(state, held=held, unknown=state.unknown - {UnknownState.HELD})
    if held is not None and held.reason.endswith(INTERRUPTED):
        return _with_interrupted(context, state, held)
    return state


def _with_interrupted(context: Context, state: State, held: HeldFiles) -> State:
    """The state after a rollback during which fwguardd ended: what its load left, if it was not recorded, is undone.
    Where everything is accepted, `undo_interrupted` does that."""
    state = hold(context, state, held.digest, f"{held.reason} by the end of fwguardd")
    if state.is_open:
        return state
    return replace(state, unverified=UnverifiedState.UNDO, unverified_why=held.reason)


def _hold_all(context: Context, state: State, note: UnreadableNote) -> State:
    """Hold the files that are there now, because it is not known which were held."""
    held = state.held
    if held is None:
        digest = take_snapshot(context.rules_dir).digest
        held = HeldFiles(digest, "which rule files were held could not be read")
    state = replace(state, held=held)
    if note.lost:
        with store_errors_reported(context):
            context.store.hold(held.digest, held.reason)
        state = replace(state, unknown=state.unknown - {UnknownState.HELD})
    return state


def _is_in_force(state: State, held: HeldFiles) -> bool:
    in_force = state.in_force
    return in_force is not None and in_force.kind is RevisionKind.RULES and in_force.digest == held.digest


def _complete_boot_files(context: Context, state: State) -> None:
    """Let the next boot load what it should, if a pass that was killed left another revision in the boot files."""
    number: int | None = state.revision
    if state.pending is not None:
        number = state.pending.back_to
    if number and context.store.read_boot_revision() != number:
        write_boot_files(context, number)


def _write_lost(context: Context, state: State) -> None:
    """Write what is in force anew, if somebody has removed it from the state directory, or removed the directory."""
    in_force = state.in_force
    if in_force is None or not context.store.lost(in_force.revision):
        return
    message = f"the file of revision {in_force.revision} was removed from the state directory; it is written anew"
    context.emit(events.STATE_DAMAGED, message)
    revision = revision_of(context, in_force, (), Cause(in_force.cause, in_force.by))
    snapshot = take_snapshot(context.rules_dir)
    if snapshot.digest == in_force.digest:
        revision = replace(revision, files=snapshot.files)
    with store_errors_reported(context):
        context.store.mend(revision)
        _write_notes(context, state)
        context.store.write_boot_files(_to_boot(context, state, revision))


def _write_notes(context: Context, state: State) -> None:
    """Record what waits to be confirmed and which files are held. Raises StoreError."""
    if state.pending is not None:
        context.store.set_pending(state.pending)
    if state.held is not None:
        context.store.hold(state.held.digest, state.held.reason)


def _to_boot(context: Context, state: State, revision: Revision) -> Revision:
    """What the next boot loads: the revision in force, or what an undo puts in force while one is pending."""
    if state.pending is None or state.fallback is None:
        return revision
    return revision_of(context, state.fallback, (), Cause(state.fallback.cause))


def settle_disk(context: Context, state: State) -> State:
    """The state after another try to write what could not be written; to be called after each step.

    A failure was reported when it came first. A note that stays in spite of it undoes nothing: its number is passed.
    """
    _write_lost(context, state)
    with contextlib.suppress(StoreError):
        state = _write_revision(context, state)
    with contextlib.suppress(StoreError):
        _write_pending(context, state)
    with contextlib.suppress(StoreError):
        _write_held(context, state)
    return state


def _write_revision(context: Context, state: State) -> State:
    if state.unrecorded is None:
        return state
    context.store.record(state.unrecorded)
    if state.pending is None:
        context.store.write_boot_files(state.unrecorded)
    return replace(state, unrecorded=None)


def _write_pending(context: Context, state: State) -> None:
    if UnknownState.PENDING in state.unknown or context.store.pending() == state.pending:
        return
    if state.pending is None:
        context.store.clear_pending()
    else:
        context.store.set_pending(state.pending)


def _write_held(context: Context, state: State) -> None:
    if UnknownState.HELD in state.unknown or context.store.held() == state.held:
        return
    if state.held is None:
        context.store.release()
    else:
        context.store.hold(state.held.digest, state.held.reason)


def _keep_kernel(context: Context, state: State) -> State:
    """Keep what the kernel holds in place of a revision that cannot be read; the emergency set if that is nothing.

    Nothing is decided while the kernel, or all of the state directory, cannot be read.
    """
    newest = context.store.newest()
    if not isinstance(newest, Unreadable) or not newest.number:
        return state
    why = Cause(f"found in the kernel, as revision {newest.number} cannot be read")
    try:
        found = found_in_kernel(context, _tables_known(context) | state.touched, why)
    except KernelError as error:
        context.emit(events.APPLY_FAILED, f"{newest.reason}; nothing is changed, as the kernel cannot be read: {error}")
        return state
    if not found.canonical.restricts and context.emergency_dir is not None:
        context.emit(
            events.STATE_DAMAGED, f"{newest.reason}; the kernel holds no rules, so the emergency set is loaded"
        )
        return load_emergency_set(context, state, context.emergency_dir).state
    message = (
        f"{newest.reason}; what the kernel holds is kept as revision {found.revision}, and the files are validated"
    )
    context.emit(events.STATE_DAMAGED, message)
    pending = _pending_as(context, state.pending, newest.number, found.revision)
    for_boot = pending is None and UnknownState.PENDING not in state.unknown
    unrecorded = keep(context, found, (), why, for_boot=for_boot)
    known = state.unknown - {UnknownState.REVISION}
    return replace(state, in_force=found, pending=pending, unknown=known, unrecorded=unrecorded)


def _pending_as(
    context: Context, pending: PendingConfirmation | None, number: int, found: int
) -> PendingConfirmation | None:
    """The pending confirmation of the revision with this number, for the one that is kept in its place."""
    if pending is None or pending.number != number:
        return pending
    pending = replace(pending, number=found)
    with store_errors_reported(context):
        context.store.set_pending(pending)
    return pending


def _tables_known(context: Context) -> Owned:
    """The tables of the revisions that can be read; the filter tables if there is none."""
    copies = [context.store.boot_copy()]
    summaries = context.store.summaries()
    if summaries:
        copies.append(context.store.get(summaries[-1].number))
    tables = Owned((family, "filter") for family in FAMILIES)
    for copy in copies:
        if isinstance(copy, Kept):
            tables |= in_force_of(copy.revision).owned
    return tables
