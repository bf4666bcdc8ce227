"""How far the worker thread has come, for the watchdog: which step it is in, and when the next mark is due.

The decision behind the limit: a pass has no upper bound of its own (50,000 rules with twenty faults take minutes of
rehearsals), but each piece of it has one. A program of iptables is killed after 60 s (`kernel.iptables`), and a
rehearsal worker has to answer within 150 s (`kernel.namespaces`). So the worker thread sets a mark before each piece,
and is stuck when none follows within `SECONDS_PER_MARK`, twice the longest of these bounds, plus `SECONDS_PER_RULE` for
each rule: the search for the faulty rules of a file loads all of them many times under one mark.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from fwguardd.kernel.changes import Noticing
from fwguardd.kernel.iptables import Backend, KernelError, LiveKernel
from fwguardd.kernel.last_looks import present
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fwguardd.kernel.rehearsed_rules import RehearsedRules
    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.save_format import Saved

SECONDS_PER_MARK = 300.0
"""Seconds from one mark to the next, whatever the number of rules."""

SECONDS_PER_RULE = 0.02
"""Seconds that are added for each rule: 50,000 rules have 1,000 s more."""


MANY_LINES = 200
"""Lines from which on a load is carried out without notices of the kernel."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A step that the worker thread began, and the time on the monotonic clock by which the next mark is due."""

    step: str
    due: float


class Progress:
    """The latest mark. The worker thread writes it and the event loop reads it.

    No lock is needed: a mark is a frozen value, and one reference is replaced by another.
    """

    def __init__(self, seconds_per_mark: float = SECONDS_PER_MARK) -> None:
        self._seconds_per_mark = seconds_per_mark
        self._rules = 0
        self._mark: Mark | None = None

    def begin(self, step: str, rules: int) -> None:
        """A step begins that has to do with this many rules. In the worker thread."""
        self._rules = rules
        self.mark(step)

    def allow_for(self, rules: int) -> None:
        """The step has to do with this many rules, if that is more than was known. In the worker thread."""
        self._rules = max(self._rules, rules)

    def mark(self, step: str) -> None:
        """The next piece of the step begins. In the worker thread."""
        self._mark = Mark(step, time.monotonic() + self._seconds_per_mark + SECONDS_PER_RULE * self._rules)

    def end(self) -> None:
        """The step has ended, and the worker thread waits for the next. In the worker thread."""
        self._mark = None

    def overdue(self) -> str | None:
        """The step that should have ended, or set another mark, by now; None while all is well. In the event loop."""
        mark = self._mark
        if mark is None or time.monotonic() < mark.due:
            return None
        return mark.step


class MarkingKernel(LiveKernel):
    """The live kernel; each run of a program of iptables sets a mark first."""

    def __init__(
        self,
        backend: Backend,
        progress: Progress,
        rehearsed: RehearsedRules | None = None,
        noticing: Noticing | None = None,
    ) -> None:
        super().__init__(backend, rehearsed)
        self._progress, self._noticing = progress, noticing or Noticing()

    def look(self, families: Collection[Family]) -> Mapping[Family, Saved]:
        """As in the base class."""
        self._progress.mark("reading the ruleset from the kernel")
        return super().look(families)

    def restore(self, family: Family, text: str) -> None:
        """As in the base class. The kernel gives no notices of a large load: they would take a third of its time."""
        self._progress.mark("loading rules into the kernel")
        if self.backend is not Backend.NFT or text.count("\n") < MANY_LINES:
            super().restore(family, text)
            return
        self._last.stop_following()
        with self._noticing.unnoticed(text.count("\nCOMMIT\n")):
            super().restore(family, text)

    def learn_handles(self) -> None:
        """Learn which rule has which handle, so that a rule which another program removes is known from a notice."""
        self._last.learn(present(self.backend.value))

    def read_what_was_said(self) -> None:
        """Read the tables of which it is only known what the kernel has said since the last look. A difference is one
        of the `defects`. Where they cannot be read, a later look does."""
        if self._last.followed:
            with contextlib.suppress(KernelError):
                self.look(tuple(self._last.followed))

    def defects(self) -> tuple[str, ...]:
        """What a look has shown to be otherwise than notices said, each once."""
        found, self._last.wrong = tuple(self._last.wrong), []
        return found

    def close(self) -> None:
        """Let go of the notices."""
        self._last.stop_following()
