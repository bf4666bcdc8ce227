"""Loads in place of the emergency set, and loads that end an opening: they are undone also after a kill.

What was in force before a load is in force after one that did not end. The newest revision says what that is, but for
two states, in which the kernel holds what no revision has: the emergency set of the boot loader, and an open firewall,
to which somebody may have added rules by hand. There the kernel's content is kept before the load
(`fwguardd.store.before_load`), and the next start puts it back, table by table.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.before_load import is_interrupted, keep_before_load, needs_note
from fwguardd.enforce.context import loaded_before
from fwguardd.enforce.record import end, forget_before_load
from fwguardd.enforce.reports import LOAD_ERRORS, report_unverified
from fwguardd.enforce.transaction import (
    Unchanged,
    UndoDelayedError,
    UndoFailedError,
    Unverified,
    find_drift,
    put_in_force,
)
from fwguardd.enforce.unknown import UnknownState, UnverifiedState
from fwguardd.kernel.iptables import KernelError
from fwguardd.ruleset.canonical import Owned
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.enforce.context import Context
    from fwguardd.enforce.look import Look
    from fwguardd.enforce.state import InForce, State
    from fwguardd.enforce.transaction import Applied
    from fwguardd.ruleset.canonical import Canonical, Emptying
    from fwguardd.ruleset.preserve import Preserve

    BeforeWrite = Callable[[Look], Preserve]


def put_recoverably(
    context: Context,
    state: State,
    canonical: Canonical,
    preserve: Preserve,
    release: Emptying | None = None,
    before_write: BeforeWrite | None = None,
    beside: Callable[[], None] | None = None,
) -> Applied | Unverified | Unchanged:
    """`put_in_force`, which the next start undoes if fwguardd is killed meanwhile. Raises what that raises.

    After a success `end` is to be called, once what was loaded is recorded.
    """
    if not needs_note(state):
        return put_in_force(context.kernel, canonical, preserve, release, before_write, beside)
    recorder = partial(_keep_first, context, state, preserve, before_write)
    try:
        return put_in_force(context.kernel, canonical, preserve, release, recorder, beside)
    except (UndoFailedError, UndoDelayedError):
        raise
    except LOAD_ERRORS:
        if not is_interrupted(state):
            forget_before_load(context)
        raise


def _keep_first(
    context: Context, state: State, preserve: Preserve, before_write: BeforeWrite | None, look: Look
) -> Preserve:
    """What is called before the write: the note is kept before anything else."""
    keep_before_load(context, state, look)
    if before_write is None:
        return preserve
    return before_write(look)


def undo_interrupted(context: Context, state: State) -> State:
    """The state after another try to put back what the kernel held before a load that did not end."""
    before = state.interrupted
    if not is_interrupted(state) or UnknownState.REVISION in state.unknown:
        return state
    if before is None:
        return _not_read(context, state)
    if not _is_needed(before, state) or _has_ended(context, state):
        forget_before_load(context)
        return replace(state, interrupted=None)
    try:
        outcome = _put_back(context, state, before)
    except LOAD_ERRORS as error:
        return report_unverified(context, state, UnverifiedState.UNDO, str(error))
    if isinstance(outcome, Unverified):
        return report_unverified(context, state, UnverifiedState.UNDO, outcome.reason)
    return _undone(context, state, outcome)


def _not_read(context: Context, state: State) -> State:
    """The state while the note cannot be read. Where a revision says what is in force, it does not matter."""
    if not needs_note(state):
        return replace(state, unknown=state.unknown - {UnknownState.BEFORE_LOAD})
    why = "what the kernel held before a load that may not have ended cannot be read"
    return report_unverified(context, state, UnverifiedState.UNDO, why)


def _is_needed(before: InForce, state: State) -> bool:
    """Whether no revision that was recorded since says what is in force."""
    return before.revision == state.revision and needs_note(state)


def _put_back(context: Context, state: State, before: InForce) -> Applied | Unverified | Unchanged:
    """Load what the kernel held before. Raises `LOAD_ERRORS`."""
    preserve = context.preserve.owning(loaded_before(state.in_force)).owning(before.canonical.rulesets)
    return put_in_force(context.kernel, before.canonical, preserve)


def _undone(context: Context, state: State, outcome: Applied | Unchanged) -> State:
    """The state after the undo, which is reported if there was anything to undo."""
    end(context)
    state = replace(state, interrupted=None, touched=Owned(), unverified=None, unverified_why="")
    if not isinstance(outcome, Unchanged):
        _report_undone(context, state, len(outcome.changes))
    return state


def _has_ended(context: Context, state: State) -> bool:
    """Whether a revision that takes the place of the emergency set is loaded whole."""
    if state.is_open or state.in_force is None:
        return False
    try:
        return not find_drift(context.kernel, state.in_force.canonical, context.preserve)
    except KernelError:
        return False


def _report_undone(context: Context, state: State, changes: int) -> None:
    message = (
        f"fwguardd ended during a load, and what that had loaded is undone: {counted(changes, 'difference')}. "
        f"The state is {state.measured()}"
    )
    context.emit(
        events.urgent(events.REPAIRED),
        message,
        revision=state.revision,
        changes=changes,
        state=state.kernel_state.value,
    )
