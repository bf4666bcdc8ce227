"""The rules that a packet has matched, in their order, from the counters that it has moved.

Where the kernel reports no trace, a bed reads the counters of all rules before and after each packet. From the chain of
each hook that the packet was in, its way follows from what each matching rule does. It is said only where nothing else
would have moved the same counters: in a chain to which the packet came twice, each must have moved twice or not at all.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from itertools import starmap
from typing import TYPE_CHECKING, Final

from fwguardd.packets.outcomes import outcome_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.packets.bed_rules import BedRules

    CountedStep = tuple[str, str, int | None, str, int]
    """Table, chain, position or None for the policy, outcome, and the number of the view."""

_TABLES: Final[Mapping[str, Sequence[str]]] = {
    "PREROUTING": ("raw", "mangle", "nat"),
    "INPUT": ("mangle", "filter", "security", "nat"),
    "FORWARD": ("mangle", "filter", "security"),
    "OUTPUT": ("raw", "mangle", "nat", "filter", "security"),
    "POSTROUTING": ("mangle", "nat"),
}
"""The tables of each hook in the order of their priorities (linux/netfilter_ipv4.h)."""
_FOLLOWED: Final = ("FORWARD", "OUTPUT")
"""The hooks that POSTROUTING follows."""
_ENDS: Final = frozenset({"drop", "reject", "queue"})


class CountedWay:
    """The way of one packet through the rules of a bed. ``counted`` has the table, the chain, the position and the
    number of packets for each rule whose counter has moved; ``hooks`` the hooks that the packet was in, in order, with
    the number of its view there."""

    def __init__(self, rules: BedRules, counted: Sequence[Sequence[object]], hooks: Mapping[str, int]) -> None:
        self._rules = rules
        self._moved: dict[tuple[str, str], dict[int, int]] = {}
        for table, chain, position, packets in counted:
            self._moved.setdefault((str(table), str(chain)), {})[int(str(position))] = int(str(packets))
        self._visits: Counter[tuple[str, str]] = Counter()
        self._passed: Counter[tuple[str, str, int]] = Counter()
        self._view = 0
        self.steps: list[CountedStep] = []
        """The rules and policies in their order."""
        self._follow(hooks)

    @property
    def is_certain(self) -> bool:
        """Whether the counters say the way: each has moved as often as the packet came by."""
        return all(starmap(self._is_certain_in, self._moved.items()))

    def _is_certain_in(self, place: tuple[str, str], moved: Mapping[int, int]) -> bool:
        expected = {self._visits[place]}
        return all({packets, self._passed[(*place, position)]} == expected for position, packets in moved.items())

    def _follow(self, hooks: Mapping[str, int]) -> None:
        for hook, self._view in hooks.items():
            if self._hook(hook) or (hook in _FOLLOWED and self._hook("POSTROUTING")):
                return

    def _hook(self, hook: str) -> bool:
        """Follow the packet through a hook; whether it ended there."""
        return any(self._table(table, hook) in _ENDS for table in _TABLES[hook])

    def _table(self, table: str, chain: str) -> str:
        """Follow the packet through a built-in chain; what became of it there. Packets of connections that have begun
        traverse no rule of the table nat, so nothing is said of its policy where no rule has matched."""
        if not self._is_traversed(table, chain):
            return ""
        outcome = self._chain(table, chain)
        if not outcome:
            outcome = self._rules.policy(table, chain).lower()
            self.steps.append((table, chain, None, outcome, self._view))
        return outcome

    def _is_traversed(self, table: str, chain: str) -> bool:
        return self._rules.has_chain(table, chain) and (table != "nat" or (table, chain) in self._moved)

    def _chain(self, table: str, chain: str) -> str:
        """Follow the packet through a chain; "" where it comes to its end or returns from it."""
        self._visits[table, chain] += 1
        for position in sorted(self._moved.get((table, chain), ())):
            outcome = self._rule(table, chain, position)
            verb, _, target = outcome.partition(" ")
            if target:
                outcome = self._chain(table, target)
            if verb in ("return", "goto"):
                return outcome.removeprefix("return")
            if outcome not in ("", "continue"):
                return outcome
        return ""

    def _rule(self, table: str, chain: str, position: int) -> str:
        """What the rule of the bed at this position does."""
        self._passed[table, chain, position] += 1
        stand = self._rules.stand(table, chain, position)
        rule = self._rules.rule(table, chain, stand.position)
        outcome = "continue"
        if rule is not None and not stand.match:
            outcome = outcome_of(self._rules, table, rule)
        self.steps.append((table, chain, position, outcome, self._view))
        return outcome
