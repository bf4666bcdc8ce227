"""Rules of other programs in owned tables: which stay, which are drift, and which an administrator has to decide about.

A rule that a service has added stays, and is reported once. One that any other process has added is drift. Where the
process is not known, the rule stays until an administrator decides. Before the first load nothing is removed either.
Nothing of this concerns what was removed or changed of ours: that is repaired, whichever process did it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.look import look_at, look_of
from fwguardd.enforce.record import store_errors_reported
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.enforce.validate import Valid
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.cgroups import ProcessKind
from fwguardd.ruleset.model import Ruleset
from fwguardd.ruleset.others import Others, RuleOrChain, Standing, additions, of_standing, remember
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.enforce.context import Context
    from fwguardd.enforce.look import Look
    from fwguardd.enforce.state import State
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.preserve import Preserve

MOST_LISTED = 20
"""Rules that one event lists."""

FOUND = "an unknown process, before the first load"
"""The author of rules that were in the kernel before fwguardd loaded anything."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """What is remembered after a look, with what preserves it, and whether anything is new."""

    context: Context
    others: Others
    found: bool


def remembering(context: Context, others: Others) -> Context:
    """The context in which what is remembered is preserved."""
    return replace(context, preserve=context.preserve.remembering(others))


def recognize(context: Context, others: Others, drift: Iterable[Difference], authors: Authors) -> Recognized:
    """Decide about what was added to the owned tables, report and remember what stays.

    What does not stay is still drift, and `enforce.repair` removes it.
    """
    places = additions(drift)
    if not places or not context.keep_services:
        return Recognized(context, others, found=False)
    authors = context.by_now(authors)
    if authors.kind is ProcessKind.OTHER:
        return Recognized(context, others, found=False)
    standing = Standing.UNDECIDED
    if authors.kind is ProcessKind.SERVICE:
        standing = Standing.KEPT
    others = remember(others, places, str(authors) or "an unknown process", time.time(), standing)
    record(context, others)
    if standing is Standing.KEPT:
        _report_kept(context, places, authors)
    else:
        _report_undecided(context, places, authors)
    return Recognized(remembering(context, others), others, found=True)


@dataclass(slots=True)
class Newcomers:
    """Recognizes what other programs have added before another ruleset is written; ``others`` is what is remembered
    then. ``preserve`` is what the write preserves in any case. It is called between the look and the write
    (``before_write`` of `enforce.transaction.put_in_force`)."""

    context: Context
    state: State
    preserve: Preserve
    authors: Authors = NO_AUTHORS
    others: Others = ()

    def __post_init__(self) -> None:
        self.others = self.state.others

    def __call__(self, look: Look) -> Preserve:
        """What is preserved of what the kernel held. The emergency set of the boot loader, and what a failed load has
        left, is of no other program."""
        state, in_force = self.state, self.state.in_force
        undo_delayed = state.unverified is UnverifiedState.UNDO
        if in_force is None or state.is_open or state.emergency or undo_delayed:
            return self.preserve
        rulesets = in_force.canonical.rulesets
        self._recognize(look, rulesets, self.authors)
        self._recognize(look, _not_owned(look.wanted, self.state), NO_AUTHORS)
        return self.preserve.remembering(self.others)

    def _recognize(self, look: Look, wanted: Mapping[Family, Ruleset], authors: Authors) -> None:
        seen = {family: ruleset for family, ruleset in wanted.items() if family in look.saved}
        drift = look_of(look.saved, seen, self.preserve).differences()
        self.others = recognize(self.context, self.others, drift, authors).others


def _not_owned(wanted: Mapping[Family, Ruleset], state: State) -> Mapping[Family, Ruleset]:
    """The tables that fwguardd does not own yet."""
    rulesets: dict[Family, Ruleset] = {}
    for family, ruleset in wanted.items():
        tables = {name: table for name, table in ruleset.tables.items() if (family, name) not in state.owned}
        rulesets[family] = Ruleset(family, tables)
    return rulesets


def record(context: Context, others: Others) -> None:
    """Keep what is remembered on the disk. A disk that fails is reported."""
    with store_errors_reported(context):
        context.store.remember_others(others)


def _report_kept(context: Context, places: Sequence[RuleOrChain], authors: Authors) -> None:
    settings = "; ".join(place.setting for place in places[:MOST_LISTED])
    found = _count_and_first(places, "of another program is kept", "of another program are kept")
    message = (
        f"{found}, added by {authors}; not reported again. To preserve such rules whichever process adds them, write "
        f"into preserve: in fwguardd.yaml: {settings}"
    )
    context.emit(events.OTHERS_KEPT, message, others=_listed(places), **authors.fields())


def _report_undecided(context: Context, places: Sequence[RuleOrChain], authors: Authors) -> None:
    who = "it is not known by which process"
    if authors:
        who = f"by {authors}, which is not known to be a service"
    message = (
        f"{_count_and_first(places, 'was added', 'were added')}, {who}. An administrator has to decide: fwguardctl "
        "adopt lists what was added, fwguardctl adopt N keeps number N, and fwguardctl adopt --remove N removes it"
    )
    context.emit(events.OTHERS_UNDECIDED, message, others=_listed(places), **authors.fields())


def _count_and_first(places: Sequence[RuleOrChain], one: str, more: str) -> str:
    """How many rules it is about, what is said of one or of more, and the first."""
    if len(places) == 1:
        return f"1 rule {one}: {places[0]}"
    return f"{len(places)} rules {more}, the first: {places[0]}"


def _listed(places: Sequence[RuleOrChain]) -> list[str]:
    listed = [str(place) for place in places[:MOST_LISTED]]
    if len(places) > MOST_LISTED:
        listed.append(f"… and {len(places) - MOST_LISTED} more")
    return listed


def unknown_before_first_load(context: Context, state: State, accepted: Valid) -> tuple[RuleOrChain, ...]:
    """What the first load of accepted files would remove, and no administrator has decided about. Raises KernelError.

    The boot loader loads the emergency set where there is no revision yet: its rules are not unknown.
    """
    if state.in_force is not None or state.touched or not context.keep_services:
        return ()
    found = _unknown(context, state, accepted.rehearsed.rulesets)
    if not found:
        return ()
    own = _of_emergency_set(context)
    return tuple(place for place in found if place not in own)


def _of_emergency_set(context: Context) -> frozenset[RuleOrChain]:
    """The rules of the emergency set; none where there is no such set, or it is refused."""
    if context.emergency_dir is None:
        return frozenset()
    emergency = context.validator.validate(take_snapshot(context.emergency_dir))
    if not isinstance(emergency, Valid):
        return frozenset()
    return frozenset(_places(emergency.rehearsed.rulesets))


def _unknown(context: Context, state: State, wanted: Mapping[Family, Ruleset]) -> tuple[RuleOrChain, ...]:
    decided = {other.place for other in state.others if other.standing is not Standing.UNDECIDED}
    look = look_at(context.kernel, wanted, context.preserve.remembering(()))
    return tuple(place for place in additions(look.differences()) if place not in decided)


def _places(rulesets: Mapping[Family, Ruleset]) -> Iterable[RuleOrChain]:
    for family, ruleset in rulesets.items():
        for table, chain in ruleset.chains():
            yield RuleOrChain(family, table.name, chain.name)
            for rule in chain.rules:
                yield RuleOrChain(family, table.name, chain.name, rule.text)


def remember_found(context: Context, state: State, places: Sequence[RuleOrChain]) -> State:
    """The state that remembers what was in the kernel before the first load, to be decided about."""
    decided = tuple(other for other in state.others if other.standing is not Standing.UNDECIDED)
    others = remember(decided, places, FOUND, time.time(), Standing.UNDECIDED)
    record(context, others)
    return replace(state, others=others)


def take_over_reason(places: Sequence[RuleOrChain]) -> str:
    """Why files are held before the first load."""
    return f"the tables of the rule files hold {counted(len(places), 'rule')} that fwguardd did not load"


def how_to_take_over(places: Sequence[RuleOrChain]) -> str:
    """What an administrator can do about rules that are there before the first load."""
    listed = "; ".join(map(str, places[:MOST_LISTED]))
    return (
        f"nothing was loaded or removed: {take_over_reason(places)}, and the first load would remove: {listed}. "
        "To keep them: fwguardctl adopt --all, or preserve: in fwguardd.yaml. To choose: fwguardctl adopt. To remove "
        "them all: fwguardctl reload --take-over"
    )


def without_removed(others: Others) -> Others:
    """What is remembered once a load has removed what an administrator did not want."""
    return tuple(other for other in others if other.standing is not Standing.REMOVED)


def undecided(others: Others) -> Others:
    """What an administrator has to decide about."""
    return of_standing(others, Standing.UNDECIDED)
