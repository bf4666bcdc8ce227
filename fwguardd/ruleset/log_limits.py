"""How many log lines the limits of LOG rules have suppressed, computed from the packet counters around the rules.

A packet that a limit stops matches no rule that counts it as such. But where the number of packets that reached a LOG
rule is known, the rule's own counter says how many of them it logged. That number is known in two places:

- The LOG rule has no match but its limits, is the last rule of a built-in chain, and no rule of the chain returns: then
  the policy meets exactly the packets that have reached the rule, and has a counter.
- The next rule has the same matches without the limits, as in ``-m limit … -j LOG`` and ``-j DROP`` in one chain: LOG
  lets every packet go on, so the next rule meets and counts all of them.

In every other place nothing is computed. The counters of a save are not read at one instant, so that a number can be
too small or too large by the packets of that moment; the next one makes up for it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fwguardd.ruleset.rule_view import RuleView
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fwguardd.ruleset.model import Chain, Family, Origin, Rule, Ruleset, Table
    from fwguardd.ruleset.rule_view import Match, Option

_LIMITS: Final = frozenset({"limit", "hashlimit"})
_PREFIX_OPTIONS: Final = {"LOG": "--log-prefix", "NFLOG": "--nflog-prefix"}


@dataclass(frozen=True, slots=True)
class LimitedRule:
    """A LOG rule with a limit: how many packets reached it, how many it logged, and which counter says the former."""

    family: str
    table: str
    chain: str
    text: str
    prefix: str
    reached: int
    logged: int
    counter: str

    @property
    def place(self) -> str:
        """Family, table and chain, in words."""
        return f"{self.family} {self.table} {self.chain}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes it this rule, whatever its counters."""
        return self.family, self.table, self.chain, self.text


def limited_rules(rulesets: Mapping[Family, Ruleset]) -> Iterator[LimitedRule]:
    """The LOG and NFLOG rules with a limit of which the number of packets that reached them is known."""
    for family, table, chain, place in _log_rules_with_limit(rulesets):
        found = _limited_rule(chain, place, chain.rules[place])
        if found is not None:
            yield replace(found, family=family.value, table=table.name)


def _log_rules_with_limit(rulesets: Mapping[Family, Ruleset]) -> Iterator[tuple[Family, Table, Chain, int]]:
    """Where the rules are that log and may have a limit: the chain, and the number of the rule from 0."""
    for family, ruleset in rulesets.items():
        for table, chain in ruleset.chains():
            for place, rule in enumerate(chain.rules):
                if "LOG" in rule.text and "limit" in rule.text:
                    yield family, table, chain, place


def _limited_rule(chain: Chain, place: int, rule: Rule) -> LimitedRule | None:
    view = RuleView.of(rule.text)
    prefix = view.value(_PREFIX_OPTIONS.get(view.target or "", ""))
    if prefix is None or not _has_limit(view):
        return None
    reached = _reached(chain, place, _matches(view))
    if reached is None:
        return None
    packets, counter = reached
    return LimitedRule("", "", chain.name, rule.text, prefix, packets, rule.counters.packets, counter)


def _reached(chain: Chain, place: int, matches: tuple[Collection[Option], Collection[Match]]) -> tuple[int, str] | None:
    """The number of packets that reached a rule, and which counter says so."""
    if place + 1 < len(chain.rules):
        return _reached_by(chain.rules[place + 1], matches)
    if chain.policy is None or any(matches) or _returns(chain):
        return None
    return chain.counters.packets, f"the policy of {chain.name}"


def _reached_by(following: Rule, matches: tuple[Collection[Option], Collection[Match]]) -> tuple[int, str] | None:
    """The same by the counter of the next rule, if that meets the same packets."""
    view = RuleView.of(following.text)
    if _has_limit(view) or _matches(view) != matches:
        return None
    return following.counters.packets, f"the next rule, {following.text!r}"


def _has_limit(view: RuleView) -> bool:
    return any(match.module in _LIMITS for match in view.matches)


def _matches(view: RuleView) -> tuple[tuple[Option, ...], tuple[Match, ...]]:
    """What a packet has to be like to match, whatever the limits."""
    kept = [match for match in view.matches if match.module not in _LIMITS and match.module != "comment"]
    return view.core_options, tuple(kept)


def _returns(chain: Chain) -> bool:
    """Whether a packet can meet the policy without having met all rules."""
    for rule in chain.rules:
        view = RuleView.of(rule.text)
        if view.target == "RETURN" or view.is_goto:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Lines that the limit of a rule suppressed since the last report about it: of ``reached`` packets it logged
    ``logged``."""

    rule: LimitedRule
    origin: Origin | None
    reached: int
    logged: int
    seconds: float

    @property
    def count(self) -> int:
        """The number of lines."""
        return self.reached - self.logged

    @property
    def sentence(self) -> str:
        """The message for people."""
        rule = self.rule
        place = rule.place
        if self.origin is not None:
            place = f"{self.origin}, {place}"
        lines = f"{self.count} lines"
        if self.count == 1:
            lines = "1 line"
        return (
            f"the limit of a rule with the prefix {rule.prefix!r} has suppressed {lines} within {self.seconds:.0f} s "
            f"({place}): {self.reached} packets by the counter of {rule.counter}, {self.logged} of them logged"
        )


class SuppressionCount:
    """Compares the counters of limited rules with those of the last report about each."""

    def __init__(self, interval: float) -> None:
        """``interval``: seconds that are left between two reports about one rule."""
        self._interval = interval
        self._before: dict[tuple[str, str, str, str], tuple[int, int, float]] = {}

    def update(
        self, rules: Iterable[LimitedRule], origins: Mapping[tuple[str, ...], Origin], now: float
    ) -> list[Suppressed]:
        """The rules whose limits have suppressed lines. The first time that a rule is seen, and after its counters were
        set back, they only begin to count."""
        found: list[Suppressed] = []
        kept: dict[tuple[str, str, str, str], tuple[int, int, float]] = {}
        for rule in rules:
            counters = (rule.reached, rule.logged, now)
            reached, logged, since = kept[rule.key] = self._before.get(rule.key, counters)
            if rule.reached < reached or rule.logged < logged:
                kept[rule.key] = counters
            elif now - since >= self._interval:
                kept[rule.key] = counters
                suppressed = Suppressed(
                    rule, origins.get(rule.key), rule.reached - reached, rule.logged - logged, now - since
                )
                if suppressed.count > 0:
                    found.append(suppressed)
        self._before = kept
        return found


def origins_by_text(rulesets: Mapping[Family, Ruleset]) -> dict[tuple[str, ...], Origin]:
    """The places where the LOG rules with a limit were written, by family, table, chain and text."""
    found: dict[tuple[str, ...], Origin] = {}
    for family, table, chain, place in _log_rules_with_limit(rulesets):
        rule = chain.rules[place]
        if rule.origin is not None:
            found[family.value, table.name, chain.name, rule.text] = rule.origin
    return found
