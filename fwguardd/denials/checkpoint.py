"""Where the reading of denials stands, as bytes to be kept: the place in the source, and what is counted but not told.

Both are kept together, as of one instant. Whoever begins from a bookmark reads each line after the place, and counts on
from there: no line is skipped, and none is counted twice. Lines that were told after the bookmark was made are told
again; their numbers in the kernel log (`kmsg_seq`) show that.

This module is pure.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import Any

from fwguardd.denials.aggregation import Flow, FlowSummary, Malformed, Others

_FORM = 1
_LATEST = 253402300799
"""The end of the year 9999, in seconds since 1970: no later time can be told."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in a source, good for one boot; what waits to be told; and losses that wait to be told."""

    boot_id: str
    source: str
    position: str | None
    waiting: tuple[FlowSummary, ...] = ()
    lost: int = 0


def encode(checkpoint: Checkpoint) -> bytes:
    """A bookmark as JSON."""
    waiting = [_plain(summary) for summary in checkpoint.waiting]
    head = {"form": _FORM, "boot_id": checkpoint.boot_id, "source": checkpoint.source, "position": checkpoint.position}
    return json.dumps({**head, "lost": checkpoint.lost, "waiting": waiting}).encode()


def decode(data: bytes) -> Checkpoint | None:
    """The bookmark of these bytes; None when they are none. Never raises."""
    try:
        read = json.loads(data)
        if read["form"] != _FORM:
            return None
        waiting = tuple(_summary(*row) for row in read["waiting"])
        position = read["position"]
        return Checkpoint(
            str(read["boot_id"]),
            str(read["source"]),
            None if position is None else str(position),
            waiting,
            _whole(read["lost"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


def _plain(summary: FlowSummary) -> list[Any]:
    key = summary.key
    kind, parts = (type(key).__name__, [*key] if isinstance(key, Flow) else [*astuple(key)])
    return [kind, parts, summary.count, summary.first, summary.last]


def _summary(kind: str, parts: list[str], count: int, first: float, last: float) -> FlowSummary:
    made = {"Flow": Flow, "Others": Others, "Malformed": Malformed}[kind](*map(str, parts))
    if isinstance(made, Flow) and not (made.port.isdecimal() or made.port == ""):
        raise ValueError(made.port)
    if not 0 <= first <= last <= _LATEST:
        raise ValueError(first, last)
    return FlowSummary(made, _whole(count), float(first), float(last))


def _whole(number: object) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError(number)
    return number
