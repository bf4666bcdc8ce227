"""The rules that have to be rehearsed so that it is known how a kernel spells all of them.

Of the rules of a chain that have one form (`fwguardd.ruleset.rule_forms`) two are rehearsed, the first and the last
one. The others are spelled as these are, with their own values. All rules without a form are rehearsed, and all chains
and policies.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Rule
from fwguardd.ruleset.rehearsed_lines import (
    chains_of,
    lines_of,
    put_chain,
    rules_in,
    rulesets_of,
    without_chains,
)
from fwguardd.ruleset.rule_forms import FormReader, cut
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.ruleset.rehearsed_lines import ChainLines, Place, Rulesets
    from fwguardd.ruleset.rule_forms import CommonForm

_BETWEEN = "\0"
"""What stands between the values of a rule: no value has it."""

_REHEARSED = 2
"""Rules of each form that are rehearsed."""


@dataclass(slots=True)
class _Group:
    """The rules of a chain that have one form: how many there are, and the first and the last one whose values differ
    from each other, so that each can be found again in what iptables prints."""

    first: Rule | None = None
    last: Rule | None = None
    count: int = 0

    def add(self, rule: Rule, values: Sequence[str]) -> None:
        """Count a rule with these values."""
        self.count += 1
        if len(set(values)) == len(values):
            self.last = rule
            self.first = self.first or rule

    @property
    def is_large(self) -> bool:
        """Whether there are rules of it that need not be rehearsed."""
        return self.count > _REHEARSED and self.first is not self.last


class _ChainSample:
    """The rules of a chain: the group of each, None where it has no form, and its values as one text. A list of values
    for each rule took three times the memory, at the time when most is needed."""

    def __init__(self, chain: Chain, forms: FormReader) -> None:
        self._chain = chain
        self._groups: list[_Group | None] = []
        self._values: list[str] = []
        groups: dict[CommonForm, _Group] = {}
        for rule in chain.rules:
            group: _Group | None = None
            form, values = forms.read(rule.text)
            if form is not None:
                group = groups.get(form)
                if group is None:
                    group = groups[form] = _Group()
                group.add(rule, values)
            self._groups.append(group)
            self._values.append(_BETWEEN.join(values))

    def rehearsed(self) -> Chain:
        """The chain with the rules that have to be rehearsed."""
        rules: list[Rule] = []
        for rule, group in zip(self._chain.rules, self._groups, strict=True):
            if group is None or not group.is_large or rule is group.first or rule is group.last:
                rules.append(rule)
        return replace(self._chain, rules=tuple(rules))

    def spelled(self, lines: ChainLines) -> Chain | None:
        """The whole chain, as the kernel spelled the rules that were rehearsed; None where two rules of one form were
        spelled differently."""
        rules: list[Rule] = []
        spellings: dict[int, _Spelling | None] = {}
        for rule, group, values in zip(self._chain.rules, self._groups, self._values, strict=True):
            if group is None or not group.is_large:
                rules += [Rule(text, rule.origin) for text in lines.texts[rule.text]]
                continue
            if id(group) not in spellings:
                spellings[id(group)] = _spelling_of(group, lines)
            spelling = spellings[id(group)]
            if spelling is None:
                return None
            rules.append(Rule(spelling(values.split(_BETWEEN)), rule.origin))
        return Chain(self._chain.name, lines.saved_policy, tuple(rules), self._chain.origin)


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How a kernel spells the rules of a form: a text with a place for each value, and the order of the values."""

    text: str
    order: tuple[int, ...]

    def __call__(self, values: Sequence[str]) -> str:
        """The text of the rule with these values."""
        return self.text % tuple(map(values.__getitem__, self.order))


def _spelling_of(group: _Group, lines: ChainLines) -> _Spelling | None:
    """How the first and the last rule of a form were spelled; None where that is not the same."""
    found: set[_Spelling | None] = set()
    for rule in filter(None, (group.first, group.last)):
        found.add(_spelling(cut(rule.text)[1], lines.texts[rule.text]))
    if len(found) == 1:
        return found.pop()
    return None


def _spelling(values: Sequence[str], texts: Sequence[str]) -> _Spelling | None:
    """How a rule with these values was spelled; None where it became several, or has other values."""
    if len(texts) != 1:
        return None
    parts, printed = cut(texts[0])
    if sorted(printed) != sorted(values):
        return None
    text = parts[0].replace("%", "%%")
    for option, behind in zip(parts[1::2], parts[2::2], strict=True):
        text += f"{option}%s{behind.replace('%', '%%')}"
    return _Spelling(text, tuple(map(values.index, printed)))


class Sample:
    """The rules of rulesets that have to be rehearsed so that it is known how a kernel spells all of them."""

    def __init__(self, rulesets: Rulesets) -> None:
        forms = FormReader()
        self._samples: dict[Place, _ChainSample] = {}
        self._whole = rules_in(rulesets)
        chains = without_chains(rulesets)
        for place, chain in chains_of(rulesets):
            sample = self._samples[place] = _ChainSample(chain, forms)
            put_chain(chains, place, sample.rehearsed())
        self.rulesets: Rulesets = rulesets_of(chains)

    @property
    def is_small(self) -> bool:
        """Whether it is much less than all rules."""
        return 2 * rules_in(self.rulesets) <= self._whole

    def spelled(self, rehearsed: Rulesets) -> Rulesets | None:
        """All rules, each with its origin, as the kernel spelled those of the sample; None where that cannot be
        told."""
        lines = lines_of(self.rulesets, rehearsed)
        if lines is None:
            return None
        chains = without_chains(self.rulesets)
        for place, sample in self._samples.items():
            chain = sample.spelled(lines[place])
            if chain is None:
                return None
            put_chain(chains, place, chain)
        return rulesets_of(chains)
