"""The checkpoint of the denial reader as bytes: the position in the source, and the counts that wait for a summary.

Both are of the same instant. A process that starts from a checkpoint reads each line after the position and continues
the counts: no line is skipped, and none is counted twice. Lines that became events after the checkpoint was written
become events again; their numbers in the kernel log (`kmsg_seq`) show that.

This module is pure.
"""

from __future__ import annotations

import json
from typing import Any

from fwguardd.denials.aggregation import Flow, FlowSummary, Malformed, Others
from fwguardd.values import dataclass

_FORM = 1
_LATEST = 253402300799
"""The end of the year 9999, in seconds since 1970: datetime has no later time."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A position in a source, valid in one boot; the counts that wait for a summary, and the losses that no event has
    reported."""

    boot_id: str
    source: str
    position: str | None
    waiting: tuple[FlowSummary, ...] = ()
    lost: int = 0
    suspended: float | None = None
    """Seconds that the host had been suspended since boot, as far as the records up to the position account for."""


def encode(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as JSON."""
    waiting = [_plain(summary) for summary in checkpoint.waiting]
    head = {"form": _FORM, "boot_id": checkpoint.boot_id, "source": checkpoint.source, "position": checkpoint.position}
    return json.dumps({**head, "lost": checkpoint.lost, "suspended": checkpoint.suspended, "waiting": waiting}).encode()


def decode(data: bytes) -> Checkpoint | None:
    """The checkpoint in these bytes; None when they do not hold one. Never raises."""
    try:
        read = json.loads(data)
        if read["form"] != _FORM:
            return None
        waiting = tuple(_summary(*row) for row in read["waiting"])
        position = _position(read["position"])
        lost, suspended = _count(read["lost"]), _seconds(read.get("suspended"))
        return Checkpoint(str(read["boot_id"]), str(read["source"]), position, waiting, lost, suspended)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None


def _plain(summary: FlowSummary) -> list[Any]:
    key = summary.key
    parts = [key.prefix]
    if isinstance(key, Flow):
        parts = [*key]
    return [type(key).__name__, parts, summary.count, summary.first, summary.last]


def _is_port(text: str) -> bool:
    """Whether it is a number, or empty for a flow without ports."""
    return text == "" or text.isdecimal()


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or not 0 <= value <= _LATEST:
        raise ValueError(value)
    return float(value)


def _position(value: object) -> str | None:
    if value is None:
        return None
    return str(value)


def _summary(kind: str, parts: list[str], count: int, first: float, last: float) -> FlowSummary:
    made = {"Flow": Flow, "Others": Others, "Malformed": Malformed}[kind](*map(str, parts))
    if isinstance(made, Flow) and not _is_port(made.port):
        raise ValueError(made.port)
    if not 0 <= first <= last <= _LATEST:
        raise ValueError(first, last)
    return FlowSummary(made, _count(count), float(first), float(last))


def _count(number: object) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError(number)
    return number
