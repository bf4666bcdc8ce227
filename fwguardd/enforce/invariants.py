"""Checking the invariants of tests files: each is asked of the model, and a packet that violates one is sent."""

from __future__ import annotations

import time
from dataclasses import field, replace
from typing import TYPE_CHECKING, Final

from fwguardd.enforce.prover import needed_for
from fwguardd.errors import ReportedError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.kernel.z3_solver import Solver, SolverMissingError, SolverTimeoutError
from fwguardd.packets.assumed_host import interfaces_of, reached_by, with_assumptions
from fwguardd.packets.invariants import not_checked
from fwguardd.packets.policy_cases import cases_of
from fwguardd.packets.policy_results import results_of
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.invariant_results import (
    InvariantResult,
    confirmed,
    findings_of,
    result_of,
    unconfirmed,
    undecided,
    witness_test,
)
from fwguardd.proof.invariants import judge
from fwguardd.proof.model import Model
from fwguardd.ruleset.model import NO_FINDINGS, Findings, Ruleset
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.enforce.prover import BedMaker
    from fwguardd.packets.host import Host
    from fwguardd.packets.invariants import Invariant
    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.set_files import SetFile

    Rulesets = Mapping[Family, Ruleset]

LIMIT: Final = 10.0
"""Seconds for all invariants together."""


@dataclass(frozen=True, slots=True)
class CheckedInvariants:
    """The results of invariants, and the findings about them."""

    results: tuple[InvariantResult, ...] = ()
    findings: Findings = field(default=NO_FINDINGS)


def check_invariants(
    invariants: Sequence[Invariant],
    rulesets: Rulesets,
    host: Host,
    beds: BedMaker,
    sets: Iterable[SetFile] = (),
    *,
    undecided_fails: bool,
    seconds: float = LIMIT,
) -> CheckedInvariants:
    """Check invariants of these rulesets on a host, in at most so many seconds. Without z3, or in less time than all
    need, the findings say what was not checked."""
    if not invariants:
        return CheckedInvariants()
    checking = _Checking(rulesets, host, tuple(sets), time.monotonic() + seconds, seconds)
    try:
        results = list(checking.results(invariants))
    except SolverMissingError as error:
        return CheckedInvariants((), not_checked(invariants, str(error), undecided_fails=undecided_fails))
    results = [_sent(result, rulesets, host, beds) for result in results]
    return CheckedInvariants(tuple(results), findings_of(results, undecided_fails=undecided_fails))


@dataclass(slots=True)
class _Checking:
    """One check. The models are made when they are needed."""

    rulesets: Rulesets
    host: Host
    sets: tuple[SetFile, ...]
    end: float
    seconds: float
    models: dict[Family, Model] = field(default_factory=dict)

    def results(self, invariants: Sequence[Invariant]) -> Iterator[InvariantResult]:
        """The results by the model. Raises SolverMissingError."""
        families: set[Family] = set()
        named: list[str] = []
        for each in invariants:
            families.update(each.family)
            named += (*each.in_interface, *each.out_interface)
        for family in families:
            self.models[family] = self._model(family, named)
        with Solver(self.end) as solver:
            for invariant in invariants:
                begun = time.monotonic()
                yield replace(self._result(invariant, solver), seconds=time.monotonic() - begun)

    def _model(self, family: Family, interfaces: Sequence[str]) -> Model:
        ruleset = self.rulesets.get(family) or Ruleset(family, {})
        return Model.of(ruleset, surroundings(family, [ruleset], self.host, self.sets, interfaces))

    def _result(self, invariant: Invariant, solver: Solver) -> InvariantResult:
        try:
            if time.monotonic() < self.end:
                return result_of(invariant, judge(invariant, self.models, solver))
        except SolverTimeoutError:
            pass
        except ReportedError as error:
            return undecided(invariant, str(error))
        return undecided(invariant, f"not decided within the time limit of {self.seconds:g} s for all invariants")


def _sent(result: InvariantResult, rulesets: Rulesets, host: Host, beds: BedMaker) -> InvariantResult:
    """The result; that of a violation with what the kernel did with its packet. Each has a bed of its own: an address
    that the host is given for one packet would be on the way of another."""
    test = witness_test(result)
    if test is None:
        return result
    cases = cases_of([test], interfaces_of(host), reached_by(host))
    try:
        with beds.prove(needed_for(cases.packets, rulesets), with_assumptions(host, cases.assumptions)) as bed:
            outcomes = bed.send(cases.packets)
    except NamespaceError as error:
        return unconfirmed(result, f"the packet could not be sent: {error}")
    for sent in results_of(cases.cases, outcomes, rulesets):
        result = confirmed(result, sent)
    return result
