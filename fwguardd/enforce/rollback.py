"""Going back, and opening the firewall: confirm, rollback, open, and the undo of what was not confirmed in time.

Whatever is put in force here is a revision of its own, so that the history shows what was in force when. The files that
were undone are held: they are not applied again until they change or a reload asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.context import Context, Done, Failed, Outcome, boottime, still_in_force
from fwguardd.enforce.record import (
    Cause,
    begin,
    earlier_revision,
    end,
    in_force_of,
    keep,
    kept_revision,
    new_in_force,
    store_errors_reported,
)
from fwguardd.enforce.reports import LOAD_ERRORS, load_failed, pass_failed, report_written
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
    from fwguardd.ruleset.model import RuleFile
    from fwguardd.store.revisions import PendingConfirmation, Revision


def confirm(context: Context, state: State) -> Outcome:
    """Keep the revision that waits to be confirmed; from now on the next boot loads it too."""
    if state.pending is None or state.in_force is None:
        return Failed(state, "no revision waits to be confirmed", retry=False)
    revision = context.store.get(state.in_force.revision)
    try:
        context.store.clear_pending()
        if revision is not None:
            context.store.write_boot_files(revision)
    except StoreError as error:
        return pass_failed(context, state, str(error), retry=False)
    context.emit(events.CONFIRMED, f"revision {state.pending.number} is confirmed", revision=state.pending.number)
    return Done(replace(state, pending=None))


def expire(context: Context, state: State) -> Outcome | None:
    """Undo a revision that was not confirmed in time; None where nothing has to be undone yet."""
    pending = state.pending
    if pending is None:
        return None
    reason = _expiry(context, state, pending)
    if not reason:
        return None
    context.emit(events.UNCONFIRMED, f"revision {pending.number} is undone: {reason}", revision=pending.number)
    cause = f"revision {pending.number} was not confirmed"
    state = _hold(context, replace(state, pending=None), pending.digest, cause)
    outcome = _put_back(context, state, kept_revision(context, pending.back_to), Cause(cause))
    if isinstance(outcome, Done):
        with store_errors_reported(context):
            context.store.clear_pending()
        return outcome
    outcome = replace(outcome, state=replace(outcome.state, pending=pending))
    if isinstance(outcome, Failed):
        # Whatever the reason is, what was not confirmed must not stay: the undo is tried again.
        return replace(outcome, retry=True)
    return outcome


def _expiry(context: Context, state: State, pending: PendingConfirmation) -> str:
    """Why a pending revision has to be undone now; "" while it can still be confirmed."""
    meaning = evaluate_pending(pending, context.host.boot_id, boottime())
    if isinstance(meaning, Expired):
        return meaning.reason
    if state.revision != pending.number:
        return "fwguardd ended while it was put in force"
    return ""


def rollback(context: Context, state: State, number: int | None, by: str) -> Outcome:
    """Put an earlier revision in force, by default the one before; the files in the directory are held."""
    target, name = number, f"revision {number}"
    if target is None:
        target, name = earlier_revision(context, state.in_force), "an earlier revision"
    revision = kept_revision(context, target)
    if revision is None:
        advice = "fwguardctl history lists the revisions that are kept"
        return Failed(state, f"{name} is not kept; {advice}. {still_in_force(state)}", retry=False)
    digest = take_snapshot(context.rules_dir).digest
    outcome = _put_back(context, state, revision, Cause(f"rollback to revision {revision.number}", by))
    return _files_held(context, outcome, digest, f"rolled back to revision {revision.number}")


def open_firewall(context: Context, state: State, by: str) -> Outcome:
    """Accept everything in the tables that are ours, each in one transaction; chains of others stay as they are."""
    owned = Owned((family, "filter") for family in FAMILIES)
    if state.in_force is not None:
        owned = state.in_force.owned
    emptied = Canonical.emptied(Emptying.for_open(owned))
    digest = take_snapshot(context.rules_dir).digest
    outcome = _put(context, state, emptied, Cause("opened", by), RevisionKind.OPEN, digest)
    return _files_held(context, outcome, digest, "the firewall was opened")


def load_emergency_set(context: Context, state: State, directory: Path) -> Outcome:
    """After an undo that failed: put the emergency set in force, the rule files of a directory of the package."""
    try:
        result = context.validator.validate(take_snapshot(directory))
    except NamespaceError as error:
        return pass_failed(context, state, f"the emergency set cannot be rehearsed: {error}", retry=False)
    if isinstance(result, Invalid):
        reason = f"the emergency set is refused: {result.findings.errors[0]}"
        return pass_failed(context, state, reason, retry=False)
    return _put(context, state, result.rehearsed, Cause("emergency"), RevisionKind.RULES, "")


def _put_back(context: Context, state: State, revision: Revision | None, why: Cause) -> Outcome:
    """Put a kept revision in force; without one, empty all owned tables, as before the first revision."""
    if revision is None:
        emptied = Canonical.emptied(state.release(Owned()))
        return _put(context, state, emptied, why, RevisionKind.OPEN, "")
    earlier = in_force_of(revision)
    return _put(context, state, earlier.canonical, why, revision.kind, revision.digest, revision.files)


def _put(
    context: Context,
    state: State,
    canonical: Canonical,
    why: Cause,
    kind: RevisionKind,
    digest: str,
    files: tuple[RuleFile, ...] = (),
) -> Outcome:
    """Put a ruleset in force as a new revision, and record it."""
    new = new_in_force(context, digest, canonical, why, kind)
    begin(context, state, new)
    try:
        applied = put_in_force(context.kernel, canonical, context.preserve, state.release(new.owned))
    except LOAD_ERRORS as error:
        return load_failed(context, state, error)
    keep(context, new, files, why, for_boot=True)
    end(context)
    state = replace(state, touched=Owned(), in_force=new, refused=None, drift=(), unverified=None)
    if isinstance(applied, Unchanged):
        message = f"revision {new.revision} is in force ({why.cause}); the kernel held it already"
        context.emit(events.UNCHANGED, message, revision=new.revision, rules=new.rule_count, cause=why.cause)
        return Done(state)
    return Done(report_written(context, state, new, applied, f"({why.cause})"), len(applied.changes))


def _files_held(context: Context, outcome: Outcome, digest: str, reason: str) -> Outcome:
    """After a deliberate step back: no revision waits to be confirmed any more, and the files are held."""
    if not isinstance(outcome, Done):
        return outcome
    state = outcome.state
    if state.pending is not None:
        with store_errors_reported(context):
            context.store.clear_pending()
        state = replace(state, pending=None)
    return replace(outcome, state=_hold(context, state, digest, reason))


def _hold(context: Context, state: State, digest: str, reason: str) -> State:
    with store_errors_reported(context):
        context.store.hold(digest, reason)
    return replace(state, held=HeldFiles(digest, reason))
