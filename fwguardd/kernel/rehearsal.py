"""Rehearsals: a candidate is loaded in a temporary network namespace, on the real kernel, before it is loaded live.

The result is the canonical text that iptables-save will print, with the origin of every rule: a rule is loaded with its
number as its count of packets, and found again by that (`fwguardd.ruleset.save_format.with_origins`). Where few plain
rules are new, only those are rehearsed, and of many that are alike two (`fwguardd.enforce.known_lines`). Or the result
is the findings that explain why rules are refused, each with its file and line. iptables names a line, or only COMMIT
for what the kernel refused: then the rule is found by bisection. After each finding the rule is removed and the rest is
tried again, so that one check reports all mistakes.
"""

from __future__ import annotations

import contextlib
from dataclasses import field, replace
from itertools import starmap
from typing import TYPE_CHECKING, Any

from fwguardd.kernel.namespaces import NamespaceError, NamespaceMethod
from fwguardd.kernel.objects_of_rules import NamedByRules, objects_named
from fwguardd.kernel.refusal_search import all_refused, first_refused, first_rules, places_of, without_rule
from fwguardd.kernel.refusal_trials import Trials
from fwguardd.kernel.rehearsed_rules import MOST_RULES, RehearsedRules
from fwguardd.kernel.rule_bytes import RuleBytes
from fwguardd.ruleset.canonical import Canonical, RulePlace
from fwguardd.ruleset.chain_graph import loop_closed_by
from fwguardd.ruleset.iptables_errors import RestoreError, explain, read_restore_error
from fwguardd.ruleset.model import (
    MOST_FINDINGS,
    Candidate,
    Chain,
    Family,
    Finding,
    Findings,
    Origin,
    Rule,
    Ruleset,
    Table,
)
from fwguardd.ruleset.rule_variants import only_this_rule
from fwguardd.ruleset.rule_view import jump_target
from fwguardd.ruleset.save_format import (
    IncompatibleTableError,
    IncompleteSaveError,
    UnreadableSaveError,
    read_rehearsed,
    render,
    rules_in_order,
)
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.kernel.namespaces import NamespacePool, ScratchNamespace
    from fwguardd.ruleset.error_reasons import Explanation

RULES_PER_COMMIT = 150
"""Rules of one transaction in a user namespace, whose socket buffer holds 197 long ones (measured)."""


@dataclass(frozen=True, slots=True)
class RehearsalRefused:
    """A candidate that the kernel refuses, and why: at least one finding.

    ``rules`` are the refused rules; there are none if no single rule is the cause. At most `MOST_FINDINGS` of them have
    a finding each. If the candidate was accepted before, the others are in ``rules`` too, since a repair loads all
    rules but those. ``undeclared`` are the refused rules that jump to a chain which the candidate does not declare.
    """

    findings: Findings
    rules: frozenset[RulePlace] = frozenset()
    undeclared: frozenset[RulePlace] = frozenset()

    def where_undeclared_chains_exist(self) -> RehearsalRefused:
        """What a kernel refuses in which another program has made the chains that the candidate does not declare."""
        others = Findings(finding for finding in self.findings if finding.code != "undeclared-chain")
        return RehearsalRefused(others, self.rules - self.undeclared)


@dataclass(frozen=True, slots=True)
class Rehearsals:
    """Rehearsals with one backend, in namespaces from one pool."""

    backend: str
    pool: NamespacePool
    rehearsed: RehearsedRules = field(default_factory=RehearsedRules)
    """What the rules are made of in the kernel."""

    def rehearse(self, candidate: Candidate) -> Canonical | RehearsalRefused:
        """Load the candidate, each family in a namespace of its own at the same time, and read back its canonical form.

        Two commits to one namespace of nf_tables at the same time disturb each other: each has to start again.
        Raises NamespaceError if a rehearsal is not possible.
        """
        named, warnings = objects_named(candidate)
        rulesets = list(candidate.rulesets.values())
        refusals: list[_Refusal] = []
        with contextlib.ExitStack() as lent:
            stages = [_Stage(self.backend, lent.enter_context(self.pool.acquire()), named) for _ in rulesets]
            results = _load_together(stages, rulesets)
            for stage, ruleset, result in zip(stages, rulesets, results, strict=True):
                if result["code"] != 0:
                    refusals += _all_refusals(stage, ruleset, result, candidate)
        if refusals:
            return _refused(refusals)
        return Canonical.rehearsed(self._read_back(rulesets, results), warnings)

    def _read_back(self, rulesets: list[Ruleset], results: list[dict[str, Any]]) -> dict[Family, Ruleset]:
        """The canonical form of each ruleset that was loaded. Raises NamespaceError."""
        self.rehearsed.forget()
        read: dict[Family, Ruleset] = {}
        for ruleset, result in zip(rulesets, results, strict=True):
            read[ruleset.family] = canonical = _canonical(ruleset, result)
            self.rehearsed.keep(canonical, list(starmap(RuleBytes.of_hex, result.get("rules") or ())))
        return read


