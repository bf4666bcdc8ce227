"""What to write so that the kernel holds what it should: the smallest input for iptables-restore --noflush.

Only what differs is written. Rules that stay are not touched, and so keep their counters; rules of others keep their
place: each stays behind the rule of ours that it stood behind, or at the head, or behind all of ours. Everything is one
commit of each table, so there is no moment between before and after. Chains that are no longer wanted are emptied in
that commit and removed by a second one, because nf_tables does not remove a chain that was referenced when the
transaction began.

A rule is deleted by its text where that is unique in its chain: should somebody insert a rule of theirs between our
look and our write, the numbers are off by one, and the text still means ours.

This module is pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.ruleset.diff import align, common_ends
from fwguardd.ruleset.model import ZERO, Chain, Counters, Family, Rule, Ruleset, Table
from fwguardd.ruleset.preserve import chains_of_others

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fwguardd.ruleset.preserve import Preserve


_MANY = 64
"""Rules of a chain that has nothing in common with what it shall be, from which on it is flushed and written anew."""

_DROPPING = ("-j DROP", "-j REJECT")


@dataclass(frozen=True, slots=True)
class Plan:
    """Texts for iptables-restore --noflush --counters, in order; none when there is nothing to write."""

    family: Family
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Theirs:
    """What belongs to others in one chain."""

    preserve: Preserve
    table: str
    chain: str

    def keeps(self, rule: Rule) -> bool:
        """Whether a live rule of the chain belongs to somebody else."""
        return self.preserve.keeps_rule(rule, self.table, self.chain)


def make_plan(live: Ruleset, wanted: Ruleset, preserve: Preserve) -> Plan:
    """The way from ``live`` to ``wanted`` in the tables that ``wanted`` has. Other tables are not touched."""
    main: list[str] = []
    cleanup: list[str] = []
    for name, table in _stricter_first(live, wanted):
        here = live.tables.get(name, Table(name, {}))
        lines, stale = _table_lines(here, table, preserve)
        if lines:
            main += [f"*{name}", *lines, "COMMIT"]
        if stale:
            cleanup += [f"*{name}", *(f"-X {chain}" for chain in stale), "COMMIT"]
    return Plan(live.family, tuple("".join(f"{line}\n" for line in lines) for lines in (main, cleanup) if lines))


def _stricter_first(live: Ruleset, wanted: Ruleset) -> list[tuple[str, Table]]:
    """The wanted tables, those that drop more than before ahead of those that drop less.

    Each table is a commit of its own, and a packet has to pass all of them. Between two commits some are new and some
    are old; where none is loosened before all that are tightened are in force, no packet passes in between that neither
    the ruleset before nor the one after lets through. A table that does both counts as what it does more.
    """

    def loosened(entry: tuple[str, Table]) -> int:
        name, table = entry
        return _strictness(live.tables.get(name, Table(name, {}))) - _strictness(table)

    return sorted(wanted.tables.items(), key=loosened)


def _strictness(table: Table) -> int:
    """How strict a table is: policies that drop count most, then rules that drop, less those that accept."""
    policies = sum(chain.policy == "DROP" for chain in table.chains.values())
    rules = sum(jump in rule.text for chain in table.chains.values() for rule in chain.rules for jump in _DROPPING)
    accepting = sum("-j ACCEPT" in rule.text for chain in table.chains.values() for rule in chain.rules)
    return policies * 1_000_000 + rules - accepting


def _table_lines(live: Table, wanted: Table, preserve: Preserve) -> tuple[list[str], list[str]]:
    """The lines between ``*table`` and ``COMMIT``, and the chains to remove afterwards."""
    declarations: list[str] = []
    edits: list[str] = []
    for chain in wanted.chains.values():
        here = live.chains.get(chain.name)
        if here is None or here.policy != chain.policy:
            counters = here.counters if here is not None else ZERO
            declarations.append(f":{chain.name} {chain.policy or '-'} {counters}")
        theirs = _Theirs(preserve, wanted.name, chain.name)
        edits += _edits(chain.name, here.rules if here else (), chain.rules, theirs)
    stale = _stale_chains(live, wanted.chains, preserve)
    edits += [f"-F {chain}" for chain in stale if live.chains[chain].rules]
    if edits or declarations:
        declarations += _policy_counters(live, wanted)
    return [*declarations, *edits], stale


def _policy_counters(live: Table, wanted: Table) -> list[str]:
    """Policies that stay, said again with their counters: legacy iptables zeroes those of a table that it writes."""
    return [
        f":{chain.name} {chain.policy} {chain.counters}"
        for chain in live.chains.values()
        if chain.policy is not None and chain.counters != ZERO and _same_policy(chain, wanted)
    ]


def _same_policy(chain: Chain, wanted: Table) -> bool:
    return chain.name in wanted.chains and wanted.chains[chain.name].policy == chain.policy


def _stale_chains(live: Table, wanted: Collection[str], preserve: Preserve) -> list[str]:
    theirs = chains_of_others(live, preserve)
    return [
        chain.name
        for chain in live.chains.values()
        if chain.policy is None and chain.name not in wanted and chain.name not in theirs
    ]


def _edits(chain: str, live: tuple[Rule, ...], wanted: tuple[Rule, ...], theirs: _Theirs) -> list[str]:
    """The lines that turn one list of rules into the other, others' rules in it left where they are."""
    head, tail = common_ends([rule.text for rule in live], [rule.text for rule in wanted])
    here, there = live[head : len(live) - tail], wanted[head : len(wanted) - tail]
    if not here and not tail:
        return [_line("-A", chain, Rule(rule.text)) for rule in there]
    kept, places = _places(here, there, theirs, above=head > 0, below=tail > 0)
    had: dict[str, list[Counters]] = defaultdict(list)
    for number in reversed(range(len(here))):
        if number not in kept:
            had[here[number].text].append(here[number].counters)
    new = [(place, Rule(rule.text, None, had[rule.text].pop() if had[rule.text] else ZERO)) for place, rule in places]
    if not kept and not head and not tail and len(here) > _MANY and len(there) > _MANY:
        return [f"-F {chain}", *(_line("-A", chain, rule) for _, rule in new)]
    count = Counter(rule.text for rule in live) if here else Counter[str]()
    deletions = [
        _deletion(chain, here[number], head + number, count) for number in range(len(here)) if number not in kept
    ]
    return [*reversed(deletions), *(_line(f"-I {chain} {head + place}", "", rule) for place, rule in new)]


