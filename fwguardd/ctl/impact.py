"""The verb impact: what a reload would do to live connections, listening sockets and recent denials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.beds import HostBeds, beds_of
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.denial_lookup import recent_denials
from fwguardd.ctl.explain import refuse
from fwguardd.ctl.impact_lines import impact_lines
from fwguardd.ctl.line_input import UnreadableError
from fwguardd.ctl.offline_verbs import input_of
from fwguardd.ctl.ruleset_sources import RulesetSource, rules_after_reload, rules_in_force
from fwguardd.ctl.verb_options import add_rules, add_socket, describe
from fwguardd.enforce.impact import measure_impact, probes_of_host
from fwguardd.enforce.validate import Invalid
from fwguardd.packets.impact import Effect, Probes, impact_document

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from fwguardd.packets.impact import Impact

DONE, ANSWER_IS_NO = 0, 1
HARMFUL: Final = (Effect.CUT, Effect.NOT_AGAIN, Effect.CLOSED)
_DENIALS_SINCE: Final = "1 hour ago"


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
    add_socket(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code. Raises ReportedError."""
    with beds_of(options) as beds:
        source = input_of(options)
        before, after = rules_in_force(source, socket_path_of(options)), rules_after_reload(source)
        if isinstance(after, Invalid):
            return refuse(after, options, beds)
        impact = impact_between(before, after, beds)
    if options.json:
        print(json.dumps(impact_document(impact, after.rulesets)))
    else:
        print("\n".join(impact_lines(impact, after.rulesets, AnswerPainter())))
    return exit_code(impact)


def exit_code(impact: Impact) -> int:
    """1 where something that works would stop to work."""
    if any(map(impact.of, HARMFUL)):
        return ANSWER_IS_NO
    return DONE


def impact_between(before: RulesetSource, after: RulesetSource, beds: HostBeds) -> Impact:
    """The impact of a change from one to the other. Raises NamespaceError."""
    denials, left_out = _denials()
    probes = probes_of_host(beds.routes, after.rulesets, denials) + left_out
    return measure_impact(probes, before.rulesets, after.rulesets, beds.open)


def _denials() -> tuple[list[Mapping[str, Any]], Probes]:
    """The denials of the last hour; without a journal none, and a note that says so."""
    try:
        return list(recent_denials(_DENIALS_SINCE)), Probes(())
    except UnreadableError as error:
        return [], Probes((), (f"the denials of the last hour cannot be read: {error}",))
