"""One pass: from the rules directory to the kernel, as plain blocking code read top to bottom.

A pass reads the directory; if the files changed since they were validated last, it validates them; then it makes the
kernel hold the newest ruleset that was accepted. The cause of a pass decides only whether files that wait for something
are validated again (a retry, a notice), whether the last look counts where the kernel certainly still holds what it
showed (`schedule.MAY_BE_KNOWN`), and whether a reload that waits goes first. Files with errors change nothing:
the revision in force stays, and is still enforced. The same holds where the files cannot be judged, because no
rehearsal is possible. Passes never overlap.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.apply import apply_files
from fwguardd.enforce.confirmation import arm, hold
from fwguardd.enforce.context import (
    Broken,
    Context,
    Done,
    Failed,
    Outcome,
    Refused,
    repaired_in,
    still_in_force,
    with_repairs,
)
from fwguardd.enforce.copies import without_copies
from fwguardd.enforce.guard import Guard
from fwguardd.enforce.others import (
    MOST_LISTED,
    how_to_take_over,
    remember_found,
    remembering,
    take_over_reason,
    unknown_before_first_load,
)
from fwguardd.enforce.proof_needed import closed_by_reading, prove, report_impact
from fwguardd.enforce.prover import NOT_FORCED, ProofRequest
from fwguardd.enforce.record import store_errors_reported
from fwguardd.enforce.repair import enforce
from fwguardd.enforce.reports import listed, load_failed, pass_failed
from fwguardd.enforce.rule_files import Snapshot, take_snapshot
from fwguardd.enforce.schedule import MAY_BE_KNOWN, Due
from fwguardd.enforce.state import RefusedFiles, State
from fwguardd.enforce.unknown import UnknownState
from fwguardd.enforce.validate import Invalid
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.iptables import KernelError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.error_reasons import may_pass_later
from fwguardd.ruleset.model import Findings
from fwguardd.ruleset.others import Standing, of_standing
from fwguardd.store.revisions import HeldFiles, StoreError
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.enforce.record import Cause
    from fwguardd.enforce.state import InForce
    from fwguardd.enforce.validate import Valid, Validation
    from fwguardd.ruleset.model import Finding
    from fwguardd.ruleset.others import RuleOrChain

MANUAL = "apply: manual"
"""Why files are held where the settings say that only a reload applies them."""

STARTED = "start"
"""The cause of the first pass."""

_TRY_AGAIN = frozenset({Due.RETRY.value, Due.NOTICE.value})
"""Causes of passes in which files are validated again that wait for something outside of them."""


@dataclass(frozen=True, slots=True)
class PassRequest:
    """What a pass is asked to do.

    ``why`` is its cause. With ``confirm_within``, a change is undone unless it is confirmed within so many seconds.
    ``look_only`` enforces what is in force, and leaves changed files to a pass after they have settled. ``authors`` are
    the processes that are known to have changed the kernel since the pass before. ``take_over`` removes what other
    programs have in the tables of the files before the first load. ``proof`` says who asks, for the lockout guard.
    """

    why: Cause
    confirm_within: float | None = None
    look_only: bool = False
    authors: Authors = NO_AUTHORS
    take_over: bool = False
    proof: ProofRequest = NOT_FORCED


def reconcile(context: Context, state: State, request: PassRequest) -> Outcome:
    """Make the kernel hold what the rule files say."""
    if _stays_open(state):
        _report_open(context, state, request.why)
        return enforce(context, state, request.authors)
    snapshot = _read_directory(context)
    again = request.why.cause in _TRY_AGAIN and state.waits_with(snapshot.digest)
    if state.knows(snapshot.digest) and not again:
        return _enforce_known(context, state, snapshot, request)
    if UnknownState.PENDING in state.unknown:
        return enforce(context, state, request.authors)
    if again or not request.look_only:
        why_held = ""
        if not _only_ended(context, state, snapshot):
            request, why_held = replace(request, confirm_within=context.confirm_changes), _why_held(context, state)
        return _validate_and_apply(context, state, snapshot, request, why_held)
    outcome = enforce(context, state, request.authors, anew=request.why.cause not in MAY_BE_KNOWN)
    if isinstance(outcome, Done):
        return replace(outcome, files_changed=True)
    return outcome


def _read_directory(context: Context) -> Snapshot:
    """The rules directory as it is now."""
    snapshot = take_snapshot(context.rules_dir)
    context.rules_end(snapshot.until)
    return snapshot


def _only_ended(context: Context, state: State, snapshot: Snapshot) -> bool:
    """Whether the files are those in force, but for rules that have ended since: that is not a change to hold or
    confirm. Files that are held stay held."""
    current = state.in_force
    if current is None or state.held is not None or not snapshot.any_ended:
        return False
    return take_snapshot(context.rules_dir, now=current.since).digest == current.digest


def _stays_open(state: State) -> bool:
    """Whether everything is accepted until a reload, which clears the digest."""
    return state.is_open and state.in_force is not None and bool(state.in_force.digest)


def _report_open(context: Context, state: State, why: Cause) -> None:
    """Report at a start that the firewall is open: the event of its opening may be long ago."""
    if why.cause != STARTED:
        return
    context.emit(
        events.urgent(events.UNCHANGED),
        f"the firewall is open: {state.measured().facts}; to close it: fwguardctl reload",
        revision=state.revision,
        rules=0,
        cause=STARTED,
        state=state.kernel_state.value,
    )


def _why_held(context: Context, state: State) -> str:
    """Why changed files are not applied without a reload; "" if they are."""
    if state.held is not None:
        return state.held.reason
    if context.manual:
        return MANUAL
    return ""


def reload_files(
    context: Context,
    state: State,
    why: Cause,
    confirm_within: float | None,
    *,
    take_over: bool = False,
    proof: ProofRequest = NOT_FORCED,
) -> Outcome:
    """Validate all files again, held ones too, and put them in force. After it no files are held."""
    snapshot = _read_directory(context)
    request = PassRequest(why, confirm_within, take_over=take_over, proof=proof)
    armed = state
    try:
        if confirm_within is not None:
            armed = arm(context, state, snapshot.digest, confirm_within)
    except StoreError as error:
        held = replace(state, held=HeldFiles(snapshot.digest, f"a reload that has to be confirmed failed: {error}"))
        return pass_failed(context, held, f"nothing was changed: {error}. {still_in_force(state)}", retry=False)
    if request.take_over and state.in_force is None:
        armed = replace(armed, others=of_standing(armed.others, Standing.KEPT))
        context = remembering(context, armed.others)
    anew = replace(armed.to_validate_again(), held=None)
    outcome = _validate_and_apply(context, anew, snapshot, request)
    if isinstance(outcome, Failed):
        outcome = replace(outcome, state=armed.after_failure(outcome.state, snapshot.digest))
    if isinstance(outcome, Done) or armed.held is None:
        return outcome
    return replace(outcome, state=_still_held(context, outcome.state, armed.held, confirm_within))


def _still_held(context: Context, state: State, held: HeldFiles, confirm_within: float | None) -> State:
    """The state after a reload that applied nothing, so that files which were held stay so."""
    if confirm_within is None:
        return replace(state, held=held)
    # The reason of a failure is in its event and in the answer to the reload.
    return hold(context, state, held.digest, "a reload to be confirmed failed")


def _enforce_known(context: Context, state: State, snapshot: Snapshot, request: PassRequest) -> Outcome:
    """Enforce what is in force, where the files are known: they are in force, or refused, or held."""
    current = state.in_force
    if current is None or state.is_open:
        return enforce(context, state, request.authors)
    state = _reverted(context, state, snapshot, current)
    if snapshot.digest == current.digest:
        state = replace(state, blocked="")
    outcome = enforce(context, state, request.authors, anew=request.why.cause not in MAY_BE_KNOWN)
    if request.why.cause == STARTED and isinstance(outcome, Done):
        _report_unchanged(context, outcome, current)
    return outcome


def _report_unchanged(context: Context, outcome: Done, current: InForce) -> None:
    """Report at a start that the kernel held the revision in force already, if it did."""
    if outcome.changes or outcome.state.drift:
        return
    rules = counted(current.rule_count, "rule")
    context.emit(
        events.UNCHANGED,
        f"the kernel holds revision {current.revision}, {rules}; nothing was written",
        revision=current.revision,
        rules=current.rule_count,
        cause=STARTED,
        state=outcome.state.kernel_state.value,
    )


def _reverted(context: Context, state: State, snapshot: Snapshot, current: InForce) -> State:
    """The state once a refused change, or one that was held, was reverted: the files are those in force again."""
    held = state.held
    if state.refused is not None and snapshot.digest != state.refused.digest:
        state = replace(state, refused=None)
        if snapshot.digest == current.digest:
            message = f"the refused change was reverted: the files are those of revision {current.revision}, in force"
            context.emit(events.TAKEN_BACK, message, revision=current.revision)
    if held is not None and snapshot.digest == current.digest != held.digest:
        with store_errors_reported(context):
            context.store.release()
        state = replace(state, held=None)
    return state


def _validate_and_apply(
    context: Context, state: State, snapshot: Snapshot, request: PassRequest, why_held: str = ""
) -> Outcome:
    """Validate files, and guard the revision in force meanwhile; then put them in force."""
    if snapshot.short:
        return _not_rehearsed(context, state, snapshot.short, request.authors)
    guard = Guard(context, state, request.authors)
    result = guard.validate(snapshot)
    if guard.broken is not None:
        return guard.broken
    if isinstance(result, NamespaceError):
        why = f"no rehearsal was possible: {result}"
        return with_repairs(_not_rehearsed(context, guard.state, why, request.authors), guard.repaired)
    return with_repairs(_apply(context, guard, snapshot, result, request, why_held), guard.repaired)


def _apply(
    context: Context,
    guard: Guard,
    snapshot: Snapshot,
    result: Validation,
    request: PassRequest,
    why_held: str,
) -> Outcome:
    """Report what was found in files, and put them in force, unless there is a reason to hold them."""
    if isinstance(result, Invalid):
        return _refused(context, guard.state, snapshot, result.findings, request.authors)
    try:
        result = without_copies(context, guard.state, result)
        unknown = unknown_before_first_load(context, guard.state, result)
        proof = guard.during(prove, context, guard.state, result, request.proof)
    except KernelError as error:
        return guard.broken or load_failed(context, guard.state, error)
    if guard.broken is not None:
        return guard.broken
    state = guard.state
    if proof.findings.errors:
        return _refused(context, state, snapshot, Findings((*result.findings, *proof.findings)), request.authors)
    _report_warnings(context, snapshot, (*result.findings, *proof.findings, *closed_by_reading(state, result, proof)))
    if unknown and not request.take_over:
        outcome: Outcome = _not_taken_over(context, state, snapshot, unknown)
    elif why_held and not _makes_what_is_in_force(state, result):
        outcome = _held(context, replace(state, refused=None), snapshot, why_held, request.authors)
    else:
        outcome = _applied(context, guard, snapshot, result, request)
    return outcome


def _report_warnings(context: Context, snapshot: Snapshot, warnings: Sequence[Finding]) -> None:
    for warning in warnings:
        context.emit(events.FINDING, str(warning), code=warning.code, file=str(warning.origin or snapshot.directory))


def _applied(context: Context, guard: Guard, snapshot: Snapshot, result: Valid, request: PassRequest) -> Outcome:
    """Put valid files in force; where that fails, they are tried again. What a change that has to be confirmed does to
    this host is measured first, and what is in force is guarded meanwhile."""
    if guard.state.in_force is None and not guard.state.touched:
        # What was to be decided about is in the files, or is to be removed. After a load that did not end it stays.
        guard.state = remember_found(context, guard.state, ())
        context = remembering(context, guard.state.others)
    within = request.confirm_within
    if within is not None:
        failed = _impact_not_measured(context, guard, result)
        if failed is not None:
            return failed
    outcome = apply_files(context, guard.state, snapshot, result, request.why, within, request.authors)
    if isinstance(outcome, Failed):
        return replace(outcome, state=replace(outcome.state, blocked=outcome.reason))
    return outcome


def _impact_not_measured(context: Context, guard: Guard, result: Valid) -> Outcome | None:
    """Report what a change does to this host; the outcome where the guard could not go on meanwhile."""
    try:
        guard.during(report_impact, context, guard.state, result)
    except KernelError as error:
        return guard.broken or load_failed(context, guard.state, error)
    return guard.broken


def _not_rehearsed(context: Context, state: State, reason: str, authors: Authors) -> Outcome:
    """Enforce the revision in force where the files cannot be validated. It is reported once, and tried again."""
    blocked = replace(state, blocked=reason)
    outcome = guard_after(context, Failed(blocked, reason, retry=True), authors)
    if isinstance(outcome, Failed) and state.blocked != reason:
        failed = pass_failed(context, outcome.state, f"{reason}. {still_in_force(outcome.state)}", retry=True)
        return replace(failed, repaired=outcome.repaired)
    return outcome


def _not_taken_over(context: Context, state: State, snapshot: Snapshot, unknown: Sequence[RuleOrChain]) -> Failed:
    """Hold the files before the first load, since it would remove rules that no administrator has decided about."""
    state = hold(context, remember_found(context, state, unknown), snapshot.digest, take_over_reason(unknown))
    message = how_to_take_over(unknown)
    context.emit(events.UNMANAGED, message, others=[str(place) for place in unknown[:MOST_LISTED]])
    return Failed(state, message, retry=False)


def _makes_what_is_in_force(state: State, accepted: Valid) -> bool:
    """Whether files make the ruleset in force, so that there is nothing to hold."""
    in_force = state.in_force
    return in_force is not None and not state.is_open and in_force.canonical == accepted.rehearsed


def _held(context: Context, state: State, snapshot: Snapshot, reason: str, authors: Authors) -> Outcome:
    """Hold changed files, and go on enforcing the revision in force."""
    state = hold(context, state, snapshot.digest, reason)
    message = f"the changed files in {snapshot.directory} are held: {reason}; to apply them: fwguardctl reload"
    context.emit(events.HELD, message, revision=state.revision, reason=reason)
    return enforce(context, state, authors)


def _refused(context: Context, state: State, snapshot: Snapshot, findings: Findings, authors: Authors) -> Outcome:
    """Go on enforcing the revision in force, and report files with errors, once for each set of errors."""
    waits = all(map(may_pass_later, findings.errors))
    known, refused = state.refused, RefusedFiles(snapshot.digest, time.time(), findings, waits)
    outcome = guard_after(context, Refused(replace(state, refused=refused, blocked=""), findings), authors)
    if isinstance(outcome, Broken):
        return outcome
    if known is None or (known.digest, known.findings.errors) != (snapshot.digest, findings.errors):
        _report_refused(context, outcome.state, snapshot, refused)
    return outcome


def _report_refused(context: Context, state: State, snapshot: Snapshot, refused: RefusedFiles) -> None:
    errors = refused.findings.errors
    message = f"{snapshot.directory} is refused, {counted(len(errors), 'error')}. {errors[0]}. {still_in_force(state)}"
    if refused.waits:
        message = f"{message}. fwguardd tries again"
    context.emit(
        events.REJECTED,
        message,
        finding=listed(errors),
        code=errors[0].code,
        file=str(errors[0].origin or snapshot.directory),
        revision=state.revision,
        state=state.kernel_state.value,
        files=refused.report.state.value,
    )


def guard_after(context: Context, outcome: Refused | Failed, authors: Authors) -> Outcome:
    """Enforce the revision in force after a step that could not use the files, which changes nothing of its outcome.

    What an enforcement that broke the firewall says comes first.
    """
    enforced = enforce(context, outcome.state, authors)
    if isinstance(enforced, Broken):
        return enforced
    return replace(outcome, state=enforced.state, repaired=repaired_in(enforced))
