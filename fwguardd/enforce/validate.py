"""A rules directory -> what a kernel makes of it, or findings: read, compose, lint, rehearse.

The daemon and `fwguardctl check` both use this module, so what `check` accepts, a reload accepts.
"""

from __future__ import annotations

from dataclasses import replace
from operator import is_
from typing import TYPE_CHECKING, Protocol

from fwguardd.enforce.refused_rules import RefusedRules
from fwguardd.enforce.rule_files import tests_files, without_tests
from fwguardd.enforce.run_beside import RunBeside
from fwguardd.kernel.rehearsal import RehearsalRefused
from fwguardd.packets.tests_of_files import NO_TESTS, PolicyTests
from fwguardd.ruleset.compose import Composition, compose
from fwguardd.ruleset.families import families_of_name
from fwguardd.ruleset.lint import LintContext, LintMemory, lint, unsilenced
from fwguardd.ruleset.model import NO_FINDINGS, Candidate, Finding, Findings, Origin, RuleFile, Severity
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.rule_runs import RuleRuns
from fwguardd.ruleset.rule_view import jump_target
from fwguardd.ruleset.set_directions import directions_for_files
from fwguardd.ruleset.set_names import kernel_sets
from fwguardd.ruleset.statements import lines_by_path
from fwguardd.ruleset.static_errors import static_errors
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.packets.invariants import Invariant
    from fwguardd.packets.policy_tests import PolicyTest
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.set_files import SetFile
    from fwguardd.ruleset.statements import Reading

_ONCE_PER_FILE = frozenset({"preserved-chain", "preserved-rule"})
"""Warnings that a saved dump of a Docker host would otherwise bury all others under."""


_EXAMPLE = b"""\
-P INPUT DROP
:WEB -
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -s 192.0.2.1 -p tcp --dport 80 -m comment --comment "of one host" -j WEB
-A INPUT -s 2001:db8::/32 -p tcp --dport 80 -j WEB
-A WEB -m limit --limit 5/min -j LOG --log-prefix "web: "
-A WEB -j ACCEPT
"""
"""Rules such as most files have."""


