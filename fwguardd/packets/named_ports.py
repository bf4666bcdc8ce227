"""The destination ports that rules tell apart: those that they name, and the ranges of all ports that they treat alike.

This module is pure.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from fwguardd.ruleset.conditions import read_conditions
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.save_format import rules_in_order
from fwguardd.ruleset.values import read_ports
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.ruleset.conditions import Condition
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.ruleset.values import PortRange

LAST_PORT: Final = 65535
MOST_PORTS: Final = 200
"""Ports that rules name, of one protocol, to which packets are sent."""

_PORT_OPTIONS: Final = frozenset({"--dport", "--ports", "--ctorigdstport"})
_OPAQUE: Final = frozenset({"u32", "bpf", "set", "string"})
"""Matches that can tell ports apart in a way that is not read here."""


@dataclass(frozen=True, slots=True)
class NamedPorts:
    """The ports that rules for one protocol name. ``opaque`` are matches that may tell other ports apart."""

    ranges: tuple[PortRange, ...]
    opaque: frozenset[str]

    def single(self) -> list[int]:
        """Each port that is named, of a range the first and the last; up to `MOST_PORTS`."""
        ports = set(chain.from_iterable(self.ranges)) - {0, LAST_PORT}
        return sorted(ports)[:MOST_PORTS]

    def alike(self) -> Iterator[tuple[int, int]]:
        """All ports as ranges, first and last, within which the rules treat all ports alike."""
        starts = {1}
        for first, last in self.ranges:
            starts |= {max(first, 1), last + 1}
        ordered = sorted(starts - {LAST_PORT + 1})
        for first, following in zip(ordered, [*ordered[1:], LAST_PORT + 1], strict=True):
            yield first, following - 1


def named_ports(rulesets: Mapping[Family, Ruleset], protocol: str) -> NamedPorts:
    """The ports that rules name which packets of this protocol can meet."""
    ranges: dict[PortRange, None] = {}
    opaque: set[str] = set()
    for text in _texts(rulesets):
        view = RuleView.of(text)
        opaque |= _OPAQUE.intersection(match.module for match in view.matches)
        ranges |= dict.fromkeys(_ranges(read_conditions(view), protocol))
    return NamedPorts(tuple(ranges), frozenset(opaque))


def _texts(rulesets: Mapping[Family, Ruleset]) -> set[str]:
    """The different texts of rules with a match."""
    rules = chain.from_iterable(map(rules_in_order, rulesets.values()))
    return {rule.text for rule in rules if "-m " in rule.text or "port" in rule.text}


def _ranges(conditions: tuple[Condition, ...], protocol: str) -> Iterator[PortRange]:
    """The ports that a rule names, if packets of this protocol can meet it."""
    if all(_is_for(protocol, condition) for condition in conditions):
        for condition in conditions:
            if condition.name in _PORT_OPTIONS:
                yield from read_ports(condition.value)


def _is_for(protocol: str, condition: Condition) -> bool:
    """Whether a condition lets packets of this protocol pass."""
    return condition.name != "-p" or (condition.value == protocol) is not condition.negated
