"""Putting a rehearsed ruleset in force: snapshot, write, verify; or undo, and verify that.

iptables-restore is atomic for one table of one family and for nothing more, so the transaction over all tables of both
families is made here. Its promise: when `put_in_force` returns or raises, the kernel holds the wanted rulesets whole,
or those from before whole. Two exceptions have names of their own: `UndoFailedError`, and `UndoOwedError` where others
write without pause, so that the kernel cannot be looked at and nobody can say whether there is anything to undo.

A look that cannot be had after every program has said yes is no failure. What was written is in force then as far as
anybody knows, and to undo it blindly could only make things worse: the outcome is `Unverified`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fwguardd.kernel.iptables import KernelBusyError, KernelError, KernelStarvedError, StalePlaceError
from fwguardd.ruleset.canonical import Canonical, Emptying
from fwguardd.ruleset.diff import ChangeKind, Difference, changes, compare
from fwguardd.ruleset.model import Family, Ruleset
from fwguardd.ruleset.plan import Plan, make_plan
from fwguardd.ruleset.preserve import Preserve, own_part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

MOST_LOOKS = 4
"""How often a write begins anew because somebody else wrote meanwhile, before it is given up."""

RETRY_WAITS = (0.05, 0.2, 0.8)
"""Seconds between tries of a load that clashed with somebody else's."""


class Kernel(Protocol):
    """What a transaction needs of a kernel. `fwguardd.kernel.iptables.LiveKernel` is the real one."""

    def save(self, wanted: Mapping[Family, Ruleset]) -> Mapping[Family, Ruleset]:
        """The live tables of the families of these rulesets. One that iptables cannot show is left out, as somebody
        else's, unless these rulesets name it: then UnknownContentError is raised, and KernelError for all else."""

    def restore(self, family: Family, text: str) -> None:
        """Load a text with --noflush. Raises KernelError."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep others from writing between a look and a write, where there is a lock for that. Raises KernelError."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The kernel held the wanted rulesets already. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The wanted rulesets are in force, and verified. ``changes`` tells what that added and removed."""

    changes: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Unverified:
    """The wanted rulesets were written and every program said yes, but the kernel could not be looked at since.

    ``changes`` tells what was added and removed, ``reason`` why there was no look. Look again later.
    """

    changes: tuple[Difference, ...]
    reason: str


class RolledBackError(Exception):
    """The write failed, was undone, and the undo was verified: what was in force before is in force now."""


class UndoFailedError(Exception):
    """The write failed and so did its undo. The message says what is known of what is in force."""


class UndoOwedError(Exception):
    """The write failed, and others kept the kernel too busy to look at what it left, or to undo that: compare with what
    was in force before, and bring it back, as soon as that can be done."""


class _UnseenError(Exception):
    """After a write the kernel could not be looked at."""


class _NotAsWrittenError(KernelError):
    """Every program said yes, and the kernel holds something else."""


def put_in_force(
    kernel: Kernel, canonical: Canonical, preserve: Preserve, release: Emptying | None = None
) -> Applied | Unverified | Unchanged:
    """Make the kernel hold these rulesets, and empty the tables that are released.

    Raises RolledBackError, UndoFailedError, UndoOwedError, or KernelError where not even the snapshot could be taken.
    """
    unverified: _UnseenError | None = None
    wanted = _with_released(canonical, release)
    with kernel.exclusive():
        before = kernel.save(wanted)
        plans = _plans(before, wanted, preserve)
        if not any(plan.texts for plan in plans):
            return Unchanged()
        try:
            _write(kernel, plans, wanted, preserve)
            _verify(kernel, wanted, preserve)
        except _UnseenError as error:
            unverified = error
        except KernelError as failure:
            _undo(kernel, before, wanted, preserve, failure)
    own = {family: own_part(before[family], preserve, ruleset) for family, ruleset in wanted.items()}
    made = tuple(change for family, ruleset in wanted.items() for change in changes(own[family], ruleset))
    return Unverified(made, str(unverified)) if unverified is not None else Applied(made)


