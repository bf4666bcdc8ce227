"""Whether a pass has packets to send. Most have none, and few hosts ever: what sends them is imported only for one that
has, as its 50 modules take a tenth of the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.enforce.prover import Proof

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.prover import ProofRequest
    from fwguardd.enforce.state import State
    from fwguardd.enforce.validate import Valid
    from fwguardd.ruleset.model import Finding


def prove(context: Context, state: State, accepted: Valid, request: ProofRequest) -> Proof:
    """`fwguardd.enforce.proof.prove`, unless there is nothing to prove. Raises KernelError."""
    prover = context.prover
    if prover is None:
        return Proof()
    if not (accepted.tests or accepted.invariants or request.session or prover.may_watch()):
        return Proof(guarded=prover.watched is not None)
    from fwguardd.enforce import proof  # noqa: PLC0415 - see above.

    return proof.prove(context, prover, state, accepted, request)


def closed_by_reading(state: State, accepted: Valid, proved: Proof) -> tuple[Finding, ...]:
    """`fwguardd.enforce.proof.closed_by_reading`, where no packets have shown it."""
    if proved.guarded:
        return ()
    from fwguardd.enforce import proof  # noqa: PLC0415 - see above.

    return proof.closed_by_reading(state, accepted)


def report_impact(context: Context, state: State, accepted: Valid) -> None:
    """`fwguardd.enforce.impact.report_impact`. Raises KernelError."""
    from fwguardd.enforce import impact  # noqa: PLC0415 - see above.

    impact.report_impact(context, state, accepted)
