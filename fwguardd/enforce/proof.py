"""The step of a pass between the rehearsal and the load: packets through the candidate, before it is in force.

The candidate is loaded once more, with the rules of other programs around it as they will be after the load, in a bed:
a rehearsal namespace that has the interfaces, addresses and routes of this host. The packets of the policy tests are
sent through it, and those of the lockout guard. A failed test or a lost ssh session is an error that refuses the pass.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from fwguardd.enforce.context import loaded_before
from fwguardd.enforce.look import look_at, look_of
from fwguardd.enforce.prover import Proof, ProofRequest, ProtectedPeers, Prover, needed_for
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.kernel.ssh_sessions import ssh_sessions
from fwguardd.packets.assumed_host import interfaces_of, reached_by, with_assumptions
from fwguardd.packets.invariants import NO_NETWORK, NO_SETS, not_checked
from fwguardd.packets.lockout import denied_packets, guarded_packets, lockout_finding, lost_by_change
from fwguardd.packets.policy_cases import cases_of
from fwguardd.packets.policy_results import findings_of, results_of
from fwguardd.ruleset.after_plan import after_plan
from fwguardd.ruleset.model import NO_FINDINGS, Finding, Findings, Severity
from fwguardd.ruleset.operations import Plan
from fwguardd.ruleset.save_format import Saved
from fwguardd.ruleset.ssh_sessions import closed_sessions
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.enforce.context import Context
    from fwguardd.enforce.look import Look
    from fwguardd.enforce.state import State
    from fwguardd.enforce.validate import Valid
    from fwguardd.packets.host import Host
    from fwguardd.packets.lockout import Denied, Guarded
    from fwguardd.packets.model import Journey, Undecided
    from fwguardd.packets.policy_cases import Cases
    from fwguardd.packets.policy_tests import PolicyTest
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.ruleset.ssh_sessions import SshSession

    Rulesets = Mapping[Family, Ruleset]
    Outcomes = Sequence[Journey | Undecided]

NO_PACKETS = "no-packets"
"""The code of the finding that no packets could be sent."""


def prove(context: Context, prover: Prover, state: State, accepted: Valid, request: ProofRequest) -> Proof:
    """Send the packets of tests and guard through accepted files as they will be in force. Raises KernelError.

    `fwguardd.enforce.proof_needed` is asked first.
    """
    fails = prover.undecided_fails
    found = not_checked(accepted.invariants, NO_NETWORK, undecided_fails=fails)
    try:
        host = prover.read_host()
        work = _Work(prover, host, accepted.tests, request)
        if work.is_empty and not accepted.invariants:
            return Proof(guarded=prover.watched is not None)
        live, loaded = loaded_around(context, state, accepted)
        found = broken_invariants(context, prover, accepted, loaded, host)
        if work.is_empty:
            return Proof(found, guarded=prover.watched is not None)
        return work.proof(loaded, live).and_findings(found)
    except (NamespaceError, OSError) as error:
        return Proof(not_sent(error, accepted.tests, fails=fails)).and_findings(found)


def broken_invariants(context: Context, prover: Prover, accepted: Valid, loaded: Rulesets, host: Host) -> Findings:
    """The findings about the invariants of accepted files in the rulesets to be loaded."""
    if not accepted.invariants:
        return NO_FINDINGS
    from fwguardd.enforce.invariants import check_invariants  # noqa: PLC0415 - most hosts do without the model.
    from fwguardd.enforce.set_reading import sets_beside  # noqa: PLC0415 - as above.

    fails = prover.undecided_fails
    sets = sets_beside(context.rules_dir)
    if sets is None:
        return not_checked(accepted.invariants, NO_SETS, undecided_fails=fails)
    checked = check_invariants(accepted.invariants, loaded, host, prover.beds, sets, undecided_fails=fails)
    return checked.findings


def guard_alone(prover: Prover, loaded: Rulesets, live: Rulesets, request: ProofRequest) -> Proof:
    """Send the packets of the lockout guard alone through the rules as they will be in force; ``live`` are those in the
    kernel. Raises NamespaceError, OSError."""
    work = _Work(prover, prover.read_host(), (), request)
    if work.is_empty:
        return Proof(guarded=prover.watched is not None)
    return work.proof(loaded, live)


def closed_by_reading(state: State, accepted: Valid) -> tuple[Finding, ...]:
    """Warnings about live ssh sessions whose peers could not open a new one under the accepted files, by reading the
    rules."""
    return closed_sessions(loaded_before(state.in_force), accepted.rehearsed.rulesets, ssh_sessions())


def not_sent(error: NamespaceError | OSError, tests: Sequence[PolicyTest], *, fails: bool) -> Findings:
    """The finding that no packets could be sent; an error where an undecided test is one, and there are tests."""
    severity, left_out = Severity.WARNING, "the lockout guard has read the rules instead"
    if tests:
        left_out = "the policy tests were not run"
        if fails:
            severity = Severity.ERROR
    message = f"no packets could be sent through the rules, and {left_out}: {error}"
    return Findings([Finding(NO_PACKETS, message, severity=severity)])


def loaded_around(context: Context, state: State, accepted: Valid) -> tuple[Rulesets, Rulesets]:
    """What the kernel holds, and what it will hold after the load, rules of other programs included. Raises
    KernelError."""
    preserve, wanted = context.preserve.owning(loaded_before(state.in_force)), accepted.rehearsed.rulesets
    shown = _shown_last(context)
    if shown.keys() >= wanted.keys():
        look = look_of({family: Saved(shown[family]) for family in wanted}, wanted, preserve)
    else:
        look = look_at(context.kernel, wanted, preserve)
    return look.live, loaded_after(look, wanted)


def _shown_last(context: Context) -> Rulesets:
    """What the kernel was last seen to hold."""
    if context.prover is None:
        return {}
    return context.prover.shown()


def loaded_after(look: Look, wanted: Rulesets) -> Rulesets:
    """What the kernel will hold once the rules that it was looked at for are loaded."""
    after = dict(look.live)
    plans = {plan.family: plan for plan in look.plans()}
    for family, ruleset in wanted.items():
        after[family] = after_plan(look.live[family], plans.get(family, Plan(family, ())), ruleset)
    return after


@dataclass(slots=True)
class _Work:
    """The packets of one proof."""

    prover: Prover
    host: Host
    tests: Sequence[PolicyTest]
    request: ProofRequest
    cases: Cases = field(init=False)
    guarded: list[Guarded] = field(init=False)

    def __post_init__(self) -> None:
        watched = ProtectedPeers()
        if self.prover.watched is not None:
            watched = self.prover.watched(self.host)
        self.cases = cases_of(self.tests, interfaces_of(self.host), reached_by(self.host))
        self.guarded = guarded_packets(watched.sessions, self.host, watched.listed, self._asking())
        self.host = with_assumptions(self.host, self.cases.assumptions)

    def _asking(self) -> SshSession | None:
        if self.prover.watched is None:
            return None
        return self.request.session

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send and nothing to say."""
        return not self.cases.packets and not self.cases.findings and not self.guarded

    def proof(self, loaded: Rulesets, live: Rulesets) -> Proof:
        """What packets show of the rulesets to be loaded; ``live`` are those that they replace. Raises
        NamespaceError."""
        packets = self.cases.packets
        sent = [*packets, *(each.packet for each in self.guarded)]
        with self.prover.beds.prove(needed_for(sent, loaded), self.host) as bed:
            outcomes = bed.send(sent)
        results = results_of(self.cases.cases, outcomes[: len(packets)], loaded, self.host)
        findings = [*self.cases.findings, *findings_of(results, undecided_fails=self.prover.undecided_fails)]
        denied = denied_packets(self.guarded, outcomes[len(packets) :])
        lost = self._lost(denied, live)
        findings += [lockout_finding(each, loaded, self.request.override, forced=self.request.forced) for each in lost]
        tried = len({each.session for each in self.guarded})
        return Proof(Findings(findings), tuple(results), self.prover.watched is not None, tried)

    def _lost(self, denied: list[Denied], live: Rulesets) -> list[Denied]:
        """The denied packets that the rules in the kernel accept. Raises NamespaceError."""
        if not denied:
            return []
        sent = [each.guarded.packet for each in denied]
        with self.prover.beds.prove(needed_for(sent, live), self.host) as bed:
            return lost_by_change(denied, bed.send(sent))
