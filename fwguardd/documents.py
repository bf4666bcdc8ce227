"""Builds the results of the control socket's verbs (`control.documents`) from what the daemon knows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from fwguardd import __version__
from fwguardd.enforce.context import Broken, Done, Failed, Refused, boottime
from fwguardd.escaping import printable
from fwguardd.ruleset.others import Standing, of_standing
from fwguardd.ruleset.save_format import render
from fwguardd.store.revisions import RevisionKind, Waiting, evaluate_pending
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fwguardd.control.documents import (
        CountersDocument,
        DenialsDocument,
        DriftDocument,
        DriftStateDocument,
        FileChangeDocument,
        FileDocument,
        FindingDocument,
        HeldDocument,
        HistoryDocument,
        InForceDocument,
        OtherRuleDocument,
        OthersDocument,
        OutcomeDocument,
        PendingDocument,
        RefusalDocument,
        RevisionDocument,
        RuleCountDocument,
        RuleCounts,
        SettingsDocument,
        ShowDocument,
        StatusDocument,
    )
    from fwguardd.enforce.context import Outcome, RecordedHost
    from fwguardd.enforce.counting import Counted
    from fwguardd.enforce.kernel_state import FilesReport, Measured
    from fwguardd.enforce.state import InForce, RefusedFiles, State
    from fwguardd.ruleset.counter_history import CountedRule, RuleCount
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.model import Finding
    from fwguardd.ruleset.others import OtherRule, Others
    from fwguardd.store.model import FileChange
    from fwguardd.store.revisions import Fault, HeldFiles, PendingConfirmation, Revision, RevisionSummary


@dataclass(frozen=True, slots=True)
class Described:
    """The state in words: in one sentence, what the kernel held, and what became of the rule files."""

    sentence: str
    measured: Measured
    files: FilesReport


def status(
    host: RecordedHost,
    rules_dir: str,
    state: State,
    described: Described,
    drift_state: DriftStateDocument,
    denials: DenialsDocument,
) -> StatusDocument:
    """The state of everything."""
    return {
        "version": __version__,
        "backend": host.tool.backend.value,
        "iptables": host.tool.version,
        "rules_dir": rules_dir,
        "sentence": described.sentence,
        "state": described.measured.state.value,
        "state_facts": described.measured.facts,
        "compared": state.compared,
        "files": described.files.state.value,
        "files_why": described.files.why,
        "in_force": _in_force(state.in_force),
        "drift": drift_state,
        "last_refusal": _last_refusal(state.refused),
        "pending": _pending(state.pending, host.boot_id),
        "held": _held(state.held),
        "denials": denials,
        "tables": sorted(f"{family.value} {table}" for family, table in state.owned),
        "others": {"kept": len(of_standing(state.others, Standing.KEPT)), "undecided": len(state.undecided)},
    }


@dataclass(frozen=True, slots=True)
class RefusedSettings:
    """Settings that a reload could not use: when that was, in seconds since 1970, and why."""

    since: float
    message: str


def settings(refused: RefusedSettings | None) -> SettingsDocument:
    """Whether the settings file is used."""
    if refused is None:
        return {"state": "applied", "since": None, "message": None}
    return {"state": "refused", "since": refused.since, "message": refused.message}


def settings_refused(host: RecordedHost, state: State, refused: RefusedSettings) -> OutcomeDocument:
    """The result of a reload that could not use the settings, and therefore did nothing."""
    document = outcome(host, state, Failed(state, refused.message, retry=False), state)
    document["outcome"] = "refused"
    return document


def status_line(sentence: str, denials: DenialsDocument) -> str:
    """The state in one line, for STATUS= of sd_notify(3), and how many packets were denied since the start, as of now.
    Control characters, as a file name may hold them, are escaped."""
    parts = [sentence]
    if denials["denied"]:
        parts.append(f"denials: {denials['denied']}")
    return printable("; ".join(parts))


def outcome(host: RecordedHost, before: State, done: Outcome, state: State) -> OutcomeDocument:
    """What a reload, a rollback, a confirmation or an opening came to; ``state`` is the state after it."""
    in_force = state.in_force
    document: OutcomeDocument = {
        "outcome": _word(done, before),
        "revision": None,
        "rules": {"ipv4": 0, "ipv6": 0},
        "changes": 0,
        "findings": [],
        "reason": None,
        "pending": _pending(state.pending, host.boot_id),
        "sentence": state.sentence,
        "state": state.measured().state.value,
        "files": state.files().state.value,
    }
    if in_force is not None:
        document["revision"], document["rules"] = in_force.revision, _rules(in_force)
    if isinstance(done, Done):
        document["changes"] = done.changes
    elif isinstance(done, Refused):
        document["findings"] = _findings(done.findings)
    else:
        document["reason"] = done.reason
    return document


def damaged(faults: Iterable[Fault]) -> list[str]:
    """What was found damaged, or could not be read, in the state directory since the start."""
    return [fault.message for fault in faults]


def history(
    revisions: Sequence[RevisionSummary], faults: Iterable[Fault], state: State, described: Described, limit: int | None
) -> HistoryDocument:
    """The revisions that are kept, newest first; ``revisions`` are in order of their numbers."""
    current = _revision_in_force(state)
    newest_first = list(reversed(revisions))[:limit]
    return {
        "revisions": [_revision(summary, current) for summary in newest_first],
        "damaged": damaged(faults),
        "state": described.measured.state.value,
        "sentence": described.sentence,
    }


def show(revision: Revision) -> ShowDocument:
    """One revision, with its files and the canonical text of each family."""
    files: list[FileDocument] = [
        {"path": file.path, "text": file.data.decode("utf-8", "replace")} for file in revision.files
    ]
    return {
        "revision": revision.number,
        "when": revision.when,
        "cause": revision.cause,
        "by": revision.by,
        "backend": revision.backend.value,
        "iptables": revision.tool_version,
        "kernel": revision.kernel,
        "files": files,
        "texts": {family.value: render(ruleset).text for family, ruleset in revision.rulesets.items()},
    }


def counters(counted: Sequence[Counted]) -> CountersDocument:
    """The result of counters."""
    return {"rules": [_rule_count(rule, count) for rule, count in counted]}


def _rule_count(rule: CountedRule, count: RuleCount) -> RuleCountDocument:
    path = line = None
    if rule.origin is not None:
        path, line = rule.origin.path, rule.origin.line
    total = count.total
    return {
        "family": rule.family.value,
        "table": rule.table,
        "chain": rule.chain,
        "rule": rule.text,
        "file": path,
        "line": line,
        "packets": total.packets,
        "bytes": total.bytes,
        "since": count.since,
        "last": count.last,
    }


def others(state: State) -> OthersDocument:
    """The rules of other programs in owned tables that are remembered."""
    return {"rules": [_other(other) for other in state.others]}


def _other(other: OtherRule) -> OtherRuleDocument:
    place = other.place
    return {
        "number": other.number,
        "family": place.family.value,
        "table": place.table,
        "chain": place.chain,
        "rule": place.text,
        "who": other.who,
        "when": other.when,
        "standing": other.standing.value,
        "preserve": place.setting,
    }


def drift(differences: Sequence[Difference], undecided: Others) -> DriftDocument:
    """How the kernel differs from the revision in force, and the rules that stay until an administrator decides."""
    return {
        "count": len(differences),
        "differences": [str(difference) for difference in differences],
        "undecided": [str(other.place) for other in undecided],
    }


def _word(done: Outcome, before: State) -> str:
    match done:
        case Refused():
            return "refused"
        case Failed() | Broken():
            return "failed"
        case Done():
            earlier = _revision_in_force(before)
            if done.changes or earlier != _revision_in_force(done.state):
                return "applied"
            return "unchanged"


def _revision_in_force(state: State) -> int | None:
    if state.in_force is None:
        return None
    return state.in_force.revision


def _in_force(in_force: InForce | None) -> InForceDocument | None:
    if in_force is None:
        return None
    return {
        "revision": in_force.revision,
        "since": in_force.since,
        "cause": in_force.cause,
        "rules": _rules(in_force),
        "kind": in_force.kind.value,
        "by": in_force.by or None,
    }


def _rules(in_force: InForce) -> RuleCounts:
    counts = in_force.rules
    return {"ipv4": counts["ipv4"], "ipv6": counts["ipv6"]}


def _last_refusal(refused: RefusedFiles | None) -> RefusalDocument | None:
    if refused is None:
        return None
    return {"when": refused.when, "findings": _findings(refused.findings)}


def _findings(findings: Iterable[Finding]) -> list[FindingDocument]:
    return [cast("FindingDocument", finding.document()) for finding in findings]


def _held(held: HeldFiles | None) -> HeldDocument | None:
    if held is None:
        return None
    return {"reason": held.reason}


def _pending(pending: PendingConfirmation | None, boot_id: str) -> PendingDocument | None:
    if pending is None:
        return None
    left = 0.0
    meaning = evaluate_pending(pending, boot_id, boottime())
    if isinstance(meaning, Waiting):
        left = meaning.seconds_left
    return {
        "revision": pending.number,
        "back_to": pending.back_to,
        "seconds_left": left,
        "until": pending.wall_deadline,
        "opening": pending.opening,
    }


def _file_change(change: FileChange) -> FileChangeDocument:
    return {"file": change.name, "change": change.kind.value, "owner": change.owner}


def _revision(summary: RevisionSummary, current: int | None) -> RevisionDocument:
    return {
        "revision": summary.number,
        "when": summary.when,
        "cause": summary.cause,
        "by": summary.by,
        "kind": RevisionKind(summary.kind).value,
        "rules": {"ipv4": summary.ipv4_rules, "ipv6": summary.ipv6_rules},
        "files": summary.file_count,
        "in_force": current == summary.number,
        "restored": summary.restored,
        "changes": [_file_change(change) for change in summary.changes],
        "age_seconds": max(0.0, time.time() - summary.when),
    }
