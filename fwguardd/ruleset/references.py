"""Which rules log packets, and under which prefix: the LOG and NFLOG rules of a ruleset, and where they were written.

What is logged tells its prefix, and nothing else of the rule that did it. Only where one rule alone has a prefix is it
known which one it was. And whoever reads one kind of log hears nothing of the other.

Which ipsets do the rules name? Only their names: what is in a set is the business of whoever fills it.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Origin
from fwguardd.ruleset.save_format import rules_in_order
from fwguardd.ruleset.tokenizer import UnterminatedQuoteError, word_values

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fwguardd.ruleset.model import Candidate, Family, Rule, Ruleset


_PREFIX_OPTIONS = {"LOG": "--log-prefix", "NFLOG": "--nflog-prefix"}


@dataclass(frozen=True, slots=True)
class LoggingRule:
    """A rule that logs. `group` is the group that an NFLOG rule copies to; None means LOG, to the kernel log."""

    family: str
    prefix: str
    group: int | None
    origin: Origin | None

    def __str__(self) -> str:
        target = "LOG" if self.group is None else f"NFLOG to group {self.group}"
        return f"{self.origin or 'a rule from no file'} ({target})"


def logging_rules(rulesets: Mapping[Family, Ruleset]) -> tuple[LoggingRule, ...]:
    """All rules that log under a prefix."""
    return tuple(
        found
        for family, ruleset in rulesets.items()
        for _, chain in ruleset.chains()
        for rule in chain.rules
        for found in _read(family, rule)
    )


def _read(family: Family, rule: Rule) -> Iterator[LoggingRule]:
    if "LOG" not in rule.text:
        return
    words = word_values(rule.text)
    options = dict(pairwise(words))
    target = options.get("-j", "")
    prefix = options.get(_PREFIX_OPTIONS.get(target, ""))
    group = options.get("--nflog-group", "0")
    if prefix is not None and group.isdecimal():
        yield LoggingRule(family.value, prefix, int(group) if target == "NFLOG" else None, rule.origin)


def origins_by_prefix(rules: Iterable[LoggingRule]) -> Mapping[tuple[str, str], Origin]:
    """Family and prefix -> the place where the one rule with that prefix was written. Prefixes that two rules share
    are not in it, nor are those of rules that came from no file."""
    origins: dict[tuple[str, str], list[Origin | None]] = {}
    for rule in rules:
        origins.setdefault((rule.family, rule.prefix), []).append(rule.origin)
    return MappingProxyType({key: only[0] for key, only in origins.items() if len(only) == 1 and only[0] is not None})


def rules_not_read(
    rules: Collection[LoggingRule], group: int | None, watched: Collection[str]
) -> tuple[LoggingRule, ...]:
    """The rules with a watched prefix that log only where nobody listens; ``group`` is where somebody does. A prefix
    of which some rule is heard is not among them: its author logs in both ways."""
    heard = {(rule.family, rule.prefix) for rule in rules if rule.group == group}
    return tuple(rule for rule in rules if rule.prefix in watched and (rule.family, rule.prefix) not in heard)


LONGEST_NAME = 31
"""Bytes of a set's name (IPSET_MAXNAMELEN of linux/netfilter/ipset/ip_set.h, less the final NUL)."""

_DIRECTIONS = re.compile(r"(?:src|dst)(?:,(?:src|dst))*")


def named_sets(candidate: Candidate) -> dict[str, Origin]:
    """The name of each ipset that the rules need, with the first place where one does."""
    named: dict[str, Origin] = {}
    for rule in chain.from_iterable(map(rules_in_order, candidate.rulesets.values())):
        # Every such rule loads the match "set" or the target SET; most rules do neither.
        if "set" in rule.text or "SET" in rule.text:
            place = rule.origin or Origin("", 0)
            for name in _names(rule.text):
                named[name] = min(named.get(name, place), place)
    return named


def _names(text: str) -> Iterator[str]:
    """The words before directions. Every option that takes a set takes ``NAME src,dst…`` (iptables-extensions(8)), so
    that tells it however the option is cut short, or joined to the name with "=". What no set can be called is left
    to iptables, which says so."""
    try:
        words = word_values(text)
    except UnterminatedQuoteError:
        return
    for before, word in pairwise(words):
        name = before.partition("=")[2] if before.startswith("--") else before
        if _DIRECTIONS.fullmatch(word) and name and not name.startswith("-") and _fits(name):
            yield name


def _fits(name: str) -> bool:
    return len(name.encode("utf-8", "surrogateescape")) <= LONGEST_NAME
