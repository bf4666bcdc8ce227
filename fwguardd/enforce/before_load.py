"""The note of what the kernel held before a load, where no revision says it: see `fwguardd.enforce.interrupted`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.record import Cause, in_force_of, revision_of
from fwguardd.enforce.state import InForce, State
from fwguardd.ruleset.canonical import Canonical
from fwguardd.store.model import DamagedError

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.look import Look
    from fwguardd.store.before_load import BeforeLoad


def needs_note(state: State) -> bool:
    """Whether no revision says what the kernel holds: the emergency set is loaded, or everything is accepted."""
    return state.is_open or bool(state.emergency)


def keep_before_load(context: Context, state: State, look: Look) -> None:
    """Keep what the kernel holds in the tables that a load may write, unless it is what an earlier load has left.

    A failure is reported and prevents nothing.
    """
    note = context.before_load
    if note is None or state.interrupted is not None or not look.plans():
        return
    found = Canonical.from_kernel(look.own, look.wanted)
    before = InForce(state.revision, "", found, time.time(), "before a load")
    try:
        note.keep(revision_of(context, before, (), Cause(before.cause)))
    except OSError as error:
        message = f"{note.path} cannot be written: {error.strerror}; if fwguardd is killed during the load that follows"
        context.emit(events.STATE_FAILED, f"{message}, what it has loaded until then stays")


def recall_before_load(context: Context) -> InForce | None:
    """What the kernel held before a load that did not end; None if there was none, or if that cannot be read."""
    if context.before_load is None:
        return None
    try:
        return _read(context.before_load)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except DamagedError as error:
        problem = str(error)
    context.emit(events.STATE_DAMAGED, f"{context.before_load.path} {problem}; a load that did not end is not undone")
    return None


def _read(note: BeforeLoad) -> InForce | None:
    """What the note says. Raises DamagedError, OSError."""
    before = note.read()
    if before is None:
        return None
    return in_force_of(before)
