"""Comparing the kernel with the revision in force, and repairing what other programs changed."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.before_load import is_interrupted
from fwguardd.enforce.context import Context, Done, Failed, Outcome
from fwguardd.enforce.found import found_in_kernel
from fwguardd.enforce.interrupted import put_recoverably
from fwguardd.enforce.look import known_look, look_at, look_of
from fwguardd.enforce.others import recognize, record
from fwguardd.enforce.record import Cause, forget_before_load
from fwguardd.enforce.reports import (
    LOAD_ERRORS,
    load_failed,
    report_drift,
    report_repaired,
    report_unverified,
    report_verified,
)
from fwguardd.enforce.touched import release_touched
from fwguardd.enforce.transaction import Applied, Unchanged, UndoneError, Unverified, find_drift, put_in_force
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.iptables import KernelError, RestoreRefusedError, UnknownContentError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.canonical import Owned
from fwguardd.ruleset.losses import Loss, losses
from fwguardd.ruleset.model import FAMILIES
from fwguardd.ruleset.others import without_vanished
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.enforce.look import Look
    from fwguardd.enforce.state import InForce, State
    from fwguardd.kernel.rehearsal import RehearsalRefused
    from fwguardd.ruleset.canonical import Emptying
    from fwguardd.ruleset.diff import Difference


def enforce(context: Context, state: State, authors: Authors, *, anew: bool = True) -> Outcome:
    """Compare the kernel with the revision in force, and repair it if that is wanted.

    Nothing is compared where nothing is in force, or where everything is accepted on purpose. ``authors`` are the
    processes that are known to have changed the kernel. Unless ``anew``, the kernel is not read where it is certain
    that it holds what the last look has shown.
    """
    in_force = state.in_force
    if is_interrupted(state):
        return Failed(state, state.unverified_why, retry=True)
    if in_force is None:
        return _with_nothing_in_force(context, replace(state, unverified=None))
    if state.is_open and state.unverified is None:
        return Done(state)
    if state.touched:
        state = release_touched(context, state, in_force)
    return _compare_and_repair(context, state, in_force, authors, anew=anew)


def _compare_and_repair(context: Context, state: State, in_force: InForce, authors: Authors, *, anew: bool) -> Outcome:
    undo_delayed = state.unverified is UnverifiedState.UNDO
    try:
        look = _look(context, in_force, anew=anew)
        drift = look.differences()
        if not undo_delayed:  # What a failed load left is no drift, and of no other program.
            context, state, drift = _recognized(context, state, look, authors)
        state = _still_emergency(context, state, in_force, drift)
        state = _report_news(context, state, in_force, drift, authors, look).seen(drift, time.time())
        if drift and not anew and not context.repair:  # It is compared with the tables as iptables-save shows them.
            return _compare_and_repair(context, state, in_force, authors, anew=True)
        if not drift or not (context.repair or undo_delayed):
            return Done(report_verified(context, state, as_wanted=not drift))
    except UnknownContentError as error:
        failed = _not_comparable(context, state, error, authors)
        return _with_shown_families(context, failed, in_force, authors)
    except KernelError as error:
        return _not_comparable(context, state, error, authors)
    return repair(context, state, in_force, authors)


def _look(context: Context, in_force: InForce, *, anew: bool) -> Look:
    """What the kernel holds. Raises KernelError."""
    rulesets = in_force.canonical.rulesets
    known = None
    if not anew:
        known = known_look(context.kernel, rulesets, context.preserve)
    return known or look_at(context.kernel, rulesets, context.preserve)


def _with_shown_families(context: Context, failed: Failed, in_force: InForce, authors: Authors) -> Failed:
    """Repair the families that iptables can show whole, where it cannot show a table of another one."""
    if not context.repair or failed.state.emergency:
        return failed
    for family in in_force.canonical.rulesets:
        try:
            outcome = put_in_force(context.kernel, in_force.canonical.of_family(family), context.preserve)
        except LOAD_ERRORS:
            continue  # It is the one that cannot be shown, or the next comparison reports the error.
        if isinstance(outcome, Applied):
            action = f"it was repaired in {family.value}, the only family that iptables can show"
            report_drift(context, in_force, outcome.changes, authors, action)
            failed = replace(failed, repaired=frozenset(outcome.changes))
    return failed


def _recognized(
    context: Context, state: State, look: Look, authors: Authors
) -> tuple[Context, State, tuple[Difference, ...]]:
    """The drift of a look without the rules of other programs that stay, and what is remembered of them."""
    drift = look.differences()
    if state.emergency:
        return context, state, drift
    others = without_vanished(state.others, look.live)
    if others != state.others:
        record(context, others)
        state = replace(state, others=others)
    recognized = recognize(context, state.others, drift, authors)
    if not recognized.found:
        return context, state, drift
    drift = look_of(look.saved, look.wanted, recognized.context.preserve).differences()
    return recognized.context, replace(state, others=recognized.others), drift


def _losses(state: State, look: Look, drift: tuple[Difference, ...]) -> tuple[Loss, ...]:
    """What other programs have lost since the last look."""
    last = state.last_look
    if last is None or last.saved.keys() != look.saved.keys():
        return ()
    return losses(drift, last.live, last.own, look.live)


def _report_news(
    context: Context, state: State, in_force: InForce, drift: tuple[Difference, ...], authors: Authors, look: Look
) -> State:
    """Report drift that was not reported before, and a repair that could not be verified when it was loaded."""
    if state.unverified is UnverifiedState.UNDO:
        return state
    # Compared as sets: one more copy of a rule that was reported is not news.
    if drift and frozenset(drift) != frozenset(state.drift):
        authors = context.by_now(authors)
        action = ""
        if state.emergency:
            action = "the emergency set is loaded in its place, until the revision can be loaded"
        report_drift(context, in_force, drift, authors, action, _losses(state, look, drift))
    if not drift and state.drift and state.unverified is UnverifiedState.WRITTEN:
        report_repaired(context, in_force, len(state.drift))
    return replace(state, last_look=look)


def _with_nothing_in_force(context: Context, state: State) -> Outcome:
    """Check whether the emergency set of the boot loader is still loaded, where no revision is in force."""
    if not state.emergency:
        return Done(state)
    try:
        if not _restricts(context, Owned((family, "filter") for family in FAMILIES)):
            state = replace(state, emergency="")
    except KernelError as error:
        return _not_comparable(context, state, error, NO_AUTHORS)
    return Done(replace(state, compared=time.time()))


def _still_emergency(context: Context, state: State, in_force: InForce, drift: tuple[Difference, ...]) -> State:
    """The state without the emergency set where another program has changed that since.

    The kernel differs from the revision as it did before, or, at the first comparison, it is at least closed. Raises
    KernelError.
    """
    if not state.emergency:
        return state
    unchanged = frozenset(drift) == frozenset(state.drift)
    if not state.drift:
        unchanged = _restricts(context, in_force.owned)
    if unchanged:
        return state
    return replace(state, emergency="", repair_failure="")


def _restricts(context: Context, tables: Owned) -> bool:
    return found_in_kernel(context, tables, Cause("found in the kernel")).canonical.restricts


def repair(context: Context, state: State, in_force: InForce, authors: Authors = NO_AUTHORS) -> Outcome:
    """Repair the drift of this state. Where that fails, it stays the drift, and the repair is tried again."""
    release: Emptying | None = None
    if state.emergency:
        release = state.release(in_force.owned)
    try:
        outcome = put_recoverably(context, state, in_force.canonical, context.preserve, release)
    except UndoneError as error:
        return _repair_refused(context, state, in_force, error, authors)
    except KernelError as error:
        return _not_comparable(context, state, error, authors)
    except LOAD_ERRORS as error:
        return load_failed(context, state, error)
    forget_before_load(context)
    return _repaired(context, state, in_force, outcome, authors)


def _repair_refused(context: Context, state: State, in_force: InForce, error: UndoneError, authors: Authors) -> Outcome:
    """Repair all but the rules that the kernel refuses, such as one whose ipset was destroyed.

    In place of the emergency set the revision is loaded whole or not at all: the set is closed, and the rest of a
    revision need not be.
    """
    refused = None
    if isinstance(error.__cause__, RestoreRefusedError):
        with contextlib.suppress(NamespaceError):
            refused = context.validator.refused_rules.of(in_force.revision, in_force.canonical)
    if state.is_emergency:
        return _repair_failed(context, state, _first_reason(error, refused))
    if refused is None or not refused.rules:
        return _repair_families(context, state, in_force, str(error), authors)
    return _repair_rest(context, state, in_force, refused, authors)


def _repair_families(context: Context, state: State, in_force: InForce, reason: str, authors: Authors) -> Outcome:
    """Repair each family by itself, where the two cannot be repaired in one transaction."""
    if len({difference.family for difference in state.drift}) == 1:
        return _repair_failed(context, state, reason)
    written: list[Difference] = []
    try:
        for family in in_force.canonical.rulesets:
            with contextlib.suppress(UndoneError):
                outcome = put_in_force(context.kernel, in_force.canonical.of_family(family), context.preserve)
                if not isinstance(outcome, Unchanged):
                    written += outcome.changes
        missing = find_drift(context.kernel, in_force.canonical, context.preserve)
    except KernelError as error:
        return _not_comparable(context, state, error, authors)
    except LOAD_ERRORS as error:
        return load_failed(context, state, error)
    if not missing:
        return _repaired(context, state, in_force, Applied(tuple(written)), authors)
    return _partly_repaired(context, state, in_force, written, missing, reason)


def _partly_repaired(
    context: Context,
    state: State,
    in_force: InForce,
    written: Sequence[Difference],
    missing: tuple[Difference, ...],
    reason: str,
) -> Failed:
    """Report what could be repaired of this state's drift, and why the rest could not."""
    found = len(state.drift)
    state = report_verified(context, state.seen(missing, time.time()), as_wanted=not missing)
    if written:
        message = f"{len(written)} of {counted(found, 'difference')} repaired"
        message = f"{message}; {counted(len(missing), 'place')} of revision {in_force.revision} cannot be repaired yet"
        context.emit(
            events.REPAIRED,
            message,
            revision=in_force.revision,
            changes=len(written),
            state=state.kernel_state.value,
        )
    return replace(_repair_failed(context, state, reason), repaired=frozenset(written))


