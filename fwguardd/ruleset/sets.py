"""Which ipsets do the rules name? Only their names: what is in a set is the business of whoever fills it."""

from __future__ import annotations

import re
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Origin
from fwguardd.ruleset.render import rules_in_order
from fwguardd.ruleset.words import UnterminatedQuoteError, word_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.ruleset.model import Candidate

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
