"""What rules refer to outside of a ruleset: the log prefixes that denials carry, and ipsets.

A logged packet carries the prefix of the rule that logged it, and nothing else of the rule. The rule is known only if
no other rule of the family has the same prefix.

This module is pure.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from fwguardd.ruleset.model import Origin
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.save_format import rules_in_order
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Candidate, Family, Rule, Ruleset
    from fwguardd.ruleset.rule_view import Option

LONGEST_SET_NAME = 31
"""Bytes of a set's name (IPSET_MAXNAMELEN of linux/netfilter/ipset/ip_set.h, less the final NUL)."""

_PREFIX_OPTIONS: Mapping[str | None, str] = {"LOG": "--log-prefix", "NFLOG": "--nflog-prefix"}
_WAYS = {"INPUT": "in", "PREROUTING": "in", "OUTPUT": "out", "POSTROUTING": "out", "FORWARD": "forward"}
_Key = TypeVar("_Key", tuple[str, str], tuple[str, str, str])
_DIRECTIONS = re.compile(r"(?:src|dst)(?:,(?:src|dst))*")


@dataclass(frozen=True, slots=True)
class LoggingRule:
    """A rule that logs. ``group`` is the group that an NFLOG rule copies to; None means LOG, to the kernel log."""

    family: str
    prefix: str
    group: int | None
    origin: Origin | None
    way: str = ""
    """The way of its packets through the host: in, out or forward; "" in a chain of the user, which has all of them."""
    table: str = ""
    chain: str = ""

    def __str__(self) -> str:
        target = "LOG" if self.group is None else f"NFLOG to group {self.group}"
        return f"{self.origin or 'a rule from no file'} ({target})"


def logging_rules(rulesets: Mapping[Family, Ruleset]) -> tuple[LoggingRule, ...]:
    """All rules that log with a prefix."""
    found: list[LoggingRule] = []
    for family, ruleset in rulesets.items():
        for table, chain in ruleset.chains():
            for rule in chain.rules:
                if "LOG" in rule.text:
                    found += _logging_rule(family, table.name, chain.name, rule)
    return tuple(found)


def _logging_rule(family: Family, table: str, chain: str, rule: Rule) -> Iterator[LoggingRule]:
    view = RuleView.of(rule.text)
    prefix = view.value(_PREFIX_OPTIONS.get(view.target, ""))
    if prefix is None:
        return
    way = _WAYS.get(chain, "")
    if view.target == "LOG":
        yield LoggingRule(family.value, prefix, None, rule.origin, way, table, chain)
        return
    group = view.value("--nflog-group") or "0"
    if group.isdecimal():
        yield LoggingRule(family.value, prefix, int(group), rule.origin, way, table, chain)


def origins_by_prefix(rules: Iterable[LoggingRule]) -> Mapping[tuple[str, str], Origin]:
    """Family and prefix -> the place where the one rule with that prefix was written. Prefixes that two rules share
    are not in it, nor are those of rules that came from no file."""
    origins: dict[tuple[str, str], list[Origin | None]] = {}
    for rule in rules:
        origins.setdefault((rule.family, rule.prefix), []).append(rule.origin)
    return MappingProxyType(_only_origins(origins))


def origins_by_way(rules: Iterable[LoggingRule]) -> Mapping[tuple[str, str, str], Origin]:
    """Family, prefix and way -> the place of the one rule with that prefix whose packets can go that way, for prefixes
    that several rules share."""
    ways: dict[tuple[str, str, str], list[Origin | None]] = {}
    for rule in rules:
        for way in ("in", "out", "forward"):
            if rule.way in (way, ""):
                ways.setdefault((rule.family, rule.prefix, way), []).append(rule.origin)
    return MappingProxyType(_only_origins(ways))


def _only_origins(origins: Mapping[_Key, Sequence[Origin | None]]) -> dict[_Key, Origin]:
    """The keys that have one place and no other."""
    single: dict[_Key, Origin] = {}
    for key, places in origins.items():
        if len(places) == 1 and places[0] is not None:
            single[key] = places[0]
    return single


