"""The rules of a table, read: their targets and their conditions.

Most rules of a large ruleset differ only in an address, a port or a comment. They are of one kind (`RuleKind`), which
is read once. The conditions of a single rule are computed when they are asked for.

This module is pure.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from operator import attrgetter
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.conditions import Condition, implies, read_conditions
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.same_rules import same_ends
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.ruleset.model import Family, Rule, Table

# Networks of loopback, networks of every address and the ports of FTP are no variables: lints ask about these, and so
# rules with them are of kinds of their own. An octet with a leading zero is octal, and may be 127.
_VARIABLE = pattern(
    r"(?<![^ ])(-[sd] |--[ds]port |--comment )"
    r"((?<=[sd] )(?:(?!127\.|0[0-9])[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?:/[1-9][0-9]?)?"
    r"|[2-9a-f][0-9a-f]{0,3}:[0-9a-f:]+(?:/[1-9][0-9]{0,2})?)"
    r"|(?<=port )(?!2[01](?![0-9]))[1-9][0-9]{0,4}"
    r'|(?<=comment )(?:"[^"\\]*"|[^ "]+))'
    r"(?![^ ])"
)

_CHANGING = frozenset(
    {"limit", "hashlimit", "recent", "statistic", "quota", "quota2", "nth", "random", "rateest", "connlimit", "time"}
    | {"condition", "fuzzy", "psd", "lscan", "pknock", "connbytes", "mark", "connmark", "dscp", "tos", "ttl", "hl"}
)
"""Match extensions that do not match the same packets at all times, or that match what other rules may change."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RuleKind:
    """What rules have in common that differ only in networks, single ports and comments.

    ``target`` is the word after -j or -g, and empty where there is neither. ``conditions`` are those of one rule of the
    kind: a sample packet (`fwguardd.ruleset.sample_packets`) gets the same answer from all of them. ``places`` says for
    each variable which condition it is the value of; None for a comment. ``is_steady`` says that a rule matches the
    same packets at all times: no limit, no list and no clock.
    """

    target: str
    conditions: tuple[Condition, ...]
    is_goto: bool
    is_steady: bool
    places: tuple[int | None, ...]
    names: frozenset[str]
    fixed: Mapping[str, str]
    """The value of the first condition of each name that is not negated, as far as it is no variable."""
    variables: Mapping[str, int]
    """The number of the variable that is the value of the first condition of a name that is not negated."""

    def may_shadow(self, later: RuleKind) -> bool:
        """Whether a rule of this kind may match all packets of a later one, which does something else with them. It
        matches by nothing else, or by an option with a value that both have."""
        return self.target != later.target and (self.names <= later.names or not self.names.isdisjoint(later.names))

    @classmethod
    def of(cls, text: str, prefixes: Sequence[str], values: Sequence[str]) -> RuleKind | None:
        """The kind of a rule with these variables, each with the option before it. None if one of them is not the only
        value of a condition."""
        view = RuleView.of(text)
        conditions = read_conditions(view)
        places: list[int | None] = []
        for prefix, value in zip(prefixes, values, strict=True):
            place = _place_of(prefix.strip(), value, conditions, places)
            if place is None and prefix != "--comment ":
                return None
            places.append(place)
        names = frozenset(condition.name for condition in conditions)
        fixed, variables = _first_values(conditions, places)
        return cls(
            view.target or "", conditions, view.is_goto, _is_steady(view), tuple(places), names, fixed, variables
        )


def _place_of(name: str, value: str, conditions: Sequence[Condition], taken: Sequence[int | None]) -> int | None:
    """The place of the first condition with this name and nothing but this value, of those that are not taken."""
    for place, condition in enumerate(conditions):
        if condition.name == name and condition.values == (value,) and place not in taken:
            return place
    return None


def _first_values(
    conditions: Sequence[Condition], places: Sequence[int | None]
) -> tuple[dict[str, str], dict[str, int]]:
    """`RuleKind.fixed` and `RuleKind.variables`."""
    fixed: dict[str, str] = {}
    variables: dict[str, int] = {}
    for place, condition in enumerate(conditions):
        if condition.negated or condition.name in fixed or condition.name in variables:
            continue
        if place in places:
            variables[condition.name] = places.index(place)
        else:
            fixed[condition.name] = condition.value
    return fixed, variables


def _is_steady(view: RuleView) -> bool:
    return _CHANGING.isdisjoint(option.value for option in view.options if option.name == "-m")


