"""Putting a canonical ruleset in force: look, write, verify; or undo the write, and verify the undo.

iptables-restore is atomic for one table of one family and for nothing more, so the transaction over all tables of both
families is made here. When `put_in_force` returns or raises, whatever it raises, the kernel holds the wanted rulesets
whole, or those from before whole. Two exceptions say that neither could be achieved: `UndoDelayedError`, where the undo
has to be tried again later, and `UndoFailedError`, where that would not help.

A write that failed may have been committed for some tables, so no text is loaded twice: the kernel is looked at again,
and what is left is planned anew. Memory and descriptors that an undo may need are reserved before the first write.

A write that succeeded and cannot be read back is not undone: what was written is most likely in force, and an undo
without a look could only make things worse. The outcome is `Unverified`.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from fwguardd.enforce.look import Kernel, Look, known_look, look_at, look_before_write, look_of
from fwguardd.enforce.run_beside import RunBeside
from fwguardd.errors import failure_of
from fwguardd.kernel.iptables import (
    IptablesNotPermittedError,
    KernelBusyError,
    KernelError,
    KernelStarvedError,
    LoadInterruptedError,
    RestoreRefusedError,
    StalePlaceError,
    UnknownContentError,
    reserve_for_undo,
)
from fwguardd.ruleset.canonical import Canonical, Emptying, with_released_policies
from fwguardd.ruleset.diff import ChangeKind, Difference
from fwguardd.ruleset.model import Family, Ruleset
from fwguardd.ruleset.plan import Way
from fwguardd.ruleset.preserve import with_emptied_chains
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.operations import Plan
    from fwguardd.ruleset.preserve import Preserve

RETRY_WAITS = (0.05, 0.2, 0.8)
"""Seconds between tries of a write that clashed with another program, or that lacked memory, processes or descriptors,
and between tries of an undo."""

MOST_LOOKS = len(RETRY_WAITS) + 1
"""The most plans of one write, and after it the most corrections of the order of rules."""

_PERMANENT = (RestoreRefusedError, UnknownContentError, IptablesNotPermittedError)
"""Why an undo fails for good: iptables refuses what the kernel held, or there is no permission."""

_LESS = (ChangeKind.MISSING, ChangeKind.CHAIN_MISSING)

_MANY_OPERATIONS = 500
"""From this many operations on, a load that ran out of time may have been too large, and is tried in another way. A
smaller one ran out of time because other programs kept committing; it is not tried again at once, since passes and
verbs would wait meanwhile."""

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


class UndoneError(Exception):
    """The write failed, was undone, and the undo was verified: what was in force before is in force now."""


class UndoFailedError(Exception):
    """The write failed and so did its undo, and trying again does not help. The kernel may hold parts of both."""


class UndoDelayedError(Exception):
    """The write failed, and could not be undone yet: other programs kept the kernel busy, or the system is short.

    The kernel has to be compared with what was in force before, and that brought back, as soon as this is possible.
    """


class _LookFailedError(Exception):
    """After a write the kernel could not be read."""


class _NotAsWrittenError(KernelError):
    """The load ended without an error, and the kernel holds something else."""


def put_in_force(
    kernel: Kernel,
    canonical: Canonical,
    preserve: Preserve,
    release: Emptying | None = None,
    before_write: Callable[[Look], Preserve] | None = None,
    beside: Callable[[], None] | None = None,
) -> Applied | Unverified | Unchanged:
    """Make the kernel hold these rulesets, and empty the tables that are released.

    ``preserve`` says which live rules belong to other programs and stay. ``release`` are tables that fwguardd owned
    until now and that are emptied. ``before_write`` is called with what the kernel held before, and returns what is to
    be preserved of it; what it raises prevents the write. ``beside`` is called right before the write, to begin what
    takes place beside it. Raises UndoneError, UndoFailedError, UndoDelayedError, or
    KernelError where the first look failed. A defect of fwguardd is raised again after the undo.
    """
    wanted = _with_released(canonical, release, preserve)
    with kernel.exclusive():
        before = look_before_write(kernel, wanted, preserve)
        if before_write is not None:
            preserved, preserve = preserve, before_write(before)
            if preserve != preserved:
                before = look_of(before.saved, wanted, preserve)
        if not before.plans():
            return Unchanged()
        preserve = preserve.with_theirs(before.live, before.own)
        with reserve_for_undo() as reserve, _changes_of(before, beside) as changes:
            # A defect, or a lack of memory, in the middle of a write must not leave one family new and the other old.
            failure = failure_of(lambda: _write_and_verify(kernel, before, preserve))
            if isinstance(failure, _LookFailedError):
                return Unverified(changes(), str(failure))
            if failure is not None:
                reserve.give_back()
                _undo(kernel, before, preserve, failure)
    return Applied(changes())


@contextlib.contextmanager
def _changes_of(before: Look, beside: Callable[[], None] | None) -> Iterator[Callable[[], tuple[Difference, ...]]]:
    """What a write changes; of a large one that is found out beside the write, which waits for programs. The texts for
    these are made before that: the interpreter runs one thread at a time."""
    plans = before.plans()
    if _operations(plans) >= _MANY_OPERATIONS:
        for plan in plans:
            plan.render()
    if beside is not None:
        beside()
    if _operations(plans) < _MANY_OPERATIONS:
        yield before.changes
        return
    with RunBeside(before.changes) as changes:
        yield changes.result


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the kernel differed from the revision in force, and how many seconds the comparison took."""

    differences: tuple[Difference, ...]
    seconds: float


