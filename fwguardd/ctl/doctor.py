"""fwguardctl doctor: finds what on this host interferes with fwguardd, and lists what could not be checked.

It does not need the daemon. Nothing is changed.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.control.client import ControlNotPermittedError, DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.ctl import diagnose, diagnose_host
from fwguardd.ctl.answers import escaped
from fwguardd.ctl.offline_verbs import chosen_settings, forwarding_findings
from fwguardd.ctl.reach_diagnosis import diagnose_reach
from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.ctl.verb_options import add_rules, describe
from fwguardd.enforce.reports import read_boot_report
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.set_reading import read_sets, set_files_in
from fwguardd.enforce.validate import compose_files
from fwguardd.kernel import host
from fwguardd.kernel.generations import GenerationNotices, GenerationNoticesError
from fwguardd.kernel.iptables import Backend, KernelError, LiveKernel, ToolMissingError, UnknownContentError, find_tool
from fwguardd.kernel.kmsg import KernelLog, KernelLogError, Start
from fwguardd.kernel.other_tables import other_tables
from fwguardd.kernel.privilege import CAP_NET_ADMIN, has_capability, kernel_release
from fwguardd.kernel.process_events import ProcessEvents, ProcessEventsUnavailableError
from fwguardd.ruleset.model import FAMILIES, Finding, Severity
from fwguardd.ruleset.preserve import Preserve
from fwguardd.ruleset.references import named_sets
from fwguardd.ruleset.set_names import kernel_sets
from fwguardd.settings import Foreign
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.save_format import Saved
    from fwguardd.settings import Settings

DONE, ANSWER_IS_NO = 0, 1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Problems, known programs with rules on this host, facts that need no action, and what could not be checked."""

    findings: tuple[Finding, ...] = ()
    programs: tuple[diagnose.FoundProgram, ...] = ()
    notes: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def __add__(self, other: Diagnosis) -> Diagnosis:
        return Diagnosis(
            self.findings + other.findings,
            self.programs + other.programs,
            self.notes + other.notes,
            self.unchecked + other.unchecked,
        )


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    description = (
        "Report other firewalls, missing programs and settings of this host that interfere with fwguardd. Without root "
        "some checks are skipped. Exit code: 0 no problems; 1 problems."
    )
    examples = (
        ("fwguardctl doctor", "before the first start, and when something is wrong"),
        ("fwguardctl doctor --json", "the same for programs"),
    )
    describe(parser, description, examples)
    add_rules(parser)


def run(options: argparse.Namespace) -> int:
    """Examine this host with the settings that the command line names; the exit code. Raises SettingsError."""
    settings = chosen_settings(options)
    diagnosis = examine(replace(settings, rules_dir=options.rules_dir or settings.rules_dir))
    if has_capability(CAP_NET_ADMIN):
        reach = diagnose_reach(options)
        diagnosis += Diagnosis(reach.findings, notes=reach.notes, unchecked=reach.unchecked)
    return _show(diagnosis, as_document=options.json)


def _show(diagnosis: Diagnosis, *, as_document: bool) -> int:
    """Print the diagnosis. Exit code 1: there are problems."""
    if as_document:
        print(json.dumps(_document(diagnosis)))
    else:
        _print(diagnosis, Painter())
    if diagnosis.findings:
        return ANSWER_IS_NO
    return DONE


def examine(settings: Settings) -> Diagnosis:
    """Check everything. Nothing is changed, and nothing is raised."""
    preserve = Preserve.from_patterns(settings.preserve)
    tools, tool = _examine_tools(settings.backend)
    diagnosis = _examine_state(settings) + tools + _examine_host(preserve) + _examine_rules_directory(settings)
    diagnosis += _examine_state_directory(settings)
    if not has_capability(CAP_NET_ADMIN):
        skipped = "the rules in the kernel, the kernel log, and /etc/wireguard: run it as root to check them"
        return diagnosis + Diagnosis(unchecked=(skipped,))
    if tool is not None:
        diagnosis += _examine_live_rules(tool, preserve, settings)
        diagnosis += _examine_other_tables(tool)
        diagnosis += _examine_notices(tool)
    return diagnosis + _examine_kernel_log()


