"""The fields of an event in a journal entry, as ``journalctl -o json`` prints it.

The journal keeps every value as text. The schema (`fwguardd.event_fields`) says what was a number or a list, and it is
read back as such; a value that is not of its type stays text. Nothing in an entry raises an error.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from fwguardd import events
from fwguardd.event_fields import Field, FieldType

if TYPE_CHECKING:
    from collections.abc import Mapping

_KNOWN: Final = {kind.name: {field.name: field for field in kind.fields} for kind in events.ALL_EVENTS.values()}
_UNKNOWN_FIELD: Final = Field("", FieldType.TEXT, "")
_PREFIX: Final = "FWGUARD_"
_NUMBER: Final = re.compile("[0-9]{1,20}")


def _is_field(key: str) -> bool:
    return key.startswith(_PREFIX) and key != "FWGUARD_EVENT"


def fields_of(name: str, entry: Mapping[str, Any]) -> dict[str, str | int | tuple[str, ...]]:
    """The fields of an event of this name. One that the schema does not have is a text."""
    known = _KNOWN.get(name, {})
    found = {}
    for key, value in entry.items():
        if _is_field(key) and value is not None:
            field = key[len(_PREFIX) :].lower()
            found[field] = _value(known.get(field, _UNKNOWN_FIELD), value)
    return found


def _value(field: Field, value: object) -> str | int | tuple[str, ...]:
    if field.type is FieldType.LIST:
        return _elements(field, value)
    number = as_number(value)
    if field.type is FieldType.NUMBER and number is not None:
        return number
    return as_text(value)


def _elements(field: Field, value: object) -> tuple[str, ...]:
    """The elements of a list, in its fixed order if it has one: journald does not keep the order."""
    elements = [as_text(value)]
    if _is_of_elements(value):
        elements = [as_text(each) for each in value]
    return tuple(sorted(elements, key=lambda element: (*field.order, element).index(element)))


def _is_of_elements(value: object) -> TypeGuard[list[object]]:
    """Whether a list has the values of a field that stands more than once, and not the bytes of one value."""
    return isinstance(value, list) and any(isinstance(each, (str, list)) for each in value)


def as_text(value: object) -> str:
    """A field of a journal entry as text. journalctl gives bytes that are not UTF-8 as a list of numbers, a field that
    stands more than once as a list of values (of which the first counts), and a field that is too long as null."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        return ""
    if _is_bytes(value):
        return bytes(value).decode("utf-8", "backslashreplace")
    return as_text(value[0])


def _is_bytes(numbers: list[Any]) -> bool:
    return all(isinstance(number, int) and 0 <= number <= 0xFF for number in numbers)


def as_number(value: object) -> int | None:
    """A decimal number in a journal field; None for anything else."""
    text = as_text(value)
    if _NUMBER.fullmatch(text) is None:
        return None
    return int(text)