def find_drift(kernel: Kernel, canonical: Canonical, preserve: Preserve) -> tuple[Difference, ...]:
    """How the kernel differs from what was put in force. Raises KernelError."""
    return _differences(canonical.rulesets, kernel.save(canonical.rulesets), preserve)


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


def _differences(
    wanted: Mapping[Family, Ruleset], live: Mapping[Family, Ruleset], preserve: Preserve
) -> tuple[Difference, ...]:
    return tuple(
        difference
        for family, ruleset in wanted.items()
        for difference in compare(ruleset, own_part(live[family], preserve, ruleset))
    )


def _plans(live: Mapping[Family, Ruleset], wanted: Mapping[Family, Ruleset], preserve: Preserve) -> list[Plan]:
    return [make_plan(live[family], ruleset, preserve) for family, ruleset in wanted.items()]


def _write(kernel: Kernel, plans: Sequence[Plan], wanted: Mapping[Family, Ruleset], preserve: Preserve) -> None:
    """Write plans; where somebody took away what one of them counts on, plan again from a new look."""
    for _ in range(MOST_LOOKS):
        try:
            return _write_once(kernel, plans)
        except StalePlaceError:
            plans = _plans(kernel.save(wanted), wanted, preserve)
    return _write_once(kernel, plans)


def _write_once(kernel: Kernel, plans: Sequence[Plan]) -> None:
    for plan in plans:
        for text in plan.texts:
            _restore_patiently(kernel, plan.family, text)


def _restore_patiently(kernel: Kernel, family: Family, text: str) -> None:
    """Load a text; where somebody wrote in the same instant, again after a short while, each longer than the last."""
    for wait in RETRY_WAITS:
        try:
            return kernel.restore(family, text)
        except KernelStarvedError:
            raise
        except KernelBusyError:
            time.sleep(wait)
    return kernel.restore(family, text)


def _verify(kernel: Kernel, wanted: Mapping[Family, Ruleset], preserve: Preserve) -> None:
    """Look whether the kernel holds what was written, and put right what only stands in another place.

    A plan counts places, and nf_tables has no lock: where somebody put a rule of theirs before ours between the look
    and the write, as fail2ban does with its first ban, ours came to stand one place off. From a newer look the plan is
    right.
    """
    for left_tries in reversed(range(MOST_LOOKS)):
        try:
            live = kernel.save(wanted)
        except KernelError as error:
            raise _UnseenError(str(error)) from error
        left = _differences(wanted, live, preserve)
        if not left:
            return
        if not left_tries or any(difference.kind is not ChangeKind.MOVED for difference in left):
            shown = "; ".join(str(difference) for difference in left[:3])
            raise _NotAsWrittenError(f"after the load the kernel differs in {len(left)} places: {shown}")
        _write(kernel, _plans(live, wanted, preserve), wanted, preserve)


def _undo(
    kernel: Kernel,
    before: Mapping[Family, Ruleset],
    written: Mapping[Family, Ruleset],
    preserve: Preserve,
    failure: KernelError,
) -> None:
    """Bring back what was before, in the tables that were written. Always raises."""
    own = {family: own_part(before[family], preserve, ruleset) for family, ruleset in written.items()}
    earlier = Canonical.from_kernel(own, written).rulesets
    try:
        live = kernel.save(earlier)
        _write(kernel, _plans(live, earlier, preserve), earlier, preserve)
        _verify(kernel, earlier, preserve)
    except (KernelBusyError, _UnseenError) as second:
        raise UndoOwedError(f"{failure}. To undo it was not possible: {second}") from second
    except KernelError as second:
        raise UndoFailedError(f"{failure}. The undo failed too: {second}") from second
    raise RolledBackError(str(failure)) from failure
