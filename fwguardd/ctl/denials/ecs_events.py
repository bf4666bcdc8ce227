"""The parts of Elastic Common Schema (ECS 8.11) that events have which are not about packets.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fwguardd.events import ALL_EVENTS, ERROR

if TYPE_CHECKING:
    from collections.abc import Mapping

_CATEGORIES: Final = {
    "rules": "configuration",
    "settings": "configuration",
    "drift": "configuration",
    "set": "configuration",
    "denials": "network",
}
"""The category of an event by the first word of its name; of the others it is host."""

_CHANGES: Final = frozenset(
    {
        *("rules.applied", "rules.taken-back", "rules.confirmed", "rules.closed", "rules.unconfirmed"),
        *("drift.detected", "drift.repaired", "drift.fight", "set.loaded"),
    }
)
_FAILED: Final = frozenset({"set.refused", "settings.rejected", "rules.rejected", "rules.failed", "rules.broken"})
_SUCCEEDED: Final = frozenset({"rules.applied", "rules.confirmed", "drift.repaired", "set.loaded"})
_LIFE: Final = {"daemon.started": "start", "daemon.stopping": "end"}

PLACED: Final = frozenset(
    {
        *("culprit_pid", "culprit_process", "culprit_command", "culprit_uid", "culprit_user"),
        *("culprit_parent_pid", "culprit_parent", "culprit_parent_command"),
        *("traceback", "reason"),
    }
)
"""Fields that the schema has a place for."""


def categories(name: str) -> dict[str, Any]:
    """The fields that say what kind of event it is."""
    words: dict[str, Any] = {
        "kind": "event",
        "category": [_CATEGORIES.get(name.partition(".")[0], "host")],
        "type": [_type_of(name)],
        "action": name,
        "outcome": _outcome(name),
    }
    kind = ALL_EVENTS.get(name)
    if kind is not None:
        words |= {"code": kind.message_id, "severity": kind.priority}
        if kind.priority <= ERROR:
            words["kind"] = "alert"
    return words


def _type_of(name: str) -> str:
    if name in _CHANGES:
        return "change"
    return _LIFE.get(name, "info")


def _outcome(name: str) -> str | None:
    if name in _FAILED:
        return "failure"
    if name in _SUCCEEDED:
        return "success"
    return None


def process(found: Mapping[str, Any]) -> dict[str, Any]:
    """The process that has changed the rules."""
    parent = _one(found, "culprit_parent_pid", "culprit_parent", "culprit_parent_command")
    own = _one(found, "culprit_pid", "culprit_process", "culprit_command")
    if parent:
        own["parent"] = parent
    return own


def _one(found: Mapping[str, Any], pid: str, name: str, command: str) -> dict[str, Any]:
    values = {"pid": found.get(pid), "name": found.get(name), "command_line": found.get(command)}
    return {key: value for key, value in values.items() if value}


def user(found: Mapping[str, Any]) -> dict[str, Any]:
    """The user of that process."""
    number = found.get("culprit_uid")
    if number is None:
        return {}
    return {"id": str(number), "name": found.get("culprit_user")}
