"""A packet through the chains of one table: which formulas say that it is accepted, dropped, rejected, or returns.

A chain is followed once for each set of values that packets have when they enter it, however many rules jump to it:
what it does is a formula about the packet, whatever led there. `Visit` keeps for each rule when a packet that entered
the chain meets it and when it matches, and who jumped there, so that `Visit.entered` can say when it is entered at all.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fwguardd.proof.fields import LOOPBACK_ADDRESS, UNTRACKED, Fields, PacketField, width_of
from fwguardd.proof.formulas import FreePart, Leaf, all_of, any_of, both, negation, without
from fwguardd.proof.intervals import everything, of_numbers, single
from fwguardd.proof.parts import MaskTest, Opposite, RuleEffect, Some, Test

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.proof.fields import HostFacts
    from fwguardd.proof.formulas import Formula, Scope
    from fwguardd.proof.intervals import Intervals
    from fwguardd.proof.parts import Part
    from fwguardd.proof.reading import ModelledRule, ReadTables
    from fwguardd.ruleset.model import Origin

MOST_NESTED: Final = 100
"""Chains that lead to each other; nf_tables allows 16 (NFT_JUMP_STACK_SIZE, include/net/netfilter/nf_tables.h)."""

MOST_VISITS: Final = 100_000
"""Visits of chains with answers of their own, after which a visit is shared."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """A rule in a visit: when a packet that entered the chain comes to it, and when it matches such a packet."""

    rule: ModelledRule
    comes: Formula
    matches: Formula


@dataclass(frozen=True, slots=True)
class Passage:
    """What becomes of the packets that enter a chain, and what they look like behind it."""

    accept: Formula
    drop: Formula
    reject: Formula
    returns: Formula
    fields: Fields


@dataclass(slots=True, eq=False)
class Visit:
    """A chain that packets enter with these fields. ``callers`` are the visits that jump here, each with when a packet
    of that visit does; of a base chain ``start`` says when it is entered. ``policy`` is its policy, with the
    place where that is written. ``path`` names the rules that led here first."""

    table: str
    chain: str
    hook: str
    path: tuple[str, ...] = ()
    start: Formula = False
    meetings: list[Meeting] = field(default_factory=list)
    callers: list[tuple[Visit, Formula]] = field(default_factory=list)
    is_unsteady: bool = False
    passage: Passage | None = None
    policy: str = ""
    origin: Origin | None = None

    def entered(self) -> Formula:
        """When a packet enters the chain."""
        return any_of([self.start, *(both(caller.entered(), jumps) for caller, jumps in self.callers)])


@dataclass(slots=True)
class _Ends:
    """What became of packets so far in a visit."""

    accept: list[Formula] = field(default_factory=list)
    drop: list[Formula] = field(default_factory=list)
    reject: list[Formula] = field(default_factory=list)
    returns: list[Formula] = field(default_factory=list)


@dataclass(slots=True)
class _Progress:
    """A visit while its rules are followed: ``live`` says when a packet comes to the next rule."""

    visit: Visit
    fields: Fields
    live: Formula = True
    ends: _Ends = field(default_factory=_Ends)

    def passage(self) -> Passage:
        ends = self.ends
        returns = any_of((*ends.returns, self.live))
        return Passage(any_of(ends.accept), any_of(ends.drop), any_of(ends.reject), returns, self.fields)


@dataclass(slots=True)
class TableWalk:
    """A table in one hook. ``visits`` are all visits so far, of all hooks."""

    scope: Scope
    known: HostFacts
    rules: ReadTables
    table: str
    hook: str
    visits: list[Visit]
    _done: dict[tuple[str, int], tuple[Visit, Passage, Fields]] = field(default_factory=dict)

    def enter(self, chain: str, fields: Fields, path: tuple[str, ...] = ()) -> tuple[Visit, Passage]:
        """What becomes of packets with these fields in a chain of the table, to which the rules of ``path`` lead."""
        key = (chain, id(fields))
        known = self._done.get(key)
        if known is not None and (not known[0].is_unsteady or len(self.visits) > MOST_VISITS):
            return known[:2]
        visit = Visit(self.table, chain, self.hook, path)
        self.visits.append(visit)
        progress = _Progress(visit, fields)
        for rule in self.rules.tables[self.table][chain]:
            self._meet(rule, progress)
            if progress.live is False:
                break
        visit.passage = passage = progress.passage()
        self._done[key] = visit, passage, fields
        return visit, passage

    def _meet(self, rule: ModelledRule, progress: _Progress) -> None:
        visit = progress.visit
        matches = all_of([self._formula(part, rule, progress) for part in rule.meaning.parts])
        visit.meetings.append(Meeting(rule, progress.live, matches))
        visit.is_unsteady = visit.is_unsteady or rule.is_unsteady
        if matches is not False:
            _EFFECTS[rule.meaning.target.effect](self, rule, progress, matches)

    def _formula(self, part: Part, rule: ModelledRule, progress: _Progress) -> Formula:
        match part:
            case Test(of, values):
                return self.scope.inside(progress.fields[of], values)
            case MaskTest(of, mask, value):
                return self.scope.masked(progress.fields[of], mask, value)
            case Opposite(inner):
                return negation(self._formula(inner, rule, progress))
            case Some(parts):
                return any_of([self._formula(inner, rule, progress) for inner in parts])
        name = f"{part.words} @{self.table}.{self.hook}"
        if not part.is_steady or self.rules.is_changing:
            name = f"{name} {_identity(rule, progress)}"
        return self.scope.maybe(name, rule.free_part(part.words))

    def _end(self, progress: _Progress, ends: list[Formula], matches: Formula) -> None:
        """The packets that match end here."""
        ends.append(both(progress.live, matches))
        progress.live = without(progress.live, matches)

    def accept(self, _rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Accept the packets that match."""
        self._end(progress, progress.ends.accept, matches)

    def drop(self, _rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Drop the packets that match."""
        self._end(progress, progress.ends.drop, matches)

    def reject(self, _rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Reject the packets that match."""
        self._end(progress, progress.ends.reject, matches)

    def go_back(self, _rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Let the packets that match return from the chain."""
        self._end(progress, progress.ends.returns, matches)

    def go_on(self, _rule: ModelledRule, _progress: _Progress, _matches: Formula) -> None:
        """Nothing: the packet goes to the next rule."""
        return

    def jump(self, rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Send the packets that match through another chain."""
        returned = self._call(rule, progress, matches)
        if returned is not True:
            stays = without(progress.live, matches)
            progress.live = any_of((stays, all_of((progress.live, matches, returned))))

    def go_to(self, rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Send the packets that match to another chain, behind which they return from this one."""
        returned = self._call(rule, progress, matches)
        progress.ends.returns.append(all_of((progress.live, matches, returned)))
        progress.live = without(progress.live, matches)

    def _call(self, rule: ModelledRule, progress: _Progress, matches: Formula) -> Formula:
        """When a packet comes back from the chain that a rule leads to."""
        hit = both(progress.live, matches)
        path = (*progress.visit.path, named(rule))
        if len(path) > MOST_NESTED:
            return self._maybe(rule, progress, hit)
        visit, passage = self.enter(rule.meaning.target.name, progress.fields, path)
        visit.callers.append((progress.visit, hit))
        progress.visit.is_unsteady = progress.visit.is_unsteady or visit.is_unsteady
        progress.ends.accept.append(both(hit, passage.accept))
        progress.ends.drop.append(both(hit, passage.drop))
        progress.ends.reject.append(both(hit, passage.reject))
        self._merge(progress, hit, passage.fields)
        return passage.returns

    def _merge(self, progress: _Progress, hit: Formula, after: Fields) -> None:
        """Give the packets of a hit other fields."""
        if after is not progress.fields:
            changes = {name: value for name, value in after.values.items() if value != progress.fields[name]}
            self.change(progress, hit, changes)

    def change(self, progress: _Progress, hit: Formula, changes: Mapping[PacketField, Leaf]) -> None:
        """Give the packets of a hit other values."""
        progress.fields = changed(self.scope, self.known, progress.fields, hit, changes)

    def mark(self, rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Change the mark of the packets that match."""
        target, mark = rule.meaning.target, progress.fields[PacketField.MARK]
        value = Leaf(mark.variable, mark.mask & target.mask, mark.flipped & target.mask ^ target.value)
        self.change(progress, both(progress.live, matches), {PacketField.MARK: value})

    def free_mark(self, rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Give the packets that match the mark of their connection, which is not known."""
        value = self._free(rule, progress, PacketField.MARK, everything(32))
        self.change(progress, both(progress.live, matches), {PacketField.MARK: value})

    def _free(self, rule: ModelledRule, progress: _Progress, name: PacketField, values: Intervals) -> Leaf:
        """A value that a rule gives to a field, one of several."""
        if values and values[0][0] == values[-1][1]:
            return Leaf.number(values[0][0])
        part = rule.free_part(f"-j {rule.meaning.target.name}")
        words = f"{name} @{self.table}.{self.hook} {_identity(rule, progress)}"
        return self.scope.free(words, width_of(name, self.known.family), part, values)

    def notrack(self, _rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Exempt the packets that match from connection tracking."""
        self.change(progress, both(progress.live, matches), {PacketField.STATE: Leaf.number(UNTRACKED)})

    def translate(self, rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Give the packets that match another destination, and accept them."""
        target = rule.meaning.target
        changes = {PacketField.DNAT: Leaf.number(1)}
        if target.addresses is not None:
            changes[PacketField.HERE] = Leaf.number(0)
            addresses = target.addresses or self._own_addresses()
            changes[PacketField.DESTINATION] = self._free(rule, progress, PacketField.DESTINATION, addresses)
        if target.ports is not None:
            changes[PacketField.DPORT] = self._free(rule, progress, PacketField.DPORT, target.ports)
        self.change(progress, both(progress.live, matches), changes)
        self.accept(rule, progress, matches)

    def _own_addresses(self) -> Intervals:
        """Those that a redirected packet may get: of a packet of this host that of the loopback interface."""
        if self.hook == "OUTPUT":
            return single(LOOPBACK_ADDRESS[self.known.family])
        numbers = of_numbers(address for _, address in self.known.addresses)
        return numbers or self.known.own or ()

    def ask_program(self, rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Leave the packets that match to a program, which accepts or drops them."""
        hit, accepted = both(progress.live, matches), self._answer(rule, progress, "accept")
        progress.ends.accept.append(both(hit, accepted))
        progress.ends.drop.append(without(hit, accepted))
        progress.live = without(progress.live, matches)

    def do_anything(self, rule: ModelledRule, progress: _Progress, matches: Formula) -> None:
        """Do what is not known: accept, drop or neither, and perhaps change the mark."""
        hit = both(progress.live, matches)
        self.free_mark(rule, progress, matches)
        returned = self._maybe(rule, progress, hit)
        progress.live = any_of((without(progress.live, matches), both(hit, returned)))

    def _maybe(self, rule: ModelledRule, progress: _Progress, hit: Formula) -> Formula:
        """Accept or drop the packets of a hit, or neither; when neither is done."""
        accepted, dropped = self._answer(rule, progress, "accept"), self._answer(rule, progress, "drop")
        progress.ends.accept.append(both(hit, accepted))
        progress.ends.drop.append(all_of((hit, negation(accepted), dropped)))
        return negation(any_of((accepted, dropped)))

    def _answer(self, rule: ModelledRule, progress: _Progress, what: str) -> Formula:
        """Whether the target of a rule does this."""
        part = FreePart(f"-j {rule.meaning.target.name}", rule.rule.origin)
        return self.scope.maybe(f"{what} @{self.table}.{self.hook} {_identity(rule, progress)}", part)


_EFFECTS: Final[Mapping[RuleEffect, Callable[[TableWalk, ModelledRule, _Progress, Formula], None]]] = {
    RuleEffect.CONTINUE: TableWalk.go_on,
    RuleEffect.ACCEPT: TableWalk.accept,
    RuleEffect.DROP: TableWalk.drop,
    RuleEffect.REJECT: TableWalk.reject,
    RuleEffect.RETURN: TableWalk.go_back,
    RuleEffect.JUMP: TableWalk.jump,
    RuleEffect.GOTO: TableWalk.go_to,
    RuleEffect.MARK: TableWalk.mark,
    RuleEffect.FREE_MARK: TableWalk.free_mark,
    RuleEffect.NOTRACK: TableWalk.notrack,
    RuleEffect.DNAT: TableWalk.translate,
    RuleEffect.PROGRAM: TableWalk.ask_program,
    RuleEffect.UNKNOWN: TableWalk.do_anything,
}


def named(rule: ModelledRule) -> str:
    """A name of a rule that it has in another ruleset too, where other rules stand before it."""
    return f"#{rule.number}: {rule.rule.text}"


def _identity(rule: ModelledRule, progress: _Progress) -> str:
    """What tells an answer of this rule from those of all others, and from those at other visits."""
    return " > ".join((*progress.visit.path, named(rule)))


def changed(
    scope: Scope, known: HostFacts, fields: Fields, condition: Formula, changes: Mapping[PacketField, Leaf]
) -> Fields:
    """The fields, with other values for the packets of a condition."""
    values: dict[PacketField, Leaf] = {}
    for name, value in changes.items():
        values[name] = scope.chosen(name.value, width_of(name, known.family), condition, value, fields[name])
    return fields.changed(values)