def _examine_state(settings: Settings) -> Diagnosis:
    """The state that the daemon has measured; without a daemon, what the boot loader has loaded."""
    try:
        status = ask(settings.runtime_dir / "control.sock", "status")
    except (DaemonUnreachableError, ControlNotPermittedError, RequestRefusedError) as error:
        return _state_without_daemon(settings, error)
    if status.get("state", "in-force") != "in-force":
        return _only(Finding("not-in-force", escaped(status["sentence"]), hint="see fwguardctl status"))
    if status.get("files") in ("refused", "waiting"):
        message = f"the rule files are not in force, files {status['files']}: {escaped(status.get('files_why', ''))}"
        return _only(Finding("files-not-applied", message, hint="see fwguardctl status"))
    return Diagnosis()


def _state_without_daemon(settings: Settings, error: Exception) -> Diagnosis:
    report = read_boot_report(settings.runtime_dir / "boot")
    if report is not None and report.problem:
        return _only(Finding("not-in-force", escaped(report.problem), hint="start fwguardd: systemctl start fwguardd"))
    return Diagnosis(notes=(f"whether the rule files are in force is not known: {escaped(error)}",))


def _examine_tools(chosen: Backend | None) -> tuple[Diagnosis, Tool | None]:
    try:
        plain = tool = find_tool(None)
        if chosen not in (None, plain.backend):
            tool = find_tool(chosen)
    except ToolMissingError as error:
        return _only(Finding("missing-program", escaped(error), hint="apt install iptables")), None
    backend = tool.backend.value
    findings = diagnose.check_tools(
        host.missing_programs(backend),
        backend,
        plain.backend.value,
        chosen=chosen is not None,
        legacy_kernel=backend == "nft" or host.has_legacy(kernel_release()),
    )
    ipv6 = host.ipv6_switched_off()
    notes = diagnose.notes(ipv6, backend)
    return Diagnosis((*findings, *diagnose.check_ipv6(ipv6, backend)), notes=tuple(notes)), tool


def _examine_host(preserve: Preserve) -> Diagnosis:
    return Diagnosis(
        (
            *diagnose.check_services(host.enabled_services(), flushes=host.flushes_at_start()),
            *diagnose.check_post_up_rules(host.post_up_rules(), preserve),
            *diagnose.check_conntrack(host.conntrack()),
        )
    )


def _examine_live_rules(tool: Tool, preserve: Preserve, settings: Settings) -> Diagnosis:
    try:
        saved = LiveKernel(tool.backend).look(FAMILIES)
    except UnknownContentError as error:
        message = f"fwguardd loads nothing while the rules in the kernel cannot be read: {escaped(error)}"
        return _only(Finding("unknown-content", message, hint="see them with: nft list ruleset"))
    except KernelError as error:
        return Diagnosis(unchecked=(f"the rules in the kernel: {escaped(error)}",))
    return _diagnose_saved(saved, preserve, settings)


def _diagnose_saved(saved: Mapping[Family, Saved], preserve: Preserve, settings: Settings) -> Diagnosis:
    live = {family: one.shown for family, one in saved.items()}
    found = diagnose.found_programs(live, preserve)
    composition = compose_files(take_snapshot(settings.rules_dir).files, settings.lint_context())
    hidden = {family: one.hidden for family, one in saved.items()}
    findings, notes = diagnose.check_hidden(hidden, composition.candidate.rulesets)
    unknown: tuple[Finding, ...] = ()
    if settings.foreign is Foreign.KEEP_SERVICES and not _has_revisions(settings):
        unknown = tuple(diagnose.check_unknown_rules(live, composition.candidate.rulesets, preserve))
    return Diagnosis((*findings, *unknown, *diagnose.check_programs(found)), found, notes)


def _has_revisions(settings: Settings) -> bool:
    return any((settings.state_dir / "revisions").glob("*.json"))


