"""The schema of the fields of events: what the code emits and what the schema has are the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fwguardd import events
from fwguardd.ctl.denials import ecs_events, formats
from fwguardd.event_fields import FieldType
from fwguardd.kernel.attribution import Author, Authors
from tests.unit.emitted import check_fields
from tests.unit.syntax import nodes

PACKAGE = Path(__file__).resolve().parents[2] / "fwguardd"
SHARED = {"authors.fields", "self._opponents.fields"}
"""Calls whose result is the fields of `Authors`."""


def _emitted() -> list[tuple[str, str, str | None]]:
    """Each field that the code gives to an event by name: where, the event's constant, the field; None for ``**``."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in nodes(path):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Attribute)):
                continue
            first = node.args[0]
            if isinstance(first.value, ast.Name) and first.value.id == "events":
                place = f"{path.relative_to(PACKAGE)}:{node.lineno}"
                for keyword in node.keywords:
                    call = ast.unparse(keyword.value.func) if isinstance(keyword.value, ast.Call) else ""
                    name = keyword.arg or ("culprit" if call in SHARED else None)
                    found.append((place, first.attr, name))
    return found


def test_every_field_that_is_emitted_by_name_is_in_the_schema() -> None:
    """No call in the code gives an event a field that its kind does not have."""
    emitted = _emitted()
    assert len(emitted) > 30
    for place, constant, name in emitted:
        if name is not None:
            known = {field.name for field in getattr(events, constant).fields}
            assert name in known, f"{place}: {constant} has no field {name!r}"


def test_the_fields_of_processes_are_in_the_schema() -> None:
    """An event about drift has a field for everything that is known about the process."""
    author = Author(812, "nft", "nft -f x", 0, "root", "a.service", 1, "bash", "-bash", "root", "b.scope")
    fields = Authors((author,)).fields()
    assert len(fields) == 12
    for kind in (events.DRIFT, events.FIGHT, events.HIDDEN, events.UNVERIFIED):
        check_fields(kind, fields)


def test_ecs_places_only_fields_of_the_schema() -> None:
    """Each field that has a place of its own in ECS is a field of an event about packets."""
    kinds = (events.DENIED, events.LOGGED, events.DENIED_SUMMARY, events.LOGGED_SUMMARY)
    assert {field.name for kind in kinds for field in kind.fields} >= formats._PLACED
    every = {field.name for kind in events.ALL_EVENTS.values() for field in kind.fields}
    assert every >= ecs_events.PLACED


@pytest.mark.parametrize("kind", events.ALL_EVENTS.values(), ids=events.ALL_EVENTS)
def test_the_schema_of_an_event_is_sound(kind: events.EventKind) -> None:
    """Each field stands once, has a name that journald takes, and is explained in one sentence."""
    names = [field.name for field in kind.fields]
    assert len(names) == len(set(names))
    for field in kind.fields:
        assert re.fullmatch("[a-z][a-z_]*", field.name)
        assert re.fullmatch(r"[A-Z][^.]*\.", field.meaning)
        assert field.type is FieldType.LIST or not field.order
