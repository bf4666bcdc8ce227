"""Rule files judged as a reload judges them: the rehearsal, the policy tests, and the lockout guard.

The guard needs the rules in force, which only root may read, and a bed. Where it was not run, the result says so: what
a rehearsal accepts may still be refused by a reload.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.offline_verbs import closed_by_reading, validated_snapshot
from fwguardd.ctl.policy_run import beds_of_this_host, with_findings, with_tests
from fwguardd.ctl.reload_request import own_connection
from fwguardd.enforce.look import look_at
from fwguardd.enforce.proof import guard_alone, loaded_after
from fwguardd.enforce.prover import NOT_FORCED, ProofRequest, Prover
from fwguardd.enforce.validate import Invalid
from fwguardd.kernel.host_network import read_host
from fwguardd.kernel.iptables import LiveKernel
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.kernel.privilege import CAP_NET_ADMIN, has_capability
from fwguardd.kernel.set_file_copies import copies_of_files
from fwguardd.ruleset.model import NO_FINDINGS, Findings
from fwguardd.ruleset.ssh_sessions import session_of
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from fwguardd.ctl.offline_verbs import OfflineInput
    from fwguardd.ctl.policy_run import PolicyRun
    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.enforce.validate import Valid, Validation
    from fwguardd.kernel.iptables import Tool

REPEAT = "repeat the command with --force --confirm 60s"
"""How the guard is overridden by a command that changes files."""


@dataclass(frozen=True, slots=True)
class GuardRun:
    """What the lockout guard found. ``tried`` are the connections that it tried; ``not_run`` is why it was not run, ""
    if it was; ``is_off`` says that the settings turn it off."""

    findings: Findings = NO_FINDINGS
    tried: int = 0
    not_run: str = ""
    is_off: bool = False

    @property
    def has_run(self) -> bool:
        """Whether packets were sent, or none were needed."""
        return not self.not_run and not self.is_off

    @property
    def sentence(self) -> str:
        """What it did, as a line without a full stop; "" where the settings turn it off."""
        if self.is_off:
            return ""
        if self.not_run:
            return f"lockout guard: not run, {self.not_run}"
        if not self.tried:
            return "lockout guard: no ssh session from another host, and nobody in lockout_peers"
        lost = "none is lost"
        if self.findings:
            lost = "see closes-ssh"
        return f"lockout guard: {counted(self.tried, 'ssh connection')} tried, {lost}"

    @property
    def document(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {"run": self.has_run, "connections": self.tried, "why_not": self.not_run or None, "off": self.is_off}


@dataclass(frozen=True, slots=True)
class Judged:
    """The result of all steps, the iptables that the files were rehearsed with, and what tests and guard have done."""

    result: Validation
    tool: Tool
    tests: PolicyRun | None
    guard: GuardRun


def judged_snapshot(snapshot: Snapshot, source: OfflineInput, *, force: bool) -> Judged:
    """Files that a command is about to apply, judged as a reload judges them; ``force`` overrides the lockout guard.
    Raises NamespaceError, ToolMissingError, KernelError."""
    result, tool = validated_snapshot(snapshot, source)
    return judged(result, tool, source, ProofRequest(force, override=REPEAT))


def judged(result: Validation, tool: Tool, source: OfflineInput, request: ProofRequest = NOT_FORCED) -> Judged:
    """Rehearsed files, with their policy tests and the lockout guard, which guards the session that this command is run
    in above all. Raises KernelError."""
    request = replace(request, session=session_of(own_connection()))
    result, tests = with_tests(result, tool, source)
    if isinstance(result, Invalid):
        return Judged(result, tool, tests, GuardRun(not_run="because of the errors"))
    guard = _guard(result, tool, source, request)
    return Judged(with_findings(result, guard.findings), tool, tests, guard)


def _guard(result: Valid, tool: Tool, source: OfflineInput, request: ProofRequest) -> GuardRun:
    """What the lockout guard finds about files that are valid so far. Raises KernelError."""
    if source.watched is None:
        return GuardRun(is_off=True)
    if not _is_whole_directory(source):
        return GuardRun(not_run="since these are not the rule files of the daemon on this host")
    if not has_capability(CAP_NET_ADMIN):
        return GuardRun(not_run="since only root may read the rules in force; run the command as root")
    wanted = result.rehearsed.rulesets
    look = look_at(LiveKernel(tool.backend), wanted, source.context.preserve)
    try:
        with beds_of_this_host(tool.backend.value, copies_of_files(result.sets)) as beds:
            prover = Prover(beds, read_host, watched=source.watched)
            proof = guard_alone(prover, loaded_after(look, wanted), look.live, request)
    except (NamespaceError, OSError) as error:
        return GuardRun(Findings(closed_by_reading(look, wanted)), not_run=f"no packets could be sent: {error}")
    return GuardRun(proof.findings, proof.tried)


def _is_whole_directory(source: OfflineInput) -> bool:
    """Whether the files are all rule files of the daemon."""
    own = os.path.realpath(source.rules_dir)
    return [os.path.realpath(path) for path in source.paths] == [own]
