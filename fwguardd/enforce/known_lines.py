"""Rehearsals that load only what is new: a rule that was rehearsed, and has not changed, need not be loaded again. Of
many rules that differ only in addresses, ports and comments two are loaded (`fwguardd.ruleset.rehearsal_sample`).

What is remembered holds for the programs of iptables that spelled it. It is dropped where a load failed, and, as names
may mean something else by then, where a reload asks for files with rules that name something outside of them. The
transaction compares what it has loaded with the result, as ever; and a whole rehearsal, at a time when nothing waits
for it, checks it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fwguardd.kernel.objects_of_rules import NamedByRules, objects_named
from fwguardd.kernel.program_stamp import program_stamp
from fwguardd.kernel.rehearsal import RehearsalRefused
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.model import Candidate
from fwguardd.ruleset.plain_rules import needs_nothing_outside
from fwguardd.ruleset.rehearsed_lines import (
    canonical_of,
    differ,
    lines_of,
    new_rules,
    others_of,
    rules_in,
    with_new_lines,
)
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.enforce.validate import Rehearse
    from fwguardd.kernel.program_stamp import Stamp
    from fwguardd.ruleset.rehearsed_lines import Lines, Rulesets

FEWEST = 200
"""Rules from which on a rehearsal of some of them saves time. Of a rehearsal of fewer the bytes of each rule are
wanted (`fwguardd.kernel.rehearsed_rules`)."""

QUIET = 5.0
"""Seconds after which a result that was put together is checked: the next change of files does not wait for the check
of the last one."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """What became of the rules that were rehearsed last, with which programs, and what the rules named."""

    lines: Lines
    programs: Stamp
    named: NamedByRules
    candidate: Rulesets
    canonical: Rulesets


@dataclass(frozen=True, slots=True)
class _WholeResult:
    """A candidate that was rehearsed, with which programs, and what became of all of its rules."""

    candidate: Candidate
    programs: Stamp
    canonical: Rulesets


@dataclass(frozen=True, slots=True)
class _Unchecked:
    """A candidate that was not rehearsed as a whole, what its rules were put together to, and at which time."""

    candidate: Candidate
    canonical: Canonical
    since: float


class KnownLines:
    """Rehearses candidates; of one that differs little from the last one only what is new.

    ``rehearse`` loads all rules of a candidate, with the programs of ``backend``.
    """

    def __init__(self, rehearse: Rehearse, backend: str) -> None:
        self._rehearse, self._backend = rehearse, backend
        self._memory: _Memory | None = None
        self._whole_result: _WholeResult | None = None
        self._unchecked: _Unchecked | None = None
        self._all_next = self._all_always = False

    def rehearse(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        """What a kernel makes of the candidate. Raises NamespaceError."""
        if candidate.accepted_before:
            return self._rehearse(candidate)
        return self._put_together(candidate) or self._whole(candidate)

    @property
    def is_to_be_checked(self) -> bool:
        """Whether the last result was put together some time ago, and not compared with a whole rehearsal since."""
        return self._unchecked is not None and time.monotonic() - self._unchecked.since >= QUIET

    def forget(self) -> None:
        """Rehearse all rules of the next candidate: what the last result said was wrong, or could not be loaded."""
        self._remember_nothing()
        self._all_next = True

    def _remember_nothing(self) -> None:
        self._memory = self._whole_result = self._unchecked = None

    def learn(self) -> None:
        """Learn what became of each rule in the last whole rehearsal, as the next one will ask for it."""
        whole, self._whole_result = self._whole_result, None
        if whole is None:
            return
        lines = lines_of(whole.candidate.rulesets, whole.canonical)
        if lines is not None:
            named = objects_named(whole.candidate)[0]
            self._memory = _Memory(lines, whole.programs, named, whole.candidate.rulesets, whole.canonical)

    def forget_names(self) -> None:
        """Use nothing that is remembered, if what rules name may mean something else by now."""
        self.learn()
        if self._memory is None:
            return
        for lines in self._memory.lines.values():
            if not all(map(needs_nothing_outside, lines.others)):
                self._remember_nothing()
                return

    def differs(self, rehearse: Rehearse) -> bool:
        """Rehearse the last result whole, if it was put together and not checked yet: whether it is another one.

        That is a defect: nothing is remembered after it, and no rule stands for others from then on. Raises
        NamespaceError.
        """
        unchecked = self._unchecked
        if unchecked is None:
            return False
        whole = rehearse(unchecked.candidate)
        self._unchecked = None
        if isinstance(whole, Canonical) and whole == unchecked.canonical:
            return False
        self.forget()
        # A name may have another address by now. A whole rehearsal that is refused shows something else, too.
        wrong = isinstance(whole, Canonical) and differ(
            unchecked.candidate.rulesets, whole.rulesets, unchecked.canonical.rulesets
        )
        self._all_always = self._all_always or wrong
        return wrong

    def _whole(self, candidate: Candidate) -> Canonical | RehearsalRefused:
        """What a kernel makes of a candidate of which nothing is remembered. Raises NamespaceError."""
        self._remember_nothing()
        programs, result = program_stamp(self._backend), None
        if not self._all_next:
            result = self._by_forms(candidate)
        if result is not None:
            self._unchecked = _Unchecked(candidate, result, time.monotonic())
        else:
            whole = self._rehearse(candidate)
            if isinstance(whole, RehearsalRefused):
                return whole
            result = whole
        self._whole_result = _WholeResult(candidate, programs, result.rulesets)
        self._all_next = False
        return result

    def _by_forms(self, candidate: Candidate) -> Canonical | None:
        """The result of rehearsing two rules of each form; None where all have to be rehearsed. Raises
        NamespaceError."""
        if self._all_always or rules_in(candidate.rulesets) < FEWEST:
            return None
        from fwguardd.ruleset.rehearsal_sample import Sample  # noqa: PLC0415 - most hosts have fewer rules.

        sample = Sample(candidate.rulesets)
        if not sample.is_small:
            return None
        result = self._rehearse(Candidate(sample.rulesets, sets=candidate.sets))
        if isinstance(result, RehearsalRefused):
            return None
        rulesets = sample.spelled(result.rulesets)
        if rulesets is None:
            return None
        return Canonical.rehearsed(rulesets, result.warnings)

    def _put_together(self, candidate: Candidate) -> Canonical | None:
        """The result of rehearsing the new rules only, put together with what is remembered of the others; None where
        all have to be rehearsed. Raises NamespaceError."""
        self.learn()
        memory = self._memory
        if memory is None or memory.programs != program_stamp(self._backend):
            return None
        new: Rulesets | None = {}
        if candidate.rulesets is not memory.candidate:
            new = new_rules(candidate.rulesets, memory.lines)
        if new is None:
            return None
        named, warnings = objects_named(Candidate(others_of(candidate.rulesets, memory.lines), sets=candidate.sets))
        if named != memory.named:
            return None
        if candidate.rulesets is memory.candidate:
            return Canonical.rehearsed(memory.canonical, warnings)
        lines = self._lines_of_new(Candidate(new, sets=candidate.sets))
        if lines is None:
            return None
        lines = with_new_lines(candidate.rulesets, memory.lines, lines)
        canonical = Canonical.rehearsed(canonical_of(candidate.rulesets, lines), warnings)
        self._memory = _Memory(lines, memory.programs, named, candidate.rulesets, canonical.rulesets)
        self._unchecked = _Unchecked(candidate, canonical, time.monotonic())
        return canonical

    def _lines_of_new(self, new: Candidate) -> Lines | None:
        """What becomes of new rules; None where they are refused, or cannot be told apart. Raises NamespaceError."""
        if not new.rulesets:
            return {}
        result = self._by_forms(new) or self._rehearse(new)
        if isinstance(result, RehearsalRefused):
            return None
        return lines_of(new.rulesets, result.rulesets)
