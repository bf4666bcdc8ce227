"""Revisions made and remembered: what is put in force goes on the disk, and what is on the disk is known at a start."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.state import InForce, State
from fwguardd.ruleset.canonical import Canonical, Owned
from fwguardd.store.revisions import FaultKind, Revision, RevisionKind, StoreError

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.model import RuleFile


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is put in force: the cause, and who asked, "" for nobody."""

    cause: str
    by: str = ""


def recall(context: Context) -> State:
    """What the disk remembers. With another tool or kernel the files are judged anew: what they accept may differ."""
    report_faults(context)
    state = State(held=context.store.held(), pending=context.store.pending(), touched=context.store.touched())
    revision = context.store.latest()
    if revision is None:
        return state
    _mend_boot_files(context, state.pending.back_to if state.pending else revision.number)
    in_force = in_force_of(revision)
    same = (revision.backend, revision.tool_version, revision.kernel) == _stamp(context)
    return replace(state, in_force=in_force if same else replace(in_force, digest=""))


_FAULT_EVENTS = {FaultKind.DAMAGED: events.STATE_DAMAGED, FaultKind.INACCESSIBLE: events.STATE_FAILED}


def report_faults(context: Context) -> None:
    """Emit an event for each fault that the store has found since the last call."""
    for fault in context.store.take_faults():
        context.emit(_FAULT_EVENTS[fault.kind], fault.message)


def _mend_boot_files(context: Context, number: int | None) -> None:
    """Let the next boot load this revision, if a pass that was killed left it at another."""
    if number is None or context.store.read_boot_revision() == number:
        return
    revision = context.store.get(number)
    if revision is not None:
        try:
            context.store.write_boot_files(revision)
        except StoreError as error:
            context.emit(events.STATE_FAILED, str(error))


def begin(context: Context, state: State, new: InForce) -> None:
    """Write down which tables are about to be written for the first time: should this process be killed before the
    revision is recorded, the next one lets them go. A disk that fails is told, and stops nothing."""
    touched = new.owned - state.owned | state.touched
    if touched != context.store.touched():
        _touch(context, touched)


def end(context: Context) -> None:
    """What was begun is over: recorded, or undone."""
    if context.store.touched():
        _touch(context, Owned())


def _touch(context: Context, tables: Owned) -> None:
    try:
        context.store.touch(tables)
    except StoreError as error:
        context.emit(events.STATE_FAILED, str(error))


def in_force_of(revision: Revision) -> InForce:
    """A revision from the disk, as what is in force."""
    canonical = Canonical.from_revision(revision.rulesets)
    return InForce(revision.number, revision.digest, canonical, revision.when, revision.cause, revision.kind)


def keep(context: Context, in_force: InForce, files: tuple[RuleFile, ...], why: Cause, *, for_boot: bool) -> None:
    """Record what is in force, and let the next boot load it. A disk that fails is told, and changes nothing else: the
    rules are in force and verified."""
    backend, version, release = _stamp(context)
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
        rulesets=in_force.canonical.rulesets,
        kind=in_force.kind,
    )
    try:
        context.store.record(revision)
        if for_boot:
            context.store.write_boot_files(revision)
    except StoreError as error:
        context.emit(events.STATE_FAILED, f"{error}. Revision {in_force.revision} is in force all the same")


def new_in_force(
    context: Context, digest: str, canonical: Canonical, why: Cause, kind: RevisionKind = RevisionKind.RULES
) -> InForce:
    """Something that is about to be put in force, under the next number."""
    return InForce(context.store.next_number(), digest, canonical, time.time(), why.cause, kind)


def _stamp(context: Context) -> tuple[Backend, str, str]:
    tool = context.host.tool
    return tool.backend, tool.version, context.host.kernel_release