def find_drift(kernel: Kernel, canonical: Canonical, preserve: Preserve) -> tuple[Difference, ...]:
    """How the kernel differs from what was put in force. Raises KernelError."""
    return look_at(kernel, canonical.rulesets, preserve).differences()


def _with_released(canonical: Canonical, release: Emptying | None, preserve: Preserve) -> Mapping[Family, Ruleset]:
    """The rulesets to load: those of the revision, and the released tables, emptied. Chains that other programs use are
    emptied, where fwguardd had loaded rules into them."""
    if release is None:
        return canonical.rulesets
    wanted: dict[Family, Ruleset] = {}
    for family, ruleset in canonical.rulesets.items():
        wanted[family] = with_released_policies(ruleset, release.policies)
    for family, emptied in Canonical.emptied(release).rulesets.items():
        tables = dict(emptied.tables)
        if family in wanted:
            tables.update(wanted[family].tables)
        wanted[family] = Ruleset(family, tables)
    for loaded in preserve.loaded:
        for family in loaded.keys() & wanted.keys():
            wanted[family] = with_emptied_chains(wanted[family], loaded[family], preserve)
    return wanted


def _write_and_verify(kernel: Kernel, look: Look, preserve: Preserve) -> None:
    _write(kernel, look, preserve)
    look.forget_plans()
    _verify(kernel, look.wanted, preserve)


def _write(kernel: Kernel, look: Look, preserve: Preserve) -> None:
    """Write what a look calls for; where that may succeed at another try, look and plan again.

    A load that ran out of time is tried another way, or given up. One that is refused is tried once more if another
    look calls for other changes: iptables-save prints a wrong option, and exits with 0, where it fails to ask the
    kernel which revisions a match or target has (nft_compatible_revision() in iptables/nft.c).
    """
    way = Way.BY_TEXT
    plans = look.plans(way)
    for wait in RETRY_WAITS:
        try:
            return kernel.commit(plans)
        except KernelStarvedError:
            if _operations(plans) < _MANY_OPERATIONS:
                raise
            look = look_at(kernel, look.wanted, preserve)
            quicker = _quicker_way(look, way)
            if quicker is None:
                raise
            way, plans = quicker, look.plans(quicker)
        except (StalePlaceError, LoadInterruptedError):
            plans = look_at(kernel, look.wanted, preserve).plans(way)
        except RestoreRefusedError:
            anew = look_at(kernel, look.wanted, preserve).plans(way)
            if anew == plans:
                raise
            return kernel.commit(anew)
        except KernelBusyError:
            time.sleep(wait)
            plans = look_at(kernel, look.wanted, preserve).plans(way)
    return kernel.commit(plans)


