"""What became of invariants -> results in words, and findings about those that do not hold or are not decided.

The packet that violates an invariant is sent through the rules (`confirmed`). Where the kernel says otherwise than the
model, the model has a defect: the result is then undecided, and says so.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from fwguardd.packets.invariants import InvariantKind
from fwguardd.packets.model import Verdict
from fwguardd.packets.policy_results import PolicyOutcome
from fwguardd.packets.policy_tests import PolicyTest
from fwguardd.proof.answers import Counterexample, Possible
from fwguardd.ruleset.model import Finding, Findings, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.packets.case_values import IcmpType
    from fwguardd.packets.invariants import Invariant
    from fwguardd.packets.policy_results import PolicyResult
    from fwguardd.proof.formulas import FreePart
    from fwguardd.proof.invariants import JudgedInvariant
    from fwguardd.proof.witness import Witness

_Value = TypeVar("_Value")

FAILED_INVARIANT, UNDECIDED_INVARIANT, MODEL_DEFECT = "failed-invariant", "undecided-invariant", "model-defect"
"""The codes of findings about results. The last one is a defect of fwguardd: model and kernel differ."""


@dataclass(frozen=True, slots=True)
class InvariantResult:
    """An invariant and what became of it, in a sentence without a full stop. ``witness`` is the packet that shows it,
    if there is one, ``depends`` the parts of rules that are not modelled and decide. ``seconds`` is what it took."""

    invariant: Invariant
    standing: PolicyOutcome
    sentence: str
    witness: Witness | None = None
    depends: tuple[FreePart, ...] = ()
    is_defect: bool = False
    seconds: float = 0.0


def undecided(invariant: Invariant, reason: str) -> InvariantResult:
    """The result of an invariant about which nothing is known, and why."""
    return InvariantResult(invariant, PolicyOutcome.UNDECIDED, reason)


def result_of(invariant: Invariant, judged: JudgedInvariant | None) -> InvariantResult:
    """The result of an invariant with the answer of the model."""
    if judged is None:
        return undecided(invariant, "no packet of this host fits it")
    answer, model, packets = judged.answer, judged.model, judged.packets
    if model is None or packets is None or not isinstance(answer, (Counterexample, Possible)):
        return InvariantResult(invariant, PolicyOutcome.PASSED, "proved for every packet")
    witness = model.witness(packets, answer.values)
    if isinstance(answer, Counterexample):
        return InvariantResult(invariant, PolicyOutcome.FAILED, _violation(invariant, witness), witness)
    parts = " and ".join(map(str, answer.depends))
    verb = {InvariantKind.NEVER: "accepted", InvariantKind.ALWAYS: "refused"}[invariant.kind]
    sentence = f"{witness.words}: may be {verb}; that depends on {parts}, which the model does not have"
    return InvariantResult(invariant, PolicyOutcome.UNDECIDED, sentence, witness, answer.depends)


_VERBS: Final = {Verdict.ACCEPT: "accepts it", Verdict.DROP: "drops it", Verdict.REJECT: "rejects it"}
_MUST: Final = {InvariantKind.NEVER: "must never be accepted", InvariantKind.ALWAYS: "must always be accepted"}


def _violation(invariant: Invariant, witness: Witness) -> str:
    decided = witness.decided
    return f"{witness.words}: {_MUST[invariant.kind]}, but {decided.words} {_VERBS[decided.verdict]}"


def witness_test(result: InvariantResult) -> PolicyTest | None:
    """The policy test that sends the packet of a violation and expects what the model says of it; None without one."""
    if result.standing is not PolicyOutcome.FAILED or result.witness is None:
        return None
    packet = result.witness.packet
    message: tuple[IcmpType, ...] = ()
    if packet.icmp_type is not None:
        message = ((packet.family, packet.icmp_type, packet.icmp_code),)
    return PolicyTest(
        result.witness.decided.verdict,
        result.invariant.origin,
        family=(packet.family,),
        proto=(packet.protocol,),
        source=(packet.source,),
        destination=(packet.destination,),
        sport=_if_given(packet.source_port),
        dport=_if_given(packet.destination_port),
        in_interface=_if_given(packet.in_interface),
        out_interface=_if_given(packet.out_interface),
        icmp_type=message,
        state=(packet.state,),
        uid=_if_given(packet.uid),
        gid=_if_given(packet.gid),
        mark=(packet.mark,),
        flags=(packet.flags,),
    )


def _if_given(value: _Value | None) -> tuple[_Value, ...]:
    if value is None:
        return ()
    return (value,)


def confirmed(result: InvariantResult, sent: PolicyResult) -> InvariantResult:
    """The result with what the kernel did with its packet."""
    if sent.standing is PolicyOutcome.PASSED:
        return replace(result, sentence=f"{result.sentence}; confirmed by sending it")
    if sent.standing is PolicyOutcome.UNDECIDED:
        return unconfirmed(result, str(sent.deciding))
    if sent.deciding.by_routes:
        return unconfirmed(result, f"on this host, as it is now, {sent.deciding}")
    assert result.witness is not None
    if (sent.verdict is Verdict.ACCEPT) is (result.invariant.kind is InvariantKind.NEVER):
        # It violates the invariant by another rule: one that is not modelled and that may have matched or not.
        sentence = (
            f"{result.witness.words}: {_MUST[result.invariant.kind]}, but {sent.deciding}; confirmed by sending it"
        )
        return replace(result, sentence=sentence)
    decided = result.witness.decided
    sentence = (
        f"{result.witness.words}: by the model {decided.words} {_VERBS[decided.verdict]}, but in the kernel "
        f"{sent.deciding}: this is a defect of fwguardd, please report it with this line and the rule"
    )
    return replace(result, standing=PolicyOutcome.UNDECIDED, sentence=sentence, is_defect=True)


def unconfirmed(result: InvariantResult, why: str) -> InvariantResult:
    """The result of a violation whose packet could not be sent, or did not get to the rules."""
    return replace(result, sentence=f"{result.sentence}; by the rules alone: {why}")


def findings_of(results: Iterable[InvariantResult], *, undecided_fails: bool) -> Findings:
    """The findings about results; with ``undecided_fails`` an undecided invariant is an error."""
    others = filter(_is_not_proved, results)
    return Findings(map(partial(_finding, undecided_fails=undecided_fails), others))


def _is_not_proved(result: InvariantResult) -> bool:
    return result.standing is not PolicyOutcome.PASSED


def _finding(result: InvariantResult, *, undecided_fails: bool) -> Finding:
    invariant = result.invariant
    code, severity = FAILED_INVARIANT, Severity.ERROR
    hint = "correct the rules, or the invariant"
    if result.standing is PolicyOutcome.UNDECIDED:
        code, severity = UNDECIDED_INVARIANT, {True: Severity.ERROR, False: Severity.WARNING}[undecided_fails]
        hint = ""
    if result.is_defect:
        code = MODEL_DEFECT
    if invariant.because:
        hint = f"the file says: {invariant.because}"
    family = None
    if result.witness is not None:
        family = result.witness.packet.family
    return Finding(code, f"{invariant.kind}: {result.sentence}", invariant.origin, severity, hint, family=family)
