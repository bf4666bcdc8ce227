"""What the counters of the last look say: lines that the limits of LOG rules suppressed, and what each rule counted.

Nothing looks at the kernel for this alone, except when a user asks. Counts of rules are kept in the state directory
when the daemon ends, and once an hour when there was a look, since a reboot sets those of the kernel to zero.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.enforce.reports import report_suppressed
from fwguardd.ruleset.counter_history import CountedRule, CounterHistory, RuleCount, counted_rules
from fwguardd.ruleset.log_limits import SuppressionCount, limited_rules, origins_by_text
from fwguardd.store.model import StoreError, UnreadableNote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.events import Emit
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.store.revisions import RevisionStore

SUPPRESSION_INTERVAL = 30.0
"""Seconds that are left at least between two reports of the lines that the limit of one rule has suppressed. The
counters are read by the passes, at least once in a drift interval."""

COUNT_INTERVAL = 60.0
"""Seconds that are left between two counts of rules: when a rule counted last is known to the minute."""

KEEP_INTERVAL = 3600.0
"""Seconds between two writes of the counts, if there are looks. A power cut loses what was counted since."""

Counted = tuple[CountedRule, RuleCount]

Prefixes = dict[str, tuple[str, str]]
"""Watched log prefixes, each with its name and meaning in the settings."""


class Counting:
    """Reads the counters of each look. Belongs to the worker thread."""

    def __init__(self, store: RevisionStore, emit: Emit, boot: str) -> None:
        self._store, self._emit = store, emit
        self._suppressed = SuppressionCount(SUPPRESSION_INTERVAL)
        self._history = CounterHistory(boot)
        self._unread = True
        """Whether what was kept before is still to be read: until then nothing takes its place."""
        self._kept = time.monotonic()
        self._read_kept(())
        self._counted = -COUNT_INTERVAL

    def read(self, in_force: Mapping[Family, Ruleset], shown: Mapping[Family, Ruleset], prefixes: Prefixes) -> None:
        """Read the counters of the last look."""
        self._report_suppressed(in_force, shown, prefixes)
        if time.monotonic() - self._counted >= COUNT_INTERVAL:
            self._count(tuple(counted_rules(in_force, shown)))

    def _report_suppressed(
        self, in_force: Mapping[Family, Ruleset], shown: Mapping[Family, Ruleset], prefixes: Prefixes
    ) -> None:
        """Report lines that the limits of LOG rules have suppressed, as far as the counters around them say so."""
        origins = origins_by_text(in_force)
        for found in self._suppressed.update(limited_rules(shown), origins, time.monotonic()):
            if found.rule.prefix in prefixes:
                name, meaning = prefixes[found.rule.prefix]
                report_suppressed(self._emit, found, name, meaning)

    def count(self, in_force: Mapping[Family, Ruleset], shown: Mapping[Family, Ruleset]) -> Sequence[Counted]:
        """The counts of the rules in force after a look."""
        rules = tuple(counted_rules(in_force, shown))
        self._count(rules)
        counts = self._history.counts.unpacked()
        return tuple((rule, counts[rule.key]) for rule in rules)

    def _count(self, rules: Sequence[CountedRule]) -> None:
        if not rules:
            return  # After open, or before the first look: what was counted is not forgotten.
        self._counted = time.monotonic()
        self._history = self._history.seen(rules, time.time())
        self._read_kept(rules)
        if time.monotonic() - self._kept >= KEEP_INTERVAL:
            self.keep()

    def _read_kept(self, rules: Sequence[CountedRule]) -> None:
        """Go on from the counts that were kept before, once they can be read, with these rules of the last look. The
        store reports a file that it cannot read."""
        if not self._unread:
            return
        kept = self._store.counters()
        self._unread = isinstance(kept, UnreadableNote) and not kept.lost
        if isinstance(kept, UnreadableNote):
            return
        self._history = kept.in_boot(self._history.boot)
        if rules:
            self._history = self._history.seen(rules, time.time())

    def keep(self) -> None:
        """Write the counts to the state directory, but not over some that could not be read yet. A disk that fails is
        reported."""
        self._kept = time.monotonic()
        if self._unread or not self._history.counts:
            return
        try:
            self._store.keep_counters(self._history)
        except StoreError as error:
            self._emit(events.STATE_FAILED, str(error))
