"""One pass: the road of a rule file, from the directory to the kernel, as plain blocking code read top to bottom.

A pass is the same whatever woke it. It reads the directory; if the files changed since they were last judged, it
judges them; then it makes the kernel hold the newest ruleset that was accepted. Files that cannot be put in force
change nothing: the ruleset in force stays, and goes on being guarded. Passes never overlap.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.read_directory import Accepted, Judge, Rejected
from fwguardd.enforce.rule_files import Snapshot, take_snapshot
from fwguardd.enforce.transaction import (
    Applied,
    Kernel,
    Owned,
    RolledBackError,
    Unchanged,
    UndoFailedError,
    find_drift,
    owned_tables,
    put_in_force,
)
from fwguardd.kernel.iptables import KernelBusyError, KernelError
from fwguardd.kernel.scratch import ScratchError
from fwguardd.ruleset.model import Finding, Rehearsed, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fwguardd.events import Emit
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.preserve import Preserve

MOST_SHOWN = 20
"""Findings or differences that one event spells out."""


@dataclass(frozen=True, slots=True)
class World:
    """What a pass works on: the files, who judges them, a kernel, what belongs to others, whom to tell."""

    rules_dir: Path
    judge: Judge
    kernel: Kernel
    preserve: Preserve
    repair: bool
    emit: Emit


@dataclass(frozen=True, slots=True)
class InForce:
    """What is in force by this daemon's doing: the ruleset, and the digest of the files that it was made of."""

    revision: int
    digest: str
    rehearsed: Rehearsed
    owned: Owned

    @property
    def rule_count(self) -> int:
        """Rules in all tables of both families."""
        return sum(ruleset.rule_count for ruleset in self.rehearsed.rulesets.values())


@dataclass(frozen=True, slots=True)
class Memory:
    """What one pass hands to the next."""

    in_force: InForce | None = None
    refused_digest: str = ""
    """The digest of the files that were refused last; they are not judged again until they change."""
    drift: tuple[Difference, ...] = ()
    """Drift that was told and not repaired; it is not told again until it changes."""

    def judged_anew(self) -> Memory:
        """The same, with the files to be judged again though they did not change: what they name may have."""
        in_force = replace(self.in_force, digest="") if self.in_force else None
        return replace(self, in_force=in_force, refused_digest="")

    @property
    def sentence(self) -> str:
        """The state in one sentence, for people and for STATUS= of sd_notify(3)."""
        if self.in_force is None:
            held = "nothing in force by fwguardd"
        else:
            held = f"revision {self.in_force.revision} in force, {self.in_force.rule_count} rules"
        if self.refused_digest:
            return f"{held}; the files in the rules directory are refused"
        return f"{held}; {len(self.drift)} differences left alone" if self.drift else held


