"""The words for what the kernel holds and for what became of the rule files.

They stand on the command line, in STATUS=, in the events and in the manual.

This module is pure.
"""

from __future__ import annotations

from enum import Enum

from fwguardd.values import dataclass


class KernelState(Enum):
    """What the kernel held when it was compared last. The values are a contract: programs read them."""

    IN_FORCE = "in-force"
    """It held the revision in force."""

    DRIFTED = "drifted"
    """It differed from the revision in force, and that is not repaired yet, or cannot be."""

    EMERGENCY = "emergency"
    """The emergency set is loaded."""

    OPEN = "open"
    """Everything is accepted, because an administrator asked for that."""

    UNVERIFIED = "unverified"
    """It cannot be compared now."""

    UNMANAGED = "unmanaged"
    """fwguardd has never loaded anything."""


class FilesState(Enum):
    """What became of the rule files. The values are a contract: programs read them."""

    APPLIED = "applied"
    """They are the revision in force."""

    REFUSED = "refused"
    """They have errors."""

    HELD = "held"
    """They are not applied until a reload asks."""

    WAITING = "waiting"
    """They cannot be loaded yet, because of something outside of them. fwguardd tries again."""

    SETTLING = "settling"
    """They have changed, and are validated once there are no further changes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The state of the kernel, and a clause with the facts: what differs, and why that is not repaired."""

    state: KernelState
    facts: str

    def __str__(self) -> str:
        return f"{self.state.value}: {self.facts}"


@dataclass(frozen=True, slots=True)
class FilesReport:
    """What became of the rule files, and why, "" where there is nothing to explain."""

    state: FilesState
    why: str = ""

    def __str__(self) -> str:
        if not self.why:
            return f"files {self.state.value}"
        return f"files {self.state.value}: {self.why}"
