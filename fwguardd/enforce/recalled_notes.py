"""What small files of the state directory say about the kernel, read until they can be read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.enforce.unknown import UnknownState
from fwguardd.store.model import UnreadableNote

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.state import State


def read_touched(context: Context, state: State) -> State:
    """The state with the tables that an interrupted write had begun to fill, once they can be read."""
    if UnknownState.TOUCHED not in state.unknown:
        return state
    touched = context.store.touched()
    if isinstance(touched, UnreadableNote):
        return _without_lost(state, UnknownState.TOUCHED, touched)
    return replace(state, touched=state.touched | touched, unknown=state.unknown - {UnknownState.TOUCHED})


def read_others(context: Context, state: State) -> State:
    """The state with the rules of other programs that are remembered, once they can be read. What was found until then
    has taken the place of a file that could be written."""
    if UnknownState.OTHERS not in state.unknown:
        return state
    others = context.store.others()
    if isinstance(others, UnreadableNote):
        return _without_lost(state, UnknownState.OTHERS, others)
    return replace(state, others=others or state.others, unknown=state.unknown - {UnknownState.OTHERS})


def _without_lost(state: State, unknown: UnknownState, note: UnreadableNote) -> State:
    """The state, in which a note that is damaged for good counts as known: the damage was reported."""
    if note.lost:
        return replace(state, unknown=state.unknown - {unknown})
    return state
