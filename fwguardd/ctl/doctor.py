"""fwguardctl doctor: what on this host will bite, without the daemon, and what could not be seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.ctl import diagnose
from fwguardd.ctl.answers import escaped
from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import compose_files
from fwguardd.kernel import host
from fwguardd.kernel.generations import GenerationNotices, GenerationNoticesError
from fwguardd.kernel.iptables import Backend, KernelError, LiveKernel, ToolMissingError, UnknownContentError, find_tool
from fwguardd.kernel.kmsg import KernelLog, KernelLogError, Start
from fwguardd.kernel.other_tables import other_tables
from fwguardd.kernel.privilege import CAP_NET_ADMIN, has_capability, kernel_release
from fwguardd.ruleset.model import FAMILIES, Finding, Severity
from fwguardd.ruleset.preserve import Preserve

if TYPE_CHECKING:
    from fwguardd.kernel.iptables import Tool
    from fwguardd.settings import Settings

DONE, ANSWER_IS_NO = 0, 1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What bites, who else lives here, what is good to know, and what could not be seen."""

    findings: tuple[Finding, ...] = ()
    residents: tuple[diagnose.FoundProgram, ...] = ()
    notes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    def __add__(self, other: Diagnosis) -> Diagnosis:
        return Diagnosis(
            self.findings + other.findings,
            self.residents + other.residents,
            self.notes + other.notes,
            self.unseen + other.unseen,
        )


def doctor(settings: Settings, *, as_document: bool) -> int:
    """Print what bites. Exit code 1: something does."""
    diagnosis = examine(settings)
    if as_document:
        print(json.dumps(_document(diagnosis)))
    else:
        _print(diagnosis, Painter())
    return ANSWER_IS_NO if diagnosis.findings else DONE


def examine(settings: Settings) -> Diagnosis:
    """Look at everything. Nothing is changed, and nothing is raised."""
    preserve = Preserve.from_patterns(settings.preserve)
    tools, tool = _look_at_tools(settings.backend)
    diagnosis = tools + _look_at_host(preserve) + _look_at_files(settings)
    if not has_capability(CAP_NET_ADMIN):
        return diagnosis + Diagnosis(unseen=("the kernel's rules, its log, and /etc/wireguard: that takes root",))
    if tool is not None:
        diagnosis += _look_at_live_rules(tool, preserve, settings) + _look_elsewhere(tool) + _look_at_notices(tool)
    return diagnosis + _look_at_kernel_log()


def _look_at_tools(chosen: Backend | None) -> tuple[Diagnosis, Tool | None]:
    plain = tool = None
    try:
        plain = find_tool(None)
        tool = plain if chosen in (None, plain.backend) else find_tool(chosen)
    except ToolMissingError as error:
        return _only(Finding("missing-program", escaped(error), hint="apt install iptables")), tool
    backend = tool.backend.value
    findings = diagnose.about_tools(
        host.missing_programs(backend),
        backend,
        plain.backend.value,
        chosen=chosen is not None,
        legacy_kernel=backend == "nft" or host.has_legacy(kernel_release()),
    )
    ipv6 = host.ipv6_switched_off()
    notes = diagnose.notes(ipv6, backend, tool.version)
    return Diagnosis((*findings, *diagnose.about_ipv6(ipv6, backend)), notes=tuple(notes)), tool


def _look_at_host(preserve: Preserve) -> Diagnosis:
    return Diagnosis(
        (
            *diagnose.about_services(host.enabled_services(), flushes=host.flushes_at_start()),
            *diagnose.about_post_ups(host.post_up_rules(), preserve),
            *diagnose.about_conntrack(host.conntrack()),
        )
    )


def _look_at_live_rules(tool: Tool, preserve: Preserve, settings: Settings) -> Diagnosis:
    try:
        saved = LiveKernel(tool.backend).look(FAMILIES)
    except UnknownContentError as error:
        message = f"fwguardd loads nothing while the kernel's rules cannot be read: {escaped(error)}"
        return _only(Finding("unknown-content", message, hint="see them with: nft list ruleset"))
    except KernelError as error:
        return Diagnosis(unseen=(f"the kernel's rules: {escaped(error)}",))
    found = diagnose.found_programs({family: one.shown for family, one in saved.items()}, preserve)
    composition = compose_files(take_snapshot(settings.rules_dir).files, settings.lint_context())
    hidden = {family: one.hidden for family, one in saved.items()}
    findings, notes = diagnose.about_hidden(hidden, composition.candidate.rulesets)
    return Diagnosis((*findings, *diagnose.about_citizens(found)), found, notes)


def _look_elsewhere(tool: Tool) -> Diagnosis:
    try:
        return Diagnosis(tuple(diagnose.about_elsewhere(other_tables(tool.backend))))
    except OSError as error:
        return Diagnosis(unseen=(f"rules outside of fwguardd's tables: {escaped(error.strerror)}",))


def _look_at_notices(tool: Tool) -> Diagnosis:
    if tool.backend is Backend.LEGACY:
        return Diagnosis(notes=("legacy iptables tells nobody of changes: drift is found by the timer",))
    try:
        GenerationNotices().close()
    except (GenerationNoticesError, OSError) as error:
        hint = "fwguardd finds drift by its timer only; a shorter drift_interval: finds it sooner"
        return _only(Finding("no-notices", escaped(error), severity=Severity.WARNING, hint=hint))
    return Diagnosis()


def _look_at_files(settings: Settings) -> Diagnosis:
    """Whether the rules directory is there and can be trusted; what is in the files is for check."""
    return Diagnosis(take_snapshot(settings.rules_dir).findings)


def _look_at_kernel_log() -> Diagnosis:
    try:
        KernelLog(start=Start.END).close()
    except (KernelLogError, OSError) as error:
        message = f"the kernel log cannot be read, so that no denial becomes an event: {escaped(error)}"
        hint = "run fwguardd as root on the host itself, or in a container with CAP_SYSLOG and /dev/kmsg"
        return _only(Finding("kernel-log-closed", message, severity=Severity.WARNING, hint=hint))
    return Diagnosis()


def _only(finding: Finding) -> Diagnosis:
    return Diagnosis((finding,))


def _document(diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "ok": not diagnosis.findings,
        "findings": as_json(diagnosis.findings),
        "citizens": [
            {
                "name": resident.citizen.name,
                "chains": resident.chains,
                "places": list(resident.places),
                "preserved": resident.kept,
                "source": resident.citizen.source,
            }
            for resident in diagnosis.residents
        ],
        "notes": list(diagnosis.notes),
        "unseen": list(diagnosis.unseen),
    }


def _print(diagnosis: Diagnosis, paint: Painter) -> None:
    for finding in diagnosis.findings:
        print(paint.finding(finding))
    for title, lines in (
        ("here too", [str(resident) for resident in diagnosis.residents]),
        ("good to know", diagnosis.notes),
        ("not seen", diagnosis.unseen),
    ):
        for line in lines:
            print(f"{paint.bold(title)}: {escaped(line)}")
    if not diagnosis.findings:
        rest = ", as far as could be seen" if diagnosis.unseen else ""
        print(f"{paint.good('ok')}: nothing on this host will bite{rest}")
    else:
        count = len(diagnosis.findings)
        print("1 thing on this host will bite." if count == 1 else f"{count} things on this host will bite.")
