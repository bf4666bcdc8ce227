"""What to write so that the kernel holds what it should: the smallest list of operations.

Only what differs is written. Rules that stay are not touched, and so keep their counters. Rules of other programs keep
their place: each stays behind the rule of ours that it stood behind, or at the head, or behind all of ours. Each table
is one transaction of the kernel, so there is no moment between before and after. Chains that are no longer wanted are
emptied in that transaction and removed in a later one.

A rule is deleted by its text where that is unique in its chain. If another program inserts a rule between our look and
our write, the numbers are off by one, and the text still names our rule. iptables-nft-restore compares a text with each
rule from the head of the chain on, so rules are deleted from the first to the last, where each search ends soonest.
Where many rules stay in front of many that go, that is still too slow: 8,000 deletions behind 2,000 rules take 25 s.
Then all rules of ours in the chain are deleted, each at the head of what is left, and written again with their
counters, in the same transaction; rules of other programs stay in place. Where nearly all of a long chain goes, and no
rule in it belongs to another program, the chain is flushed. `Way` forces other ways, for a load that ran
out of time.

This module is pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from enum import IntEnum
from typing import TYPE_CHECKING

from fwguardd.ruleset.diff import align, common_ends
from fwguardd.ruleset.model import NOT_STATED, ZERO, Chain, Counters, Rule, Ruleset, Table, texts_of
from fwguardd.ruleset.operations import (
    Append,
    Delete,
    DeleteNumber,
    FlushChain,
    Insert,
    MakeChain,
    Operation,
    Plan,
    RemoveChain,
    SetPolicy,
)
from fwguardd.ruleset.table_order import stricter_first
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    _Place = tuple[int, str]
    """The number that a new rule has in the end, counted from 1 at the start of the middle, and its text."""

    _NewRule = tuple[str, Counters]
    """The text of a new rule and the counters that it starts with."""

    _FinalRule = tuple[str, Counters, bool]
    """The text and counters of a rule that is there in the end, and whether it is ours."""

_MANY = 64
"""From this many rules on, a chain that keeps none of them is flushed and written anew."""

_MOST_COMPARISONS = 100_000
"""Comparisons of rules that deletions by text in one chain may take, at 1.6 µs each (measured with 1.8.9)."""

_MOST_STEPS = 20_000_000
"""Steps from rule to rule that insertions by number in one chain may take, at 17 ns each (measured)."""

_MOST_DELETIONS = 400
"""Rules that are replaced one by one where a tenth of a chain stays; 1,000 take 15 ms longer than a flush."""


_MOST_SEARCHED = 20_000_000
"""Steps from rule to rule, at 11 ns each, that nf_tables may take in one chain to find the rules to delete: it goes
from the first rule of the chain to each of them, past those that are deleted already. 6,300 rules take so many."""

_STEPS_OF_A_RULE = 3_600
_COMPARISONS_OF_A_RULE = 25
"""Steps, and comparisons, in the time that it takes to write a rule: 40 µs (measured)."""


class Way(IntEnum):
    """How rules are taken out of chains, from the safest way to the one that is never slow."""

    BY_TEXT = 0
    """By their texts; what stays is written again where that is cheaper."""

    BY_NUMBER = 1
    """By their numbers, which are wrong where another program inserts a rule at that moment."""

    FLUSHED = 2
    """By flushing the chain, where no rule in it belongs to another program; else by number."""


def make_plan(live: Ruleset, own: Ruleset, wanted: Ruleset, way: Way = Way.BY_TEXT) -> Plan:
    """The way from ``live`` to ``wanted`` in the tables that ``wanted`` has. Other tables are not touched.

    ``own`` is the part of ``live`` that does not belong to other programs (`preserve.own_part`, with this ``wanted``).
    """
    nothing, changed = Table("", {}), dict[str, tuple[list[Operation], list[Operation]]]()
    for name, table in wanted.tables.items():
        edit = _TableEdit(live.tables.get(name, nothing), own.tables.get(name, nothing), table, way)
        changed[name] = edit.operations(), list(edit.removals())
        if not any(changed[name]):
            del changed[name]
    operations: list[Operation] = []
    removals: list[Operation] = []
    for name in stricter_first(changed, live, wanted):
        operations += changed[name][0]
        removals += changed[name][1]
    return Plan(live.family, (*operations, *removals))


@dataclass(frozen=True, slots=True)
class _TableEdit:
    """The operations on one table."""

    live: Table
    own: Table
    wanted: Table
    way: Way

    def operations(self) -> list[Operation]:
        """All but the removal of chains. Chains are made before any rule, since a rule may jump to them."""
        declarations: list[Operation] = []
        edits: list[Operation] = []
        for chain in self.wanted.chains.values():
            declarations += self._declaration(chain)
            edits += self._chain_edits(chain)
        edits += self._flushes()
        if edits or declarations:
            declarations += self._policies_that_stay()
        return declarations + edits

    def _flushes(self) -> Iterator[Operation]:
        """The removal of all rules from the chains that will be removed: such a chain has to be empty."""
        for chain in self._stale():
            if self.live.chains[chain.name].rules:
                yield FlushChain(self.wanted.name, chain.name)

    def removals(self) -> Iterator[Operation]:
        """The removal of the chains of ours that are no longer wanted."""
        for chain in self._stale():
            yield RemoveChain(self.wanted.name, chain.name)

    def _declaration(self, chain: Chain) -> Iterator[Operation]:
        """The operation that makes a chain, or sets its policy, where it is not there or has another policy."""
        live = self.live.chains.get(chain.name)
        if live is not None and chain.policy in (live.policy, NOT_STATED):
            return
        policy = chain.policy_after("ACCEPT")
        if policy is None:
            yield MakeChain(self.wanted.name, chain.name)
        elif live is None:
            yield SetPolicy(self.wanted.name, chain.name, policy)
        else:
            yield SetPolicy(self.wanted.name, chain.name, policy, live.counters)

    def _policies_that_stay(self) -> Iterator[Operation]:
        """These are set again with their counters: legacy iptables zeroes those of a table that it writes. One that is
        not stated is not written, since another program may set it at that moment."""
        for chain in self.live.chains.values():
            wanted = self.wanted.chains.get(chain.name)
            if chain.policy is None or wanted is None or chain.counters == ZERO:
                continue
            if wanted.policy == chain.policy:
                yield SetPolicy(self.wanted.name, chain.name, chain.policy, chain.counters)

    def _stale(self) -> Iterator[Chain]:
        """User-defined chains of ours that are no longer wanted."""
        for chain in self.own.chains.values():
            if chain.policy is None and chain.name not in self.wanted.chains:
                yield chain

    def _chain_edits(self, wanted: Chain) -> list[Operation]:
        """The operations that turn the live rules of a chain into the wanted ones, around those of other programs."""
        none = Chain(wanted.name, None)
        live, own = self.live.chains.get(wanted.name, none), self.own.chains.get(wanted.name, none)
        here, there = texts_of(live.rules), texts_of(wanted.rules)
        if here == there:
            return []
        head, tail = common_ends(here, there)
        middle = _Middle(live.rules[head : len(here) - tail], there[head : len(there) - tail], head, tail)
        return _ChainEdit(self.wanted.name, live, own, middle, self.way).operations()


@dataclass(frozen=True, slots=True)
class _Middle:
    """The rules of a chain that differ, live and wanted, and how many equal ones stand before and after them."""

    live: Sequence[Rule]
    wanted: Sequence[str]
    head: int
    tail: int


@dataclass(frozen=True, slots=True)
class _ChainEdit:
    """The operations on one chain."""

    table: str
    live: Chain
    own: Chain
    middle: _Middle
    way: Way

    def operations(self) -> list[Operation]:
        """Deletions from the first rule to the last, then insertions from the first to the last."""
        middle = self.middle
        if not middle.live and not middle.tail:
            return self._appended(_with_counters(middle.wanted, ()))
        ours = self._ours()
        kept, places = _places(middle, ours)
        removed, new = self._removed_and_new(kept, places)
        if self._is_replaced(removed, new):
            return [FlushChain(self.table, self.live.name), *self._appended(new)]
        if self._is_written_anew(removed, places):
            flushed = self.way is Way.FLUSHED or self._few_stay(removed, places) or self._is_long()
            return self._written_anew(self._final_middle(kept, set(ours), places, new), flushed=flushed)
        return [*self._deletions([middle.head + number for number in removed]), *self._insertions(places, new)]

    def _removed_and_new(self, kept: Collection[int], places: Sequence[_Place]) -> tuple[list[int], list[_NewRule]]:
        """The numbers of the rules of the middle that do not stay, and the new rules, with the counters of those."""
        live = self.middle.live
        removed = [number for number in range(len(live)) if number not in kept]
        return removed, _with_counters([text for _, text in places], [live[number] for number in removed])

    def _is_replaced(self, removed: Sequence[int], new: Sequence[_NewRule]) -> bool:
        """Whether no rule of the chain stays, and there are so many that flushing it is faster."""
        many = min(len(removed), len(new)) > _MANY or self._is_long()
        return len(removed) == len(self.live.rules) and many

    def _is_written_anew(self, removed: Sequence[int], places: Sequence[_Place]) -> bool:
        """Whether our rules of the chain are all deleted and written again, since to edit it would take too long."""
        if self.way is not Way.BY_TEXT:
            return self.way is Way.FLUSHED and not self._has_rules_of_others()
        return self._takes_too_long(removed, places) or self._few_stay(removed, places)

    def _few_stay(self, removed: Sequence[int], places: Sequence[_Place]) -> bool:
        """Whether so many rules are replaced that to flush the chain takes less time than to delete them: nf_tables
        searches the chain for each of them."""
        replaced = min(len(removed), len(places))
        return replaced > max(_MOST_DELETIONS, 0.9 * len(self.live.rules)) and not self._has_rules_of_others()

    def _is_searched_for_too_long(self, removed: Sequence[int]) -> bool:
        """Whether it takes longer to find these rules than to flush the chain and write those that stay."""
        searched = sum(removed) + self.middle.head * len(removed)
        stay = len(self.live.rules) - len(removed)
        return searched > max(_MOST_SEARCHED, _STEPS_OF_A_RULE * stay) and not self._has_rules_of_others()

    def _is_long(self) -> bool:
        """Whether it takes long to find all rules of the chain, to delete them one by one."""
        return len(self.live.rules) ** 2 > 2 * _MOST_SEARCHED and not self._has_rules_of_others()

    def _takes_too_long(self, removed: Sequence[int], places: Sequence[_Place]) -> bool:
        comparisons = sum(self.middle.head + number - done for done, number in enumerate(removed))
        steps = sum(self.middle.head + place for place, _ in places)
        most_compared = max(_MOST_COMPARISONS, _COMPARISONS_OF_A_RULE * len(self.live.rules))
        return comparisons > most_compared or steps > _MOST_STEPS or self._is_searched_for_too_long(removed)

    def _has_rules_of_others(self) -> bool:
        return len(self.own.rules) < len(self.live.rules)

    def _final_middle(
        self, kept: set[int], ours: set[int], places: Sequence[_Place], new: Sequence[_NewRule]
    ) -> list[_FinalRule]:
        """The rules of the middle as they are in the end, in order."""
        staying = iter(sorted(kept))
        inserted = {place: rule for (place, _), rule in zip(places, new, strict=True)}
        final: list[_FinalRule] = []
        for place in range(1, len(kept) + len(new) + 1):
            if place in inserted:
                final.append((*inserted[place], True))
            else:
                number = next(staying)
                rule = self.middle.live[number]
                final.append((rule.text, rule.counters, number in ours))
        return final

    def _written_anew(self, final_middle: Sequence[_FinalRule], *, flushed: bool) -> list[Operation]:
        """Deletions of all rules of ours, each of which is found at once, and then all that are to be there."""
        live, middle = self.live.rules, self.middle
        ours = self._own_numbers()
        head = self._final_rules(range(middle.head), ours)
        tail = self._final_rules(range(len(live) - middle.tail, len(live)), ours)
        final = [*head, *final_middle, *tail]
        if self._has_rules_of_others():
            return self._written_between(final, ours)
        rules = self._appended([(text, counters) for text, counters, _ in final])
        if flushed:
            return [FlushChain(self.table, self.live.name), *rules]
        return [*self._deletions(range(len(live))), *rules]

    def _final_rules(self, numbers: Iterable[int], ours: Collection[int]) -> list[_FinalRule]:
        """The live rules of these numbers, as they stay in the end."""
        live = self.live.rules
        return [(live[number].text, live[number].counters, number in ours) for number in numbers]

    def _written_between(self, final: Sequence[_FinalRule], ours: Collection[int]) -> list[Operation]:
        """The same for a chain with rules of other programs, which stay."""
        operations = list(self._deletions(sorted(ours)))
        for place, (text, counters, is_ours) in enumerate(final, 1):
            if is_ours:
                operations.append(Insert(self.table, self.live.name, place, text, counters))
        return operations

    def _appended(self, rules: Sequence[_NewRule]) -> list[Operation]:
        return [Append(self.table, self.live.name, text, counters) for text, counters in rules]

    def _insertions(self, places: Sequence[_Place], new: Sequence[_NewRule]) -> Iterator[Operation]:
        for (place, _), (text, counters) in zip(places, new, strict=True):
            yield Insert(self.table, self.live.name, self.middle.head + place, text, counters)

    def _ours(self) -> list[int]:
        """The numbers of the live rules in the middle that do not belong to other programs."""
        head = self.middle.head
        last = head + len(self.middle.live)
        return [number - head for number in sorted(self._own_numbers()) if head <= number < last]

    def _own_numbers(self) -> frozenset[int]:
        """The numbers of our rules in the live chain, counted from 0: they are some of its rules, in its order."""
        if not self._has_rules_of_others():
            return frozenset(range(len(self.live.rules)))
        numbers: list[int] = []
        own = texts_of(self.own.rules)
        for number, rule in enumerate(self.live.rules):
            if len(numbers) < len(own) and rule.text == own[len(numbers)]:
                numbers.append(number)
        return frozenset(numbers)

    def _deletions(self, removed: Sequence[int]) -> Iterator[Operation]:
        """Deletions of the rules with these numbers, counted from 0, in ascending order."""
        if not removed:
            return
        times = Counter(texts_of(self.live.rules))
        by_text = self.way is Way.BY_TEXT
        for done, number in enumerate(removed):
            text = self.live.rules[number].text
            if by_text and text and times[text] == 1:
                yield Delete(self.table, self.live.name, text)
            else:
                yield DeleteNumber(self.table, self.live.name, number + 1 - done)


def _with_counters(texts: Sequence[str], removed: Sequence[Rule]) -> list[_NewRule]:
    """New rules, with the counters of the removed rules that have the same text."""
    counted = {rule.text for rule in removed if rule.counters is not ZERO}
    had: defaultdict[str, list[Counters]] = defaultdict(list)
    for rule in filter(lambda rule: rule.text in counted, reversed(removed)):
        had[rule.text].append(rule.counters)
    new: list[_NewRule] = []
    for text in texts:
        counters = ZERO
        if had.get(text):
            counters = had[text].pop()
        new.append((text, counters))
    return new


def _places(middle: _Middle, ours: Sequence[int]) -> tuple[set[int], list[_Place]]:
    """The numbers of the live rules that stay, and the rules to insert with the places that they have in the end.

    Rules of other programs stay, each behind the nearest rule above it that stays. Those that stood behind all of ours
    stand there in the end too, where a program that appends its rules puts them after the next boot as well.
    """
    stays = _staying(middle, ours)
    last = _last_of_ours(middle, ours)
    kept = set(range(len(middle.live))).difference(ours) | stays.keys()
    new: list[_Place] = []
    done = 0  # The wanted rules that have a place already, those that stay included.
    for rank, number in enumerate(sorted(kept)):
        following = done
        if number in stays:
            following = stays[number]
        elif number > last:
            following = len(middle.wanted)
        for text in middle.wanted[done:following]:
            new.append((rank + len(new) + 1, text))
        done = following
        if number in stays:
            done += 1
    for text in middle.wanted[done:]:
        new.append((len(kept) + len(new) + 1, text))
    return kept, new


def _staying(middle: _Middle, ours: Sequence[int]) -> dict[int, int]:
    """The numbers of our live rules that stay, each with its place among the wanted rules."""
    live = texts_of(middle.live)
    stays: dict[int, int] = {}
    for number, place in align([live[number] for number in ours], middle.wanted):
        stays[ours[number]] = place
    return stays


def _last_of_ours(middle: _Middle, ours: Sequence[int]) -> int:
    """The number of the rule behind which all rules of other programs stand behind all of ours.

    Where rules of ours follow the middle, or the chain has none of ours at all, no rule stands behind it.
    """
    if middle.tail or not (ours or middle.head):
        return len(middle.live)
    return max(ours, default=-1)