def _load_together(stages: list[_Stage], rulesets: list[Ruleset]) -> list[dict[str, Any]]:
    """The results of loading and saving each ruleset in its stage, at the same time. Raises NamespaceError."""
    for stage, ruleset in zip(stages, rulesets, strict=True):
        stage.begin(ruleset)
    return [stage.results()[-1] for stage in stages]


def _canonical(ruleset: Ruleset, result: dict[str, Any]) -> Ruleset:
    """What iptables-save printed of the rehearsal. Raises NamespaceError where that is not whole."""
    try:
        return read_rehearsed(ruleset, result["stdout"])
    except (IncompleteSaveError, UnreadableSaveError, IncompatibleTableError) as error:
        raise NamespaceError(f"the rehearsal could not be read back: {error}") from error


@dataclass(frozen=True, slots=True)
class _Stage:
    """A namespace in which rulesets of one family are tried, one after the other."""

    backend: str
    scratch: ScratchNamespace
    named: NamedByRules

    def begin(self, ruleset: Ruleset) -> None:
        """Begin to load and save a ruleset. Raises NamespaceError."""
        self.scratch.send(
            self.backend, ruleset.family.number, self._steps(ruleset), self.named.sets, self.named.objects
        )

    def results(self) -> list[dict[str, Any]]:
        """The results of the steps; the last one says whether the kernel took the ruleset. Raises NamespaceError."""
        return self.scratch.receive()

    def refusal(self, ruleset: Ruleset) -> dict[str, Any] | None:
        """The result of the step that refused this ruleset; None if it loads. Raises NamespaceError."""
        self.begin(ruleset)
        last = self.results()[-1]
        if last["code"] == 0:
            return None
        return last

    def refuses(self, ruleset: Ruleset) -> bool:
        """Whether the kernel there refuses this ruleset. Raises NamespaceError."""
        return self.refusal(ruleset) is not None

    def text(self, ruleset: Ruleset) -> str:
        """The text that is given to iptables-restore."""
        return _text(ruleset, small_commits=_in_small_commits(self.backend, self.scratch, ruleset))

    def _steps(self, ruleset: Ruleset) -> list[dict[str, Any]]:
        save = {"save": True, "rules": self.backend == "nft" and ruleset.rule_count <= MOST_RULES}
        return [*steps_to_load(self.backend, self.scratch, ruleset), save]


def steps_to_load(backend: str, scratch: ScratchNamespace, ruleset: Ruleset) -> list[dict[str, Any]]:
    """The steps that load a ruleset in a namespace (`fwguardd.kernel.rehearsal_worker` describes them)."""
    small = _in_small_commits(backend, scratch, ruleset)
    restore = {"restore": _text(ruleset, small_commits=small), "noflush": False}
    if not small:
        return [restore]
    empty = "".join(f"*{table}\nCOMMIT\n" for table in ruleset.tables)
    return [{"restore": empty, "noflush": False}, restore | {"noflush": True}]


def _text(ruleset: Ruleset, *, small_commits: bool) -> str:
    commit_every: int | None = None
    if small_commits:
        commit_every = RULES_PER_COMMIT
    return render(ruleset, tagged=True, commit_every=commit_every).text