@dataclass(frozen=True, slots=True)
class ReadRule:
    """A rule with its kind, and its values for the variables of the kind."""

    rule: Rule
    kind: RuleKind

    @property
    def values(self) -> Sequence[str]:
        """The values of the variables. They are cut out of the text each time: few rules are asked for them."""
        if not self.kind.places:
            return ()
        return _VARIABLE.split(self.rule.text)[2::3]

    @property
    def target(self) -> str:
        """The word after -j or -g, and empty where there is neither."""
        return self.kind.target

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions that a packet must meet, all of them."""
        if not self.kind.places:
            return self.kind.conditions
        conditions = list(self.kind.conditions)
        for value, place in zip(self.values, self.kind.places, strict=True):
            if place is not None:
                conditions[place] = Condition(conditions[place].name, (value,), conditions[place].negated)
        return tuple(conditions)

    def value(self, name: str) -> str | None:
        """The value of the first condition of this name that is not negated; None where there is none."""
        number = self.kind.variables.get(name)
        if number is not None:
            return self.values[number]
        return self.kind.fixed.get(name)


ReadChains = dict[str, tuple[ReadRule, ...]]
"""The rules of a table by chain."""


@dataclass(frozen=True, slots=True)
class _ReadChain:
    """The rules of a chain, and what they were read as."""

    rules: tuple[Rule, ...] = ()
    read: tuple[ReadRule, ...] = ()


_NOTHING = _ReadChain()

_MOST_KINDS = 1000
"""Kinds that are known however few rules there are."""


@dataclass(slots=True)
class RuleReader:
    """Reads rules. A rule for both families is one object in both, and is read once; so is one that stays in its chain
    until the next reader reads that."""

    _rules: dict[int, ReadRule] = field(default_factory=dict)
    _kinds: dict[tuple[str, ...], RuleKind | None] = field(default_factory=dict)
    _chains: dict[tuple[Family | None, str, str], _ReadChain] = field(default_factory=dict)
    _before: dict[tuple[Family | None, str, str], _ReadChain] = field(default_factory=dict)
    """The chains that another reader has read."""

    def for_the_next(self) -> RuleReader:
        """A reader for rules of which many are the same again. Where most kinds are of rules that have gone, nothing is
        known to it."""
        rules = sum(len(chain.rules) for chain in self._chains.values())
        if len(self._kinds) > _MOST_KINDS + 2 * rules:
            return RuleReader()
        return RuleReader(_kinds=self._kinds, _before=self._chains)

    def forget_rules(self) -> None:
        """Keep only what is for the next reader."""
        self._rules, self._before = {}, {}

    def read_chains(self, table: Table, family: Family | None = None) -> ReadChains:
        """The rules of a table. ``family`` tells it from that of another family, of which something may be known."""
        chains: ReadChains = {}
        for chain in table.chains.values():
            place = (family, table.name, chain.name)
            known = self._chains[place] = self._chain(chain.rules, self._before.get(place, _NOTHING))
            chains[chain.name] = known.read
        return chains

    def _chain(self, rules: tuple[Rule, ...], before: _ReadChain) -> _ReadChain:
        if rules is before.rules:
            return before
        head, tail = same_ends(rules, before.rules)
        middle = map(self._read_once, rules[head : len(rules) - tail])
        return _ReadChain(rules, (*before.read[:head], *middle, *before.read[len(before.read) - tail :]))

    def _read_once(self, rule: Rule) -> ReadRule:
        read = self._rules.get(id(rule))
        if read is None:
            read = self._rules[id(rule)] = self.read(rule)
        return read

    def read(self, rule: Rule) -> ReadRule:
        """A rule, read. Never raises."""
        return ReadRule(rule, self._kind_of(rule.text))

    def _kind_of(self, text: str) -> RuleKind:
        parts = _VARIABLE.split(text)
        values = tuple(parts[2::3])
        del parts[2::3]
        key = tuple(parts)
        if key not in self._kinds:
            self._kinds[key] = _kind_of(text, parts, values)
        return self._kinds[key] or self._kind_of_text(text)

    def _kind_of_text(self, text: str) -> RuleKind:
        """The kind of all rules with this text."""
        key = (text, "")
        kind = self._kinds.get(key) or RuleKind.of(text, (), ())
        assert kind is not None, "a rule without variables has a kind"
        self._kinds[key] = kind
        return kind


def _kind_of(text: str, parts: Sequence[str], values: Sequence[str]) -> RuleKind | None:
    """The kind of a rule that was cut at its variables. What looks like a variable inside of quotes is none."""
    if any('"' in part for part in parts[::2]) and values:
        return None
    return RuleKind.of(text, parts[1::2], values)


def without_repeated_kinds(chains: ReadChains) -> ReadChains:
    """The chains with the first rule of each kind only, and with all jumps. What was not decided about packets of a
    kind by one rule, nor by what lies between, is not decided by the next rule of the same kind."""
    return {name: _first_of_each_kind(rules, chains) for name, rules in chains.items()}


def _first_of_each_kind(rules: Sequence[ReadRule], chains: ReadChains) -> tuple[ReadRule, ...]:
    kinds = kinds_of(rules)
    wanted = set(dict(zip(reversed(kinds), reversed(range(len(kinds))), strict=True)).values())
    jumps = set(filter(lambda kind: kind.target in chains, set(kinds)))
    if jumps:
        wanted.update(number for number, kind in enumerate(kinds) if kind in jumps)
    return tuple(map(rules.__getitem__, sorted(wanted)))


def kinds_of(rules: Iterable[ReadRule]) -> list[RuleKind]:
    """The kind of each rule."""
    return list(map(attrgetter("kind"), rules))


def shadows(earlier: ReadRule, later: ReadRule) -> bool:
    """Whether every packet of the later rule meets all conditions of the earlier one."""
    conditions = later.conditions
    return all(any(implies(condition, wanted) for condition in conditions) for wanted in earlier.conditions)
