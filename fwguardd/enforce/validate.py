"""Steps 1 to 5 of the road: a rules directory -> what a kernel makes of it, or findings. The daemon and
`fwguardctl check` walk this same road, so that a check never promises what a reload then refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from fwguardd.kernel.rehearsal import RehearsalRefused
from fwguardd.ruleset.compose import Composition, compose
from fwguardd.ruleset.families import families_of_name
from fwguardd.ruleset.lint import LintContext, lint, unsilenced
from fwguardd.ruleset.lint_chains import lint_preserved
from fwguardd.ruleset.model import Candidate, Finding, Origin, Severity, errors_in
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.rule_view import jump_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.model import RuleFile
    from fwguardd.ruleset.statements import Reading


_TOLD_ONCE_A_FILE = frozenset({"preserved-chain", "preserved-rule"})

_OF_RULES_THAT_LOAD = frozenset({"host-name", "no-target", "odd-interface", "short-address"})


class Rehearse(Protocol):
    """A rehearsal. `fwguardd.kernel.rehearsal.Rehearsals.rehearse` is the real one."""

    def __call__(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        """What a kernel makes of the candidate. Raises ScratchError."""


@dataclass(frozen=True, slots=True)
class Valid:
    """Rule files that a kernel takes, and the warnings about them."""

    rehearsed: Canonical
    warnings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Invalid:
    """Rule files that cannot be put in force. At least one finding is an error."""

    findings: tuple[Finding, ...]


Verdict = Valid | Invalid


class Validator:
    """Judges snapshots of a rules directory, and does no work twice: a file whose bytes are the same is not read again,
    and a verdict that was reached early, while a burst of changes settled, is not reached again."""

    def __init__(self, rehearse: Rehearse, context: LintContext) -> None:
        self._rehearse = rehearse
        self._context = context
        self._readings: dict[str, tuple[bytes, Reading]] = {}
        self._early: tuple[str, Verdict] | None = None

    def validate(self, snapshot: Snapshot) -> Verdict:
        """Read, compose, lint and rehearse the files of a snapshot. Raises ScratchError where no rehearsal can be.

        Files with mistakes that can be seen without a kernel are rehearsed all the same, less the lines that hold
        them: their author learns of all mistakes at once.
        """
        early, self._early = self._early, None
        if early is not None and early[0] == snapshot.digest:
            return early[1]
        readings = self._read(snapshot.files)
        composition = complete(readings, snapshot.findings, self._context)
        if not composition.candidate.rulesets:
            return Invalid(_placed(composition.findings, snapshot))
        outcome = self._rehearse(composition.candidate)
        if isinstance(outcome, RehearsalRefused):
            lines = {file.path: file.data for file in snapshot.files}
            return Invalid(_in_order(_each_mistake_once(composition, _with_lines(outcome.findings, lines))))
        if errors_in(composition.findings):
            return Invalid(composition.findings)
        left_out = lint_preserved(outcome, self._context.preserve)
        warnings = _in_order((*composition.findings, *unsilenced((*left_out, *outcome.warnings), readings)))
        return Valid(outcome.without_others(self._context.preserve), warnings)

    def validate_early(self, snapshot: Snapshot) -> None:
        """Judge a snapshot that may not be the last word, for `validator` to find. Raises ScratchError."""
        self._early = snapshot.digest, self.validate(snapshot)

    def forget(self, context: LintContext) -> None:
        """Let nothing that was reached early count, because what the files name may have changed; lint like this."""
        self._early, self._context = None, context

    def _read(self, files: Iterable[RuleFile]) -> list[Reading]:
        known, self._readings = self._readings, {}
        for file in files:
            data, reading = known.get(file.path, (None, None))
            if reading is None or data != file.data:
                reading = read_rules(file.path, file.data, families_of_name(file.path))
            self._readings[file.path] = file.data, reading
        return [reading for _, reading in self._readings.values()]


def _placed(findings: Iterable[Finding], snapshot: Snapshot) -> tuple[Finding, ...]:
    """What is told of no file is told of the directory."""
    directory = Origin(str(snapshot.directory), 0)
    return tuple(finding if finding.origin else replace(finding, origin=directory) for finding in findings)


def compose_files(files: Iterable[RuleFile], context: LintContext, findings: tuple[Finding, ...] = ()) -> Composition:
    """Read, compose and lint rule files, without a kernel. ``findings`` are those about files that cannot be read."""
    return complete(
        [read_rules(file.path, file.data, families_of_name(file.path)) for file in files], findings, context
    )


def complete(readings: Sequence[Reading], findings: tuple[Finding, ...], context: LintContext) -> Composition:
    """Readings composed and linted, with ``findings`` about what could not be read."""
    composition = compose(readings, whole=not errors_in(findings))
    if findings and not readings and errors_in(findings):
        # The unreadable files say it all; "there is no rule file" would only confuse.
        return Composition(composition.candidate, findings)
    composed = unsilenced(composition.findings, readings)
    warnings = lint(composition.candidate, readings, context)
    return replace(composition, findings=_in_order((*findings, *composed, *warnings)))


def _each_mistake_once(composition: Composition, refused: Sequence[Finding]) -> tuple[Finding, ...]:
    """All findings, less what another one explains: a jump to a chain that may be declared on a line that was refused,
    a kernel that says no without a reason where the reason is known, and warnings of what a refused rule would do."""
    guilty = {finding.origin for finding in refused}
    told = [one for one in composition.findings if one.code not in _OF_RULES_THAT_LOAD or one.origin not in guilty]
    known = {finding.origin for finding in errors_in(composition.findings)}
    return (*told, *(one for one in refused if not _is_explained(one, composition, known)))


def _is_explained(refusal: Finding, composition: Composition, known: AbstractSet[Origin | None]) -> bool:
    if refusal.code == "undeclared-chain":
        return composition.unread.may_declare(jump_target(refusal.line_text))
    return refusal.code == "refused-by-kernel" and refusal.origin in known


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings in order of place; one place and kind is told once, and what holds for many lines of a file too."""
    unique: dict[tuple[object, ...], Finding] = {}
    for finding in findings:
        unique.setdefault((finding.origin, finding.code, finding.message if finding.origin is None else ""), finding)
    return _gathered(sorted(unique.values(), key=lambda finding: finding.origin or Origin("", 0)))


