"""Guarding the ruleset in force while files are validated and packets are sent through them: 60,000 rules, or 100,000
packets, take many seconds.

That is done in a thread of its own, which changes nothing but namespaces. The worker thread waits for its
end, and is the only one that reads and changes the kernel, as ever: after each notice of a change by another program,
and once in a drift interval, it compares the kernel with the revision in force, and repairs it.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import wait
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fwguardd import events
from fwguardd.enforce.context import Broken, repaired_in
from fwguardd.enforce.repair import enforce
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import Validator
from fwguardd.errors import failure_of
from fwguardd.kernel.attribution import NO_AUTHORS
from fwguardd.kernel.iptables import KernelShortError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.preserve import Preserve
from fwguardd.threads import ThreadNotStartedError, in_thread
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from fwguardd.enforce.context import Context
    from fwguardd.enforce.known_lines import KnownLines
    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.enforce.state import State
    from fwguardd.enforce.validate import Rehearse, Validation
    from fwguardd.kernel.attribution import Authors
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.model import Candidate

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

SHORT = 0.2
"""Seconds that a validation may take before anything is compared."""

GAP = 0.3
"""The shortest time between two comparisons, in seconds; it is at least twice the time that a comparison takes."""


DIFFERS = (
    "a rehearsal of all rules has shown another text than the rehearsals of some of them, which is a bug in fwguardd; "
    "the rule files are validated again. Please report it"
)
"""The message about a difference that `check_lines` has found."""


@dataclass(slots=True)
class Guard:
    """The state while files are validated: it changes with each comparison of the kernel.

    ``authors`` are the processes that had changed the kernel when the step began. ``repaired`` are the differences with
    which changes of other programs were undone. ``broken`` is the outcome of a repair that broke the firewall; then the
    pass has to end with it.
    """

    context: Context
    state: State
    authors: Authors = NO_AUTHORS
    repaired: frozenset[Difference] = field(default=frozenset())
    broken: Broken | None = None

    def validate(self, snapshot: Snapshot) -> Validation | NamespaceError:
        """Validate a snapshot; the error where no rehearsal is possible."""
        try:
            return self.during(self.context.validator.validate, snapshot)
        except NamespaceError as error:
            return error
        except KernelShortError as error:
            return NamespaceError(str(error))

    def during(
        self, function: Callable[_Arguments, _Result], *args: _Arguments.args, **kw: _Arguments.kwargs
    ) -> _Result:
        """Call a function that does not read the state of this guard, in a thread of its own; its result.

        Raises KernelShortError where no thread can be started.
        """
        try:
            work = in_thread(partial(function, *args, **kw))
        except ThreadNotStartedError as error:
            raise KernelShortError(str(error)) from error
        work.add_done_callback(lambda _: self.context.kernel_changed.set())
        wait([work], SHORT)
        failures = list(filter(None, self._enforced_during(work)))
        result = work.result()
        for failure in failures:
            raise failure  # Not before the end of the work: two threads must not validate at the same time.
        return result

    def _enforced_during(self, work: Future[_Result]) -> Iterator[BaseException | None]:
        """Enforce until the work has ended; what was raised each time."""
        while not work.done() and self.broken is None:
            failure = failure_of(lambda: self._enforce_after_notice(work))
            if failure is not None:
                wait([work], GAP)
            yield failure

    def _enforce_after_notice(self, work: Future[_Result]) -> None:
        """Wait for a change of the kernel or the end of the work; then enforce, and leave some time to the work."""
        woken = self.context.kernel_changed.wait(self.context.drift_interval)
        self.context.kernel_changed.clear()
        if not work.done():
            began = time.monotonic()
            self._enforce(anew=not woken)
            wait([work], max(GAP, 2 * (time.monotonic() - began)))

    def _enforce(self, *, anew: bool) -> None:
        """Compare the kernel with the revision in force, and repair it. Nothing else can be rehearsed meanwhile. Unless
        ``anew``, it is not read where nobody has written since the last look."""
        context = replace(self.context, validator=_OCCUPIED)
        outcome = enforce(context, self.state, self.authors, anew=anew)
        self.state, self.repaired = outcome.state, self.repaired | repaired_in(outcome)
        if isinstance(outcome, Broken):
            self.broken = outcome
        if self.repaired:
            self.authors, self.context = NO_AUTHORS, replace(self.context, noticed_before=NO_AUTHORS)
            context.noticed.forget()


def validate_ahead(context: Context, state: State) -> Guard:
    """Validate the files while they settle, so that the pass finds the result ready; what guarded meanwhile.

    Nothing about the files is reported or changed.
    """
    guard, snapshot = Guard(context, state), take_snapshot(context.rules_dir)
    if not state.knows(snapshot.digest):
        result = guard.validate(snapshot)
        if not isinstance(result, NamespaceError):
            context.validator.keep_early(snapshot, result)
    return guard


def check_lines(context: Context, state: State, lines: KnownLines, rehearse: Rehearse) -> Guard:
    """Compare a result that was put together of rehearsals in parts with a whole one; what guarded meanwhile.

    A difference is a defect of fwguardd. It is reported, and the files are validated again, whole.
    """
    guard = Guard(context, state)
    # It was given up, or the next rehearsal fails for the same reason and reports it.
    with contextlib.suppress(NamespaceError, KernelShortError):
        if guard.during(lines.differs, rehearse):
            context.emit(events.FAULT, DIFFERS, traceback="")
            guard.state = guard.state.to_validate_again()
    return guard


def _no_rehearsal(_candidate: Candidate, /) -> Canonical:
    raise NamespaceError("the rule files are being rehearsed")


_OCCUPIED = Validator(_no_rehearsal, LintContext((), Preserve.from_patterns([])))
