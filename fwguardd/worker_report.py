"""What the event loop and the worker thread hand to each other: frozen values (see `fwguardd.worker`)."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.enforce.context import Outcome
    from fwguardd.enforce.sets import SetInUse
    from fwguardd.enforce.state import State
    from fwguardd.settings import Settings
    from fwguardd.store.revisions import Fault, RevisionSummary


@dataclass(frozen=True, slots=True)
class Orders:
    """What the event loop wants of the next steps: the settings, and why drift is left alone, "" if it is repaired."""

    settings: Settings
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a step came to: the state before and after it, its outcome, and the revisions that are kept, oldest first.

    ``state`` is that of the outcome, unless the emergency set was loaded after it. ``faults`` were found in the state
    directory since the start. ``hangs`` is a sentence about a state directory that does not answer. ``late`` are the
    authors of what was found that were not known when the step began. ``rules_end`` is when the next rules of the
    directory end, in seconds since 1970, None where none do. ``cause`` is that of a pass, "" for other steps, and
    ``seconds`` how long it took. ``sets`` are the sets that are loaded, and ``set_problems`` what is wrong with sets.
    """

    before: State
    outcome: Outcome
    state: State
    revisions: tuple[RevisionSummary, ...]
    faults: tuple[Fault, ...]
    hangs: str = ""
    late: Authors = NO_AUTHORS
    rules_end: float | None = None
    cause: str = ""
    seconds: float = 0.0
    sets: Mapping[str, SetInUse] = field(default_factory=dict)
    set_problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """What the state directory said when the worker thread began."""

    state: State
    revisions: tuple[RevisionSummary, ...]
    faults: tuple[Fault, ...]