def rules_not_read(
    rules: Collection[LoggingRule], group: int | None, watched: Collection[str]
) -> tuple[LoggingRule, ...]:
    """The rules with a watched prefix whose log is not read. ``group`` is what is read: a group of NFLOG, or None for
    the kernel log. A prefix that is read of another rule is not reported: its author logs in both ways."""
    read = {(rule.family, rule.prefix) for rule in rules if rule.group == group}
    return tuple(rule for rule in rules if rule.prefix in watched and (rule.family, rule.prefix) not in read)


def named_sets(candidate: Candidate) -> dict[str, Origin]:
    """The name of each ipset that rules refer to, with the first place where one does."""
    named: dict[str, Origin] = {}
    for ruleset in candidate.rulesets.values():
        for rule in rules_in_order(ruleset):
            # Every such rule names the match "set" or the target SET; most rules have neither.
            if "set" in rule.text or "SET" in rule.text:
                _add_set_names(named, rule)
    return named


def _add_set_names(named: dict[str, Origin], rule: Rule) -> None:
    place = rule.origin or Origin("", 0)
    for name in _set_names(rule.text):
        named[name] = min(named.get(name, place), place)


@dataclass(frozen=True, slots=True)
class SetReference:
    """A rule that matches packets with a set: the name of the set, how many directions follow it, and the rule."""

    name: str
    directions: int
    family: Family
    origin: Origin


def set_matches(candidate: Candidate) -> list[SetReference]:
    """The rules that match packets with a set."""
    found: list[SetReference] = []
    for family, rule in _rules_with(candidate, "--match-set "):
        found += _set_matches_of(rule, family)
    return found


def _rules_with(candidate: Candidate, text: str) -> Iterator[tuple[Family, Rule]]:
    """The rules that have this text, with their families."""
    for family, ruleset in candidate.rulesets.items():
        for rule in rules_in_order(ruleset):
            if text in rule.text:
                yield family, rule


def _set_matches_of(rule: Rule, family: Family) -> Iterator[SetReference]:
    for option in RuleView.of(rule.text).options:
        directions = _directions_of(option)
        if option.name == "--match-set" and directions:
            yield SetReference(option.value, directions, family, rule.origin or Origin("", 0))


def _directions_of(option: Option) -> int:
    """How many directions follow the name of a set; 0 for another option."""
    if len(option.values) < 2 or _DIRECTIONS.fullmatch(option.values[1]) is None:
        return 0
    return 1 + option.values[1].count(",")


def _set_names(text: str) -> Iterator[str]:
    """The values of options that directions follow. Every option that takes a set takes ``NAME src,dst…``
    (iptables-extensions(8)), also one that is cut short. A name that no set can have is left to iptables to refuse."""
    for option in RuleView.of(text).options:
        if _directions_of(option) and _may_name_set(option.value):
            yield option.value


def _may_name_set(name: str) -> bool:
    length = len(name.encode("utf-8", "surrogateescape"))
    return 0 < length <= LONGEST_SET_NAME and not name.startswith("-")


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """An nfacct object ("nfacct") or timeout policy ("timeout") that a rule names; family and protocol of the rule."""

    kind: str
    name: str
    family: Family
    protocol: str
    origin: Origin


def named_objects(candidate: Candidate) -> list[ObjectReference]:
    """The first reference to each accounting object and timeout policy of each family."""
    found: dict[tuple[str, str, Family], ObjectReference] = {}
    for family, ruleset in candidate.rulesets.items():
        for rule in rules_in_order(ruleset):
            if "nfacct" in rule.text or "--timeout" in rule.text:
                for reference in _objects_of(family, rule):
                    found.setdefault((reference.kind, reference.name, family), reference)
    return list(found.values())


def _objects_of(family: Family, rule: Rule) -> Iterator[ObjectReference]:
    view = RuleView.of(rule.text)
    place, protocol = rule.origin or Origin("", 0), view.value("-p") or "tcp"
    for kind, name in _object_names(view):
        if name and _may_name_object(name):
            yield ObjectReference(kind, name, family, protocol, place)


def _object_names(view: RuleView) -> Iterator[tuple[str, str | None]]:
    yield "nfacct", view.value("--nfacct-name")
    if view.target == "CT":
        yield "timeout", view.value("--timeout")


def _may_name_object(name: str) -> bool:
    """Whether the kernel takes the name: 31 bytes at most (NFACCT_NAME_MAX and CTNL_TIMEOUT_NAME_MAX, less the NUL)."""
    return len(name.encode("utf-8", "surrogateescape")) <= LONGEST_SET_NAME
