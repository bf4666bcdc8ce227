"""The tables that an interrupted pass had begun to write, and that no revision names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.record import end
from fwguardd.enforce.reports import LOAD_ERRORS, load_failed, report_unverified
from fwguardd.enforce.transaction import Unverified, put_in_force
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.kernel.iptables import KernelBusyError
from fwguardd.ruleset.canonical import Owned

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.state import InForce, State


def release_touched(context: Context, state: State, in_force: InForce) -> State:
    """Empty the tables that an interrupted pass had begun to write and that the revision in force does not name; the
    state after it. Where that fails it is reported, and tried again."""
    release = state.release(in_force.owned)
    try:
        outcome = put_in_force(context.kernel, in_force.canonical, context.preserve, release)
    except KernelBusyError:
        return state  # The comparison that comes next fails for the same reason, and reports it.
    except LOAD_ERRORS as error:
        return load_failed(context, state, error).state
    if isinstance(outcome, Unverified):
        return report_unverified(context, state, UnverifiedState.UNDO, outcome.reason)
    if release.tables:
        names = ", ".join(sorted(f"{family.value} {name}" for family, name in release.tables))
        message = (
            f"emptied {names}, which an interrupted pass had begun to write; revision {state.revision} is in force"
        )
        context.emit(
            events.REPAIRED,
            message,
            revision=in_force.revision,
            changes=len(release.tables),
            state=KernelState.IN_FORCE.value,
        )
    end(context)
    return replace(state, touched=Owned())