def _gathered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What belongs to others is told once for each file: the rules of a Docker host would bury all else."""
    first: dict[object, Finding] = {}
    more: dict[object, int] = {}
    for finding in findings:
        path = finding.origin.path if finding.origin else ""
        key = (finding.code, path) if finding.code in _TOLD_ONCE_A_FILE else finding
        more[key] = more.get(key, -1) + 1
        first.setdefault(key, finding)
    return tuple(_with_more(finding, more[key]) for key, finding in first.items())


def _with_more(finding: Finding, more: int) -> Finding:
    if not more:
        return finding
    lines = f"{more} more line{'s' * (more > 1)} of this file"
    return replace(finding, message=f"{finding.message}; the same holds for {lines}")


def errors_and_warnings(findings: Iterable[Finding]) -> tuple[int, int]:
    """How many of the findings are errors, and how many are warnings."""
    severities = [finding.severity for finding in findings]
    return severities.count(Severity.ERROR), severities.count(Severity.WARNING)


def _with_lines(findings: Iterable[Finding], files: Mapping[str, bytes]) -> tuple[Finding, ...]:
    """Findings of a rehearsal with the line as its author wrote it."""
    return tuple(
        replace(finding, line_text=_line(files[finding.origin.path], finding.origin.line))
        if finding.origin is not None and finding.origin.path in files
        else finding
        for finding in findings
    )


def _line(data: bytes, number: int) -> str:
    lines = data.split(b"\n")
    return lines[number - 1].decode("utf-8", "replace") if 0 < number <= len(lines) else ""
