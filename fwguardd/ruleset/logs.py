"""Which rule makes which log line: the prefixes of the LOG and NFLOG rules of a ruleset, and where those were written.

A line in the kernel log tells its prefix, and nothing else of the rule that made it. Only where one rule alone has a
prefix is it known which one it was.
"""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from fwguardd.ruleset.words import word_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.ruleset.model import Family, Origin, Rule, Ruleset

_PREFIX_OPTIONS = {"LOG": "--log-prefix", "NFLOG": "--nflog-prefix"}


def logging_rules(rulesets: Mapping[Family, Ruleset]) -> Mapping[tuple[str, str], Origin]:
    """Family and prefix -> the place where the one rule with that prefix was written. Prefixes that two rules share
    are not in it, nor are those of rules that came from no file."""
    origins: dict[tuple[str, str], list[Origin | None]] = {}
    for family, ruleset in rulesets.items():
        for _, chain in ruleset.chains():
            for rule in chain.rules:
                for prefix in _prefixes(rule):
                    origins.setdefault((family.value, prefix), []).append(rule.origin)
    return MappingProxyType({key: only[0] for key, only in origins.items() if len(only) == 1 and only[0] is not None})


def _prefixes(rule: Rule) -> Iterator[str]:
    if "LOG" not in rule.text:
        return
    words = word_values(rule.text)
    options = dict(pairwise(words))
    option = _PREFIX_OPTIONS.get(options.get("-j", ""))
    if option is not None and option in options:
        yield options[option]