class Rehearse(Protocol):
    """A rehearsal. `fwguardd.kernel.rehearsal.Rehearsals.rehearse` is the real one."""

    def __call__(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        """What a kernel makes of the candidate. Raises NamespaceError."""


@dataclass(frozen=True, slots=True)
class Valid:
    """Rule files that a kernel takes. No finding is an error. ``tests`` and ``invariants`` are those of the tests files
    beside them, and ``sets`` the set files that were read for a check."""

    rehearsed: Canonical
    findings: Findings
    tests: tuple[PolicyTest, ...] = ()
    sets: tuple[SetFile, ...] = ()
    invariants: tuple[Invariant, ...] = ()


@dataclass(frozen=True, slots=True)
class Invalid:
    """Rule files that cannot be loaded. At least one finding is an error."""

    findings: Findings


Validation = Valid | Invalid


class Validator:
    """Validates snapshots of a rules directory. It parses a file again only when its bytes have changed, and reuses a
    result that was computed early, while a burst of changes settled."""

    def __init__(self, rehearse: Rehearse, context: LintContext, *, sets_come: bool = False) -> None:
        """``sets_come``: the sets of set files will be loaded before the rules, and need not exist yet."""
        self._rehearse, self._sets_come = rehearse, sets_come
        self._context = context
        self._readings: dict[str, tuple[bytes, Reading]] = {}
        self._tests: tuple[tuple[RuleFile, ...], PolicyTests] = (), NO_TESTS
        self._early: tuple[str, Validation] | None = None
        self._runs, self._lint_memory = RuleRuns(), LintMemory()
        self._composed: _Composed | None = None
        self._linted: _Linted | None = None
        self._is_prepared = False
        self.refused_rules = RefusedRules(rehearse)

    def prepare(self) -> None:
        """Import and compile what a validation needs, before one is asked for: the first one takes 12 ms longer."""
        if not self._is_prepared:
            self._is_prepared = True
            from fwguardd.ruleset.rehearsal_sample import Sample  # noqa: PLC0415 - a start needs no validation.

            Sample(compose_files([RuleFile("example.rules", _EXAMPLE)], self._context).candidate.rulesets)

    def validate(self, snapshot: Snapshot) -> Validation:
        """Read, compose, lint and rehearse a snapshot. Raises NamespaceError where no rehearsal is possible.

        Files with errors are rehearsed too, without the lines that were refused, so that one run reports the errors
        that the parser finds and those that the kernel finds.
        """
        early, self._early = self._early, None
        if early is not None and early[0] == snapshot.digest:
            return early[1]
        readings, tests = self._read(without_tests(snapshot.files)), self._read_tests(snapshot.tests_files)
        composed = self._compose(readings, snapshot).and_findings(tests.findings)
        if not composed.candidate.rulesets:
            composition = self._lint(composed, readings)
            # A finding about no file is about the directory.
            return Invalid(composition.findings.placed_at(Origin(str(snapshot.directory), 0)))
        candidate = self._with_sets(composed.candidate, snapshot)
        with RunBeside(self._rehearse, candidate) as rehearsal:
            composition = self._lint(composed, readings)
        outcome = rehearsal.result()
        if isinstance(outcome, RehearsalRefused):
            refusals = outcome.findings.with_lines(lines_by_path(readings))
            return Invalid(_without_consequences(composition, refusals).once_per_file(_ONCE_PER_FILE).bounded())
        if composition.findings.errors:
            return Invalid(composition.findings.once_per_file(_ONCE_PER_FILE).bounded())
        of_files = directions_for_files(composition.candidate, snapshot.set_files)
        warnings = Findings((*composition.findings, *unsilenced(Findings((*outcome.warnings, *of_files)), readings)))
        warnings = warnings.once_per_file(_ONCE_PER_FILE).bounded()
        return Valid(
            outcome.without_copies(self._context.preserve), warnings, tests.tests, snapshot.set_files, tests.invariants
        )

    def _compose(self, readings: Sequence[Reading], snapshot: Snapshot) -> Composition:
        """What was read, composed; the same object as before where nothing of it is new."""
        sets = snapshot.sets | self._context.lists
        if self._composed is None or not self._composed.is_of(readings, snapshot.findings, sets):
            composition = _compose(readings, snapshot.findings, sets, self._runs)
            self._composed = _Composed(tuple(readings), snapshot.findings, sets, composition)
        return self._composed.composition

    def _lint(self, composition: Composition, readings: Sequence[Reading]) -> Composition:
        """The same with the warnings; they are those of before where nothing of it is new."""
        known, memory = self._linted, self._lint_memory
        if known is None or not known.is_of(composition.candidate, self._context, memory):
            warnings = _warnings(composition.candidate, readings, self._context, memory)
            self._linted = known = _Linted(composition.candidate, self._context, warnings)
        return composition.and_findings(known.warnings)

    def _with_sets(self, candidate: Candidate, snapshot: Snapshot) -> Candidate:
        if self._sets_come:
            return replace(candidate, sets=kernel_sets(snapshot.sets | self._context.lists))
        return candidate

    def keep_early(self, snapshot: Snapshot, result: Validation) -> None:
        """Keep the result of a snapshot that was validated before a burst of changes has settled."""
        self._early = snapshot.digest, result

    def unsilenced(self, findings: Findings) -> Findings:
        """Findings about the files that were validated last, without the silenced ones and with the lines."""
        readings = [reading for _, reading in self._readings.values()]
        return unsilenced(findings, readings).once_per_file(_ONCE_PER_FILE).bounded()

    def forget(self, context: LintContext) -> None:
        """Drop the early result, because what the files name may have changed; lint with this context from now on."""
        self._early, self._context = None, context
        self._tests = (), NO_TESTS

    def _read(self, files: Iterable[RuleFile]) -> list[Reading]:
        known, self._readings = self._readings, {}
        for file in files:
            data, reading = known.get(file.path, (None, None))
            if reading is None or data != file.data:
                data, reading = file.data, _read_file(file)
            self._readings[file.path] = data, reading
        return [reading for _, reading in self._readings.values()]

    def _read_tests(self, files: tuple[RuleFile, ...]) -> PolicyTests:
        """The policy tests of these files, read again only when their bytes have changed."""
        if self._tests[0] != files:
            self._tests = files, _policy_tests(files)
        return self._tests[1]


def _policy_tests(files: tuple[RuleFile, ...]) -> PolicyTests:
    """The policy tests of these files. What reads them is imported for the first: most hosts have none."""
    if not files:
        return NO_TESTS
    from fwguardd.kernel.accounts import ACCOUNTS  # noqa: PLC0415
    from fwguardd.packets.tests_file import read_policy_tests  # noqa: PLC0415

    return read_policy_tests(files, ACCOUNTS)


def compose_files(
    files: Iterable[RuleFile],
    context: LintContext,
    findings: Findings = NO_FINDINGS,
    sets: Collection[str] = (),
    *,
    look_for_errors: bool = False,
) -> Composition:
    """Read, compose and lint rule files, without a kernel. ``findings`` are those about files that cannot be read, and
    ``sets`` the names of the set files. ``look_for_errors`` finds what iptables would surely refuse."""
    files = tuple(files)
    readings = [_read_file(file) for file in without_tests(files)]
    tests = _policy_tests(tests_files(files))
    composition = _compose(readings, findings, {*sets, *context.lists})
    warnings = _warnings(composition.candidate, readings, context)
    composition = composition.and_findings(warnings).and_findings(tests.findings)
    if look_for_errors:
        refusals = static_errors(composition.candidate).with_lines(lines_by_path(readings))
        composition = replace(composition, findings=_without_consequences(composition, refusals))
    return replace(composition, findings=composition.findings.once_per_file(_ONCE_PER_FILE).bounded())


def unsilenced_in(files: Iterable[RuleFile], findings: Iterable[Finding]) -> Findings:
    """Findings about rule files, without those that the files silence, and with the lines as written."""
    return unsilenced(findings, list(map(_read_file, files)))


def _read_file(file: RuleFile) -> Reading:
    return read_rules(file.path, file.data, families_of_name(file.path))


@dataclass(frozen=True, slots=True)
class _Composed:
    """What was composed last, and of what."""

    readings: tuple[Reading, ...]
    unreadable: Findings
    sets: frozenset[str]
    composition: Composition

    def is_of(self, readings: Sequence[Reading], unreadable: Findings, sets: frozenset[str]) -> bool:
        """Whether this is made of the same: a file that has not changed is the same reading."""
        same_files = len(readings) == len(self.readings) and all(map(is_, readings, self.readings))
        return same_files and (unreadable, sets) == (self.unreadable, self.sets)


@dataclass(frozen=True, slots=True)
class _Linted:
    """What was linted last, and the warnings."""

    candidate: Candidate
    context: LintContext
    warnings: Findings

    def is_of(self, candidate: Candidate, context: LintContext, memory: LintMemory) -> bool:
        """Whether the warnings hold for this candidate: it is the same object, so it was composed of the same files,
        and no rule has a date to which the time is compared."""
        return candidate is self.candidate and not memory.has_dates and context.differs_in_time_only(self.context)


def _compose(
    readings: Sequence[Reading], unreadable: Findings, sets: Collection[str], runs: RuleRuns | None = None
) -> Composition:
    """Compose what was read. ``unreadable`` are the findings about files that could not be read."""
    composition = compose(readings, whole=not unreadable.errors, sets=sets, runs=runs)
    if not readings and unreadable.errors:
        # That there is no rule file follows from the errors.
        return replace(composition, findings=unreadable)
    composed = unsilenced(composition.findings, readings)
    return replace(composition, findings=Findings((*unreadable, *composed)))


def _warnings(
    candidate: Candidate, readings: Sequence[Reading], context: LintContext, memory: LintMemory | None = None
) -> Findings:
    """The warnings about what was read; nothing is said about a directory that cannot be read."""
    if not readings:
        return NO_FINDINGS
    return lint(candidate, readings, context, memory)


def _without_consequences(composition: Composition, refusals: Findings) -> Findings:
    """The findings of composing and of the rehearsal, less those that follow from another error. A line with an error
    has no warnings about what its rule does once it is loaded."""
    known = _origins(composition.findings.errors)
    others = [one for one in refusals if not _follows_from_an_error(one, composition, known)]
    wrong = known | _origins(Findings(others))
    composed = [one for one in composition.findings if one.severity is Severity.ERROR or one.origin not in wrong]
    return Findings((*composed, *others))


def _origins(findings: Findings) -> frozenset[Origin | None]:
    return frozenset(finding.origin for finding in findings)


def _follows_from_an_error(refusal: Finding, composition: Composition, known: frozenset[Origin | None]) -> bool:
    """Whether a jump goes to a chain that a refused line may declare, or the rule already has an error."""
    if refusal.code == "undeclared-chain":
        return composition.unread.may_declare(jump_target(refusal.line_text))
    return refusal.origin is not None and refusal.origin in known
