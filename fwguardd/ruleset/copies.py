"""Copies of other programs' rules in rule files: a saved dump of the firewall holds them.

What a rule file says is its author's, and is loaded. A rule of a form that a known program writes is left out only
where the kernel holds such a rule already that fwguardd has not loaded: then the file has a copy of it.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Finding, Findings, Rule, Ruleset, Severity, Table
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.ruleset.model import Chain, Family
    from fwguardd.ruleset.preserve import Preserve

    Rulesets = Mapping[Family, Ruleset]

CODE = "preserved-rule"


@dataclass(frozen=True, slots=True)
class WithoutTwins:
    """Wanted rulesets without the rules that the kernel holds as another program's, and a warning for each of those."""

    rulesets: Rulesets
    findings: Findings


def may_have_twins(wanted: Rulesets, preserve: Preserve) -> bool:
    """Whether any rule has a form that another program writes."""
    for family, ruleset in wanted.items():
        for table, chain in ruleset.chains():
            texts = preserve.kept_of_wanted(family, table.name, chain)
            if any(preserve.keeps_text(text, table.name, chain.name) for text in texts):
                return True
    return False


def without_twins(wanted: Rulesets, live: Rulesets, loaded: Rulesets, preserve: Preserve) -> WithoutTwins:
    """Leave out what the kernel (``live``) holds as another program's. ``loaded`` is what fwguardd loaded."""
    rulesets: dict[Family, Ruleset] = {}
    findings: list[Finding] = []
    for family, ruleset in wanted.items():
        tables: dict[str, Table] = {}
        for name, table in ruleset.tables.items():
            chains = dict(table.chains)
            for chain in table.chains.values():
                twins = _twins(family, name, chain, preserve, (live, loaded))
                if twins:
                    kept = tuple(rule for rule in chain.rules if rule.text not in twins)
                    chains[chain.name] = replace(chain, rules=kept)
                    findings += _warnings(chain, twins)
            tables[name] = Table(name, chains)
        rulesets[family] = Ruleset(family, tables)
    return WithoutTwins(rulesets, Findings(findings))


def _twins(
    family: Family,
    table: str,
    chain: Chain,
    preserve: Preserve,
    versions: tuple[Rulesets, Rulesets],
) -> frozenset[str]:
    """The texts of the rules of which the kernel has one more than fwguardd has loaded."""
    recognized = {rule.text for rule in chain.rules if preserve.keeps_text(rule.text, table, chain.name)}
    if not recognized:
        return frozenset()
    live, loaded = (_texts(version, family, table, chain.name) for version in versions)
    return frozenset(text for text in recognized if live[text] > loaded[text])


def _texts(rulesets: Rulesets, family: Family, table: str, chain: str) -> Counter[str]:
    if family not in rulesets or table not in rulesets[family].tables:
        return Counter()
    chains = rulesets[family].tables[table].chains
    if chain not in chains:
        return Counter()
    return Counter(rule.text for rule in chains[chain].rules)


def _warnings(chain: Chain, twins: frozenset[str]) -> Iterator[Finding]:
    for rule in chain.rules:
        if rule.text in twins:
            yield _warning(rule)


def _warning(rule: Rule) -> Finding:
    message = "this rule is a copy: another program has added the same one, so it is not loaded from the file"
    hint = "remove it here; to load it all the same, take its pattern out of preserve: in fwguardd.yaml"
    return Finding(CODE, message, rule.origin, Severity.WARNING, hint)