def _line(verb: str, chain: str, rule: Rule) -> str:
    return " ".join(part for part in (str(rule.counters), verb, chain, rule.text) if part)


def _deletion(chain: str, rule: Rule, number: int, count: Counter[str]) -> str:
    return f"-D {chain} {rule.text}" if rule.text and count[rule.text] == 1 else f"-D {chain} {number + 1}"


def _places(
    live: Sequence[Rule], wanted: Sequence[Rule], theirs: _Theirs, *, above: bool, below: bool
) -> tuple[set[int], list[tuple[int, Rule]]]:
    """The numbers of the live rules that stay, and the rules to insert with the places that they have in the end.

    Others' rules stay, each behind the nearest rule above it that stays; those that stood behind all of ours stand
    there in the end too, where whoever appends to a chain finds himself after the next boot as well. ``above`` and
    ``below`` tell that rules of ours stand before ``live``, and behind it.
    """
    ours = [number for number, rule in enumerate(live) if not theirs.keeps(rule)]
    same = align([live[number].text for number in ours], [rule.text for rule in wanted])
    stays = {ours[here]: there for here, there in same}
    behind_all = len(live) if below or not (ours or above) else max(ours, default=-1)
    kept = set(range(len(live))) - set(ours) | set(stays)
    new: list[tuple[int, Rule]] = []
    done = place = 0
    for number in sorted(kept):
        for rule in wanted[done : len(wanted) if number > behind_all else stays.get(number, done)]:
            place += 1
            new.append((place, rule))
        done = len(wanted) if number > behind_all else stays.get(number, done - 1) + 1
        place += 1
    new += [(place + n, rule) for n, rule in enumerate(wanted[done:], 1)]
    return kept, new
