"""The verb trial: for a time, each new connection of this host is also put to rules that are not in force."""

from __future__ import annotations

import contextlib
import json
import select
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.beds import HostBeds, beds_of
from fwguardd.ctl.explain import refuse
from fwguardd.ctl.explain_lines import wrapped
from fwguardd.ctl.offline_verbs import input_of
from fwguardd.ctl.ruleset_sources import RulesetSource, rules_after_reload, with_paths
from fwguardd.ctl.verb_options import add_config, add_json, describe, seconds_argument
from fwguardd.enforce.validate import Invalid
from fwguardd.errors import NotPermittedError, ReportedError
from fwguardd.kernel.conntrack import NewConnections
from fwguardd.packets.trial import Trial

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fwguardd.packets.trial import Dropped

DONE, ANSWER_IS_NO = 0, 1
_POLL_SECONDS: Final = 0.5
"""The longest wait, so that the time is kept."""
_AT_ONCE: Final = 200
"""Connections that are tried before the clock is read again."""


class TrackingUnavailableError(ReportedError):
    """The kernel does not report new connections."""


class TrackingNotPermittedError(NotPermittedError):
    """Only root learns of new connections."""


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help, the options and the operands."""
    description = (
        "For a time, put each new connection of this host, as the kernel tracks it, to the rules of a directory that "
        "are not in force, and report those that they would have dropped. Nothing is changed: the rules are loaded in "
        "a temporary network namespace. Connections that the rules in force drop are not seen. This needs root. Exit "
        "code: 0 none would have been dropped; 1 some, or the files have errors."
    )
    examples = (
        ("fwguardctl trial 1h ~/draft", "an hour; Ctrl-C ends it earlier"),
        ("fwguardctl trial 5m /etc/fwguard.d --json", "the rule files that are held"),
    )
    describe(parser, description, examples)
    add_json(parser)
    add_config(parser)
    parser.add_argument("--backend", choices=("auto", "nft", "legacy"), help="iptables backend to rehearse with")
    parser.add_argument("seconds", type=seconds_argument, metavar="TIME", help="for how long, such as 1h")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the directory with the rule files to try")


def run(options: argparse.Namespace) -> int:
    """Try, print, and sum up; the exit code. Raises ReportedError."""
    options.rules_dir = None
    with beds_of(options) as beds:
        rules = rules_after_reload(with_paths(input_of(options), options.directory))
        if isinstance(rules, Invalid):
            return refuse(rules, options, beds)
        return _try(rules, options, beds.with_sets(rules.sets))


def _try(rules: RulesetSource, options: argparse.Namespace, beds: HostBeds) -> int:
    with _new_connections() as connections, beds.open(rules.rulesets) as bed:
        trial = Trial(bed, rules.rulesets, beds.routes)
        with contextlib.suppress(KeyboardInterrupt):
            for dropped in _tried(trial, connections, time.monotonic() + options.seconds):
                _report(dropped, options)
    _sum_up(trial, options, lost=connections.lost)
    return int(trial.dropped_connections > 0)


def _new_connections() -> NewConnections:
    """Raises TrackingUnavailableError and TrackingNotPermittedError."""
    try:
        return NewConnections()
    except PermissionError as error:
        raise TrackingNotPermittedError("only root learns of new connections; run it as root") from error
    except OSError as error:
        raise TrackingUnavailableError(f"the kernel does not report new connections: {error.strerror}") from error


def _tried(trial: Trial, connections: NewConnections, end: float) -> Iterator[Dropped]:
    """The kinds of connections that are dropped, until the time is up."""
    waiting = select.poll()
    waiting.register(connections.fileno(), select.POLLIN)
    while time.monotonic() < end:
        waiting.poll(max(0.0, min(end - time.monotonic(), _POLL_SECONDS)) * 1000)
        yield from trial.add(islice(connections.available(), _AT_ONCE))


def _report(dropped: Dropped, options: argparse.Namespace) -> None:
    if not options.json:
        print("\n".join(wrapped(str(dropped), "")), flush=True)


def _sum_up(trial: Trial, options: argparse.Namespace, *, lost: bool) -> None:
    if options.json:
        print(json.dumps({**trial.document(), "lost": lost}))
        return
    ink = AnswerPainter()
    paint = ink.good
    if trial.dropped_connections:
        paint = ink.bad
    print(paint(trial.sentence()))
    for line in _omissions(trial, lost=lost):
        print(line)


def _omissions(trial: Trial, *, lost: bool) -> Iterator[str]:
    for number, words in (
        (trial.undecided, "could not be decided"),
        (trial.unknown, "came by an interface that is not known"),
    ):
        if number:
            yield f"not tried: {number} that {words}"
    if lost:
        yield "not tried: those that came too fast to be read"
