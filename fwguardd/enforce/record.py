"""Revisions made and remembered: what is put in force goes on the disk, and what is on the disk is known at a start."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.memory import InForce, Memory
from fwguardd.enforce.transaction import Owned
from fwguardd.ruleset.model import Rehearsed
from fwguardd.store.revisions import Kind, Revision, StoreError

if TYPE_CHECKING:
    from fwguardd.enforce.world import World
    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.model import RuleFile


@dataclass(frozen=True, slots=True)
class Why:
    """Why something is put in force: the cause, and who asked, "" for nobody."""

    cause: str
    by: str = ""


def recall(world: World) -> Memory:
    """What the disk remembers. With another tool or kernel the files are judged anew: what they accept may differ."""
    for fault in world.store.take_faults():
        world.emit(events.STATE_DAMAGED, fault)
    memory = Memory(held=world.store.held(), pending=world.store.pending(), touched=world.store.touched())
    revision = world.store.latest()
    if revision is None:
        return memory
    _mend_boot_files(world, memory.pending.back_to if memory.pending else revision.number)
    in_force = in_force_of(revision)
    same = (revision.backend, revision.tool_version, revision.kernel) == _stamp(world)
    return replace(memory, in_force=in_force if same else replace(in_force, digest=""))


def _mend_boot_files(world: World, number: int | None) -> None:
    """Let the next boot load this revision, if a pass that was killed left it at another."""
    if number is None or world.store.read_boot_revision() == number:
        return
    revision = world.store.get(number)
    if revision is not None:
        try:
            world.store.write_boot_files(revision)
        except StoreError as error:
            world.emit(events.STATE_FAILED, str(error))


def begin(world: World, memory: Memory, new: InForce) -> None:
    """Write down which tables are about to be written for the first time: should this process be killed before the
    revision is recorded, the next one lets them go. A disk that fails is told, and stops nothing."""
    touched = new.owned - memory.owned | memory.touched
    if touched != world.store.touched():
        _touch(world, touched)


def end(world: World) -> None:
    """What was begun is over: recorded, or undone."""
    if world.store.touched():
        _touch(world, Owned())


def _touch(world: World, tables: Owned) -> None:
    try:
        world.store.touch(tables)
    except StoreError as error:
        world.emit(events.STATE_FAILED, str(error))


def in_force_of(revision: Revision) -> InForce:
    """A revision from the disk, as what is in force."""
    rehearsed = Rehearsed(revision.rulesets)
    return InForce(revision.number, revision.digest, rehearsed, revision.when, revision.cause, revision.kind)


def keep(world: World, in_force: InForce, files: tuple[RuleFile, ...], why: Why, *, for_boot: bool) -> None:
    """Record what is in force, and let the next boot load it. A disk that fails is told, and changes nothing else: the
    rules are in force and verified."""
    backend, version, release = _stamp(world)
    revision = Revision(
        number=in_force.revision,
        when=in_force.since,
        cause=why.cause,
        by=why.by,
        backend=backend,
        tool_version=version,
        kernel=release,
        digest=in_force.digest,
        files=files,
        rulesets=in_force.rehearsed.rulesets,
        kind=in_force.kind,
    )
    try:
        world.store.record(revision)
        if for_boot:
            world.store.write_boot_files(revision)
    except StoreError as error:
        world.emit(events.STATE_FAILED, f"{error}. Revision {in_force.revision} is in force all the same")


def new_in_force(world: World, digest: str, rehearsed: Rehearsed, why: Why, kind: Kind = Kind.RULES) -> InForce:
    """Something that is about to be put in force, under the next number."""
    return InForce(world.store.next_number(), digest, rehearsed, time.time(), why.cause, kind)


def _stamp(world: World) -> tuple[Backend, str, str]:
    tool = world.host.tool
    return tool.backend, tool.version, world.host.kernel_release