def _in_small_commits(backend: str, scratch: ScratchNamespace, ruleset: Ruleset) -> bool:
    """Whether this ruleset is too large for one transaction there."""
    limited = scratch.method is NamespaceMethod.USER_NAMESPACE and backend == "nft"
    return limited and ruleset.rule_count > RULES_PER_COMMIT


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A finding, and the rule that it is about; None if no rule is the cause. ``unlisted`` are further refused rules
    that have no finding of their own."""

    finding: Finding
    rule: RulePlace | None = None
    unlisted: frozenset[RulePlace] = frozenset()


def _refused(refusals: list[_Refusal]) -> RehearsalRefused:
    places: set[RulePlace] = set()
    undeclared: set[RulePlace] = set()
    for refusal in refusals:
        places |= refusal.unlisted
        if refusal.rule is None:
            continue
        places.add(refusal.rule)
        if refusal.finding.code == "undeclared-chain":
            undeclared.add(refusal.rule)
    findings = Findings(refusal.finding for refusal in refusals)
    return RehearsalRefused(findings, frozenset(places), frozenset(undeclared))


def _all_refusals(stage: _Stage, ruleset: Ruleset, result: dict[str, Any], candidate: Candidate) -> list[_Refusal]:
    """Every refused rule of a ruleset, up to the limit: find one, remove it, try the rest.

    Raises NamespaceError if the ruleset was loaded and cannot be read back, and no rule is the cause.
    """
    findings: list[_Refusal] = []
    trials = Trials(stage.refuses, _of_other_family(candidate, ruleset))
    refusal: dict[str, Any] | None = result
    while refusal is not None and len(findings) < MOST_FINDINGS:
        error = read_restore_error(refusal["stderr"])
        number = _refused_rule(stage, ruleset, error)
        if number is None:
            _raise_if_not_read_back(stage, refusal)
            findings.append(_Refusal(_without_rule_to_blame(ruleset, error)))
            break
        table, chain, rule = _place(ruleset, number)
        place = RulePlace(ruleset.family, table.name, chain.name, rule.text)
        findings.append(_Refusal(_finding(stage, ruleset, number, error, trials), place))
        ruleset = without_rule(ruleset, number)
        refusal = stage.refusal(ruleset)
        if refusal is not None and len(findings) == MOST_FINDINGS:
            findings.append(_others_refused(findings[-1], _unlisted(stage, ruleset, candidate)))
    return findings


def _unlisted(stage: _Stage, ruleset: Ruleset, candidate: Candidate) -> frozenset[RulePlace]:
    """The refused rules that are not listed, where they are to be known: to repair the rest of a ruleset."""
    if not candidate.accepted_before:
        return frozenset()
    return frozenset(places_of(ruleset, all_refused(ruleset, stage.refuses)))


def _raise_if_not_read_back(stage: _Stage, refusal: dict[str, Any]) -> None:
    if refusal["save"]:
        reason = refusal["stderr"].strip()
        raise NamespaceError(f"the rehearsal could not be read back: {reason}; {stage.scratch.method.advice}")


def _others_refused(last: _Refusal, unlisted: frozenset[RulePlace]) -> _Refusal:
    """The refusal of the rules behind the last one that is listed."""
    message = f"the kernel refuses more than {MOST_FINDINGS} rules; the others are not listed"
    finding = Finding("too-many-errors", message, last.finding.origin, hint="correct these and check again")
    return _Refusal(finding, unlisted=unlisted)


def _of_other_family(candidate: Candidate, ruleset: Ruleset) -> Ruleset | None:
    for family, other in candidate.rulesets.items():
        if family is not ruleset.family:
            return other
    return None


def _explained_alone(stage: _Stage, alone: Ruleset, rule: str, known: Explanation) -> Explanation:
    """The explanation of what iptables prints about this rule alone: it prints notes about other rules too."""
    refusal = stage.refusal(alone)
    if refusal is None:
        return known
    return explain(read_restore_error(refusal["stderr"]), rule)


def _finding(stage: _Stage, ruleset: Ruleset, number: int, error: RestoreError, trials: Trials) -> Finding:
    table, chain, rule = _place(ruleset, number)
    explained = explain(error, rule.text, loop_closed_by(table, chain.name, rule.text), table)
    if explained.code == "refused":
        explained = _explained_alone(
            stage, only_this_rule(ruleset.family, table, chain.name, rule.text), rule.text, explained
        )
    explained = trials.explained(ruleset.family, table, chain.name, rule.text, explained)
    return Finding(
        explained.code,
        explained.message,
        rule.origin,
        hint=explained.hint,
        line_text=rule.text,
        family=ruleset.family,
    )


def _place(ruleset: Ruleset, number: int) -> tuple[Table, Chain, Rule]:
    """The rule of that number in the order of rendering, and where it is."""
    for table, chain in ruleset.chains():
        if number < len(chain.rules):
            return table, chain, chain.rules[number]
        number -= len(chain.rules)
    raise IndexError(number)


def _without_rule_to_blame(ruleset: Ruleset, error: RestoreError) -> Finding:
    """A refusal that no rule causes: the kernel lacks a table, or has no memory."""
    explained = explain(error, "")
    tables = ", ".join(ruleset.tables)
    message = f"{explained.message} (not caused by a single rule of {ruleset.family.value} {tables})"
    file: Origin | None = None
    for rule in rules_in_order(ruleset):
        if rule.origin is not None:
            file = replace(rule.origin, line=0)
            break
    return Finding(explained.code, message, file, hint=explained.hint, family=ruleset.family)


def _refused_rule(stage: _Stage, ruleset: Ruleset, error: RestoreError) -> int | None:
    """The number of the rule that is refused, in the order of rendering; None if no rule is the cause."""
    named = _rule_at_line(stage, ruleset, error)
    if named is not None and (error.names_rule or _refused_alone(stage, ruleset, named)):
        return named
    if error.missing_chain:
        jump = _first_jump(ruleset, error.missing_chain)
        if jump is not None:
            return jump
    return first_refused(ruleset, stage.refuses)


def _first_jump(ruleset: Ruleset, chain: str) -> int | None:
    """The number of the first rule that jumps to a chain, in the order of rendering; None if no rule does."""
    for number, rule in enumerate(rules_in_order(ruleset)):
        if jump_target(rule.text) == chain:
            return number
    return None


def _rule_at_line(stage: _Stage, ruleset: Ruleset, error: RestoreError) -> int | None:
    """The rule on the line that the error names. The tag in front of the rule is its number."""
    lines = stage.text(ruleset).split("\n")
    if error.line is None or not 0 < error.line <= len(lines):
        return None
    line = lines[error.line - 1]
    if not line.startswith("["):
        return None
    return int(line[1:].partition(":")[0])


def _refused_alone(stage: _Stage, ruleset: Ruleset, number: int) -> bool:
    """Whether the rules before this one load, and do not load together with it."""
    return not stage.refuses(first_rules(ruleset, number)) and stage.refuses(first_rules(ruleset, number + 1))
