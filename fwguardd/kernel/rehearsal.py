"""Rehearsing a candidate: loading it in a scratch namespace, on the real kernel, before it may touch the live one.

A rehearsal gives the canonical text that iptables-save will print, with the origin of every rule in it; or the refusal,
brought home to the author's file and line. iptables names a line it stumbled over, or COMMIT for what the kernel
refused: the rule is then found by bisecting. After each finding the rule is taken out and the rest is tried again, so
that an author learns of all mistakes at once.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fwguardd.kernel.ipsets import ANY_FAMILY, SetsUnreadableError, families_of_sets
from fwguardd.kernel.namespaces import NamespaceMethod
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.chain_graph import loop_closed_by
from fwguardd.ruleset.model import (
    MOST_FINDINGS,
    NO_FINDINGS,
    Candidate,
    Chain,
    Family,
    Finding,
    Findings,
    Origin,
    Rule,
    Ruleset,
    Severity,
    Table,
)
from fwguardd.ruleset.references import named_sets
from fwguardd.ruleset.restore_errors import RestoreError, explain, read_restore_error
from fwguardd.ruleset.rule_view import jump_target
from fwguardd.ruleset.save_format import read_saved, render, rules_in_order, with_origins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fwguardd.kernel.namespaces import NamespacePool, ScratchNamespace

RULES_PER_COMMIT = 150
"""Rules of one transaction in a user namespace: 197 long ones are the measured limit of its socket buffer."""


@dataclass(frozen=True, slots=True)
class RehearsalRefused:
    """A candidate that the kernel does not take, and why: at least one finding."""

    findings: Findings


@dataclass(frozen=True, slots=True)
class Rehearsals:
    """Rehearsals with one backend, in namespaces from one pool."""

    backend: str
    pool: NamespacePool

    def rehearse(self, candidate: Candidate) -> Canonical | RehearsalRefused:
        """Load the candidate, each family in a namespace of its own at the same time, and read back what became of it.

        Two namespaces, because two commits to one disturb each other: on nf_tables each would have to start again.
        Raises ScratchError where no rehearsal could take place.
        """
        twins, unseen = _twins(candidate)
        with contextlib.ExitStack() as lent:
            stages = {
                family: _Stage(self.backend, lent.enter_context(self.pool.acquire()), twins)
                for family in candidate.rulesets
            }
            for family, stage in stages.items():
                stage.begin(candidate.rulesets[family])
            results = {family: stage.results() for family, stage in stages.items()}
            refused = {family: result[-1] for family, result in results.items() if result[-1]["code"] != 0}
            if not refused:
                rulesets = {family: _canonical(candidate, family, results[family]) for family in results}
                return Canonical.rehearsed(rulesets, unseen)
            findings: list[Finding] = []
            for family, result in refused.items():
                findings += _all_refusals(stages[family], candidate.rulesets[family], result)
        return RehearsalRefused(Findings(findings))


def _canonical(candidate: Candidate, family: Family, results: list[dict[str, Any]]) -> Ruleset:
    ruleset = candidate.rulesets[family]
    return with_origins(read_saved(family, results[-1]["stdout"]).showing(ruleset.tables), ruleset)


def _twins(candidate: Candidate) -> tuple[Mapping[str, int], Findings]:
    """The family of each ipset of this host that the rules name; and what to tell where nobody may look at the sets.

    There a rehearsal takes it that they exist, and that their family is right.
    """
    named = named_sets(candidate)
    if not named:
        return {}, NO_FINDINGS
    try:
        return families_of_sets(named), NO_FINDINGS
    except SetsUnreadableError as error:
        places = sorted(set(named.values()))
        unseen = (_unseen([name for name in named if named[name] == place], place, str(error)) for place in places)
        return dict.fromkeys(named, ANY_FAMILY), Findings(unseen)


def _unseen(names: Iterable[str], place: Origin, why: str) -> Finding:
    wanted = " and an ipset ".join(f'"{name}"' for name in names)
    message = f"nobody looked whether there is an ipset {wanted}: {why}"
    return Finding("unseen-set", message, place, Severity.WARNING, "check it as root; a reload looks at it in any case")


@dataclass(frozen=True, slots=True)
class _Stage:
    """A scratch namespace that rulesets of one family are tried in, one after the other."""

    backend: str
    scratch: ScratchNamespace
    twins: Mapping[str, int]

    def begin(self, ruleset: Ruleset) -> None:
        """Begin to load and save a ruleset. Raises ScratchError."""
        self.scratch.send(self.backend, ruleset.family.number, self._steps(ruleset), self.twins)

    def results(self) -> list[dict[str, Any]]:
        """The results of the steps; the last one tells whether the kernel took the ruleset. Raises ScratchError."""
        return self.scratch.receive()

    def refusal(self, ruleset: Ruleset) -> dict[str, Any] | None:
        """The result of the step that refused this ruleset; None where it loads. Raises ScratchError."""
        self.begin(ruleset)
        last = self.results()[-1]
        return None if last["code"] == 0 else last

    def text(self, ruleset: Ruleset) -> str:
        """The text that is given to iptables-restore."""
        commit_every = RULES_PER_COMMIT if self._in_small_commits(ruleset) else None
        return render(ruleset, tagged=True, commit_every=commit_every).text

    def _in_small_commits(self, ruleset: Ruleset) -> bool:
        """Whether this ruleset is too large for one transaction here."""
        limited = self.scratch.method is NamespaceMethod.USER_NAMESPACE and self.backend == "nft"
        return limited and ruleset.rule_count > RULES_PER_COMMIT

    def _steps(self, ruleset: Ruleset) -> list[dict[str, Any]]:
        restore = {"restore": self.text(ruleset), "noflush": False}
        if not self._in_small_commits(ruleset):
            return [restore, {"save": True}]
        empty = "".join(f"*{table}\nCOMMIT\n" for table in ruleset.tables)
        return [{"restore": empty, "noflush": False}, restore | {"noflush": True}, {"save": True}]


def _all_refusals(stage: _Stage, ruleset: Ruleset, result: dict[str, Any]) -> list[Finding]:
    """Every refused rule of a ruleset, up to the limit: find one, take it out, try the rest."""
    findings: list[Finding] = []
    refusal: dict[str, Any] | None = result
    while refusal is not None and len(findings) < MOST_FINDINGS:
        complaint = read_restore_error(refusal["stderr"])
        number = _guilty_rule(stage, ruleset, complaint)
        if number is None:
            findings.append(_nobodys(ruleset, complaint))
            break
        findings.append(_finding(ruleset, number, complaint))
        ruleset = _without_rule(ruleset, number)
        refusal = stage.refusal(ruleset)
    return findings


def _finding(ruleset: Ruleset, number: int, complaint: RestoreError) -> Finding:
    table, chain, rule = _place(ruleset, number)
    told = explain(complaint, rule.text, loop_closed_by(table, chain.name, rule.text), table)
    return Finding(told.code, told.message, rule.origin, hint=told.hint, line_text=rule.text, family=ruleset.family)


def _place(ruleset: Ruleset, number: int) -> tuple[Table, Chain, Rule]:
    """The rule of that number in the order of rendering, and where it is."""
    for table, chain in ruleset.chains():
        if number < len(chain.rules):
            return table, chain, chain.rules[number]
        number -= len(chain.rules)
    raise IndexError(number)


def _nobodys(ruleset: Ruleset, complaint: RestoreError) -> Finding:
    """A refusal that no rule is to blame for: a table that the kernel lacks, or no memory."""
    told = explain(complaint, "")
    origin = next((rule.origin for rule in rules_in_order(ruleset) if rule.origin is not None), None)
    tables = ", ".join(ruleset.tables)
    message = f"{told.message} (no single rule of {ruleset.family.value} {tables} is to blame)"
    return Finding(told.code, message, origin and replace(origin, line=0), hint=told.hint, family=ruleset.family)


def _guilty_rule(stage: _Stage, ruleset: Ruleset, complaint: RestoreError) -> int | None:
    """The number of the rule that is refused, in the order of rendering; None if it is no rule."""
    named = _rule_at_line(stage, ruleset, complaint)
    if named is not None and (complaint.names_rule or _refused_alone(stage, ruleset, named)):
        return named
    missing = explain(complaint, "")
    if missing.code == "undeclared-chain":
        for number, rule in enumerate(rules_in_order(ruleset)):
            target = jump_target(rule.text)
            if target is not None and f"chain {target}," in missing.message:
                return number
    return _bisect(stage, ruleset)


def _rule_at_line(stage: _Stage, ruleset: Ruleset, complaint: RestoreError) -> int | None:
    """The rule on the line that the complaint names. The tag in front of the rule is its number."""
    if complaint.line is None:
        return None
    lines = stage.text(ruleset).split("\n")
    line = lines[complaint.line - 1] if 0 < complaint.line <= len(lines) else ""
    return int(line[1:].partition(":")[0]) if line.startswith("[") else None


def _refused_alone(stage: _Stage, ruleset: Ruleset, number: int) -> bool:
    """Whether the ruleset is refused with this rule and taken, or refused elsewhere, without it."""
    return (
        stage.refusal(_first_rules(ruleset, number)) is None
        and stage.refusal(_first_rules(ruleset, number + 1)) is not None
    )


def _bisect(stage: _Stage, ruleset: Ruleset) -> int | None:
    """The rule without which the rules before it load, and with which they do not. None if even none of them loads."""
    good, bad = 0, ruleset.rule_count
    if stage.refusal(_first_rules(ruleset, 0)) is not None:
        return None
    while bad - good > 1:
        middle = (good + bad) // 2
        if stage.refusal(_first_rules(ruleset, middle)) is None:
            good = middle
        else:
            bad = middle
    return bad - 1 if ruleset.rule_count else None


def _first_rules(ruleset: Ruleset, count: int) -> Ruleset:
    return _filtered(ruleset, lambda number: number < count)


def _without_rule(ruleset: Ruleset, unwanted: int) -> Ruleset:
    return _filtered(ruleset, lambda number: number != unwanted)


def _filtered(ruleset: Ruleset, keep: Callable[[int], bool]) -> Ruleset:
    number = -1
    tables: dict[str, Table] = {}
    for table in ruleset.tables.values():
        chains: dict[str, Chain] = {}
        for chain in table.chains.values():
            rules: list[Rule] = []
            for rule in chain.rules:
                number += 1
                if keep(number):
                    rules.append(rule)
            chains[chain.name] = replace(chain, rules=tuple(rules))
        tables[table.name] = Table(table.name, chains)
    return Ruleset(ruleset.family, tables)
