"""What a pass works on, and its outcome: the types that passes and verbs share."""

from __future__ import annotations

import time
from dataclasses import field, replace
from threading import Event
from typing import TYPE_CHECKING, Final

from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.schedule import Unfinished
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fwguardd.enforce.look import Kernel
    from fwguardd.enforce.prover import Prover
    from fwguardd.enforce.state import InForce, State
    from fwguardd.enforce.validate import Validator
    from fwguardd.events import Emit
    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.model import Family, Findings, Ruleset
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.store.before_load import BeforeLoad
    from fwguardd.store.revisions import RevisionStore


@dataclass(frozen=True, slots=True)
class RecordedHost:
    """What a revision records of the host: the tool, the kernel's release, and the id of this boot."""

    tool: Tool
    kernel_release: str
    boot_id: str


def _never() -> bool:
    return False


def _ignore(_until: float | None) -> None:
    """Nothing waits for the end of rules."""


def _nothing() -> int:
    return 0


LATE_NOTICE: Final = 0.1
"""Seconds to wait for the notice of a change that was seen before it: the kernel sends it at the end of the commit."""


def nobody(_seconds: float = 0.0) -> Authors:
    """No process: the default where nothing reports changes."""
    return NO_AUTHORS


@dataclass(slots=True)
class LateAuthors:
    """The authors of changes whose notices came after the pass had begun. They are asked for once in a step, and only
    where a difference is found, since others made the differences that later steps find. ``found`` are those."""

    ask: Callable[[float], Authors] = nobody
    found: Authors | None = None
    earlier: Authors = NO_AUTHORS

    def __call__(self, seconds: float) -> Authors:
        """Those of this step; a late notice is waited for."""
        if self.found is None:
            self.found = self.ask(seconds)
        return self.found

    def forget(self) -> None:
        """Ask again the next time: the differences that were found until now are dealt with."""
        self.earlier, self.found = self.all, None

    @property
    def all(self) -> Authors:
        """All that were found in this step."""
        return self.earlier.and_others(self.found or NO_AUTHORS)


@dataclass(frozen=True, slots=True)
class Signals:
    """What the event loop signals to a step that has begun: a reload that has to be confirmed waits for its end, and
    another program has changed the kernel."""

    confirmation_asked: Event = field(default_factory=Event)
    kernel_changed: Event = field(default_factory=Event)


@dataclass(frozen=True, slots=True)
class Context:
    """What a pass works on.

    ``preserve`` says what belongs to other programs. ``repair`` says whether drift is repaired, ``why_not`` in a clause
    why it is left alone. ``emergency_dir`` has the rule files of the emergency set. ``confirmation_asked`` says whether
    a reload that has to be confirmed waits for this step to end. With ``manual`` changed files are applied by a reload
    only. ``confirm_changes`` is the time in seconds within which a change in the directory has to be confirmed.
    ``noticed`` are the processes that have changed the kernel and are not among the authors that the step began with.
    ``noticed_before`` are those of the step before, which may not have seen their changes yet.
    ``keep_services`` says whether rules that services add stay. ``rules_end`` is called with the time at which the next
    rules of the directory end, in seconds since 1970, None for none. ``prover`` sends packets through accepted files
    before they are loaded; with None nothing is sent. ``kernel_changed`` is set at each notice of a change by another
    program. ``drift_interval`` is the longest time in seconds between two comparisons of the kernel.
    ``track_connections`` has the kernel track the connections that exist, as rules that are about to be loaded need it;
    it raises OSError. ``before_load`` keeps what the kernel held before a load, where no revision says it.
    """

    rules_dir: Path
    validator: Validator
    kernel: Kernel
    preserve: Preserve
    repair: bool
    store: RevisionStore
    host: RecordedHost
    emit: Emit
    why_not: str = ""
    emergency_dir: Path | None = None
    confirmation_asked: Callable[[], bool] = _never
    manual: bool = False
    confirm_changes: float | None = None
    noticed: LateAuthors = field(default_factory=LateAuthors)
    noticed_before: Authors = NO_AUTHORS
    keep_services: bool = False
    rules_end: Callable[[float | None], None] = _ignore
    prover: Prover | None = None
    kernel_changed: Event = field(default_factory=Event)
    drift_interval: float = 60.0
    track_connections: Callable[[], int] = _nothing
    before_load: BeforeLoad | None = None

    def by_now(self, authors: Authors) -> Authors:
        """The authors of a difference: these, with those noticed since; if there are none, those noticed late in the
        step before."""
        wait = LATE_NOTICE
        if authors or authors.more:
            wait = 0.0
        found = authors.and_others(self.noticed(wait))
        if found or found.more:
            return found
        return self.noticed_before


