"""The verb impact: what a reload would do to live connections, listening sockets and recent denials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.beds import beds_of
from fwguardd.ctl.change_impact import measured
from fwguardd.ctl.explain import refuse
from fwguardd.ctl.impact_lines import impact_lines
from fwguardd.ctl.offline_verbs import input_of, validated
from fwguardd.ctl.ruleset_sources import change_of, may_read_kernel
from fwguardd.ctl.verb_options import add_rules, describe
from fwguardd.enforce.validate import Invalid
from fwguardd.kernel.iptables import IptablesNotPermittedError
from fwguardd.packets.impact import Effect, impact_document

if TYPE_CHECKING:
    import argparse

    from fwguardd.packets.impact import Impact

DONE, ANSWER_IS_NO = 0, 1
HARMFUL: Final = (Effect.CUT, Effect.NOT_AGAIN, Effect.CLOSED)


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    description = (
        "Show what a reload would do: connections that would be cut or could not be opened again, listening sockets "
        "that would be closed or opened, and denials of the last hour that would be let in. A packet for each is sent "
        "through the rules in force and through those of the files, in temporary network namespaces. This needs root. "
        "Exit code: 0 nothing would be cut or closed; 1 something would be, or the files have errors."
    )
    examples = (
        ("fwguardctl impact", "of the rule files"),
        ("fwguardctl impact --rules-dir ~/draft", "of another directory"),
    )
    describe(parser, description, examples)
    add_rules(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code. Raises ReportedError."""
    if not may_read_kernel():
        raise IptablesNotPermittedError(
            "only root may read the rules in force, which impact compares with; run it as root"
        )
    source = input_of(options)
    result, tool = validated(source)
    with beds_of(options) as beds:
        if isinstance(result, Invalid):
            return refuse(result, options, beds)
        change = change_of(result, tool, source)
        impact = measured(change, beds)
    if options.json:
        print(json.dumps(impact_document(impact, change.after)))
    else:
        print("\n".join(impact_lines(impact, change.after, AnswerPainter())))
    return exit_code(impact)


def exit_code(impact: Impact) -> int:
    """1 where something that works would stop to work."""
    if any(map(impact.of, HARMFUL)):
        return ANSWER_IS_NO
    return DONE
