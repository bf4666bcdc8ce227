"""The file with the counts of rules: JSON, one list for each rule. See `fwguardd.ruleset.counter_history`.

This module is pure.
"""

from __future__ import annotations

import json
from typing import Any

from fwguardd.ruleset.counter_history import CounterHistory, PackedCounts, RuleCount
from fwguardd.ruleset.model import Counters
from fwguardd.store.model import DamagedError

COUNTERS_FORM = "fwguardd rule counters 1"


def encode_counters(history: CounterHistory) -> bytes:
    """The body of the file."""
    rules = {key: _plain(count) for key, count in history.counts.unpacked().items()}
    return json.dumps({"boot": history.boot, "rules": rules}, separators=(",", ":")).encode("ascii") + b"\n"


def decode_counters(body: bytes) -> CounterHistory:
    """The counts. Raises DamagedError."""
    try:
        document: dict[str, Any] = json.loads(body)
        return CounterHistory(str(document["boot"]), PackedCounts.of(_counts(document["rules"])))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"is not understood: {type(error).__name__}: {error}") from error


def _counts(rules: dict[str, Any]) -> dict[str, RuleCount]:
    """The counts by the keys of the rules. Equal ones are one object: of many rules most have never counted."""
    known: dict[tuple[float | None, ...], RuleCount] = {}
    counts: dict[str, RuleCount] = {}
    for key, values in rules.items():
        written = tuple(values)
        if written not in known:
            known[written] = _count(*values)
        counts[key] = known[written]
    return counts


def _plain(count: RuleCount) -> list[float | None]:
    earlier, live = count.earlier, count.live
    return [earlier.packets, earlier.bytes, live.packets, live.bytes, count.since, count.last]


def _count(
    packets: int, byte_count: int, live_packets: int, live_bytes: int, since: float, last: float | None
) -> RuleCount:
    if last is not None:
        last = float(last)
    earlier = Counters(int(packets), int(byte_count))
    return RuleCount(earlier, Counters(int(live_packets), int(live_bytes)), float(since), last)