def _examine_other_tables(tool: Tool) -> Diagnosis:
    try:
        return Diagnosis(tuple(diagnose.check_other_tables(other_tables(tool.backend))))
    except OSError as error:
        return Diagnosis(unchecked=(f"rules outside of fwguardd's tables: {escaped(error.strerror)}",))


def _examine_notices(tool: Tool) -> Diagnosis:
    if tool.backend is Backend.LEGACY:
        note = (
            "legacy iptables sends no notices of changes: fwguardd finds drift when it compares, every drift_interval"
        )
        return Diagnosis(notes=(note,))
    try:
        GenerationNotices().close()
    except (GenerationNoticesError, OSError) as error:
        hint = "fwguardd finds drift only when it compares; a shorter drift_interval: finds it sooner"
        return _only(Finding("no-notices", escaped(error), severity=Severity.WARNING, hint=hint))
    return Diagnosis(notes=(_attribution_note(),))


def _attribution_note() -> str:
    """How the daemon would find out which process changed the rules."""
    try:
        ProcessEvents().close()
    except (ProcessEventsUnavailableError, OSError) as error:
        return (
            "the author of a change is read from /proc when the kernel reports the change, which is often too late for"
            f" a short-lived program; process events cannot be used: {escaped(error)}"
        )
    return "the author of a change is found by process events of the kernel and in /proc"


def _examine_rules_directory(settings: Settings) -> Diagnosis:
    """Whether the rules directory exists and can be trusted, and what its rules need of the host. The content of the
    files is for the verb check."""
    snapshot, context = take_snapshot(settings.rules_dir), settings.lint_context()
    candidate = compose_files(snapshot.files, context, sets=snapshot.sets).candidate
    sets = diagnose_host.check_sets(named_sets(candidate), kernel_sets(snapshot.sets | context.lists))
    _, wrong = read_sets(set_files_in(settings.rules_dir) or (), draft=False)
    return Diagnosis((*snapshot.findings, *wrong, *forwarding_findings(candidate.rulesets), *sets))


def _examine_state_directory(settings: Settings) -> Diagnosis:
    newest = host.newest_change(settings.state_dir / "revisions")
    return Diagnosis(
        (
            *diagnose_host.check_disk(host.free_bytes(settings.state_dir), str(settings.state_dir)),
            *diagnose_host.check_clock(time.time(), newest),
        )
    )


def _examine_kernel_log() -> Diagnosis:
    try:
        KernelLog(start=Start.END).close()
    except (KernelLogError, OSError) as error:
        message = f"the kernel log cannot be read, so denials are not reported: {escaped(error)}"
        hint = "run fwguardd as root on the host itself, or in a container with CAP_SYSLOG and /dev/kmsg"
        return _only(Finding("kernel-log-closed", message, severity=Severity.WARNING, hint=hint))
    return Diagnosis()


def _only(finding: Finding) -> Diagnosis:
    return Diagnosis((finding,))


def _document(diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "ok": not diagnosis.findings,
        "findings": as_json(diagnosis.findings),
        "citizens": [_program_document(found) for found in diagnosis.programs],
        "notes": list(diagnosis.notes),
        "unseen": list(diagnosis.unchecked),
    }


def _program_document(found: diagnose.FoundProgram) -> dict[str, object]:
    return {
        "name": found.program.name,
        "chains": found.chains,
        "places": list(found.places),
        "preserved": found.kept,
        "source": found.program.source,
    }


def _print(diagnosis: Diagnosis, paint: Painter) -> None:
    for finding in diagnosis.findings:
        print(paint.finding(finding))
    for title, lines in (
        ("known program", diagnosis.programs),
        ("note", diagnosis.notes),
        ("not checked", diagnosis.unchecked),
    ):
        for line in lines:
            print(paint.fit(f"{paint.bold(title)}: {escaped(line)}"))
    print(_summary(diagnosis, paint))


def _summary(diagnosis: Diagnosis, paint: Painter) -> str:
    if diagnosis.findings:
        return f"{counted(len(diagnosis.findings), 'problem')} found."
    if diagnosis.unchecked:
        return f"{paint.good('ok')}: no problems found, except in what was not checked"
    return f"{paint.good('ok')}: no problems found"