def _repair_rest(
    context: Context, state: State, in_force: InForce, refused: RehearsalRefused, authors: Authors
) -> Outcome:
    """Put the revision in force without the refused rules, and measure what is missing."""
    try:
        outcome, refused = _put_rest(context, in_force, refused)
        missing = find_drift(context.kernel, in_force.canonical, context.preserve)
    except UndoneError as error:
        if context.validator.refused_rules.search_all():
            return _repair_refused(context, state, in_force, error, authors)
        return _repair_failed(context, state, str(error))
    except KernelError as error:
        return _not_comparable(context, state, error, authors)
    except LOAD_ERRORS as error:
        return load_failed(context, state, error)
    if isinstance(outcome, Unverified):
        state = report_unverified(context, state, UnverifiedState.WRITTEN, outcome.reason, authors)
        return Failed(state, outcome.reason, retry=True)
    written: tuple[Difference, ...] = ()
    if isinstance(outcome, Applied):
        written = outcome.changes
    return _partly_repaired(context, state, in_force, written, missing, _reasons(refused))


def _put_rest(
    context: Context, in_force: InForce, refused: RehearsalRefused
) -> tuple[Applied | Unverified | Unchanged, RehearsalRefused]:
    """Load the revision without the refused rules; what was written, and what was left out. Raises `LOAD_ERRORS`.

    A rule that jumps to a chain of another program is refused in the rehearsal, where that chain does not exist. So it
    is left out only if the kernel refuses it too.
    """
    fewer = refused.where_undeclared_chains_exist()
    if fewer.rules and refused.undeclared:
        with contextlib.suppress(UndoneError):
            return _put_without(context, in_force, fewer), fewer
    return _put_without(context, in_force, refused), refused


