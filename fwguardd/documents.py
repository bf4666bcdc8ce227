"""What the daemon knows, as the documents that the control socket's verbs answer with. Their keys are a contract."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fwguardd import __version__
from fwguardd.enforce.context import Broken, Context, Done, Failed, Outcome, Refused, boottime
from fwguardd.ruleset.model import FAMILIES, errors_in
from fwguardd.ruleset.save_format import render
from fwguardd.sinks.console import printable
from fwguardd.store.revisions import RevisionKind, Waiting, evaluate_pending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.enforce.state import State
    from fwguardd.ruleset.diff import Difference
    from fwguardd.store.revisions import PendingConfirmation, Revision, RevisionSummary


def status(
    context: Context, state: State, denials: Mapping[str, Any], guarding: Mapping[str, Any], sentence: str
) -> dict[str, Any]:
    """Everything at a glance. ``guarding`` tells why drift is left alone, if it is."""
    unverified = state.unverified.value if state.unverified else None
    return {
        "version": __version__,
        "backend": context.host.tool.backend.value,
        "iptables": context.host.tool.version,
        "rules_dir": str(context.rules_dir),
        "sentence": sentence,
        "in_force": _in_force(state),
        "drift": {**drift(state.drift), "repair": context.repair, "unseen": unverified, **guarding},
        "last_refusal": _last_refusal(state),
        "pending": _pending(state.pending, context.host.boot_id),
        "held": {"reason": state.held.reason} if state.held else None,
        "denials": dict(denials),
    }


def status_line(sentence: str, state: State, denials: Mapping[str, Any]) -> str:
    """The state in one line, for STATUS= of sd_notify(3): the first error of a refusal, and how many packets were
    denied since the start, as of now. Whatever a file name could do to a terminal is escaped."""
    refused = errors_in(state.refused.findings)[:1] if state.refused is not None else ()
    parts = [sentence, *(str(finding) for finding in refused)]
    if denials["denied"]:
        parts.append(f"denials: {denials['denied']}")
    return printable("; ".join(parts))


def outcome(context: Context, done: Outcome, before: State) -> dict[str, Any]:
    """What a reload, a rollback, a confirmation or an opening came to."""
    in_force = done.state.in_force
    return {
        "outcome": _word(done, before),
        "revision": in_force.revision if in_force else None,
        "rules": in_force.rules if in_force else {family.value: 0 for family in FAMILIES},
        "changes": done.changes if isinstance(done, Done) else 0,
        "findings": [finding.document() for finding in done.findings] if isinstance(done, Refused) else [],
        "reason": done.reason if isinstance(done, (Failed, Broken)) else None,
        "pending": _pending(done.state.pending, context.host.boot_id),
        "sentence": done.state.sentence,
    }


def history(context: Context, state: State, limit: int | None) -> dict[str, Any]:
    """The revisions that are kept, newest first."""
    summaries = sorted(context.store.summaries(), key=lambda summary: -summary.number)
    return {"revisions": [_summary(summary, state) for summary in summaries[:limit]], "damaged": []}


def show(revision: Revision) -> dict[str, Any]:
    """One revision, with its files and the canonical text of each family."""
    return {
        "revision": revision.number,
        "when": revision.when,
        "cause": revision.cause,
        "by": revision.by,
        "backend": revision.backend.value,
        "iptables": revision.tool_version,
        "kernel": revision.kernel,
        "files": [{"path": file.path, "text": file.data.decode("utf-8", "replace")} for file in revision.files],
        "texts": {family.value: render(ruleset).text for family, ruleset in revision.rulesets.items()},
    }


def drift(differences: Sequence[Difference]) -> dict[str, Any]:
    """How the kernel differs from what is in force."""
    return {"count": len(differences), "differences": [str(difference) for difference in differences]}


def _word(done: Outcome, before: State) -> str:
    if isinstance(done, Refused):
        return "refused"
    if isinstance(done, (Failed, Broken)):
        return "failed"
    same = before.in_force and done.state.in_force and before.in_force.revision == done.state.in_force.revision
    return "unchanged" if same and not done.changes else "applied"


def _in_force(state: State) -> dict[str, Any] | None:
    if state.in_force is None:
        return None
    return {
        "revision": state.in_force.revision,
        "since": state.in_force.since,
        "cause": state.in_force.cause,
        "rules": state.in_force.rules,
        "kind": state.in_force.kind.value,
    }


def _last_refusal(state: State) -> dict[str, Any] | None:
    if state.refused is None:
        return None
    return {"when": state.refused.when, "findings": [finding.document() for finding in state.refused.findings]}


def _pending(pending: PendingConfirmation | None, boot_id: str) -> dict[str, Any] | None:
    if pending is None:
        return None
    meaning = evaluate_pending(pending, boot_id, boottime())
    left = meaning.seconds_left if isinstance(meaning, Waiting) else 0.0
    return {"revision": pending.number, "back_to": pending.back_to, "seconds_left": left}


def _summary(summary: RevisionSummary, state: State) -> dict[str, Any]:
    return {
        "revision": summary.number,
        "when": summary.when,
        "cause": summary.cause,
        "by": summary.by,
        "kind": RevisionKind(summary.kind).value,
        "rules": {"ipv4": summary.ipv4_rules, "ipv6": summary.ipv6_rules},
        "files": summary.file_count,
        "in_force": state.in_force is not None and state.in_force.revision == summary.number,
        "age_seconds": max(0.0, time.time() - summary.when),
    }
