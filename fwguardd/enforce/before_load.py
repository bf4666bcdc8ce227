"""The note of what the kernel held before a load, where no revision says it: see `fwguardd.enforce.interrupted`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.record import Cause, in_force_of, revision_of
from fwguardd.enforce.state import InForce, State
from fwguardd.enforce.unknown import UnknownState
from fwguardd.ruleset.canonical import Canonical
from fwguardd.store.model import DamagedError

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.look import Look
    from fwguardd.store.before_load import BeforeLoad


def needs_note(state: State) -> bool:
    """Whether no revision says what the kernel holds: the emergency set is loaded, or everything is accepted."""
    return state.is_open or bool(state.emergency)


def is_interrupted(state: State) -> bool:
    """Whether a load did not end, and is not undone yet; or whether one did is not known."""
    return state.interrupted is not None or UnknownState.BEFORE_LOAD in state.unknown


def keep_before_load(context: Context, state: State, look: Look) -> None:
    """Keep what the kernel holds in the tables that a load may write, unless it is what an earlier load has left.

    A failure is reported and prevents nothing.
    """
    note = context.before_load
    if note is None or is_interrupted(state) or not look.plans():
        return
    found = Canonical.from_kernel(look.own, look.wanted)
    before = InForce(state.revision, "", found, time.time(), "before a load")
    try:
        note.keep(revision_of(context, before, (), Cause(before.cause)))
    except OSError as error:
        message = f"{note.path} cannot be written: {error.strerror}; if fwguardd is killed during the load that follows"
        context.emit(events.STATE_FAILED, f"{message}, what it has loaded until then stays")


def recall_before_load(context: Context, state: State) -> State:
    """The state with what the kernel held before a load that did not end, once that can be read. A note that is damaged
    is reported."""
    note, before = context.before_load, None
    unknown = state.unknown - {UnknownState.BEFORE_LOAD}
    try:
        if note is not None:
            before = _read(note)
    except OSError:
        unknown |= {UnknownState.BEFORE_LOAD}
    except DamagedError as error:
        assert note is not None
        context.emit(events.STATE_DAMAGED, f"{note.path} {error}; a load that did not end is not undone")
    return replace(state, interrupted=before, unknown=unknown)


def _read(note: BeforeLoad) -> InForce | None:
    """What the note says. Raises DamagedError, OSError."""
    before = note.read()
    if before is None:
        return None
    return in_force_of(before)
