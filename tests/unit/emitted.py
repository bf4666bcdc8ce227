"""Holds an event to the schema: its fields are those of its kind, and their values have the types that it promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fwguardd.event_fields import FieldType
from fwguardd.events import ALL_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.events import EventKind

_TYPES: Final = {FieldType.TEXT: (str,), FieldType.NUMBER: (int,), FieldType.LIST: (list, tuple)}


def check_fields(kind: EventKind, fields: Mapping[str, Any]) -> None:
    """Fail if an event of this kind must not have these fields. None stands for a field that the event has not got."""
    known = {field.name: field for field in kind.fields}
    for name, value in fields.items():
        assert name in known, f"{kind.name} has a field {name!r} that fwguardd/event_fields.py does not have"
        assert value is None or isinstance(value, _TYPES[known[name].type]), f"{kind.name}: {name}={value!r}"
        if isinstance(value, (list, tuple)) and known[name].order:
            assert set(value) <= set(known[name].order)


_HEAD: Final = {"timestamp", "event", "message", "message_id", "priority"}


def check_json(event: Mapping[str, Any]) -> None:
    """The same for an event as ``fwguardd --log json`` prints it."""
    check_fields(ALL_EVENTS[event["event"]], {key: value for key, value in event.items() if key not in _HEAD})
