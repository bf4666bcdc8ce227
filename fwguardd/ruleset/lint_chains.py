"""Warnings about the chains of tables: rules that no packet reaches, and what belongs to other programs.
`fwguardd.ruleset.lint_unused` has those about chains that nothing leads to, `fwguardd.ruleset.lint_closed` those about
closed chains.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from operator import attrgetter
from typing import TYPE_CHECKING

from fwguardd.ruleset.closed_chains import first_origin
from fwguardd.ruleset.conditions import SYN_ONLY, Condition, states_of
from fwguardd.ruleset.lint_closed import is_turned_off, lint_closed_chains
from fwguardd.ruleset.lint_ftp import lint_ftp
from fwguardd.ruleset.lint_unused import lint_unused_chains
from fwguardd.ruleset.model import BUILTIN_CHAINS, Chain, Family, Finding, Origin, Severity, Table
from fwguardd.ruleset.preserve import leaves_out_jump
from fwguardd.ruleset.program_lookup import maker_of_chain
from fwguardd.ruleset.reachability import ReadRuleset, ends, result_of, usual_end
from fwguardd.ruleset.read_rules import kinds_of, shadows
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.sample_packets import SamplePacket
from fwguardd.ruleset.values import read_ports
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Candidate
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.ruleset.read_rules import ReadChains, ReadRule, RuleKind, RuleReader

_USEFUL_WITHOUT_TARGET = ("recent", "nfacct", "set", "rateest", "quota")
_LOAD_IT = 'to load it all the same, write "without {program}" into preserve: in fwguardd.yaml'

_MOST_COMPARED = 100
"""Rules of a chain with the same options and target that every later rule is compared with. Those for one address or
one port are found by it."""


def lint_chains(
    candidate: Candidate, preserve: Preserve, inserted: Collection[Origin], reader: RuleReader
) -> Iterator[Finding]:
    """All warnings about the chains of a candidate. ``inserted`` are the places of rules that -I puts before others."""
    filters: list[ReadRuleset] = []
    read: list[tuple[Table, ReadChains, Family]] = []
    for ruleset in candidate.rulesets.values():
        for table in ruleset.tables.values():
            chains = reader.read_chains(table, ruleset.family)
            read.append((table, chains, ruleset.family))
            if table.name == "filter":
                filters.append(ReadRuleset.of(ruleset.family, table.chains, chains))
    for table, chains, family in read:
        yield from _lint_table(table, chains, family, preserve, _turned_off(table, family, filters))
    yield from lint_unused_chains(read, preserve)
    yield from lint_ftp(filters, candidate.rulesets.values())
    yield from lint_closed_chains(filters, inserted, preserve)


def _turned_off(table: Table, family: Family, filters: Sequence[ReadRuleset]) -> Collection[str]:
    """The chains of a table that are turned off for IPv6."""
    if family is not Family.IPV6 or table.name != "filter":
        return ()
    return frozenset(name for name in BUILTIN_CHAINS["filter"] if is_turned_off(filters, name))


def _lint_table(
    table: Table, chains: ReadChains, family: Family, preserve: Preserve, turned_off: Collection[str]
) -> Iterator[Finding]:
    """All warnings about a table. In chains that are turned off for IPv6 no rule has to be reached."""
    for chain in table.chains.values():
        yield from _lint_jumps(chain, chains[chain.name], preserve)
        if chain.policy is None and preserve.makes(chain.name):
            yield _preserved_chain(chain)
        elif chain.name not in turned_off:
            yield from _lint_rules(table, chain, chains, family)


def _lint_jumps(chain: Chain, rules: Sequence[ReadRule], preserve: Preserve) -> Iterator[Finding]:
    targets = set(map(attrgetter("target"), kinds_of(rules)))
    copies = set(filter(lambda target: leaves_out_jump(chain, target, preserve), targets))
    if not copies:
        return
    for rule in rules:
        target = rule.target
        if target in copies:
            maker, load_it = _maker(target)
            message = f"chain {target} is made by {maker}: the jump to it is not loaded"
            hint = f"remove the rule here: {maker} adds it; {load_it}"
            yield Finding("preserved-chain", message, rule.rule.origin, Severity.WARNING, hint)


def _maker(chain: str) -> tuple[str, str]:
    """The program that makes a chain, and what to do so that a rule file may."""
    program = maker_of_chain(chain)
    assert program is not None
    return program.title, _LOAD_IT.format(program=program.name)


def _preserved_chain(chain: Chain) -> Finding:
    maker, load_it = _maker(chain.name)
    message = f"chain {chain.name} is made by {maker}: what is written here is not loaded"
    hint = f"remove it here; {load_it}"
    return Finding("preserved-chain", message, first_origin(chain), Severity.WARNING, hint)


def _lint_rules(table: Table, chain: Chain, chains: ReadChains, family: Family) -> Iterator[Finding]:
    """The rules of a chain, up to the first one that no packet reaches."""
    rules = chains[chain.name]
    kinds = kinds_of(rules)
    earlier = _EarlierRules(chains, frozenset(kinds))
    for number in _doubtful(rules, kinds, earlier):
        yield from _lint_rule(rules[number], earlier, family)
        earlier.add(rules[number])
        if earlier.end is not None:
            if number + 1 < len(rules):
                yield _unreachable(table, chain, rules[number + 1], earlier.end, family)
            break
    if earlier.counting:
        yield _no_target(earlier.counting)


def _doubtful(rules: Sequence[ReadRule], kinds: Sequence[RuleKind], earlier: _EarlierRules) -> Sequence[int]:
    """The numbers of the rules that any warning can be about. In a long chain these are few."""
    if len(rules) < _MANY_OF_A_KIND * len(earlier.kinds):
        return range(len(rules))
    doubtful = set(filter(earlier.may_matter, earlier.kinds))
    texts = list(map(attrgetter("rule.text"), rules))
    repeated = {text for text, count in Counter(texts).items() if count > 1}
    return [number for number, kind in enumerate(kinds) if kind in doubtful or texts[number] in repeated]


def _lint_rule(rule: ReadRule, earlier: _EarlierRules, family: Family) -> Iterator[Finding]:
    same = earlier.same_as(rule)
    if same is not None:
        message = f"the same rule as at {same.rule.origin}, in the same chain"
        hint = "remove one of the two"
        yield Finding("duplicate-rule", message, rule.rule.origin, Severity.WARNING, hint, family=family)
    elif not _does_nothing(rule):
        shadow = earlier.shadow_of(rule)
        if shadow is not None:
            yield _shadowed(rule, shadow, family)
    if _drops_new_without_syn(earlier.chains, rule):
        yield _new_not_syn(rule)


def _unreachable(table: Table, chain: Chain, rule: ReadRule, end: ReadRule, family: Family) -> Finding:
    place = f"{table.name} {chain.name}"
    message = f"no packet reaches this rule: in {place} the {end.target} at {end.rule.origin} matches them all"
    hint = "move it above that rule, or remove it"
    return Finding("unreachable-rule", message, rule.rule.origin, Severity.WARNING, hint, family=family)


def _shadowed(rule: ReadRule, shadow: ReadRule, family: Family) -> Finding:
    message = (
        f"no packet reaches this rule: the {shadow.target} at {shadow.rule.origin} matches all packets that it matches"
    )
    hint = "move it above that rule, or remove it"
    return Finding("unreachable-rule", message, rule.rule.origin, Severity.WARNING, hint, family=family)


def _drops_new_without_syn(chains: ReadChains, rule: ReadRule) -> bool:
    if "--tcp-flags" not in rule.kind.names or not any(map(_is_not_syn, rule.kind.conditions)):
        return False
    states = rule.value("--ctstate")
    if states is None or "NEW" not in states_of(states):
        return False
    return _drops(chains, rule)


def _is_not_syn(condition: Condition) -> bool:
    """Whether a condition is ``! --syn``, in one of the forms of --tcp-flags that people write for it."""
    return condition.name == "--tcp-flags" and condition.negated and condition.values[1:] == SYN_ONLY[1:]


def _drops(chains: ReadChains, rule: ReadRule) -> bool:
    """Whether the packets that a rule matches are usually dropped, also in a chain that it jumps to."""
    if rule.target not in chains:
        return result_of(chains, rule) == "DROP"
    end = usual_end(chains, rule.target, SamplePacket("tcp"))
    return end is not None and end.result == "DROP"


def _new_not_syn(rule: ReadRule) -> Finding:
    message = (
        "NEW without --syn is dropped: TCP connections that exist before conntrack tracks anything are cut, such as the"
        " ssh session from which these rules are loaded for the first time"
    )
    hint = 'write "-m conntrack --ctstate INVALID" in place of NEW and "! --syn"'
    return Finding("new-not-syn", message, rule.rule.origin, Severity.WARNING, hint)


def _does_nothing(rule: ReadRule) -> bool:
    if rule.target:
        return False
    return not any(map(RuleView.of(rule.rule.text).uses, _USEFUL_WITHOUT_TARGET))


def _no_target(rules: Sequence[ReadRule]) -> Finding:
    """Rules of one chain that only count. Many of them are there to measure traffic."""
    message = "a rule without -j only counts packets"
    if len(rules) > 1:
        message += f"; this chain has {len(rules) - 1} more of them"
    return Finding("no-target", message, rules[0].rule.origin, Severity.WARNING, 'add "-j ACCEPT", or another target')


_MOST_COMPARISONS = 50_000
"""Comparisons of two rules in one chain, about 0.1 s. Only a chain of thousands of rules can need more."""


_MANY_OF_A_KIND = 8
"""From so many rules of each kind on, on average, the kinds of a chain are looked at before its rules."""

_MANY_KINDS = 200
"""From so many kinds of rules in one chain on they are not compared with each other."""


@dataclass(slots=True)
class _EarlierRules:
    """The rules of a chain that come before the one that is looked at, as far as they end the way of packets.

    ``by_value`` has, for each target, those for a single address or port by it; ``compared`` has the others by target
    and names of conditions. ``ending`` and ``comparable`` remember, for each kind, whether its rules end the way of
    packets, and which rules of ``compared`` can come before them. ``kinds`` are those of all rules of the chain, and
    ``met`` remembers which of them a rule of another kind may be about the packets of: only those are kept.
    """

    chains: ReadChains
    kinds: frozenset[RuleKind]
    end: ReadRule | None = None
    counting: list[ReadRule] = field(default_factory=list)
    texts: dict[str, ReadRule] = field(default_factory=dict)
    by_value: dict[str, dict[tuple[str, str], list[ReadRule]]] = field(default_factory=dict)
    compared: dict[tuple[str, frozenset[str]], list[ReadRule]] = field(default_factory=dict)
    ending: dict[RuleKind, bool] = field(default_factory=dict)
    comparable: dict[RuleKind, list[list[ReadRule]]] = field(default_factory=dict)
    met: dict[RuleKind, bool] = field(default_factory=dict)
    comparisons: int = 0

    def may_matter(self, kind: RuleKind) -> bool:
        """Whether rules of a kind of this chain can take packets from later ones, lose them to earlier ones, or be
        mistaken by themselves. Rules of any other kind matter only to others of the same text."""
        if not kind.target or not kind.conditions or len(self.kinds) > _MANY_KINDS or "--tcp-flags" in kind.names:
            return True
        return any(kind.may_shadow(other) or other.may_shadow(kind) for other in self.kinds)

    def same_as(self, rule: ReadRule) -> ReadRule | None:
        """The earlier rule of the same text."""
        return self.texts.get(rule.rule.text)

    def shadow_of(self, rule: ReadRule) -> ReadRule | None:
        """An earlier rule that takes all packets of this one, and does something else with them."""
        if self.comparisons >= _MOST_COMPARISONS:
            return None
        for rules in self._candidates(rule):
            self.comparisons += len(rules)
            for one in rules:
                if shadows(one, rule):
                    return one
        return None

    def _candidates(self, rule: ReadRule) -> Iterator[Sequence[ReadRule]]:
        for target, by_value in self.by_value.items():
            if target != rule.kind.target:
                for key in _single_values(rule):
                    yield by_value.get(key, ())
        if rule.kind not in self.comparable:
            self.comparable[rule.kind] = list(self._comparable_with(rule.kind))
        yield from self.comparable[rule.kind]

    def _comparable_with(self, kind: RuleKind) -> Iterator[list[ReadRule]]:
        for (target, wanted), rules in self.compared.items():
            if target != kind.target and wanted <= kind.names:
                yield rules

    def add(self, rule: ReadRule) -> None:
        """Take in a rule, before the next one is looked at. Rules that only count are kept, each text once."""
        if not rule.kind.target and rule.rule.text not in self.texts and _does_nothing(rule):
            self.counting.append(rule)
        self.texts.setdefault(rule.rule.text, rule)
        if self._ends(rule):
            self._add_ending(rule)

    def _add_ending(self, rule: ReadRule) -> None:
        if not rule.kind.conditions:
            self.end = rule
        elif rule.kind.is_steady:
            self._remember(rule)

    def _ends(self, rule: ReadRule) -> bool:
        if rule.kind not in self.ending:
            self.ending[rule.kind] = ends(self.chains, rule)
        return self.ending[rule.kind]

    def _remember(self, rule: ReadRule) -> None:
        if rule.kind not in self.met:
            self.met[rule.kind] = len(self.kinds) > _MANY_KINDS or any(map(rule.kind.may_shadow, self.kinds))
        if not self.met[rule.kind]:
            return
        rules = self._place_of(rule)
        if len(rules) < _MOST_COMPARED:
            rules.append(rule)

    def _place_of(self, rule: ReadRule) -> list[ReadRule]:
        for name, value in _single_values(rule):
            # Many rules can be for one port, each with another network.
            if name in _ADDRESSES or _ADDRESSES.isdisjoint(rule.kind.names):
                return self.by_value.setdefault(rule.kind.target, {}).setdefault((name, value), [])
        place = (rule.kind.target, rule.kind.names)
        if place not in self.compared:
            self.compared[place] = []
            self.comparable.clear()
        return self.compared[place]


def _single_values(rule: ReadRule) -> Iterator[tuple[str, str]]:
    """The options with a single address or port, each with it; an address without the mask that says so."""
    for name, single_value in _SINGLE_VALUES.items():
        value = rule.value(name)
        if value is not None:
            single = single_value(value)
            if single:
                yield name, single


def _single_address(value: str) -> str:
    """The address, if the value is one; empty otherwise."""
    address, slash, mask = value.partition("/")
    if "," in address or (slash and mask not in ("32", "128")):
        return ""
    return address


def _single_port(value: str) -> str:
    """The number of the port, if the value means a single one; empty otherwise."""
    if value.isdecimal() and value[0] != "0":
        return value
    ports = set(read_ports(value))
    if len(ports) != 1:
        return ""
    only = ports.pop()
    if only.first != only.last:
        return ""
    return str(only.first)


_ADDRESSES = frozenset({"-s", "-d"})
_SINGLE_VALUES: Mapping[str, Callable[[str], str]] = {
    **dict.fromkeys(_ADDRESSES, _single_address),
    **dict.fromkeys(("--dport", "--sport"), _single_port),
}
"""Options by whose value a rule is found, each with the function that gives a single one."""
