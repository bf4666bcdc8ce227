"""Running policy tests for the command line: the tests, the rules and the host that they are run with, and the results.

The rules of other programs are around those of the files, as after a reload, where this user may read them and the
files are those of the daemon. Tests of a draft, or for another host, know only the rules of the files.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import field, replace
from typing import TYPE_CHECKING

import yaml

from fwguardd.enforce.look import look_at
from fwguardd.enforce.proof import loaded_after, not_sent
from fwguardd.enforce.prover import needed_for
from fwguardd.enforce.validate import Invalid
from fwguardd.errors import ReportedError
from fwguardd.kernel.bed import Beds
from fwguardd.kernel.host_network import read_host
from fwguardd.kernel.iptables import LiveKernel
from fwguardd.kernel.namespaces import NamespaceError, NamespacePool
from fwguardd.kernel.privilege import CAP_NET_ADMIN, has_capability
from fwguardd.kernel.set_file_copies import copies_of_files
from fwguardd.packets.assumed_host import interfaces_of, reached_by, with_assumptions
from fwguardd.packets.host import Host, HostError
from fwguardd.packets.host_addresses import check_addresses
from fwguardd.packets.invariants import not_checked
from fwguardd.packets.policy_cases import cases_of
from fwguardd.packets.policy_results import PolicyOutcome, findings_of, results_of
from fwguardd.packets.yaml_tree import NotYamlError, line_at, read_tree
from fwguardd.ruleset.after_plan import after_plan
from fwguardd.ruleset.model import FAMILIES, NO_FINDINGS, Findings
from fwguardd.ruleset.operations import Plan
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fwguardd.ctl.offline_verbs import OfflineInput
    from fwguardd.enforce.validate import Valid, Validation
    from fwguardd.kernel.ipset_copies import Copy
    from fwguardd.kernel.iptables import Backend, Tool
    from fwguardd.kernel.kept_bed import KeptBed
    from fwguardd.packets.bed import Bed
    from fwguardd.packets.policy_cases import Case
    from fwguardd.packets.policy_results import PolicyResult
    from fwguardd.packets.policy_tests import PolicyTest
    from fwguardd.proof.invariant_results import InvariantResult
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]


class HostFileError(ReportedError):
    """The file of ``--host`` cannot be used."""


@dataclass(frozen=True, slots=True)
class TimedResult:
    """A result, the number of packets of its test, and the seconds that these took."""

    result: PolicyResult
    packets: int
    seconds: float


@dataclass(slots=True)
class PolicyRun:
    """The results of a run of policy tests. ``findings`` are those about the tests and those about results;
    ``about_tests`` are the former alone. ``left_out`` says what of the host's network the packets did not meet."""

    results: list[TimedResult] = field(default_factory=list)
    findings: Findings = NO_FINDINGS
    about_tests: Findings = NO_FINDINGS
    seconds: float = 0.0
    tests: int = 0
    left_out: tuple[str, ...] = ()
    invariants: tuple[InvariantResult, ...] = ()

    def count(self, standing: PolicyOutcome) -> int:
        """The number of tests with this result."""
        return [timed.result.standing for timed in self.results].count(standing)

    @property
    def counts(self) -> dict[str, int]:
        """The number of tests with each result."""
        return {standing.value: self.count(standing) for standing in PolicyOutcome}

    @property
    def totals(self) -> str:
        """The counts in a sentence without a full stop."""
        parts = [f"{count} {name}" for name, count in self.counts.items() if count or name != "undecided"]
        if self.without_packets:
            parts.append(f"{self.without_packets} sent no packet on this host")
        tests, packets = counted(self.tests, "test"), counted(self.packets, "packet")
        text = f"{tests}, {packets}: {', '.join(parts)}, in {self.seconds * 1000:.0f} ms"
        if self.invariants:
            text = f"{text}; {self.invariant_totals}"
        return text

    @property
    def invariant_totals(self) -> str:
        """The number of invariants with each result."""
        standings = [result.standing for result in self.invariants]
        names = {PolicyOutcome.PASSED: "proved", PolicyOutcome.FAILED: "failed", PolicyOutcome.UNDECIDED: "undecided"}
        parts = [f"{standings.count(standing)} {name}" for standing, name in names.items() if standing in standings]
        return f"{counted(len(standings), 'invariant')}: {', '.join(parts)}"

    @property
    def without_packets(self) -> int:
        """The number of tests that send nothing on this host, such as those of a family that it does not have."""
        return self.tests - len(self.results)

    @property
    def packets(self) -> int:
        """The number of packets that were sent."""
        return sum(timed.packets for timed in self.results)


def run_policy(
    beds: Beds | KeptBed, rulesets: Rulesets, tests: Sequence[PolicyTest], host: Host, *, undecided_fails: bool
) -> PolicyRun:
    """Send the packets of each test through these rulesets. Raises NamespaceError."""
    run, begun = PolicyRun(tests=len(tests)), time.monotonic()
    cases = cases_of(tests, interfaces_of(host), reached_by(host))
    if cases.packets:
        needed = needed_for(cases.packets, rulesets)
        with beds.prove(needed, with_assumptions(host, cases.assumptions)) as bed:
            run.left_out = bed.left_out
            for case in cases.cases:
                run.results += _timed(bed, case, rulesets, host)
    of_results = findings_of([timed.result for timed in run.results], undecided_fails=undecided_fails)
    run.about_tests, run.findings = cases.findings, Findings((*cases.findings, *of_results))
    run.seconds = time.monotonic() - begun
    return run


