"""Leaving the other backend: nf_tables and the older x_tables filter independently, and both drop packets.

A host can change from one to the other (``update-alternatives --config iptables``). Once the revision is in force in
the tables of this backend, what fwguardd had loaded into those of the other one is emptied, and the boot files name
this backend. Rules of other programs stay there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.record import Cause, revision_of, store_errors_reported
from fwguardd.enforce.reports import LOAD_ERRORS
from fwguardd.enforce.state import State
from fwguardd.enforce.transaction import Unchanged, put_in_force
from fwguardd.kernel.iptables import LiveKernel
from fwguardd.ruleset.canonical import Canonical, Owned

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.state import InForce
    from fwguardd.kernel.iptables import Backend


def former_of(context: Context, state: State) -> InForce | None:
    """The revision of this state, if the other backend loaded it."""
    if state.in_force is None or state.in_force.backend in (None, context.host.tool.backend):
        return None
    return state.in_force


def leave_backend(context: Context, state: State, former: InForce | None) -> InForce | None:
    """Empty the tables of a revision that the other backend loaded; the revision if that has to wait.

    It waits until the state is in-force: then this backend filters, and the host is never open in between.
    """
    if former is None or former.backend is None or state.kernel_state is not KernelState.IN_FORCE:
        return former
    if state.in_force is not None and state.in_force.revision == former.revision:
        with store_errors_reported(context):
            context.store.write_boot_files(revision_of(context, state.in_force, (), Cause(state.in_force.cause)))
    _empty(context, former, former.backend)
    return None


def _empty(context: Context, former: InForce, backend: Backend) -> None:
    emptied = Canonical.emptied(State(former).release(Owned()))
    name = f"iptables-{backend.value}"
    try:
        outcome = put_in_force(LiveKernel(backend), emptied, context.preserve.owning(former.canonical.rulesets))
    except LOAD_ERRORS as error:
        what = f"the rules of revision {former.revision} in the tables of {name} filter packets too"
        message = f"{what}, and cannot be removed: {error}; {name}-save shows them"
        context.emit(events.OTHER_RULES, message, table=())
        return
    if not isinstance(outcome, Unchanged):
        what = f"the rules of revision {former.revision} were removed from the tables of {name}"
        context.emit(events.OTHER_RULES, f"{what}: this host uses {context.host.tool} now", table=())