@dataclass(frozen=True, slots=True)
class Done:
    """The kernel holds what the files say."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class Refusal:
    """The files cannot be put in force; what was in force still is."""

    memory: Memory
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """The pass failed for a reason that is not in the files. ``passing`` tells whether to try again soon."""

    memory: Memory
    reason: str
    passing: bool


Outcome = Done | Refusal | Failure


def reconcile(world: World, memory: Memory, cause: str) -> Outcome:
    """Make the kernel hold what the rule files say. ``cause`` is what woke the pass, for the events."""
    snapshot = take_snapshot(world.rules_dir)
    current = memory.in_force
    if snapshot.digest not in (memory.refused_digest, current.digest if current else None):
        return _judge_and_apply(world, memory, snapshot, cause)
    if current is None:
        return Done(memory)
    if snapshot.digest == current.digest and memory.refused_digest:
        memory = replace(memory, refused_digest="")
        message = (
            f"the refused change was taken back: the files are those of revision {current.revision}, which is in force"
        )
        world.emit(events.TAKEN_BACK, message, revision=current.revision)
    return _guard(world, memory, current)


def look_ahead(world: World, memory: Memory) -> None:
    """Judge the files while they settle, so that a pass finds the verdict ready. Tells nothing and changes nothing."""
    snapshot = take_snapshot(world.rules_dir)
    known = (memory.refused_digest, memory.in_force.digest if memory.in_force else None)
    if snapshot.digest not in known:
        with contextlib.suppress(ScratchError):
            world.judge.judge_early(snapshot)


def _judge_and_apply(world: World, memory: Memory, snapshot: Snapshot, cause: str) -> Outcome:
    try:
        verdict = world.judge.judge(snapshot)
    except ScratchError as error:
        return _failed(world, memory, f"no rehearsal was possible: {error}", passing=True)
    if isinstance(verdict, Rejected):
        return _refused(world, memory, snapshot, verdict.findings)
    for warning in verdict.warnings:
        world.emit(events.FINDING, str(warning), code=warning.code, file=str(warning.origin or snapshot.directory))
    return _apply(world, memory, snapshot.digest, verdict, cause)


def _refused(world: World, memory: Memory, snapshot: Snapshot, findings: Sequence[Finding]) -> Refusal:
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    message = f"{snapshot.directory} is refused, {count}. {errors[0]}. {_still(memory)}"
    world.emit(
        events.REJECTED,
        message,
        finding=_shown(errors),
        code=errors[0].code,
        file=str(errors[0].origin or snapshot.directory),
        revision=memory.in_force.revision if memory.in_force else 0,
    )
    memory = replace(memory, refused_digest=snapshot.digest)
    if memory.in_force is not None:
        outcome = _guard(world, memory, memory.in_force)
        memory = outcome.memory
    return Refusal(memory, tuple(findings))


def _apply(world: World, memory: Memory, digest: str, accepted: Accepted, cause: str) -> Outcome:
    before = memory.in_force
    owned = owned_tables(accepted.rehearsed)
    released = before.owned - owned if before else Owned()
    try:
        outcome = put_in_force(world.kernel, accepted.rehearsed, released, world.preserve)
    except (RolledBackError, UndoFailedError, KernelError) as error:
        return _apply_failed(world, memory, error)
    revision = _revision_of(accepted, before)
    in_force = InForce(revision, digest, accepted.rehearsed, owned)
    memory = Memory(in_force)
    if isinstance(outcome, Unchanged):
        message = (
            f"the kernel already holds what {world.rules_dir} says, {in_force.rule_count} rules; nothing was written"
        )
        world.emit(events.UNCHANGED, message, revision=revision, rules=in_force.rule_count, cause=cause)
        return Done(memory)
    message = f"revision {revision} is in force: {in_force.rule_count} rules from {world.rules_dir} ({cause})"
    world.emit(
        events.APPLIED,
        message,
        revision=revision,
        rules=in_force.rule_count,
        cause=cause,
        changes=len(outcome.changes),
        difference=_shown(outcome.changes),
    )
    return Done(memory)


def _revision_of(accepted: Accepted, before: InForce | None) -> int:
    """The number of an accepted ruleset: a new one only if it is another ruleset."""
    if before is None:
        return 1
    return before.revision if before.rehearsed == accepted.rehearsed else before.revision + 1


def _guard(world: World, memory: Memory, in_force: InForce) -> Outcome:
    """Compare the kernel with what is in force, and repair it if that is wanted."""
    try:
        drift = find_drift(world.kernel, in_force.rehearsed, world.preserve)
        if drift and drift != memory.drift:
            _tell_drift(world, in_force, drift)
        if not drift or not world.repair:
            return Done(replace(memory, drift=drift))
        outcome = put_in_force(world.kernel, in_force.rehearsed, Owned(), world.preserve)
    except (RolledBackError, UndoFailedError, KernelError) as error:
        return _apply_failed(world, memory, error)
    if isinstance(outcome, Applied):
        message = f"{len(outcome.changes)} differences repaired; revision {in_force.revision} is in force again"
        world.emit(events.REPAIRED, message, revision=in_force.revision, changes=len(outcome.changes))
    return Done(replace(memory, drift=()))


def _tell_drift(world: World, in_force: InForce, drift: Sequence[Difference]) -> None:
    action = "it will be repaired" if world.repair else "it is left alone (on_drift: report)"
    places = "1 place" if len(drift) == 1 else f"{len(drift)} places"
    world.emit(
        events.DRIFT,
        f"the kernel differs from revision {in_force.revision} in {places}: {drift[0]}; {action}",
        revision=in_force.revision,
        changes=len(drift),
        difference=_shown(drift),
    )


def _apply_failed(world: World, memory: Memory, error: Exception) -> Failure:
    if isinstance(error, UndoFailedError):
        return _failed(world, memory, f"a load failed half-way and could not be undone: {error}", passing=True)
    return _failed(
        world, memory, f"nothing was changed: {error}. {_still(memory)}", passing=isinstance(error, KernelBusyError)
    )


def _failed(world: World, memory: Memory, reason: str, *, passing: bool) -> Failure:
    world.emit(events.APPLY_FAILED, reason, revision=memory.in_force.revision if memory.in_force else 0)
    return Failure(memory, reason, passing)


def _shown(items: Sequence[Finding] | Sequence[Difference]) -> list[str]:
    """What one event spells out, and how much it does not."""
    left = len(items) - MOST_SHOWN
    return [str(item) for item in items[:MOST_SHOWN]] + ([f"… and {left} more"] if left > 0 else [])


def _still(memory: Memory) -> str:
    if memory.in_force is None:
        return "Nothing was loaded, and the kernel is as it was"
    return f"Revision {memory.in_force.revision} stays in force"