@dataclass(frozen=True, slots=True)
class Done:
    """The pass did what it was meant to do.

    ``changes`` is the number of differences that were written to the kernel. ``repaired`` are those
    with which this undid a change of another program. ``files_changed`` says that a pass which only looks
    at the kernel found changed files, to be validated once they have settled.
    """

    state: State
    changes: int = 0
    repaired: frozenset[Difference] = frozenset()
    files_changed: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The files have errors. The revision in force before is in force after.

    ``repaired`` are the differences with which changes of other programs were undone all the same.
    """

    state: State
    findings: Findings
    repaired: frozenset[Difference] = frozenset()


@dataclass(frozen=True, slots=True)
class Failed:
    """The pass failed for a reason that is not in the files.

    The kernel holds what it held before, or ``state.unverified`` says that this is not known. ``retry`` says whether to
    try again soon, because the reason may disappear by itself. ``repaired`` are the differences with which changes of
    other programs were undone all the same. ``wrote`` says that the kernel was written to, and that this was undone as
    far as iptables-save shows it: the kernel is to be compared soon. ``overdue``: a revision that was not confirmed in
    time is not undone yet.
    """

    state: State
    reason: str
    retry: bool
    repaired: frozenset[Difference] = frozenset()
    wrote: bool = False
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Broken:
    """A load failed half-way and its undo failed too: the kernel may hold parts of two revisions."""

    state: State
    reason: str


Outcome = Done | Refused | Failed | Broken


def loaded_before(in_force: InForce | None) -> Mapping[Family, Ruleset]:
    """What fwguardd has loaded: the rulesets of the revision in force."""
    if in_force is None:
        return {}
    return in_force.canonical.rulesets


def repaired_in(outcome: Outcome) -> frozenset[Difference]:
    """The differences with which a step undid changes of other programs."""
    if isinstance(outcome, Broken):
        return frozenset()
    return outcome.repaired


def with_repairs(outcome: Outcome, repaired: frozenset[Difference]) -> Outcome:
    """The outcome of a step during which these differences were repaired too."""
    if isinstance(outcome, Broken):
        return outcome
    return replace(outcome, repaired=outcome.repaired | repaired)


def to_look_at(outcome: Outcome, *, again: bool) -> bool:
    """Whether the kernel is to be compared soon, because a step wrote to it.

    A load that failed is not looked at where the step is tried ``again``: the next try compares the kernel, and looks
    would shorten the time to it.
    """
    match outcome:
        case Done(changes=changes) if changes > 0:
            return True
        case Failed(wrote=True) if not again:
            return True
        case _:
            return bool(repaired_in(outcome))


def unfinished(outcome: Outcome, state: State) -> frozenset[Unfinished]:
    """What has to be tried again after a step; ``state`` is the state after it."""
    conditions = (
        (Unfinished.FILES, state.waits),
        (Unfinished.FAILED, isinstance(outcome, Failed) and outcome.retry),
        (Unfinished.UNVERIFIED, outcome.state.unverified not in (None, UnverifiedState.HIDDEN)),
        (Unfinished.UNKNOWN, bool(state.unknown)),
        (Unfinished.UNDO, isinstance(outcome, Failed) and outcome.overdue),
    )
    return frozenset(left for left, holds in conditions if holds)


def boottime() -> float:
    """Seconds since boot, including the time that the machine was suspended (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def still_in_force(state: State) -> str:
    """A sentence that says what the kernel holds after a pass that changed nothing, by the last comparison."""
    kernel = state.kernel_state
    if kernel is KernelState.IN_FORCE:
        return f"Revision {state.revision} stays in force"
    if kernel is KernelState.UNMANAGED:
        return "Nothing was loaded, and the kernel is as it was"
    return f"The state is {state.measured()}"
