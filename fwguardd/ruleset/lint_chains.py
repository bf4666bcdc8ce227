"""Warnings about the chains of tables: rules that no packet reaches, chains that nothing leads to, loops, and what
belongs to other programs. `fwguardd.ruleset.lint_closed` has those about closed chains.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fwguardd.ruleset.chain_graph import chains_after, chains_reached, loop_closed_by
from fwguardd.ruleset.conditions import SYN_ONLY, Condition, read_chains, shadows, states_of, without_lists
from fwguardd.ruleset.lint_closed import ReadRuleset, first_origin, lint_closed_chains, lint_ftp
from fwguardd.ruleset.model import BUILTIN_CHAINS, Chain, Family, Finding, Origin, Severity, Table
from fwguardd.ruleset.reachability import ends, result_of, usual_end
from fwguardd.ruleset.rule_view import RuleView, jump_target
from fwguardd.ruleset.sample_packets import SamplePacket

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.conditions import ReadChains, ReadRule
    from fwguardd.ruleset.model import Candidate
    from fwguardd.ruleset.preserve import Preserve

_USEFUL_WITHOUT_TARGET = ("recent", "nfacct", "set", "rateest", "quota")
_REMOVE_PATTERN = "or, to manage it with fwguardd, remove its pattern from preserve: in fwguardd.yaml"

_MOST_COMPARED = 100
"""Rules of a chain with the same options and target that every later rule is compared with. Those for one address are
found by that address."""


def lint_chains(candidate: Candidate, preserve: Preserve, inserted: Collection[Origin] = ()) -> Iterator[Finding]:
    """All warnings about the chains of a candidate. ``inserted`` are the places of rules that -I puts before others."""
    known: dict[int, ReadRule] = {}
    filters: list[ReadRuleset] = []
    for ruleset in candidate.rulesets.values():
        for table in ruleset.tables.values():
            chains = read_chains(table, known)
            yield from _lint_table(table, chains, ruleset.family, preserve)
            if table.name == "filter":
                filters.append(ReadRuleset(ruleset.family, table.chains, without_lists(chains)))
    yield from _lint_unused_chains(candidate, preserve)
    yield from lint_ftp(filters, candidate.rulesets.values())
    yield from lint_closed_chains(filters, inserted, preserve)


def lint_preserved(rehearsed: Canonical, preserve: Preserve) -> Iterator[Finding]:
    """Rules that are not loaded because their canonical text matches a pattern for rules of other programs."""
    for ruleset in rehearsed.rulesets.values():
        for table, chain in ruleset.chains():
            if not preserve.keeps_chain(chain):
                yield from _preserved_rules(table, chain, preserve)


def _preserved_rules(table: Table, chain: Chain, preserve: Preserve) -> Iterator[Finding]:
    for rule in chain.rules:
        if preserve.keeps_text(rule.text, table.name, chain.name) and not preserve.keeps_jump(rule):
            message = "this rule matches a pattern for rules of other programs (preserve), and is not loaded"
            hint = f"remove it here: the program adds it; {_REMOVE_PATTERN}"
            yield Finding("preserved-rule", message, rule.origin, Severity.WARNING, hint)


def _lint_table(table: Table, chains: ReadChains, family: Family, preserve: Preserve) -> Iterator[Finding]:
    for chain in table.chains.values():
        yield from _lint_jumps(chains[chain.name], preserve)
        if preserve.keeps_chain(chain):
            yield _preserved_chain(chain)
        else:
            yield from _lint_rules(table, chain, chains, family)


def _lint_jumps(rules: Sequence[ReadRule], preserve: Preserve) -> Iterator[Finding]:
    preserved: set[str] = set()
    seen: set[str] = set()
    for rule in rules:
        if rule.target not in seen and preserve.keeps_name(rule.target):
            preserved.add(rule.target)
        seen.add(rule.target)
        if rule.target in preserved:
            target = rule.target
            message = f"chain {target} belongs to another program (preserve): jumps to it are not loaded"
            hint = f"remove the rule here: the program that makes {target} adds it; {_REMOVE_PATTERN}"
            yield Finding("preserved-chain", message, rule.rule.origin, Severity.WARNING, hint)


def _preserved_chain(chain: Chain) -> Finding:
    message = f"chain {chain.name} belongs to another program (preserve): what is written here is not loaded"
    hint = f"remove it here; {_REMOVE_PATTERN}"
    return Finding("preserved-chain", message, first_origin(chain), Severity.WARNING, hint)


def _lint_rules(table: Table, chain: Chain, chains: ReadChains, family: Family) -> Iterator[Finding]:
    """The rules of a chain, up to the first one that no packet reaches."""
    earlier = _EarlierRules(chains)
    for rule in chains[chain.name]:
        if earlier.end is not None:
            yield _unreachable(table, chain, rule, earlier.end, family)
            break
        yield from _lint_rule(rule, earlier, family)
        earlier.add(rule)
    if earlier.counting:
        yield _no_target(earlier.counting)


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
    states = rule.condition("--ctstate")
    if states is None or "NEW" not in states_of(states.value) or not any(map(_is_not_syn, rule.conditions)):
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


@dataclass(slots=True)
class _EarlierRules:
    """The rules of a chain that come before the one that is looked at, as far as they end the way of packets."""

    chains: ReadChains
    end: ReadRule | None = None
    counting: list[ReadRule] = field(default_factory=list)
    texts: dict[str, ReadRule] = field(default_factory=dict)
    by_address: dict[str, list[ReadRule]] = field(default_factory=dict)
    compared: dict[tuple[str, frozenset[str]], list[ReadRule]] = field(default_factory=dict)

    def same_as(self, rule: ReadRule) -> ReadRule | None:
        """The earlier rule of the same text."""
        return self.texts.get(rule.rule.text)

    def shadow_of(self, rule: ReadRule) -> ReadRule | None:
        """An earlier rule that takes all packets of this one, and does something else with them."""
        for one in self._candidates(rule):
            if one.target != rule.target and shadows(one, rule):
                return one
        return None

    def _candidates(self, rule: ReadRule) -> Iterator[ReadRule]:
        for name in ("-s", "-d"):
            condition = rule.condition(name)
            if condition is not None:
                yield from self.by_address.get(_address_key(condition), ())
        names = rule.names
        for (target, wanted), rules in self.compared.items():
            if target != rule.target and wanted <= names:
                yield from rules

    def add(self, rule: ReadRule) -> None:
        """Take in a rule, before the next one is looked at. Rules that only count are kept, each text once."""
        if rule.rule.text not in self.texts and _does_nothing(rule):
            self.counting.append(rule)
        self.texts.setdefault(rule.rule.text, rule)
        if not ends(self.chains, rule):
            return
        if not rule.conditions:
            self.end = rule
        elif rule.is_steady:
            self._remember(rule)

    def _remember(self, rule: ReadRule) -> None:
        for name in ("-s", "-d"):
            condition = rule.condition(name)
            if condition is not None and "," not in condition.value and _is_one_address(condition.value):
                self.by_address.setdefault(_address_key(condition), []).append(rule)
                return
        rules = self.compared.setdefault((rule.target, rule.names), [])
        if len(rules) < _MOST_COMPARED:
            rules.append(rule)


def _address_key(condition: Condition) -> str:
    """The option with its address, which is the same with and without the mask of a single address."""
    return f"{condition.name} {condition.value.removesuffix('/32').removesuffix('/128')}"


def _is_one_address(value: str) -> bool:
    return "/" not in value or value.endswith(("/32", "/128"))


def _lint_unused_chains(candidate: Candidate, preserve: Preserve) -> Iterator[Finding]:
    """User-defined chains that no packet gets to, in either family; and loops among them. A loop that packets get to is
    refused by the kernel."""
    tables = [table for ruleset in candidate.rulesets.values() for table in ruleset.tables.values()]
    used: dict[str, set[str]] = {}
    for table in tables:
        used.setdefault(table.name, set()).update(_chains_in_use(table, preserve))
    for table in tables:
        yield from _lint_unused(table, used[table.name])


def _chains_in_use(table: Table, preserve: Preserve) -> tuple[str, ...]:
    starts = [name for name in table.chains if name in BUILTIN_CHAINS[table.name] or preserve.keeps_name(name)]
    return chains_reached(table, starts)


def _lint_unused(table: Table, used: Collection[str]) -> Iterator[Finding]:
    called: set[str] = set()
    for name in table.chains.keys() - used:
        called.update(chains_after(table, name))
    for chain in table.chains.values():
        # A chain that no file declares is an error of its own.
        if chain.name not in used and chain.origin is not None:
            yield _unused(table, chain, is_called=chain.name in called)
            yield from _loops(table, chain)


def _unused(table: Table, chain: Chain, *, is_called: bool) -> Finding:
    message = f"no rule of table {table.name} jumps to chain {chain.name}"
    if is_called:
        message = f"no packet gets to chain {chain.name}: only chains that are not used themselves jump to it"
    hint = f'add a rule with "-j {chain.name}", or remove the chain'
    upper = chain.name.upper()
    if upper != chain.name and upper in table.chains:
        hint = f"write {upper} if you mean that chain: names are case-sensitive"
    return Finding("unused-chain", message, chain.origin, Severity.WARNING, hint)


def _loops(table: Table, chain: Chain) -> Iterator[Finding]:
    """The first rule of an unused chain that closes a loop."""
    tried: set[str | None] = set()
    for rule in chain.rules:
        target = jump_target(rule.text)
        if target in tried:
            continue
        tried.add(target)
        loop = loop_closed_by(table, chain.name, rule.text)
        if loop:
            message = f"the jump closes a loop of chains: {' → '.join(loop)}"
            yield Finding("chain-loop", message, rule.origin, Severity.WARNING, "remove one of the jumps")
            return
