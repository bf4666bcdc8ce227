"""Revisions and the disk: what is put in force is recorded."""

from __future__ import annotations

import contextlib
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Self

from fwguardd import events
from fwguardd.enforce.context import boottime
from fwguardd.enforce.file_changes import digests_of
from fwguardd.enforce.run_beside import RunBeside
from fwguardd.enforce.state import InForce
from fwguardd.ruleset.canonical import Canonical, Owned
from fwguardd.ruleset.expiry import ends_of
from fwguardd.store.model import Kept, UnreadableNote
from fwguardd.store.revisions import FaultKind, Revision, RevisionKind, StoreError
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from fwguardd.enforce.context import Context
    from fwguardd.enforce.state import State
    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.model import RuleFile
    from fwguardd.store.model import FileChange


MANY_RULES = 500
"""Rules from which on the files of a revision are made beside the load: that takes longer than to start a thread."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is put in force: the cause, and the user that asked for it, "" for none."""

    cause: str
    by: str = ""

    def with_owners(self, changes: tuple[FileChange, ...]) -> Cause:
        """The same; where nobody asked for it, by the owners of the changed files."""
        owners = sorted({change.owner for change in changes if change.owner})
        if self.by or not owners:
            return self
        return Cause(self.cause, f"{', '.join(owners)} (owner of the changed files)")


_FAULT_EVENTS = {FaultKind.DAMAGED: events.STATE_DAMAGED, FaultKind.INACCESSIBLE: events.STATE_FAILED}


def report_faults(context: Context) -> None:
    """Emit an event for each fault that the store has found since the last call."""
    for fault in context.store.take_faults():
        context.emit(_FAULT_EVENTS[fault.kind], fault.message)


@contextlib.contextmanager
def store_errors_reported(context: Context) -> Iterator[None]:
    """Report a failure of the disk and continue: rules that are in force do not depend on it."""
    try:
        yield
    except StoreError as error:
        context.emit(events.STATE_FAILED, str(error))


def write_boot_files(context: Context, number: int) -> None:
    """Let the next boot load this revision, if it can be read. A disk that fails is reported."""
    reading = context.store.get(number)
    if isinstance(reading, Kept):
        with store_errors_reported(context):
            context.store.write_boot_files(reading.revision)


def touched_before(context: Context) -> Owned:
    """The tables that a write which has not ended was about to touch, as far as that can be read."""
    touched = context.store.touched()
    if isinstance(touched, UnreadableNote):
        return Owned()
    return touched


def begin(context: Context, state: State, new: InForce) -> None:
    """Record which tables are about to be written for the first time.

    If this process is killed before the revision is recorded, the next one empties them. A disk that fails is reported.
    """
    touched = new.owned - state.owned | state.touched
    if touched != touched_before(context):
        with store_errors_reported(context):
            context.store.touch(touched)


def end(context: Context) -> None:
    """Record that the write which was begun has ended: its revision is recorded, or it was undone."""
    if touched_before(context):
        with store_errors_reported(context):
            context.store.touch(Owned())
    forget_before_load(context)


def forget_before_load(context: Context) -> None:
    """Keep no longer what the kernel held before a load. A note that stays is replaced by the next load."""
    if context.before_load is not None:
        with contextlib.suppress(OSError):
            context.before_load.forget()


def in_force_of(revision: Revision) -> InForce:
    """A revision from the disk, as the one in force."""
    return InForce(
        revision.number,
        revision.digest,
        Canonical.from_revision(revision.rulesets),
        revision.when,
        revision.cause,
        revision.kind,
        by=revision.by,
        restored=revision.restored,
        file_digests=digests_of(revision.files),
        backend=revision.backend,
        ends=ends_of(revision.files),
    )


def keep(
    context: Context,
    in_force: InForce,
    files: tuple[RuleFile, ...],
    why: Cause,
    *,
    for_boot: bool,
    changes: tuple[FileChange, ...] = (),
) -> Revision | None:
    """Record what is in force, and let the next boot load it; the revision if it could not be recorded, to try again.

    A disk that fails is reported and changes nothing else: the rules are in force and verified.
    """
    return keep_revision(context, revision_of(context, in_force, files, why, changes), for_boot=for_boot)


def keep_revision(context: Context, revision: Revision, *, for_boot: bool) -> Revision | None:
    """As `keep`, for the revision of what is in force."""
    try:
        context.store.record(revision)
        if for_boot:
            context.store.write_boot_files(revision)
    except StoreError as error:
        context.emit(events.STATE_FAILED, f"{error}. Revision {revision.number} is in force all the same")
        return revision
    return None


class Recording:
    """The record of a revision that is about to be put in force; None is one that is in force already. The files of a
    large one are made beside the load, which waits for programs most of the time."""

    def __init__(self, context: Context, revision: Revision | None) -> None:
        self._context, self.revision = context, revision
        self._files: RunBeside[None] | None = None

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        """Begin to make the files."""
        revision = self.revision
        if revision is not None and sum(map(attrgetter("rule_count"), revision.rulesets.values())) >= MANY_RULES:
            self._files = RunBeside(self._context.store.prepared.make, revision)

    def keep(self, *, for_boot: bool) -> Revision | None:
        """As `keep`. There is a revision."""
        self._wait()
        assert self.revision is not None
        return keep_revision(self._context, self.revision, for_boot=for_boot)

    def _wait(self) -> None:
        if self._files is not None:
            with self._files:
                self._files = None

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Nothing is left of the files."""
        self._wait()
        self._context.store.prepared.forget()


def revision_of(
    context: Context,
    in_force: InForce,
    files: tuple[RuleFile, ...],
    why: Cause,
    changes: tuple[FileChange, ...] = (),
) -> Revision:
    """What is in force as a revision, made by this tool and kernel."""
    backend, version, release = stamp(context)
    return Revision(
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
        restored=in_force.restored,
        changes=changes,
    )


def new_in_force(
    context: Context, digest: str, canonical: Canonical, why: Cause, kind: RevisionKind = RevisionKind.RULES
) -> InForce:
    """A ruleset that is about to be put in force, under the next number."""
    number = context.store.next_number()
    return InForce(number, digest, canonical, time.time(), why.cause, kind, boottime(), why.by)


def earlier_revision(context: Context, current: InForce | None) -> int | None:
    """The number of the newest kept revision before this one; None if there is none."""
    limit = context.store.next_number()
    if current is not None:
        limit = current.revision
    earlier = None
    for summary in context.store.summaries():
        if summary.number < limit:
            earlier = summary.number
    return earlier


def stamp(context: Context) -> tuple[Backend, str, str]:
    """What a revision records of the tool and the kernel that accepted it."""
    tool = context.host.tool
    return tool.backend, tool.version, context.host.kernel_release