def _operations(plans: Sequence[Plan]) -> int:
    return sum(len(plan.operations) for plan in plans)


def _quicker_way(look: Look, way: Way) -> Way | None:
    """The next way in which the plans are other ones; None if there is none."""
    for other in Way:
        if other > way and look.plans(other) != look.plans(way):
            return other
    return None


def _verify(kernel: Kernel, wanted: Mapping[Family, Ruleset], preserve: Preserve) -> None:
    """Check that the kernel holds what was written, and move what only stands in another place.

    A plan counts places, and nf_tables has no lock: where another program inserts a rule before ours between the look
    and the write, as fail2ban does with its first ban, ours come to stand one place off. A plan from a newer look moves
    them.
    """
    for tries_left in reversed(range(MOST_LOOKS)):
        look = _look_after_write(kernel, wanted, preserve)
        differences = look.differences()
        if not differences:
            return
        if not tries_left or any(difference.kind is not ChangeKind.MOVED for difference in differences):
            raise _NotAsWrittenError(_not_as_written(differences))
        _write(kernel, look, preserve)


def _look_after_write(kernel: Kernel, wanted: Mapping[Family, Ruleset], preserve: Preserve) -> Look:
    """What the kernel holds after a write. Where that is less than what was written, it is looked at twice: a program
    that could not print all does not always say so.

    An edit over netlink has been answered by the kernel with what it did, so what it holds then is known.
    """
    try:
        look = known_look(kernel, wanted, preserve)
        if look is not None and not look.differences():
            return look
        look = look_at(kernel, wanted, preserve)
        if any(difference.kind in _LESS for difference in look.differences()):
            look = look_at(kernel, wanted, preserve)
    except KernelError as error:
        raise _LookFailedError(str(error)) from error
    return look


def _not_as_written(differences: Sequence[Difference]) -> str:
    places = counted(len(differences), "place")
    shown = "; ".join(map(str, differences[:_MOST_SHOWN]))
    return f"after the load the kernel differs in {places}: {shown}"


def _undo(kernel: Kernel, before: Look, preserve: Preserve, failure: BaseException) -> None:
    """Bring back what the written tables held before. Always raises: a defect itself, once it is undone."""
    earlier = Canonical.from_kernel(before.own, before.wanted).rulesets
    preserve = preserve.owning(before.wanted)
    second = failure_of(lambda: _restore(kernel, earlier, preserve))
    for wait in RETRY_WAITS:
        if second is None or isinstance(second.__cause__ or second, KernelStarvedError):
            break
        time.sleep(wait)
        second = failure_of(lambda: _restore(kernel, earlier, preserve))
    if second is None:
        if isinstance(failure, KernelError):
            raise UndoneError(str(failure)) from failure
        raise failure
    reason = f"{_described(failure)}. It could not be undone yet: {_described(second)}"
    if isinstance(second, _PERMANENT) and not isinstance(second, StalePlaceError):
        reason = f"{_described(failure)}. The undo failed too: {_described(second)}"
        raise UndoFailedError(reason) from second
    raise UndoDelayedError(reason) from second


def _restore(kernel: Kernel, earlier: Mapping[Family, Ruleset], preserve: Preserve) -> None:
    _write_and_verify(kernel, look_at(kernel, earlier, preserve), preserve)


def _described(error: BaseException) -> str:
    """What an error says; with its type, where it is a defect."""
    if isinstance(error, (KernelError, _LookFailedError)):
        return str(error)
    return f"{type(error).__name__}: {error}"
