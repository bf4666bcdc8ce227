"""What ``iptables-restore --noflush --counters`` does to the tables of one family, as a pure function.

It knows the part of the language that plans are written in, and refuses what the real programs refuse: a position that
is not there, a rule or a chain to remove that is not there, a chain to remove that is in use, a jump to a chain that
does not exist. `tests/contract/test_plan_simulator.py` holds it to the real programs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from unittest import mock

from fwguardd.ruleset import plan
from fwguardd.ruleset.model import BUILTIN_CHAINS, ZERO, Chain, Counters, Rule, Ruleset, Table
from fwguardd.ruleset.operations import render_plan
from fwguardd.ruleset.plan import Way, make_plan
from fwguardd.ruleset.preserve import Preserve, own_part

_DECLARATION = re.compile(r":(\S+) (\S+) \[(\d+):(\d+)\]")
_EDIT = re.compile(r"(?:\[(\d+):(\d+)\] )?(-[AIDFX]) (\S+)(?: (\d+)(?= |$))?(?: (.*))?")
_JUMP = re.compile(r"(?:^| )-[jg] ([A-Za-z][A-Za-z0-9_-]*)")
_TARGETS = {"ACCEPT", "DROP", "RETURN", "LOG", "REJECT", "MARK", "MASQUERADE", "DNAT", "REDIRECT"}


class RefusedError(Exception):
    """The real programs would refuse this text, and leave the table as it was."""


@dataclass(slots=True)
class _Chain:
    policy: str | None
    counters: Counters = ZERO
    rules: list[Rule] = field(default_factory=list)


_Chains = dict[str, _Chain]


EDITS = ("by text", "anew", "by number", "flushed")
"""How a plan takes rules out of chains: each way, and the one by text with all rules of ours written anew."""


def planned(live: Ruleset, wanted: Ruleset, preserve: Preserve, edit: str = "by text") -> tuple[str, ...]:
    """The texts of the plan from one ruleset to the other."""
    way = {"by number": Way.BY_NUMBER, "flushed": Way.FLUSHED}.get(edit, Way.BY_TEXT)
    most, of_a_rule = plan._MOST_COMPARISONS, plan._COMPARISONS_OF_A_RULE
    if edit == "anew":
        most = of_a_rule = -1
    compared = mock.patch.object(plan, "_MOST_COMPARISONS", most)
    with compared, mock.patch.object(plan, "_COMPARISONS_OF_A_RULE", of_a_rule):
        return render_plan(make_plan(live, own_part(live, preserve, wanted), wanted, way))


def restore(live: Ruleset, text: str) -> Ruleset:
    """The ruleset after the text was loaded on top of it. Raises RefusedError."""
    tables = dict(live.tables)
    name = ""
    chains: _Chains = {}
    for line in text.splitlines():
        if line.startswith("*"):
            name = line[1:]
            chains = _opened(tables.get(name), name)
        elif line == "COMMIT":
            tables[name] = _closed(name, chains)
        elif match := _DECLARATION.fullmatch(line):
            _declare(chains, match)
        elif match := _EDIT.fullmatch(line):
            _edit(chains, match)
        else:
            raise RefusedError(line)
    return Ruleset(live.family, tables)


def _opened(table: Table | None, name: str) -> _Chains:
    if table is None:
        return {chain: _Chain("ACCEPT") for chain in BUILTIN_CHAINS[name]}
    return {chain.name: _Chain(chain.policy, chain.counters, list(chain.rules)) for chain in table.chains.values()}


def _closed(name: str, chains: _Chains) -> Table:
    return Table(
        name,
        {
            chain: Chain(chain, opened.policy, tuple(opened.rules), None, opened.counters)
            for chain, opened in chains.items()
        },
    )


def _declare(chains: _Chains, match: re.Match[str]) -> None:
    """A built-in chain gets its policy and counters, a new chain begins to be, one that was there is emptied."""
    name, policy, packets, size = match.groups()
    here = chains.get(name)
    if here is None or here.policy is None:
        if policy != "-":
            raise RefusedError(match.string)
        chains[name] = _Chain(None)
    elif policy != "-":
        here.policy, here.counters = policy, Counters(int(packets), int(size))


def _edit(chains: _Chains, match: re.Match[str]) -> None:
    packets, size, verb, name, number, text = match.groups()
    if name not in chains:
        raise RefusedError(match.string)
    rules = chains[name].rules
    rule = Rule(text or "", None, Counters(int(packets), int(size)) if packets else ZERO)
    if verb in ("-A", "-I"):
        _refuse_dangling_jump(chains, rule)
    if verb == "-A":
        rules.append(rule)
    elif verb == "-I":
        place = int(number or 1)
        if place > len(rules) + 1:
            raise RefusedError(match.string)
        rules.insert(place - 1, rule)
    elif verb == "-D":
        del rules[_place_to_delete(rules, number, rule, match.string)]
    elif verb == "-F":
        rules.clear()
    else:
        _remove(chains, name)


def _place_to_delete(rules: list[Rule], number: str | None, rule: Rule, line: str) -> int:
    if number is None:
        if rule not in rules:
            raise RefusedError(line)
        return rules.index(rule)
    if not 0 < int(number) <= len(rules):
        raise RefusedError(line)
    return int(number) - 1


def _remove(chains: _Chains, name: str) -> None:
    used = any(name in _JUMP.findall(rule.text) for chain in chains.values() for rule in chain.rules)
    if used or chains[name].rules or chains[name].policy is not None:
        raise RefusedError(f"-X {name}")
    del chains[name]


def _refuse_dangling_jump(chains: _Chains, rule: Rule) -> None:
    """A jump leads to a chain that is there when its rule is read."""
    for target in _JUMP.findall(rule.text):
        if target not in chains and target not in _TARGETS:
            raise RefusedError(f"{rule.text}: there is no chain {target}")
