"""Going back, and opening up: confirm, rollback, open, and what happens when nobody confirmed.

Whatever is put in force here is a revision of its own, so that the history tells what was in force when. The files that
were undone are held: they are not applied again until they change or a reload asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.context import Context, Done, Failed, Outcome, boottime, still
from fwguardd.enforce.reconcile import LOAD_ERRORS, apply_failed, earlier_revision, failed, report_written
from fwguardd.enforce.record import Cause, begin, end, in_force_of, keep, new_in_force
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.transaction import Unchanged, put_in_force
from fwguardd.enforce.validate import Invalid
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.canonical import Canonical, Emptying, Owned
from fwguardd.ruleset.model import FAMILIES
from fwguardd.store.revisions import Expired, HeldFiles, RevisionKind, StoreError, evaluate_pending

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.enforce.state import State
    from fwguardd.store.revisions import Revision


def confirm(context: Context, state: State) -> Outcome:
    """Keep the revision that waits to be confirmed; from now on the next boot loads it too."""
    if state.pending is None or state.in_force is None:
        return Failed(state, "no revision waits to be confirmed", passing=False)
    revision = context.store.get(state.in_force.revision)
    try:
        context.store.clear_pending()
        if revision is not None:
            context.store.write_boot_files(revision)
    except StoreError as error:
        return failed(context, state, f"{error}", passing=False)
    context.emit(events.CONFIRMED, f"revision {state.pending.number} is confirmed", revision=state.pending.number)
    return Done(replace(state, pending=None))


def expire(context: Context, state: State) -> Outcome | None:
    """Undo a revision that nobody confirmed in time; None where there is nothing to undo yet."""
    pending = state.pending
    if pending is None:
        return None
    meaning = evaluate_pending(pending, context.host.boot_id, boottime())
    unknown = state.in_force is None or state.in_force.revision != pending.number
    if not isinstance(meaning, Expired) and not unknown:
        return None
    why = meaning.reason if isinstance(meaning, Expired) else "fwguardd ended while it was put in force"
    context.emit(events.UNCONFIRMED, f"revision {pending.number} is undone: {why}", revision=pending.number)
    state = _hold(context, replace(state, pending=None), pending.digest, f"revision {pending.number} was not confirmed")
    back_to = context.store.get(pending.back_to) if pending.back_to is not None else None
    outcome = _put_back(context, state, back_to, Cause(f"revision {pending.number} was not confirmed"))
    if isinstance(outcome, Done):
        try:
            context.store.clear_pending()
        except StoreError as error:
            context.emit(events.STATE_FAILED, str(error))
        return outcome
    outcome = replace(outcome, state=replace(outcome.state, pending=pending))
    # Whatever went wrong, what nobody confirmed must not stay: it is tried again, with growing waits.
    return replace(outcome, passing=True) if isinstance(outcome, Failed) else outcome


def rollback(context: Context, state: State, number: int | None, by: str) -> Outcome:
    """Put an earlier revision in force, by default the one before; the files in the directory are held."""
    target = number if number is not None else earlier_revision(context, state.in_force)
    revision = context.store.get(target) if target is not None else None
    if revision is None:
        name = f"revision {number}" if number is not None else "an earlier revision"
        return Failed(
            state, f"{name} is not kept; fwguardctl history lists those that are. {still(state)}", passing=False
        )
    digest = take_snapshot(context.rules_dir).digest
    outcome = _put_back(context, state, revision, Cause(f"rollback to revision {revision.number}", by))
    if not isinstance(outcome, Done):
        return outcome
    return replace(outcome, state=_settle(context, outcome.state, digest, f"rolled back to revision {revision.number}"))


def open_firewall(context: Context, state: State, by: str) -> Outcome:
    """Accept everything in the tables that are ours, in one commit for each; chains of others stay as they are."""
    owned = Owned((family, "filter") for family in FAMILIES)
    if state.in_force is not None:
        owned = state.in_force.owned
    emptied = Canonical.emptied(Emptying.for_open(owned))
    digest = take_snapshot(context.rules_dir).digest
    outcome = _put(context, state, emptied, Cause("opened", by), RevisionKind.OPEN, digest)
    if not isinstance(outcome, Done):
        return outcome
    return replace(outcome, state=_settle(context, outcome.state, digest, "the firewall was opened"))


def load_emergency_set(context: Context, state: State, directory: Path) -> Outcome:
    """After an undo that failed: put the emergency set in force, the rule files of a directory that nobody edits."""
    try:
        result = context.validator.validate(take_snapshot(directory))
    except NamespaceError as error:
        return failed(context, state, f"the emergency set cannot be rehearsed: {error}", passing=False)
    if isinstance(result, Invalid):
        return failed(context, state, f"the emergency set is refused: {result.findings.errors[0]}", passing=False)
    return _put(context, state, result.rehearsed, Cause("emergency"), RevisionKind.RULES, "")


def _put_back(context: Context, state: State, revision: Revision | None, why: Cause) -> Outcome:
    """Put a kept revision in force; without one, what is owned is let go: emptied, as before the first revision."""
    if revision is None:
        emptied = Canonical.emptied(state.release(Owned()))
        return _put(context, state, emptied, why, RevisionKind.OPEN, "")
    earlier = in_force_of(revision)
    return _put(context, state, earlier.canonical, why, revision.kind, revision.digest, revision)


def _put(
    context: Context,
    state: State,
    canonical: Canonical,
    why: Cause,
    kind: RevisionKind,
    digest: str,
    source: Revision | None = None,
) -> Outcome:
    new = new_in_force(context, digest, canonical, why, kind)
    begin(context, state, new)
    try:
        applied = put_in_force(context.kernel, canonical, context.preserve, state.release(new.owned))
    except LOAD_ERRORS as error:
        return apply_failed(context, state, error)
    keep(context, new, source.files if source else (), why, for_boot=True)
    end(context)
    state = replace(state, touched=Owned(), in_force=new, refused=None, drift=(), unverified=None)
    if isinstance(applied, Unchanged):
        message = f"revision {new.revision} is in force ({why.cause}); the kernel held it already"
        context.emit(events.UNCHANGED, message, revision=new.revision, rules=new.rule_count, cause=why.cause)
        return Done(state)
    return Done(report_written(context, state, applied, f"({why.cause})"), len(applied.changes))


def _settle(context: Context, state: State, digest: str, reason: str) -> State:
    """After a deliberate step back nothing waits to be confirmed any more, and the files are held."""
    if state.pending is not None:
        try:
            context.store.clear_pending()
        except StoreError as error:
            context.emit(events.STATE_FAILED, str(error))
    return _hold(context, replace(state, pending=None), digest, reason)


def _hold(context: Context, state: State, digest: str, reason: str) -> State:
    try:
        context.store.hold(digest, reason)
    except StoreError as error:
        context.emit(events.STATE_FAILED, str(error))
    return replace(state, held=HeldFiles(digest, reason))
