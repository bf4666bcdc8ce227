"""The verb diff: what a reload would change in the kernel. `fwguardd.ctl.revision_diff` compares revisions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.control.client import ask
from fwguardd.ctl import revision_diff
from fwguardd.ctl.change_impact import impact_of_files, print_impact
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.judged_files import Judged, judged
from fwguardd.ctl.offline_verbs import (
    ANSWER_IS_NO,
    DONE,
    OfflineInput,
    diff_document,
    input_of,
    owned_in,
    preview,
    print_findings,
    validated,
    with_released,
)
from fwguardd.ctl.ruleset_sources import change_to
from fwguardd.ctl.terminal import Painter
from fwguardd.ctl.verb_options import add_rules, add_socket, describe
from fwguardd.enforce.validate import Invalid, Valid
from fwguardd.errors import ReportedError
from fwguardd.kernel.iptables import IptablesNotPermittedError
from fwguardd.kernel.privilege import CAP_NET_ADMIN, has_capability

if TYPE_CHECKING:
    import argparse

    from fwguardd.enforce.validate import Validation
    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.canonical import Owned


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help, the options and the operands."""
    description = (
        "Show what a reload would change in the kernel, chain by chain, and its impact on connections, listening "
        "sockets and recent denials. This needs root. With one revision, show how the one in force differs from it; "
        'with two, how the second differs from the first. In place of the second, "files" is what the rule files make. '
        "With --packets, show which packets are treated otherwise, of all that there can be: proved with z3."
    )
    examples = (
        ("fwguardctl diff", "what a reload would change"),
        ("fwguardctl diff 41", "from revision 41 to the one in force"),
        ("fwguardctl diff 41 files", "from revision 41 to the rule files"),
        ("fwguardctl diff --packets", "which packets a reload would treat otherwise"),
    )
    describe(parser, description, examples)
    add_rules(parser)
    add_socket(parser)
    parser.add_argument("--packets", action="store_true", help="show which packets are treated otherwise")
    parser.add_argument(
        "revisions", nargs="*", type=revision_diff.operand, metavar="REV", help='a revision, or "files"'
    )


def run(options: argparse.Namespace) -> int:
    """Compare what the command line names; the exit code. Raises ReportedError."""
    if options.revisions:
        return revision_diff.run(options)
    return diff(replace(input_of(options), owned=_owned(options)), with_packets=options.packets)


def _owned(options: argparse.Namespace) -> Owned:
    """The tables that a reload empties unless files name them; none where no daemon says it."""
    try:
        return owned_in(ask(socket_path_of(options), "status"))
    except ReportedError:
        return frozenset()


def diff(source: OfflineInput, *, with_packets: bool = False) -> int:
    """Print what a reload would change. Exit code 1: the files have errors, so a reload would be refused.

    Raises IptablesNotPermittedError, KernelError, NamespaceError.
    """
    if not has_capability(CAP_NET_ADMIN):
        # iptables-legacy-save would print an empty ruleset without an error.
        message = "diff compares the files with the rules in the kernel, and only root may read these"
        raise IptablesNotPermittedError(f"{message}; run it as root; to check the files alone, run: fwguardctl check")
    result, tool = validated(source)
    if with_packets:
        return _diff_of_packets(result, tool, source)
    judgement = judged(result, tool, source)
    result, paint = judgement.result, Painter()
    if source.json:
        return _print_diff_document(result, judgement, source)
    if isinstance(result, Invalid):
        print_findings(result, tool, paint)
        return ANSWER_IS_NO
    changes = preview(result, tool, source, guarded=judgement.guard.has_run)
    changes.show(paint)
    if changes.hunks:
        print_impact(result, tool, source)
    return DONE


def _diff_of_packets(result: Validation, tool: Tool, source: OfflineInput) -> int:
    """Print which packets a reload would treat otherwise. Raises KernelError, SolverMissingError."""
    from fwguardd.ctl import packet_diff  # noqa: PLC0415 - the model of all packets is needed for nothing else here.

    if isinstance(result, Invalid):
        if source.json:
            print(json.dumps(diff_document(result.findings, (), ok=False)))
        else:
            print_findings(result, tool, Painter())
        return ANSWER_IS_NO
    wanted = with_released(result.rehearsed.rulesets, source.owned)
    change = change_to(wanted, result.sets, tool, source)
    packet_diff.show(packet_diff.Compared(change.before, change.after, result.sets), tool, as_document=source.json)
    return DONE


def _print_diff_document(result: Valid | Invalid, judgement: Judged, source: OfflineInput) -> int:
    if isinstance(result, Invalid):
        print(json.dumps(diff_document(result.findings, (), ok=False)))
        return ANSWER_IS_NO
    changes = preview(result, judgement.tool, source, guarded=judgement.guard.has_run)
    document = diff_document((*result.findings, *changes.warnings), changes.hunks, ok=True)
    document["impact"] = None
    if changes.hunks:
        document["impact"] = impact_of_files(result, judgement.tool, source).document()
    print(json.dumps(document))
    return DONE
