"""Results of invariants, as lines for people and as JSON values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.explain_lines import wrapped
from fwguardd.escaping import printable
from fwguardd.packets.policy_results import PolicyOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.ctl.terminal import Painter
    from fwguardd.proof.invariant_results import InvariantResult

_WORDS = {PolicyOutcome.PASSED: "proved", PolicyOutcome.FAILED: "FAILED", PolicyOutcome.UNDECIDED: "undecided"}


def invariant_lines(result: InvariantResult, paint: Painter) -> Iterator[str]:
    """A line for an invariant, and for one that is not proved more lines that say why."""
    invariant = result.invariant
    word, details = _WORDS[result.standing], f"({result.seconds * 1000:.0f} ms)"
    place = printable(f"{Path(invariant.origin.path).name}:{invariant.origin.line}")
    if result.standing is PolicyOutcome.PASSED:
        yield f"{paint.good(word)}  {place}  {invariant.kind} {details}"
        return
    yield f"{paint.bad(word)}  {place}  {invariant.kind} {details}"
    yield from wrapped(result.sentence, "    ")
    if invariant.because:
        yield from wrapped(f"→ {invariant.because}", "    ", paint.dim)


def invariant_document(result: InvariantResult) -> dict[str, Any]:
    """A result as JSON: the keys are a contract; what is not known is None."""
    invariant, packet = result.invariant, None
    rule_file = rule_line = None
    if result.witness is not None:
        packet = result.witness.words
        origin = result.witness.decided.origin
        if origin is not None:
            rule_file, rule_line = origin.path, origin.line
    return {
        "file": invariant.origin.path,
        "line": invariant.origin.line,
        "kind": invariant.kind.value,
        "result": {PolicyOutcome.PASSED: "proved"}.get(result.standing, result.standing.value),
        "message": result.sentence,
        "packet": packet,
        "depends": list(map(str, result.depends)),
        "defect": result.is_defect,
        "rule_file": rule_file,
        "rule_line": rule_line,
        "because": invariant.because or None,
        "seconds": round(result.seconds, 6),
    }
