"""Deciding about rules of other programs: an administrator keeps them, or has them removed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.confirmation import hold
from fwguardd.enforce.context import Done, Failed
from fwguardd.enforce.others import MOST_LISTED, record, remembering, undecided
from fwguardd.enforce.reconcile import reload_files
from fwguardd.enforce.record import Cause
from fwguardd.enforce.repair import repair
from fwguardd.kernel.attribution import NO_AUTHORS
from fwguardd.ruleset.others import Standing, with_standing
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.enforce.context import Context, Outcome
    from fwguardd.enforce.state import State
    from fwguardd.ruleset.others import Others


def adopt(context: Context, state: State, numbers: Sequence[int] | None, by: str, *, remove: bool) -> Outcome:
    """Keep the rules with these numbers, or remove them; None stands for all that are to be decided about.

    Before the first load nothing is removed at once. Once all is decided, the files are applied.
    """
    if numbers is None:
        numbers = [other.number for other in undecided(state.others)]
    missing = set(numbers).difference(other.number for other in state.others)
    if missing:
        reason = f"there is no rule {min(missing)} to decide about: fwguardctl adopt lists them"
        return Failed(state, reason, retry=False)
    if remove and state.in_force is not None:
        return _removed(context, state, frozenset(numbers))
    return _stay_or_go(context, state, numbers, by, {True: Standing.REMOVED, False: Standing.KEPT}[remove])


def _stay_or_go(context: Context, state: State, numbers: Sequence[int], by: str, standing: Standing) -> Outcome:
    """Remember a decision. Once all is decided before the first load, the files are applied."""
    others = with_standing(state.others, numbers, standing)
    _decided(context, others, numbers, by, standing)
    state = replace(state, others=others)
    if state.in_force is not None or state.held is None or not numbers:
        return Done(state)
    if state.undecided:
        left = counted(len(state.undecided), "rule is", "rules are")
        return Done(hold(context, state, state.held.digest, f"{left} still to be decided about"))
    return reload_files(remembering(context, others), state, Cause("adopt", by), None)


def _removed(context: Context, state: State, numbers: frozenset[int]) -> Outcome:
    """Remove rules from the kernel; where that fails they stay remembered."""
    assert state.in_force is not None
    others = tuple(other for other in state.others if other.number not in numbers)
    outcome = repair(remembering(context, others), replace(state, others=others), state.in_force)
    if isinstance(outcome, Done):
        record(context, others)
        return outcome
    return replace(outcome, state=replace(outcome.state, others=state.others))


def _decided(context: Context, others: Others, numbers: Sequence[int], by: str, standing: Standing) -> None:
    record(context, others)
    rules = [str(other.place) for other in others if other.number in numbers]
    if rules and standing is Standing.KEPT:
        message = (
            f"{counted(len(rules), 'rule')} of other programs stay, as {by} decided: {'; '.join(rules[:MOST_LISTED])}"
        )
        context.emit(events.OTHERS_KEPT, message, others=rules, **NO_AUTHORS.fields())
