"""One look at the kernel: what the tables of a ruleset hold, and how that differs from what they should hold."""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Protocol

from fwguardd.kernel.iptables import UnknownContentError
from fwguardd.ruleset.diff import ChangeKind, Difference, changes, compare
from fwguardd.ruleset.model import BUILTIN_CHAINS, ZERO, Ruleset, Table
from fwguardd.ruleset.operations import Plan, SetPolicy, with_counters, writes_policy, written_again
from fwguardd.ruleset.plan import Way, make_plan
from fwguardd.ruleset.preserve import own_part
from fwguardd.ruleset.save_format import IncompatibleTableError
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from fwguardd.ruleset.model import Counters, Family
    from fwguardd.ruleset.operations import LiveRule, Operation
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.ruleset.save_format import Saved


class Kernel(Protocol):
    """What a transaction needs of a kernel. `fwguardd.kernel.iptables.LiveKernel` is the real one."""

    def look(self, families: Collection[Family]) -> Mapping[Family, Saved]:
        """The live tables of these families, with counters, and the names of those that iptables cannot show.

        All tables that exist are in it: what was not shown is never taken for empty. Raises KernelError.
        """

    def share_texts(self, rulesets: Mapping[Family, Ruleset]) -> None:
        """Let equal rules of the next look have the text objects of these, so that each text is in memory once."""

    def last_look(self, families: Collection[Family]) -> Mapping[Family, Saved] | None:
        """The last look at these families, if it is certain that nobody has written since; its counters are old."""

    def recounted(self, rules: Mapping[Family, Sequence[LiveRule]]) -> Mapping[Family, Saved] | None:
        """The same, with what these rules of it have counted by now; None where that is not known."""

    def commit(self, plans: Sequence[Plan]) -> None:
        """Carry out plans, one after the other.

        A table is changed whole or not at all; of several, the first may be changed when a later one fails. Raises
        StalePlaceError where a rule or place that a plan counts on is gone, KernelBusyError where another try with a
        new plan may succeed, and KernelError for all else.
        """

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other programs from writing between a look and a write, where there is a lock for that.

        Raises KernelError.
        """


@dataclass(frozen=True, slots=True)
class Look:
    """What the kernel held at one moment, seen for the sake of the tables in ``wanted``.

    ``saved`` is all that iptables shows of their families, and which tables it hides; ``own`` is what of it does not
    belong to other programs, chains that ``wanted`` names included.
    """

    wanted: Mapping[Family, Ruleset]
    saved: Mapping[Family, Saved]
    own: Mapping[Family, Ruleset]
    found: dict[Way, tuple[Plan, ...]] = field(default_factory=dict, compare=False, repr=False)
    """The plans that were made already."""
    compared: list[tuple[Difference, ...]] = field(default_factory=list, compare=False, repr=False)
    """The differences, once they were found."""

    @property
    def live(self) -> Mapping[Family, Ruleset]:
        """All that iptables shows."""
        return {family: saved.shown for family, saved in self.saved.items()}

    def without_counters_of_policies(self) -> Look:
        """The same, as if no policy had counted anything: nf_tables keeps those counters where a policy stays."""
        saved = {family: replace(each, shown=_uncounted(each.shown)) for family, each in self.saved.items()}
        return Look(self.wanted, saved, self.own)

    def differences(self) -> tuple[Difference, ...]:
        """How the kernel differs from what is wanted: missing is what has to be added."""
        if not self.compared:
            found: list[Difference] = []
            for family, ruleset in self.wanted.items():
                found += compare(ruleset, self.own[family])
                found += self._dormant(family)
            self.compared.append(tuple(found))
        return self.compared[0]

    def changes(self) -> tuple[Difference, ...]:
        """What has to be done to the kernel: added is what has to be added."""
        made: list[Difference] = []
        for family, ruleset in self.wanted.items():
            made += changes(self.own[family], ruleset)
            made += self._dormant(family)
        return tuple(made)

    def plans(self, way: Way = Way.BY_TEXT) -> tuple[Plan, ...]:
        """The way to what is wanted; none for a family that holds it already."""
        if way not in self.found:
            self.found[way] = self._make_plans(way)
        return self.found[way]

    def forget_plans(self) -> None:
        """Give back the memory of the plans: an operation for each rule is needed no longer than until the write."""
        self.found.clear()

    def writes_policies(self) -> bool:
        """Whether a plan writes a policy, with what it has counted."""
        return any(map(writes_policy, self.plans()))

    def written_again(self) -> Mapping[Family, Sequence[LiveRule]]:
        """The live rules of each family that a plan may write again, with what they have counted."""
        rules: dict[Family, Sequence[LiveRule]] = dict.fromkeys(self.wanted, ())
        for plan in self.plans():
            rules[plan.family] = written_again(plan, self.saved[plan.family].shown)
        return rules

    def recounted(self, saved: Mapping[Family, Saved], rules: Mapping[Family, Sequence[LiveRule]]) -> Look:
        """The same after these rules were counted anew, with the same plans but for the counters."""
        look = Look(self.wanted, saved, self.own).without_counters_of_policies()
        plans: list[Plan] = []
        for plan in self.plans():
            counters = _counters_of(saved[plan.family].shown, rules[plan.family])
            if len(counters) < len(rules[plan.family]):
                return look  # Where a text stands twice in a chain, a new plan says which of the two is written.
            plans.append(with_counters(plan, counters))
        look.found[Way.BY_TEXT] = tuple(plans)
        return look

    def _make_plans(self, way: Way) -> tuple[Plan, ...]:
        plans: list[Plan] = []
        for family, ruleset in self.wanted.items():
            plan = make_plan(self.saved[family].shown, self.own[family], ruleset, way)
            plan = _activating(plan, self.saved[family].shown, self._dormant(family))
            if plan.operations:
                plans.append(plan)
        return tuple(plans)

    def _dormant(self, family: Family) -> list[Difference]:
        """The built-in chains that hold what they should in vain, because their table is dormant."""
        found: list[Difference] = []
        saved = self.saved[family]
        for name in sorted(saved.dormant & self.wanted[family].tables.keys() & saved.shown.tables.keys()):
            for chain in saved.shown.tables[name].chains.values():
                if chain.policy is not None:
                    text = f"ACCEPT (the table is dormant) instead of {chain.policy}"
                    found.append(Difference(family, name, chain.name, ChangeKind.POLICY, text))
        return found


def look_at(kernel: Kernel, wanted: Mapping[Family, Ruleset], preserve: Preserve) -> Look:
    """Look at the families of these rulesets.

    Raises UnknownContentError where iptables cannot show a table that they name, and KernelError for all else. A table
    that they do not name may be hidden: it belongs to another program.
    """
    kernel.share_texts(wanted)
    return look_of(kernel.look(tuple(wanted)), wanted, preserve)


def known_look(kernel: Kernel, wanted: Mapping[Family, Ruleset], preserve: Preserve) -> Look | None:
    """What a look at these families would find, where that is certain without one; its counters are old. Raises as
    `look_at` does."""
    saved = kernel.last_look(tuple(wanted))
    if saved is None:
        return None
    return look_of(saved, wanted, preserve)


def look_before_write(kernel: Kernel, wanted: Mapping[Family, Ruleset], preserve: Preserve) -> Look:
    """What the kernel holds, for a write. Rules that are written again keep what they have counted: of a look that is
    known already they are counted anew. A chain whose policy changes keeps that too: there such a look does not do.
    Raises as `look_at` does."""
    look = known_look(kernel, wanted, preserve)
    if look is not None:
        counted = _counted_anew(kernel, look.without_counters_of_policies())
        if counted is not None:
            return counted
    return look_at(kernel, wanted, preserve)


def _counted_anew(kernel: Kernel, look: Look) -> Look | None:
    """A known look with the present counters of the rules that its plans write again; None where they are not known."""
    if look.writes_policies():
        return None
    again = look.written_again()
    if not any(again.values()):
        return look
    saved = kernel.recounted(again)
    if saved is None:
        return None
    return look.recounted(saved, again)


def look_of(saved: Mapping[Family, Saved], wanted: Mapping[Family, Ruleset], preserve: Preserve) -> Look:
    """The same for what was read of the kernel already. Raises UnknownContentError."""
    own: dict[Family, Ruleset] = {}
    for family, ruleset in wanted.items():
        try:
            live = saved[family].showing(ruleset.tables)
        except IncompatibleTableError as error:
            raise UnknownContentError(str(error)) from error
        own[family] = own_part(live, preserve, ruleset)
    return Look(wanted, saved, own)


def _counters_of(shown: Ruleset, rules: Sequence[LiveRule]) -> Mapping[tuple[str, str, str], Counters]:
    counters: dict[tuple[str, str, str], Counters] = {}
    for rule in rules:
        found = shown.tables[rule.table].chains[rule.chain].rules[rule.number]
        counters[rule.table, rule.chain, rule.text] = found.counters
    return counters


def _uncounted(shown: Ruleset) -> Ruleset:
    tables: dict[str, Table] = {}
    for table in shown.tables.values():
        chains = dict(table.chains)
        for name in BUILTIN_CHAINS.get(table.name, ()):
            if name in chains:
                chains[name] = replace(chains[name], counters=ZERO)
        tables[table.name] = Table(table.name, chains)
    return Ruleset(shown.family, tables)


def _activating(plan: Plan, live: Ruleset, dormant: Sequence[Difference]) -> Plan:
    """The plan with an operation for each built-in chain of a dormant table: loading a text activates its tables."""
    operations = plan.operations
    for difference in dormant:
        chain = live.tables[difference.table].chains[difference.chain]
        keeping = SetPolicy(difference.table, chain.name, chain.policy or "ACCEPT", chain.counters)
        ours = [operation for operation in operations if _sets(operation, keeping)]
        here = [operation for operation in operations if operation.table == keeping.table]
        others = [operation for operation in operations if operation.table != keeping.table]
        if not ours:
            operations = (keeping, *here, *others)
    return replace(plan, operations=operations)


def _sets(operation: Operation, policy: SetPolicy) -> bool:
    return isinstance(operation, SetPolicy) and (operation.table, operation.chain) == (policy.table, policy.chain)
