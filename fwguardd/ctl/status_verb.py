"""The verb status: once, with --check in one line for monitoring, or with --watch again and again.

The exit codes of a check are those of monitoring plugins (Nagios, Icinga): 0 is ok, 1 a warning, 2 critical, 3 unknown.
"""

from __future__ import annotations

import sys
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

from fwguardd.control.client import ask
from fwguardd.ctl import daemon_verb_table, daemon_verbs
from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.status_answer import status
from fwguardd.errors import ReportedError
from fwguardd.escaping import printable
from fwguardd.wording import local_time

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class Level(IntEnum):
    """The exit code of a check."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


WATCH_SECONDS = 2.0
"""Between two looks of --watch; each makes the daemon compare the kernel."""

LONGEST_WARNING = 160
"""Characters of a warning in the line of a check."""

_LEVELS = {"in-force": Level.OK, "unverified": Level.UNKNOWN}
_FILES = frozenset({"applied", "settling"})
_CLEAR = "\x1b[H\x1b[2J"
"""Cursor home, erase the display (ECMA-48)."""

_FACTS = ("state", "files", "files_why", "in_force", "held", "settings", "damaged", "set_problems")
"""The keys of a status that do not change while nothing happens."""


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the help and the options."""
    daemon_verb_table.add_arguments(parser, verb)
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--check", action="store_true",
        help="one line for monitoring; exit code 0 ok, 1 warning, 2 critical, 3 unknown",
    )  # fmt: skip
    form.add_argument("--watch", action="store_true", help="show it again whenever it has changed, until Ctrl-C")


def run(options: argparse.Namespace) -> int:
    """Show the state; the exit code. Raises SettingsError for a wrong --config."""
    if options.check:
        level, line = _check(socket_path_of(options))
        print(line)
        return level
    if options.watch:
        _watch(socket_path_of(options))
    return daemon_verbs.run(options)


def _check(socket_path: Path) -> tuple[Level, str]:
    try:
        return check_line(ask(socket_path, "status"))
    except (ReportedError, KeyError) as error:
        return Level.UNKNOWN, f"{Level.UNKNOWN.name}: {printable(str(error))}"


def check_line(result: Mapping[str, Any]) -> tuple[Level, str]:
    """The level of a state, and the line that says why."""
    level = _LEVELS.get(result["state"], Level.CRITICAL)
    warnings = list(_warnings(result))
    if warnings and level is Level.OK:
        level = Level.WARNING
    measured = f"{level.name}: {result['state']}"
    if facts := result.get("state_facts"):
        measured += f": {printable(facts)}"
    return level, "; ".join([measured, *(printable(_shortened(warning)) for warning in warnings)])


def _shortened(text: str) -> str:
    """The text without what is too long for one line of monitoring."""
    if len(text) <= LONGEST_WARNING:
        return text
    return f"{text[:LONGEST_WARNING]}… (see fwguardctl status)"


def _warnings(result: Mapping[str, Any]) -> Iterator[str]:
    files = result.get("files", "applied")
    if files not in _FILES:
        why = result.get("files_why")
        yield f"the rule files are {files}" + (f": {why}" if why else "")
    settings = result.get("settings")
    if settings is not None and settings["state"] == "refused":
        yield f"the settings are refused: {settings['message']}"
    yield from result.get("set_problems", ())
    yield from result.get("damaged", ())


def _watch(socket_path: Path) -> NoReturn:
    """Print the state again and again: on a terminal in place of the last one, else when it has changed."""
    last: object = None
    while True:
        text, facts = _look(socket_path)
        if sys.stdout.isatty():
            print(f"{_CLEAR}{text}", flush=True)
        elif facts != last:
            print(text, flush=True)
        last = facts
        time.sleep(WATCH_SECONDS)


def _look(socket_path: Path) -> tuple[str, object]:
    """The state as text, and what has to differ for a change: no times, and no counts of denials."""
    now = time.time()
    try:
        result: Any = ask(socket_path, "status")
    except ReportedError as error:
        text = f"fwguardctl: {printable(str(error))}"
        return f"{local_time(now)}\n\n{text}", text
    lines = status(result, AnswerPainter(), now)
    facts = [result.get(key) for key in _FACTS]
    return "\n".join([local_time(now), "", *lines]), [*facts, result["drift"]["count"]]
