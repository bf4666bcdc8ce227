"""Steps 1 to 5 of the road: a rules directory -> what a kernel makes of it, or findings. The daemon and
`fwguardctl check` walk this same road, so that a check never promises what a reload then refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from fwguardd.kernel.rehearsal import Refused
from fwguardd.ruleset.compose import Composition, compose
from fwguardd.ruleset.model import Candidate, Finding, Rehearsed, Severity, errors_in
from fwguardd.ruleset.text import families_of_name, read_rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.enforce.rule_files import RuleFile, Snapshot
    from fwguardd.ruleset.statements import Reading


class Rehearse(Protocol):
    """A rehearsal. `fwguardd.kernel.rehearsal.Rehearsals.rehearse` is the real one."""

    def __call__(self, candidate: Candidate, /) -> Rehearsed | Refused:
        """What a kernel makes of the candidate. Raises ScratchError."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Rule files that a kernel takes, and the warnings about them."""

    rehearsed: Rehearsed
    warnings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rule files that cannot be put in force. At least one finding is an error."""

    findings: tuple[Finding, ...]


def judge(snapshot: Snapshot, rehearse: Rehearse) -> Accepted | Rejected:
    """Read, compose and rehearse the files of a snapshot. Raises ScratchError where no rehearsal can take place."""
    composition = compose_files(snapshot.files, snapshot.findings)
    if errors_in(composition.findings):
        return Rejected(composition.findings)
    outcome = rehearse(composition.candidate)
    if isinstance(outcome, Refused):
        lines = {file.path: file.data for file in snapshot.files}
        return Rejected((*_with_lines(outcome.findings, lines), *composition.findings))
    return Accepted(outcome, composition.findings)


def compose_files(files: Iterable[RuleFile], findings: tuple[Finding, ...] = ()) -> Composition:
    """Read and compose rule files, without a kernel. ``findings`` are those about files that could not be read."""
    readings: list[Reading] = [read_rules(file.path, file.data, families_of_name(file.path)) for file in files]
    composition = compose(readings)
    if findings and not readings and errors_in(findings):
        # The unreadable files say it all; "there is no rule file" would only confuse.
        return Composition(composition.candidate, findings)
    return Composition(composition.candidate, (*findings, *composition.findings))


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
