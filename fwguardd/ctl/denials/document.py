"""Events as JSON: one document for what has an end, one object a line for what has none.

An event has the keys that ``fwguardd --log json`` writes: timestamp (UTC), event, message, and its fields. A line that
tells no time of day has a null timestamp; the time since boot is ``uptime``, in seconds.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.ctl.denials.event import Event

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC; without a zone, none is printed.


def timestamp(usec: int | None) -> str | None:
    """Microseconds since the epoch as ISO 8601 in UTC; None for a time beyond the calendar."""
    try:
        if usec is not None:
            return f"{(_EPOCH + timedelta(microseconds=usec)).isoformat(timespec='microseconds')}Z"
    except OverflowError:
        pass
    return None


def event_object(event: Event) -> dict[str, Any]:
    """One event with stable keys."""
    head: dict[str, Any] = {"timestamp": timestamp(event.realtime), "event": event.name, "message": event.message}
    if event.uptime is not None:
        head["uptime"] = event.uptime / 1_000_000
    if event.host is not None:
        head["host"] = event.host
    return {**head, **{key: value for key, value in event.fields.items() if key not in head}}


def json_line(document: Mapping[str, Any]) -> str:
    """One object on one line. Characters beyond ASCII are escaped: they are hostile input as often as not."""
    return json.dumps(document)


def pieces(events: Iterable[Event]) -> Iterator[str]:
    """The beginning of the one document that holds the events, piece by piece, so that it may be of any size;
    `last_piece` ends it."""
    comma = ""
    yield '{"denials": ['
    for event in events:
        yield f"{comma}\n{json_line(event_object(event))}"
        comma = ","


def last_piece(account: Mapping[str, object] | None) -> str:
    """The end of the document: what was read, or null where the journal was."""
    return f'\n], "read": {json.dumps(account)}}}\n'
