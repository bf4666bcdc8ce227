"""Opening the firewall: everything is accepted in the tables that are ours.

An administrator who opens the firewall is locked out, or about to be. So what can be opened is opened: where the two
families cannot be opened in one transaction, each is by itself, and where iptables-save does not work, the built-in
chains are flushed without a look. What could not be opened is reported, and tried again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.enforce.confirmation import after_the_load, opening_promise, restore_pending
from fwguardd.enforce.context import Context, Done, Failed, Outcome, loaded_before
from fwguardd.enforce.record import Cause, end, keep, new_in_force
from fwguardd.enforce.reports import LOAD_ERRORS, pass_failed
from fwguardd.enforce.rollback import files_held, put_recorded
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.transaction import put_in_force
from fwguardd.enforce.unknown import OF_FILES, UnverifiedState
from fwguardd.kernel.iptables import KernelError, UnknownContentError
from fwguardd.ruleset.canonical import Canonical, Emptying, Owned
from fwguardd.ruleset.model import FAMILIES
from fwguardd.ruleset.operations import FlushChain, Operation, Plan, SetPolicy
from fwguardd.store.revisions import RevisionKind, StoreError

if TYPE_CHECKING:
    from fwguardd.enforce.state import InForce, State
    from fwguardd.ruleset.model import Family, Ruleset


def open_firewall(context: Context, state: State, by: str, seconds: float | None = None) -> Outcome:
    """Accept everything in the tables that are ours, each in one transaction; chains of others stay as they are.

    With ``seconds`` it closes by itself, which is recorded before it is opened. Otherwise the next boot leaves it open,
    and the files are held.
    """
    owned = state.owned or Owned((family, "filter") for family in FAMILIES)
    emptied = Canonical.emptied(Emptying.for_open(owned))
    digest = take_snapshot(context.rules_dir).digest
    why = Cause("opened", by)
    opened = new_in_force(context, digest, emptied, why, RevisionKind.OPEN)
    if state.in_force is not None:
        opened = replace(opened, file_digests=state.in_force.file_digests)
    if seconds is not None:
        return _open_for(context, state, opened, why, seconds)
    outcome = _put(context, state, opened, why, for_boot=True)
    if isinstance(outcome, Done | Failed) and outcome.state.in_force == opened:
        return files_held(context, outcome, digest, "the firewall was opened")
    return outcome


def _open_for(context: Context, state: State, opened: InForce, why: Cause, seconds: float) -> Outcome:
    try:
        promise = opening_promise(context, state, opened, seconds)
    except StoreError as error:
        restore_pending(context, state)
        return pass_failed(context, state, f"the firewall is not opened: {error}", retry=False)
    outcome = _put(context, state, opened, why, for_boot=False)
    if outcome.state.in_force != opened:
        restore_pending(context, state)
        return outcome
    promise = after_the_load(context, promise, seconds) or promise
    unknown = outcome.state.unknown - OF_FILES
    opening = replace(outcome.state, pending=promise.pending, fallback=promise.fallback, unknown=unknown)
    return replace(outcome, state=opening)


def _put(context: Context, state: State, opened: InForce, why: Cause, *, for_boot: bool) -> Outcome:
    """Open all tables, or as many as possible; the outcome is `Failed` with ``opened`` in force if some stay closed."""
    outcome = put_recorded(context, state, opened, why, for_boot=for_boot)
    if isinstance(outcome, Done):
        return outcome
    failures = _open_families(context, state, opened)
    if len(failures) == len(opened.canonical.rulesets):
        return outcome
    unrecorded = keep(context, opened, (), why, for_boot=for_boot)
    end(context)
    reason = _partly_open(opened, failures)
    after = replace(
        state,
        in_force=opened,
        touched=Owned(),
        interrupted=None,
        refused=None,
        blocked="",
        unrecorded=unrecorded,
        unverified=UnverifiedState.UNDO,  # It is compared and opened again soon, whatever the settings are.
        unverified_why=reason,
    )
    return pass_failed(context, after, reason, retry=True)


def _open_families(context: Context, state: State, opened: InForce) -> dict[Family, str]:
    """Open each family by itself; why that failed, for those in which it did."""
    failures: dict[Family, str] = {}
    for family in opened.canonical.rulesets:
        failure = _open_family(context, state, opened, family)
        if failure:
            failures[family] = failure
    return failures


def _open_family(context: Context, state: State, opened: InForce, family: Family) -> str:
    """Open one family; why that failed, "" if it did not."""
    one, preserve = opened.canonical.of_family(family), context.preserve.owning(loaded_before(state.in_force))
    try:
        put_in_force(context.kernel, one, preserve)
    except UnknownContentError as error:
        return str(error)
    except LOAD_ERRORS:
        return _flush(context, one.rulesets[family])
    return ""


def _flush(context: Context, ruleset: Ruleset) -> str:
    """Let the built-in chains of these tables accept everything, without a look at them; why that failed, or "".

    Jumps of other programs go with the rest: they cannot be seen.
    """
    operations: list[Operation] = []
    for table, chain in ruleset.chains():
        operations += [SetPolicy(table.name, chain.name, "ACCEPT"), FlushChain(table.name, chain.name)]
    try:
        context.kernel.commit([Plan(ruleset.family, tuple(operations))])
    except KernelError as error:
        return str(error)
    return ""


def _partly_open(opened: InForce, failures: dict[Family, str]) -> str:
    """What is open, and what is not."""
    done = [family.value for family in opened.canonical.rulesets if family not in failures]
    text = f"everything is accepted in {' and '.join(done)}"
    for family, failure in failures.items():
        text = f"{text}, but {family.value} could not be opened: {failure}"
    if not failures:
        text = f"{text}, but iptables-save did not show it"
    return text
