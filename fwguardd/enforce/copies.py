"""Leaving out of accepted rule files what another program has loaded into the kernel already."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.enforce.context import loaded_before
from fwguardd.enforce.look import look_at
from fwguardd.ruleset.copies import may_have_twins
from fwguardd.ruleset.model import Findings

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.state import State
    from fwguardd.enforce.validate import Valid


def without_copies(context: Context, state: State, accepted: Valid) -> Valid:
    """Accepted files without the rules that another program has added. The kernel is read only if there may be any.

    Raises KernelError.
    """
    wanted = accepted.rehearsed.rulesets
    if not may_have_twins(wanted, context.preserve):
        return accepted
    look = look_at(context.kernel, wanted, context.preserve)
    live = {family: saved.shown for family, saved in look.saved.items()}
    loaded = loaded_before(state.in_force)
    rehearsed, findings = accepted.rehearsed.without_twins(live, loaded, context.preserve)
    found = Findings((*accepted.findings, *context.validator.unsilenced(findings)))
    return replace(accepted, rehearsed=rehearsed, findings=found)
