"""What the rules of the last rehearsal are made of in the kernel, if they were few, by their canonical texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.model import texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fwguardd.kernel.rule_bytes import RuleBytes
    from fwguardd.ruleset.model import Family, Ruleset

MOST_RULES = 160
"""Rules of a rehearsal whose bytes are asked for. A change of more is loaded by iptables."""


class RehearsedRules:
    """Texts of rules, and the expressions that iptables made of them."""

    def __init__(self) -> None:
        self._expressions: dict[tuple[Family, str], bytes] = {}

    def forget(self) -> None:
        """Another rehearsal begins."""
        self._expressions = {}

    def keep(self, saved: Ruleset, rules: Sequence[RuleBytes]) -> None:
        """Take in the rules of a rehearsal, as iptables-save printed them and as the kernel has them, in order.

        Nothing is kept of a chain that has another number of rules in one of the two, or of a text that two different
        rules have.
        """
        by_chain: dict[tuple[str, str], list[bytes]] = {}
        for each in rules:
            by_chain.setdefault((each.table, each.chain), []).append(each.expressions)
        for table, chain in saved.chains():
            found = by_chain.get((table.name, chain.name), [])
            if len(found) == len(chain.rules):
                self._keep_chain(saved.family, texts_of(chain.rules), found)

    def _keep_chain(self, family: Family, texts: Iterable[str], found: Iterable[bytes]) -> None:
        for text, expressions in zip(texts, found, strict=True):
            known = self._expressions.setdefault((family, text), expressions)
            if known != expressions:
                self._expressions[family, text] = b""

    def expressions(self, family: Family, text: str) -> bytes:
        """What a rule is made of; b"" where that is not known, or has to be left to iptables."""
        return self._expressions.get((family, text), b"")
