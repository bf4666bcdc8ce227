"""The whole rehearsal that checks what was put together of rehearsals in parts, at a time when nothing waits for it.

It takes seconds with 50,000 rules, and the worker thread does nothing else meanwhile but guard the ruleset in force. So
it is given up once anything else is asked of the worker, and made later.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.kernel.rehearsal import Rehearsals

if TYPE_CHECKING:
    from fwguardd.kernel.rehearsal import RehearsalRefused
    from fwguardd.progress import Progress
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.model import Candidate


class WholeCheck:
    """Rehearses all rules with the programs of ``backend``, unless something else waits for the worker thread."""

    def __init__(self, backend: str, progress: Progress) -> None:
        self._pool, self._progress = NamespacePool(spares=0), progress
        self._rehearsals = Rehearsals(backend, self._pool)
        self._lock = threading.Lock()
        self._waiting = 0

    def step_asked(self) -> None:
        """A step was asked for: a rehearsal that has begun is given up. From any thread."""
        with self._lock:
            self._waiting += 1
            self._pool.give_up()

    def step_begins(self) -> None:
        """The worker thread begins a step that was asked for."""
        with self._lock:
            self._waiting -= 1
            if not self._waiting:
                self._pool.go_on()

    def rehearse(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        """What a kernel makes of the candidate. Raises NamespaceError, also where it was given up."""
        self._progress.allow_for(sum(ruleset.rule_count for ruleset in candidate.rulesets.values()))
        self._progress.mark("a whole rehearsal")
        try:
            return self._rehearsals.rehearse(candidate)
        finally:
            self._progress.mark("evaluating a rehearsal")
            self._pool.close()
