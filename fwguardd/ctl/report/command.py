"""The verb `report`: what happened to the firewall of this host, as text, HTML or JSON."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentTypeError
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.denials.times import time_spec
from fwguardd.ctl.report.contents import outline_of
from fwguardd.ctl.report.document import document_of
from fwguardd.ctl.report.facts import Facts, MissingPart
from fwguardd.ctl.report.gathering import gather
from fwguardd.ctl.report.html_form import html_of
from fwguardd.ctl.report.page_file import write_page
from fwguardd.ctl.report.text_form import ASCII, BLOCKS, Ramp, text_of
from fwguardd.ctl.verb_options import add_config, add_socket, describe
from fwguardd.wording import days

if TYPE_CHECKING:
    import argparse

DONE, FAILED = 0, 5
SINCE: Final = "7d"

_DESCRIPTION: Final = (
    "Report what happened to the firewall of this host: its state, what changed and by whom, drift and repairs, "
    "denials over time and their sources, what is exposed, rules that match nothing, sets with their age, and losses. "
    "Without root, or where the daemon does not run, it says what is not known."
)
_EXAMPLES: Final = (
    ("fwguardctl report", "the last 7 days"),
    ("fwguardctl report --since yesterday", "since yesterday, 0:00"),
    ("fwguardctl report --since 30d --html report.html", "one HTML file, with plots, for a browser or a printer"),
    ("fwguardctl report --json", "the same for programs"),
)


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    describe(parser, _DESCRIPTION, _EXAMPLES)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--html", metavar="FILE", help="write one HTML file; - is standard output")
    parser.add_argument(
        "--since", type=_moment, default=SINCE, metavar="30d",
        help='from when on: 12h, 7d, 4w, "yesterday", "2026-11-22 23:30" (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument("--journal-dir", type=Path, metavar="D", help="read the journal in this directory")
    parser.add_argument("--backend", choices=("auto", "nft", "legacy"), help="iptables backend of the rules in force")
    add_config(parser)
    add_socket(parser)


def run(options: argparse.Namespace) -> int:
    """Make the report; the exit code. Raises ReportedError."""
    options.rules_dir = None
    facts = gather(options, options.since)
    if options.json:
        print(json.dumps(document_of(facts)))
    elif options.html is not None:
        write_page(options.html, html_of(outline_of(facts)))
    else:
        for line in text_of(outline_of(facts), AnswerPainter(), _ramp()):
            print(line)
    return _exit_code(facts)


def _exit_code(facts: Facts) -> int:
    """A report that neither the daemon nor the journal has a part in is none."""
    if isinstance(facts.status, MissingPart) and isinstance(facts.account, MissingPart):
        return FAILED
    return DONE


def _ramp() -> Ramp:
    # A process that was started with a closed standard output has None in its place.
    encoding: str = getattr(sys.stdout, "encoding", "")
    if encoding.lower().startswith("utf"):
        return BLOCKS
    return ASCII


def _moment(text: str) -> float:
    """The value of --since, in seconds since 1970. Raises ArgumentTypeError."""
    try:
        return since_of(text, time.time())
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def since_of(text: str, now: float) -> float:
    """The time that a duration before ``now``, or a time as in --read, means. Raises ValueError."""
    try:
        since = now - days(text)
    except ValueError:
        since = _time(text, now)
    if not 0 <= since < now:
        raise ValueError(f"{text!r} is not between 1970 and now")
    return since


def _time(text: str, now: float) -> float:
    """Raises ValueError."""
    try:
        return time_spec(text, datetime.fromtimestamp(now)) / 1_000_000  # noqa: DTZ006 - local times are meant.
    except ValueError:
        forms = 'write it as 12h, 7d, 4w, "yesterday", "2026-11-22 23:30" or "1h ago"'
        raise ValueError(f"{text!r} is not a time; {forms}") from None
