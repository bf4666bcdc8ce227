"""What a pass works on, and what comes out of it: the types that `reconcile` and `undo` share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.enforce.look import Kernel
    from fwguardd.enforce.state import State
    from fwguardd.enforce.validate import Validator
    from fwguardd.events import Emit
    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.model import Findings
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.store.revisions import RevisionStore


@dataclass(frozen=True, slots=True)
class Host:
    """The facts about this boot that a revision is stamped with: the tool, the kernel's release, the boot's id."""

    tool: Tool
    kernel_release: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a pass works on: the files, who judges them, a kernel, what belongs to others, where revisions are kept,
    whom to tell. ``repair`` says whether drift is undone, ``why_not`` in a few words why it is left alone."""

    rules_dir: Path
    validator: Validator
    kernel: Kernel
    preserve: Preserve
    repair: bool
    store: RevisionStore
    host: Host
    emit: Emit
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The kernel holds what it should. ``changes`` is how many things were written, 0 for nothing at all; ``repaired``
    are the chains, such as "ipv4 filter INPUT", in which that undid what somebody else did. ``files_changed`` tells
    that a look found files that are to be judged once they have settled."""

    state: State
    changes: int = 0
    repaired: frozenset[str] = frozenset()
    files_changed: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The files cannot be put in force; what was in force still is."""

    state: State
    findings: Findings


@dataclass(frozen=True, slots=True)
class Failed:
    """The pass failed for a reason that is not in the files. ``passing`` tells whether to try again soon."""

    state: State
    reason: str
    passing: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """A load failed half-way and so did its undo: the kernel may hold parts of two revisions."""

    state: State
    reason: str


Outcome = Done | Refused | Failed | Broken


def boottime() -> float:
    """Seconds since boot, those of a suspended machine included (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def still(state: State) -> str:
    """What is in force after nothing was changed."""
    if state.in_force is None:
        return "Nothing was loaded, and the kernel is as it was"
    return f"Revision {state.in_force.revision} stays in force"
