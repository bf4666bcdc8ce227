"""Going back, and opening up: confirm, rollback, open, and what happens when nobody confirmed.

Whatever is put in force here is a revision of its own, so that the history tells what was in force when. The files that
were undone are held: they are not applied again until they change or a reload asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.read_directory import Rejected
from fwguardd.enforce.reconcile import LOAD_ERRORS, apply_failed, earlier_revision, failed, tell_written
from fwguardd.enforce.record import Why, begin, end, in_force_of, keep, new_in_force
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.transaction import Owned, Unchanged, put_in_force
from fwguardd.enforce.world import Done, Failure, Outcome, World, boottime, still
from fwguardd.kernel.scratch import ScratchError
from fwguardd.ruleset.model import FAMILIES, Rehearsed, Ruleset
from fwguardd.ruleset.plan import emptied
from fwguardd.store.revisions import Expired, Held, Kind, StoreError, judge_pending

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.enforce.memory import Memory
    from fwguardd.store.revisions import Revision


def confirm(world: World, memory: Memory) -> Outcome:
    """Keep the revision that waits to be confirmed; from now on the next boot loads it too."""
    if memory.pending is None or memory.in_force is None:
        return Failure(memory, "no revision waits to be confirmed", passing=False)
    revision = world.store.get(memory.in_force.revision)
    try:
        world.store.clear_pending()
        if revision is not None:
            world.store.write_boot_files(revision)
    except StoreError as error:
        return failed(world, memory, f"{error}", passing=False)
    world.emit(events.CONFIRMED, f"revision {memory.pending.number} is confirmed", revision=memory.pending.number)
    return Done(replace(memory, pending=None))


def expire(world: World, memory: Memory) -> Outcome | None:
    """Undo a revision that nobody confirmed in time; None where there is nothing to undo yet."""
    pending = memory.pending
    if pending is None:
        return None
    meaning = judge_pending(pending, world.host.boot_id, boottime())
    unknown = memory.in_force is None or memory.in_force.revision != pending.number
    if not isinstance(meaning, Expired) and not unknown:
        return None
    why = meaning.reason if isinstance(meaning, Expired) else "fwguardd ended while it was put in force"
    world.emit(events.UNCONFIRMED, f"revision {pending.number} is undone: {why}", revision=pending.number)
    memory = _hold(world, replace(memory, pending=None), pending.digest, f"revision {pending.number} was not confirmed")
    back_to = world.store.get(pending.back_to) if pending.back_to is not None else None
    outcome = _put_back(world, memory, back_to, Why(f"revision {pending.number} was not confirmed"))
    if isinstance(outcome, Done):
        try:
            world.store.clear_pending()
        except StoreError as error:
            world.emit(events.STATE_FAILED, str(error))
        return outcome
    outcome = replace(outcome, memory=replace(outcome.memory, pending=pending))
    # Whatever went wrong, what nobody confirmed must not stay: it is tried again, with growing waits.
    return replace(outcome, passing=True) if isinstance(outcome, Failure) else outcome


def rollback(world: World, memory: Memory, number: int | None, by: str) -> Outcome:
    """Put an earlier revision in force, by default the one before; the files in the directory are held."""
    target = number if number is not None else earlier_revision(world, memory.in_force)
    revision = world.store.get(target) if target is not None else None
    if revision is None:
        name = f"revision {number}" if number is not None else "an earlier revision"
        return Failure(
            memory, f"{name} is not kept; fwguardctl history lists those that are. {still(memory)}", passing=False
        )
    digest = take_snapshot(world.rules_dir).digest
    outcome = _put_back(world, memory, revision, Why(f"rollback to revision {revision.number}", by))
    if not isinstance(outcome, Done):
        return outcome
    return replace(outcome, memory=_settle(world, outcome.memory, digest, f"rolled back to revision {revision.number}"))


def open_up(world: World, memory: Memory, by: str) -> Outcome:
    """Accept everything in the tables that are ours, in one commit for each; chains of others stay as they are."""
    owned = memory.in_force.owned if memory.in_force else Owned((family, "filter") for family in FAMILIES)
    names = {family: [name for owner, name in owned if owner is family] for family in FAMILIES}
    rehearsed = Rehearsed({family: Ruleset(family, emptied(tables)) for family, tables in names.items() if tables})
    digest = take_snapshot(world.rules_dir).digest
    outcome = _put(world, memory, rehearsed, Why("opened", by), Kind.OPEN, digest)
    if not isinstance(outcome, Done):
        return outcome
    return replace(outcome, memory=_settle(world, outcome.memory, digest, "opened"))


def last_resort(world: World, memory: Memory, directory: Path) -> Outcome:
    """After an undo that failed: put the emergency set in force, the rule files of a directory that nobody edits."""
    try:
        verdict = world.judge.judge(take_snapshot(directory))
    except ScratchError as error:
        return failed(world, memory, f"the emergency set cannot be rehearsed: {error}", passing=False)
    if isinstance(verdict, Rejected):
        return failed(world, memory, f"the emergency set is refused: {verdict.findings[0]}", passing=False)
    return _put(world, memory, verdict.rehearsed, Why("emergency"), Kind.RULES, "")


def _put_back(world: World, memory: Memory, revision: Revision | None, why: Why) -> Outcome:
    """Put a kept revision in force; without one, what is owned is let go: emptied, as before the first revision."""
    if revision is None:
        owned = memory.in_force.owned if memory.in_force else Owned()
        names = {family: [name for owner, name in owned if owner is family] for family in FAMILIES}
        empty = {family: Ruleset(family, emptied(tables)) for family, tables in names.items() if tables}
        return _put(world, memory, Rehearsed(empty), why, Kind.OPEN, "")
    earlier = in_force_of(revision)
    return _put(world, memory, earlier.rehearsed, why, revision.kind, revision.digest, revision)


def _put(
    world: World,
    memory: Memory,
    rehearsed: Rehearsed,
    why: Why,
    kind: Kind,
    digest: str,
    source: Revision | None = None,
) -> Outcome:
    new = new_in_force(world, digest, rehearsed, why, kind)
    released = memory.owned - new.owned
    begin(world, memory, new)
    try:
        applied = put_in_force(world.kernel, rehearsed, released, world.preserve)
    except LOAD_ERRORS as error:
        return apply_failed(world, memory, error)
    keep(world, new, source.files if source else (), why, for_boot=True)
    end(world)
    memory = replace(memory, touched=Owned(), in_force=new, refused=None, drift=(), unseen=None)
    if isinstance(applied, Unchanged):
        message = f"revision {new.revision} is in force ({why.cause}); the kernel held it already"
        world.emit(events.UNCHANGED, message, revision=new.revision, rules=new.rule_count, cause=why.cause)
        return Done(memory)
    return Done(tell_written(world, memory, applied, f"({why.cause})"), len(applied.changes))


def _settle(world: World, memory: Memory, digest: str, reason: str) -> Memory:
    """After a deliberate step back nothing waits to be confirmed any more, and the files are held."""
    if memory.pending is not None:
        try:
            world.store.clear_pending()
        except StoreError as error:
            world.emit(events.STATE_FAILED, str(error))
    return _hold(world, replace(memory, pending=None), digest, reason)


def _hold(world: World, memory: Memory, digest: str, reason: str) -> Memory:
    try:
        world.store.hold(digest, reason)
    except StoreError as error:
        world.emit(events.STATE_FAILED, str(error))
    return replace(memory, held=Held(digest, reason))
