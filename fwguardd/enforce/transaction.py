"""Putting a canonical ruleset in force: look, write, verify; or undo the write, and verify the undo.

iptables-restore is atomic for one table of one family and for nothing more, so the transaction over all tables of both
families is made here. When `put_in_force` returns or raises, the kernel holds the wanted rulesets whole, or those from
before whole. Two exceptions say that neither could be achieved: `UndoFailedError`, and `UndoDelayedError` where other
programs write without pause, so that the kernel cannot be read and nothing can be said about what a failed write left.

A write that succeeded and cannot be read back is not undone: what was written is most likely in force, and an undo
without a look could only make things worse. The outcome is `Unverified`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.enforce.look import Kernel, Look, look_at
from fwguardd.kernel.iptables import KernelBusyError, KernelError, StalePlaceError
from fwguardd.ruleset.canonical import Canonical, Emptying
from fwguardd.ruleset.diff import ChangeKind, Difference
from fwguardd.ruleset.model import Family, Ruleset
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.ruleset.preserve import Preserve

MOST_LOOKS = 4
"""How often a write is planned anew because another program wrote meanwhile, before it is given up."""

_MOST_SHOWN = 3
"""Differences that the message about a failed load spells out."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The kernel held the wanted rulesets already. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The wanted rulesets are in force, and verified. ``changes`` are the rules that were added and removed."""

    changes: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Unverified:
    """The wanted rulesets were loaded without an error, but could not be verified: the kernel could not be read since.

    ``changes`` are the rules that were added and removed, ``reason`` says why the kernel could not be read.
    """

    changes: tuple[Difference, ...]
    reason: str


class RolledBackError(Exception):
    """The write failed, was undone, and the undo was verified: what was in force before is in force now."""


class UndoFailedError(Exception):
    """The write failed and so did its undo. The kernel may hold parts of both rulesets."""


class UndoDelayedError(Exception):
    """The write failed, and other programs kept the kernel too busy to read what it left, or to undo it.

    The kernel has to be compared with what was in force before, and that brought back, as soon as this is possible.
    """


class _LookFailedError(Exception):
    """After a write the kernel could not be read."""


class _NotAsWrittenError(KernelError):
    """The load ended without an error, and the kernel holds something else."""


def put_in_force(
    kernel: Kernel, canonical: Canonical, preserve: Preserve, release: Emptying | None = None
) -> Applied | Unverified | Unchanged:
    """Make the kernel hold these rulesets, and empty the tables that are released.

    Raises RolledBackError, UndoFailedError, UndoDelayedError, or KernelError where the first look failed.
    """
    wanted = _with_released(canonical, release)
    unverified: _LookFailedError | None = None
    with kernel.exclusive():
        before = look_at(kernel, wanted, preserve)
        if not before.plans():
            return Unchanged()
        try:
            _write(kernel, before, preserve)
            _verify(kernel, wanted, preserve)
        except _LookFailedError as error:
            unverified = error
        except KernelError as failure:
            _undo(kernel, before, preserve, failure)
    if unverified is not None:
        return Unverified(before.changes(), str(unverified))
    return Applied(before.changes())


def find_drift(kernel: Kernel, canonical: Canonical, preserve: Preserve) -> tuple[Difference, ...]:
    """How the kernel differs from what was put in force. Raises KernelError."""
    return look_at(kernel, canonical.rulesets, preserve).differences()


def _with_released(canonical: Canonical, release: Emptying | None) -> Mapping[Family, Ruleset]:
    """The rulesets to load: those of the revision, and the released tables, emptied."""
    if release is None:
        return canonical.rulesets
    wanted = dict(canonical.rulesets)
    for family, emptied in Canonical.emptied(release).rulesets.items():
        tables = dict(emptied.tables)
        if family in wanted:
            tables.update(wanted[family].tables)
        wanted[family] = Ruleset(family, tables)
    return wanted


def _write(kernel: Kernel, look: Look, preserve: Preserve) -> None:
    """Write what a look calls for. Where a rule that the plans count on is gone meanwhile, look and plan again."""
    for _ in range(MOST_LOOKS):
        try:
            return kernel.commit(look.plans())
        except StalePlaceError:
            look = look_at(kernel, look.wanted, preserve)
    return kernel.commit(look.plans())


def _verify(kernel: Kernel, wanted: Mapping[Family, Ruleset], preserve: Preserve) -> None:
    """Check that the kernel holds what was written, and move what only stands in another place.

    A plan counts places, and nf_tables has no lock: where another program inserts a rule before ours between the look
    and the write, as fail2ban does with its first ban, ours come to stand one place off. A plan from a newer look moves
    them.
    """
    for tries_left in reversed(range(MOST_LOOKS)):
        try:
            look = look_at(kernel, wanted, preserve)
        except KernelError as error:
            raise _LookFailedError(str(error)) from error
        differences = look.differences()
        if not differences:
            return
        if not tries_left or any(difference.kind is not ChangeKind.MOVED for difference in differences):
            raise _NotAsWrittenError(_not_as_written(differences))
        _write(kernel, look, preserve)


def _not_as_written(differences: Sequence[Difference]) -> str:
    places = counted(len(differences), "place")
    shown = "; ".join(map(str, differences[:_MOST_SHOWN]))
    return f"after the load the kernel differs in {places}: {shown}"


def _undo(kernel: Kernel, before: Look, preserve: Preserve, failure: KernelError) -> None:
    """Bring back what the written tables held before. Always raises."""
    earlier = Canonical.from_kernel(before.own, before.wanted).rulesets
    try:
        _write(kernel, look_at(kernel, earlier, preserve), preserve)
        _verify(kernel, earlier, preserve)
    except (KernelBusyError, _LookFailedError) as second:
        raise UndoDelayedError(f"{failure}. It could not be undone yet: {second}") from second
    except KernelError as second:
        raise UndoFailedError(f"{failure}. The undo failed too: {second}") from second
    raise RolledBackError(str(failure)) from failure