def _put_without(context: Context, in_force: InForce, refused: RehearsalRefused) -> Applied | Unverified | Unchanged:
    return put_in_force(context.kernel, in_force.canonical.without_rules(refused.rules), context.preserve)


def _first_reason(error: UndoneError, refused: RehearsalRefused | None) -> str:
    """Why a revision cannot be loaded: the refused rules, if they are known."""
    if refused is None or not refused.rules:
        return str(error)
    return _reasons(refused)


def _reasons(refused: RehearsalRefused) -> str:
    """Why rules cannot be loaded: the first error, and how many more there are."""
    more = ""
    if len(refused.rules) > 1:
        more = f" (and {counted(len(refused.rules) - 1, 'more rule')})"
    return f"{refused.findings.errors[0]}{more}"


def _repair_failed(context: Context, state: State, reason: str) -> Failed:
    """Report that drift cannot be repaired: once for each reason. It is tried again.

    The kernel was compared, so nothing is unverified any more but what a load that failed earlier has left.
    """
    if state.unverified is not UnverifiedState.UNDO:
        state = report_verified(context, state, as_wanted=False)
    failed = f"{counted(len(state.drift), 'difference')} could not be repaired: {reason}"
    if state.is_emergency:
        failed = f"revision {state.revision} could not be loaded in place of the emergency set: {reason}"
    if state.repair_failure != reason:
        state = replace(state, repair_failure=reason)
        message = f"{failed}. The state is {state.kernel_state.value}; fwguardd tries again"
        context.emit(
            events.APPLY_FAILED, message, revision=state.revision, reason=reason, state=state.kernel_state.value
        )
    return Failed(state, failed, retry=True)


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
    """Report a repair, once it was verified."""
    if isinstance(outcome, Unverified):
        # What was drift stays so, until the kernel can be compared.
        return Done(
            report_unverified(context, state, UnverifiedState.WRITTEN, outcome.reason, authors),
            len(outcome.changes),
            frozenset(outcome.changes),
        )
    state = report_verified(context, state.seen((), time.time()), as_wanted=True)
    if isinstance(outcome, Unchanged):
        return Done(state)
    report_repaired(context, in_force, len(outcome.changes))
    return Done(state, len(outcome.changes), frozenset(outcome.changes))