def run_all(beds: Beds, rulesets: Rulesets, result: Valid, host: Host, *, undecided_fails: bool) -> PolicyRun:
    """Send the packets of the tests of these files through rulesets; check the invariants. Raises NamespaceError."""
    run = run_policy(beds, rulesets, result.tests, host, undecided_fails=undecided_fails)
    if result.invariants:
        from fwguardd.enforce.invariants import check_invariants  # noqa: PLC0415 - most hosts do without the model.

        checked = check_invariants(
            result.invariants, rulesets, host, beds, result.sets, undecided_fails=undecided_fails
        )
        run.invariants, run.findings = checked.results, Findings((*run.findings, *checked.findings))
        if not checked.results:
            run.about_tests = Findings((*run.about_tests, *checked.findings))
    return run


def _timed(bed: Bed, case: Case, rulesets: Rulesets, host: Host) -> Iterator[TimedResult]:
    """The result of a case; none for one without packets."""
    before = time.monotonic()
    outcomes = bed.send(case.packets)
    took = time.monotonic() - before
    for result in results_of([case], outcomes, rulesets, host):
        yield TimedResult(result, len(case.packets), took)


def with_tests(result: Validation, tool: Tool, source: OfflineInput) -> tuple[Validation, PolicyRun | None]:
    """The result with what the policy tests found. Raises KernelError."""
    if isinstance(result, Invalid) or not (result.tests or result.invariants):
        return result, None
    try:
        tests = run_on_files(result, tool, source)
    except NamespaceError as error:
        fails = source.undecided_fails
        unchecked = not_checked(result.invariants, "no packets could be sent", undecided_fails=fails)
        return with_findings(result, Findings((*not_sent(error, result.tests, fails=fails), *unchecked))), None
    return with_findings(result, tests.findings), tests


def with_findings(result: Valid, findings: Findings) -> Validation:
    """The result with these findings too; an error among them makes the files invalid."""
    found = Findings((*result.findings, *findings))
    if found.errors:
        return Invalid(found)
    return replace(result, findings=found)


def run_on_files(result: Valid, tool: Tool, source: OfflineInput, host_file: Path | None = None) -> PolicyRun:
    """The results of the policy tests of valid files. Raises NamespaceError, KernelError, HostFileError."""
    with beds_of_this_host(tool.backend.value, copies_of_files(result.sets)) as beds:
        draft = source.is_draft or host_file is not None
        rulesets = rules_around(result.rehearsed.rulesets, source, tool.backend, draft=draft)
        host = host_of(host_file)
        return run_all(beds, rulesets, result, host, undecided_fails=source.undecided_fails)


def run_on_kernel(result: Valid, tool: Tool, source: OfflineInput, host_file: Path | None = None) -> PolicyRun:
    """The same under the rules in the kernel."""
    with beds_of_this_host(tool.backend.value) as beds:
        rulesets = rules_in_kernel(result.rehearsed.rulesets, tool.backend)
        host = host_of(host_file)
        # The sets of the kernel count then, not those of files.
        return run_all(beds, rulesets, replace(result, sets=()), host, undecided_fails=source.undecided_fails)


@contextlib.contextmanager
def beds_of_this_host(backend: str, sets: Mapping[str, Copy] | None = None) -> Iterator[Beds]:
    """Beds in namespaces that end with the with block, with these sets before the host's. Raises NamespaceError."""
    pool = NamespacePool(spares=1, for_beds=True)
    try:
        pool.refill()
        yield Beds(backend, pool, sets or {})
    finally:
        pool.close()


def host_of(host_file: Path | None) -> Host:
    """The host of a file, or this one. Raises NamespaceError, HostFileError."""
    if host_file is None:
        try:
            return read_host()
        except OSError as error:
            raise NamespaceError(f"the network of this host cannot be read: {error.strerror or error}") from error
    return _host_in(host_file)


def _host_in(path: Path) -> Host:
    """The host that a file of ``fwguardctl host`` describes. Raises HostFileError."""
    data = b""
    try:
        data = path.read_bytes()
        document = yaml.safe_load(data)
        if not isinstance(document, dict):
            raise HostFileError(f"{path}: this is not a file of fwguardctl host")
        host = Host.of(document)
        check_addresses(host)
    except OSError as error:
        raise HostFileError(f"{path} cannot be read: {error.strerror}") from error
    except HostError as error:
        raise HostFileError(f"{path}:{_line_at(data, error)}: {error}; {_WRITE_IT} {path}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: what looks like a date, and is none.
        place = f"{path}:{_line_of(error)}".removesuffix(":0")
        raise HostFileError(f"{place}: not YAML; {_WRITE_IT} {path}") from error
    return host


_WRITE_IT = "correct it, or write it with: fwguardctl host >"


def _line_at(data: bytes, error: HostError) -> int:
    """The line that an error is about; 1 where that cannot be told."""
    try:
        return line_at(read_tree(data), error.path) or 1
    except NotYamlError:
        return 1


def _line_of(error: Exception) -> int:
    """The line where a document ceases to be YAML; 0 where that is not known."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return error.problem_mark.line + 1
    return 0


def rules_around(wanted: Rulesets, source: OfflineInput, backend: Backend, *, draft: bool) -> Rulesets:
    """What the kernel will hold once these rules of files are loaded. Raises KernelError."""
    if draft or not has_capability(CAP_NET_ADMIN):
        return wanted
    return loaded_after(look_at(LiveKernel(backend), wanted, source.context.preserve), wanted)


def rules_in_kernel(wanted: Rulesets, backend: Backend) -> Rulesets:
    """What the kernel holds now; rules that the files have too get their origins there. Raises KernelError."""
    live: dict[Family, Ruleset] = {}
    for family, saved in LiveKernel(backend).look(FAMILIES).items():
        live[family] = saved.shown
        if family in wanted:
            live[family] = after_plan(saved.shown, Plan(family, ()), wanted[family])
    return live
