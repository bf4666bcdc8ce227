"""The author of a change in few words, of the fields of an event.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN: Final = "unknown"


def author(fields: Mapping[str, Any]) -> str:
    """The program and its user or unit: ``docker.service``, ``iptables by root, from bash of alice``; "" where the
    event names none."""
    unit, process = str(fields.get("culprit_unit", "")), str(fields.get("culprit_process", ""))
    if unit.endswith(".service"):
        return unit
    name = process or unit or str(fields.get("culprit", ""))[:80]
    if not name:
        return ""
    return f"{name}{_by(fields)}{_from(fields)}"


def _by(fields: Mapping[str, Any]) -> str:
    user = str(fields.get("culprit_user", ""))
    if not user:
        return ""
    return f" by {user}"


def _from(fields: Mapping[str, Any]) -> str:
    """The parent, where it is of another user, as that of sudo(8) is."""
    parent = str(fields.get("culprit_parent", ""))
    if not parent:
        return ""
    words = f", from {parent}"
    user = str(fields.get("culprit_parent_user", ""))
    if user and user != fields.get("culprit_user"):
        words += f" of {user}"
    return words
