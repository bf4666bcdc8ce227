"""One pass: the road of a rule file, from the directory to the kernel, as plain blocking code read top to bottom.

A pass is the same whatever woke it. It reads the directory; if the files changed since they were last judged, it
judges them; then it makes the kernel hold the newest ruleset that was accepted. Files that cannot be put in force
change nothing: the ruleset in force stays, and goes on being guarded. Passes never overlap.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.memory import InForce, Memory, Refused, Unseen
from fwguardd.enforce.read_directory import Accepted, Rejected
from fwguardd.enforce.record import Why, begin, end, keep, new_in_force
from fwguardd.enforce.rule_files import Snapshot, take_snapshot
from fwguardd.enforce.transaction import (
    Applied,
    Owned,
    RolledBackError,
    Unchanged,
    UndoFailedError,
    UndoOwedError,
    Unverified,
    as_before,
    find_drift,
    put_in_force,
)
from fwguardd.enforce.unseen import tell_seen, tell_unseen
from fwguardd.enforce.world import Broken, Done, Failure, Outcome, Refusal, World, boottime, still
from fwguardd.kernel.culprit import NOBODY, Culprits
from fwguardd.kernel.iptables import KernelBusyError, KernelError, KernelStarvedError, UnknownContentError
from fwguardd.kernel.scratch import ScratchError
from fwguardd.ruleset.model import Finding, Rehearsed, Severity
from fwguardd.store.revisions import Kind, PendingConfirmation, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.ruleset.diff import Difference

STARTED = "start"
"""The cause of the first pass."""

CHANGED = "change"
"""The cause of a pass that a change in the directory woke."""

RECENT = 600.0
"""Seconds after a change for which a reload that wants a confirmation means that change."""

LOAD_ERRORS = (RolledBackError, UndoFailedError, UndoOwedError, KernelError)
"""What putting a ruleset in force may raise; `apply_failed` tells it."""

MOST_SHOWN = 20
"""Findings or differences that one event spells out."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a pass was asked for: why, and within how many seconds somebody has to confirm it, None for nobody.

    ``look_only`` guards what is in force, and leaves files that changed to a pass that comes once they have settled.
    ``culprits`` are known to have changed the kernel since the pass before.
    """

    why: Why
    confirm_within: float | None = None
    look_only: bool = False
    culprits: Culprits = NOBODY


def reconcile(world: World, memory: Memory, ask: Ask) -> Outcome:
    """Make the kernel hold what the rule files say."""
    current = memory.in_force
    if current is not None and current.kind is Kind.OPEN and current.digest:
        return _keep(world, memory, ask)  # It stays open until a reload, which takes the digest away.
    snapshot = take_snapshot(world.rules_dir)
    if not memory.settles(snapshot.digest):
        if ask.look_only:
            outcome = _keep(world, memory, ask)
            return replace(outcome, files_changed=True) if isinstance(outcome, Done) else outcome
        return _judge_and_apply(world, memory, snapshot, ask)
    if current is None or current.kind is Kind.OPEN:
        return _keep(world, memory, ask)
    if snapshot.digest == current.digest and memory.refused is not None:
        memory = replace(memory, refused=None)
        message = f"the refused change was taken back: the files are those of revision {current.revision}, in force"
        world.emit(events.TAKEN_BACK, message, revision=current.revision)
    outcome = _keep(world, memory, ask)
    if ask.why.cause == STARTED and isinstance(outcome, Done) and not outcome.changes and not outcome.memory.drift:
        message = f"the kernel holds revision {current.revision}, {current.rule_count} rules; nothing was written"
        world.emit(events.UNCHANGED, message, revision=current.revision, rules=current.rule_count, cause=STARTED)
    return outcome


def _keep(world: World, memory: Memory, ask: Ask) -> Outcome:
    """Guard what is in force, unless that is nothing, or everything was opened on purpose."""
    current = memory.in_force
    if current is None:
        return Done(replace(memory, unseen=None))
    if current.kind is Kind.OPEN and memory.unseen is None:
        return Done(memory)
    return _guard(world, memory, current, ask.culprits)


def look_ahead(world: World, memory: Memory) -> None:
    """Judge the files while they settle, so that a pass finds the verdict ready. Tells nothing and changes nothing."""
    snapshot = take_snapshot(world.rules_dir)
    if not memory.settles(snapshot.digest):
        with contextlib.suppress(ScratchError):
            world.judge.judge_early(snapshot)


def _judge_and_apply(world: World, memory: Memory, snapshot: Snapshot, ask: Ask) -> Outcome:
    try:
        verdict = world.judge.judge(snapshot)
    except ScratchError as error:
        return failed(world, memory, f"no rehearsal was possible: {error}. {still(memory)}", passing=True)
    if isinstance(verdict, Rejected):
        return _refused(world, memory, snapshot, verdict.findings, ask.culprits)
    for warning in verdict.warnings:
        world.emit(events.FINDING, str(warning), code=warning.code, file=str(warning.origin or snapshot.directory))
    return _apply(world, memory, snapshot, verdict, ask)


def _refused(
    world: World, memory: Memory, snapshot: Snapshot, findings: Sequence[Finding], culprits: Culprits
) -> Refusal:
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    message = f"{snapshot.directory} is refused, {count}. {errors[0]}. {still(memory)}"
    world.emit(
        events.REJECTED,
        message,
        finding=_shown(errors),
        code=errors[0].code,
        file=str(errors[0].origin or snapshot.directory),
        revision=memory.in_force.revision if memory.in_force else 0,
    )
    memory = replace(memory, refused=Refused(snapshot.digest, time.time(), tuple(findings)))
    if memory.in_force is not None and memory.in_force.kind is Kind.RULES:
        memory = _guard(world, memory, memory.in_force, culprits).memory
    return Refusal(memory, tuple(findings))


def _apply(world: World, memory: Memory, snapshot: Snapshot, accepted: Accepted, ask: Ask) -> Outcome:
    """Put accepted files in force and record them. Where somebody has to confirm, the promise to undo comes first."""
    before = memory.in_force
    if before is None and ask.confirm_within is not None:
        try:
            before = _found(world, accepted)
        except KernelError as error:
            return apply_failed(world, memory, error)
    new = _named(world, before, snapshot.digest, accepted, ask.why)
    released = (memory.owned | (before.owned if before else Owned())) - new.owned
    try:
        pending = _promised(world, memory, before, new, ask)
        begin(world, memory, new)
        outcome = put_in_force(world.kernel, new.rehearsed, released, world.preserve)
    except StoreError as error:
        return failed(world, memory, f"nothing was changed: {error}. {still(memory)}", passing=False)
    except LOAD_ERRORS as error:
        _break_promise(world, memory)
        _end_unless_broken(world, memory, error)
        return apply_failed(world, memory, error)
    _release(world, memory)
    if before is None or new.revision != before.revision:
        keep(world, new, snapshot.files, ask.why, for_boot=pending is None)
    elif pending is not None and pending != memory.pending:
        _boot_earlier(world, pending)
    end(world)
    memory = Memory(new, pending=pending)
    if isinstance(outcome, Unchanged):
        message = f"the kernel already holds what {world.rules_dir} says, {new.rule_count} rules; nothing was written"
        world.emit(events.UNCHANGED, message, revision=new.revision, rules=new.rule_count, cause=ask.why.cause)
        return Done(memory)
    memory = tell_written(world, memory, outcome, f"from {world.rules_dir} ({ask.why.cause})")
    return Done(memory, len(outcome.changes))


def _named(world: World, before: InForce | None, digest: str, accepted: Accepted, why: Why) -> InForce:
    """What was accepted, under the number that it has: a new one only if it is another ruleset."""
    if before is not None and before.kind is Kind.RULES and before.rehearsed == accepted.rehearsed:
        return replace(before, digest=digest, rehearsed=accepted.rehearsed)
    return new_in_force(world, digest, accepted.rehearsed, why)


def _found(world: World, accepted: Accepted) -> InForce:
    """What the kernel held in these tables before, recorded as a revision to go back to. Raises KernelError."""
    wanted = accepted.rehearsed.rulesets
    live = world.kernel.save(wanted)
    found = {family: as_before(live[family], ruleset, world.preserve) for family, ruleset in wanted.items()}
    why = Why("found in the kernel")
    in_force = new_in_force(world, "", Rehearsed(found), why)
    keep(world, in_force, (), why, for_boot=False)
    return in_force


def _promised(
    world: World, memory: Memory, before: InForce | None, new: InForce, ask: Ask
) -> PendingConfirmation | None:
    """What waits to be confirmed once ``new`` is in force, written down before it is. Raises StoreError.

    Who asks for a confirmation right after a change that the directory's watch has put in force already means that
    change. A change that comes while another waits is undone together with it.
    """
    waiting, current = memory.pending, before.revision if before else None
    if ask.confirm_within is None:
        if waiting is None or new.revision == current:
            return waiting
        pending = replace(waiting, number=new.revision, digest=new.digest)
    else:
        back_to = current
        if new.revision == current and before is not None:
            if not waiting and not (before.cause == CHANGED and time.time() - before.since < RECENT):
                return None
            back_to = earlier_revision(world, before)
        pending = PendingConfirmation(
            number=new.revision,
            back_to=waiting.back_to if waiting else back_to,
            deadline=boottime() + ask.confirm_within,
            boot_id=world.host.boot_id,
            wall_deadline=time.time() + ask.confirm_within,
            digest=new.digest,
        )
    world.store.set_pending(pending)
    return pending


def _boot_earlier(world: World, pending: PendingConfirmation) -> None:
    """Let the next boot load what the revision that waits would be undone to."""
    earlier = world.store.get(pending.back_to) if pending.back_to is not None else None
    if earlier is not None:
        try:
            world.store.write_boot_files(earlier)
        except StoreError as error:
            world.emit(events.STATE_FAILED, str(error))


def earlier_revision(world: World, current: InForce | None) -> int | None:
    """The newest kept revision before this one."""
    number = current.revision if current else world.store.next_number()
    return max((summary.number for summary in world.store.summaries() if summary.number < number), default=None)


def _break_promise(world: World, memory: Memory) -> None:
    """Nothing was put in force, so there is nothing new to undo."""
    with contextlib.suppress(StoreError):
        if memory.pending is not None:
            world.store.set_pending(memory.pending)
        elif world.store.pending() is not None:
            world.store.clear_pending()


def _release(world: World, memory: Memory) -> None:
    if memory.held is not None or world.store.held() is not None:
        try:
            world.store.release()
        except StoreError as error:
            world.emit(events.STATE_FAILED, str(error))


def _guard(world: World, memory: Memory, in_force: InForce, culprits: Culprits) -> Outcome:
    """Compare the kernel with what is in force, and repair it if that is wanted."""
    if memory.touched:
        memory = _let_go(world, memory, in_force)
    owed = memory.unseen is Unseen.UNDO
    try:
        drift = find_drift(world.kernel, in_force.rehearsed, world.preserve)
        # As sets: a rule that somebody adds once more tells nobody anything new.
        if drift and frozenset(drift) != frozenset(memory.drift) and not owed:
            _tell_drift(world, in_force, drift, culprits)
        if not drift or not (world.repair or owed):
            return Done(replace(tell_seen(world, memory, as_wanted=not drift), drift=drift))
        outcome = put_in_force(world.kernel, in_force.rehearsed, Owned(), world.preserve)
    except KernelStarvedError as error:
        memory = tell_unseen(world, memory, memory.unseen or Unseen.LOOK, str(error), culprits)
        return Failure(memory, str(error), passing=True)
    except UnknownContentError as error:
        unseen = Unseen.UNDO if owed else Unseen.HIDDEN
        return Failure(tell_unseen(world, memory, unseen, str(error), culprits), str(error), passing=owed)
    except LOAD_ERRORS as error:
        return apply_failed(world, memory, error)
    memory = replace(memory, drift=())
    if isinstance(outcome, Unverified):
        memory = tell_unseen(world, memory, Unseen.WRITTEN, outcome.reason, culprits)
    else:
        memory = tell_seen(world, memory, as_wanted=True)
    if isinstance(outcome, Unchanged):
        return Done(memory)
    count = "1 difference" if len(outcome.changes) == 1 else f"{len(outcome.changes)} differences"
    message = f"{count} repaired; revision {in_force.revision} is in force again"
    world.emit(events.REPAIRED, message, revision=in_force.revision, changes=len(outcome.changes))
    return Done(memory, len(outcome.changes), frozenset(change.place for change in outcome.changes))


def _let_go(world: World, memory: Memory, in_force: InForce) -> Memory:
    """Empty the tables that a killed pass had begun to write and that are not ours in the revision in force."""
    left = memory.touched - in_force.owned
    try:
        outcome = put_in_force(world.kernel, in_force.rehearsed, left, world.preserve)
    except KernelStarvedError:
        return memory  # The look for drift, which comes next, will not be had either, and says so.
    except LOAD_ERRORS as error:
        return apply_failed(world, memory, error).memory
    if isinstance(outcome, Unverified):
        return tell_unseen(world, memory, Unseen.UNDO, outcome.reason)
    names = ", ".join(sorted(f"{family.value} {name}" for family, name in left))
    if names:
        message = f"a pass cut short had begun to write {names}: let go; revision {in_force.revision} is in force"
        world.emit(events.REPAIRED, message, revision=in_force.revision, changes=len(left))
    end(world)
    return replace(memory, touched=Owned())


def _end_unless_broken(world: World, memory: Memory, error: Exception) -> None:
    """A load that was undone touched nothing in the end, beyond what an earlier pass had."""
    if not isinstance(error, (UndoFailedError, UndoOwedError)) and not memory.touched:
        end(world)


def _tell_drift(world: World, in_force: InForce, drift: Sequence[Difference], culprits: Culprits) -> None:
    action = "it will be repaired" if world.repair else f"it is left alone: {world.why_not}"
    places = "1 place" if len(drift) == 1 else f"{len(drift)} places"
    culprit = f"; changed by {culprits}" if culprits else ""
    world.emit(
        events.DRIFT,
        f"the kernel differs from revision {in_force.revision} in {places}: {drift[0]}{culprit}; {action}",
        **culprits.fields(),
        revision=in_force.revision,
        changes=len(drift),
        difference=_shown(drift),
    )


def tell_written(world: World, memory: Memory, written: Applied | Unverified, where: str) -> Memory:
    """The one event of a ruleset that was written: it is in force, or nobody could see yet whether it is."""
    new = memory.in_force
    assert new is not None
    if isinstance(written, Unverified):
        return tell_unseen(world, memory, Unseen.WRITTEN, written.reason)
    world.emit(
        events.APPLIED,
        f"revision {new.revision} is in force: {new.rule_count} rules {where}",
        revision=new.revision,
        rules=new.rule_count,
        cause=new.cause,
        changes=len(written.changes),
        difference=_shown(written.changes),
    )
    return memory


def apply_failed(world: World, memory: Memory, error: Exception) -> Failure | Broken:
    """Tell of a load that failed: undone, so that nothing changed, or not even that."""
    if isinstance(error, UndoFailedError):
        message = f"a load failed half-way and could not be undone: {error}"
        world.emit(events.BROKEN, message, revision=memory.in_force.revision if memory.in_force else 0)
        return Broken(memory, message)
    if isinstance(error, UndoOwedError):
        memory = replace(memory, touched=memory.touched | world.store.touched())
        return Failure(tell_unseen(world, memory, Unseen.UNDO, str(error)), str(error), passing=True)
    passing = isinstance(error, KernelBusyError) or isinstance(error.__cause__, KernelBusyError)
    return failed(world, memory, f"nothing was changed: {error}. {still(memory)}", passing=passing)


def failed(world: World, memory: Memory, reason: str, *, passing: bool) -> Failure:
    """Tell of a pass that failed for a reason that is not in the files."""
    world.emit(events.APPLY_FAILED, reason, revision=memory.in_force.revision if memory.in_force else 0)
    return Failure(memory, reason, passing)


def _shown(items: Sequence[Finding] | Sequence[Difference]) -> list[str]:
    """What one event spells out, and how much it does not."""
    left = len(items) - MOST_SHOWN
    return [str(item) for item in items[:MOST_SHOWN]] + ([f"… and {left} more"] if left > 0 else [])
