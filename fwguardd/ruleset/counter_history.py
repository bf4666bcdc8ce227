"""Packets and bytes of each rule across reloads, restarts of the daemon, and reboots; and when it last counted.

A reload keeps the kernel's counters of a rule that stays. A reboot sets them to zero, and so do ``iptables -Z`` and a
repair of a rule that was removed: what had been counted before is then added to what the kernel counts. A rule is known
by its place and text; of equal rules in one chain the first is the first one.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import ZERO, Counters
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.ruleset.model import Chain, Family, Origin, Ruleset

_KEY_BYTES = 12
_KEY_LENGTH = 2 * _KEY_BYTES
"""Characters of a key: two digits for each byte."""


@dataclass(frozen=True, slots=True)
class CountedRule:
    """A rule in force, or the policy of a chain, with the counters that the kernel shows."""

    family: Family
    table: str
    chain: str
    text: str
    origin: Origin | None
    counters: Counters
    occurrence: int = 0

    @property
    def key(self) -> str:
        """What makes it this rule, in few characters."""
        place = "\0".join((self.family.value, self.table, self.chain, self.text, str(self.occurrence)))
        return blake2b(place.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).hexdigest()


@dataclass(frozen=True, slots=True)
class RuleCount:
    """What is known of one rule. Times are in seconds since 1970; ``last`` is None for a rule that never counted.

    ``earlier`` was counted before the kernel's counters were set to zero, and ``live`` is what they showed last.
    """

    earlier: Counters
    live: Counters
    since: float
    last: float | None

    @property
    def total(self) -> Counters:
        """All packets and bytes since ``since``."""
        return _sum(self.earlier, self.live)

    def seen(self, live: Counters, now: float) -> RuleCount:
        """The same after the kernel has shown these counters; the same object if they are those of before."""
        if live == self.live:
            return self
        earlier, last = self.earlier, self.last
        was_reset = live.packets < self.live.packets or live.bytes < self.live.bytes
        if was_reset:
            earlier = self.total
        if live.packets > self.live.packets or (was_reset and live.packets):
            last = now
        return RuleCount(earlier, live, self.since, last)

    def after_boot(self) -> RuleCount:
        """The same at the begin of another boot, when the kernel's counters are zero."""
        return RuleCount(self.total, ZERO, self.since, self.last)


def _sum(one: Counters, other: Counters) -> Counters:
    return Counters(one.packets + other.packets, one.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class PackedCounts:
    """Counts by the keys of the rules, which are one text: as many texts took five times the memory."""

    keys: str = ""
    counts: tuple[RuleCount, ...] = ()

    @classmethod
    def of(cls, counts: Mapping[str, RuleCount]) -> PackedCounts:
        """The counts of a dict. Raises ValueError for a key that is none."""
        if not {_KEY_LENGTH}.issuperset(map(len, counts)):
            raise ValueError("a key of a rule has another length")
        return cls("".join(counts), tuple(counts.values()))

    def unpacked(self) -> dict[str, RuleCount]:
        """A dict of them."""
        starts = range(0, len(self.keys), _KEY_LENGTH)
        return dict(zip((self.keys[start : start + _KEY_LENGTH] for start in starts), self.counts, strict=True))

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True, slots=True)
class CounterHistory:
    """What is known of all rules in force, by their keys; and the boot in which the kernel showed it."""

    boot: str = ""
    counts: PackedCounts = PackedCounts()

    def in_boot(self, boot: str) -> CounterHistory:
        """The history in this boot: of another one the kernel's counters are gone."""
        if boot == self.boot:
            return self
        counts = {key: count.after_boot() for key, count in self.counts.unpacked().items()}
        return CounterHistory(boot, PackedCounts.of(counts))

    def seen(self, rules: Iterable[CountedRule], now: float) -> CounterHistory:
        """The history after a look. Rules that are no longer in force are forgotten."""
        known, counts = self.counts.unpacked(), dict[str, RuleCount]()
        new = RuleCount(ZERO, ZERO, now, None)
        for rule in rules:
            key = rule.key
            counts[key] = known.get(key, new).seen(rule.counters, now)
        return CounterHistory(self.boot, PackedCounts.of(counts))


def counted_rules(wanted: Mapping[Family, Ruleset], live: Mapping[Family, Ruleset]) -> Iterator[CountedRule]:
    """The rules and policies in force, in their order, with the counters of the live ones. What is missing in the
    kernel is left out."""
    for family in wanted:
        if family in live:
            yield from _of_family(wanted[family], live[family])


def _of_family(wanted: Ruleset, live: Ruleset) -> Iterator[CountedRule]:
    for table, chain in wanted.chains():
        live_table = live.tables.get(table.name)
        if live_table is not None and chain.name in live_table.chains:
            yield from _of_chain(wanted.family, table.name, chain, live_table.chains[chain.name])


def _of_chain(family: Family, table: str, chain: Chain, live: Chain) -> Iterator[CountedRule]:
    found: dict[str, list[Counters]] = {}
    for rule in live.rules:
        found.setdefault(rule.text, []).append(rule.counters)
    seen: Counter[str] = Counter()
    for rule in chain.rules:
        occurrence = seen[rule.text]
        seen[rule.text] += 1
        if occurrence < len(found.get(rule.text, ())):
            counters = found[rule.text][occurrence]
            yield CountedRule(family, table, chain.name, rule.text, rule.origin, counters, occurrence)
    if chain.policy is not None:
        yield CountedRule(family, table, chain.name, f"policy {live.policy}", chain.origin, live.counters)
