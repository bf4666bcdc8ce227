"""Options that several verbs have, and the form of their help."""

from __future__ import annotations

import argparse
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.defaults import BACKEND_NAMES, SETTINGS_PATH
from fwguardd.wording import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIRM_WITHIN = 60.0
"""Seconds that `reload --confirm` leaves when no number is given."""

_WIDTH = 79
_SHORTEST, _LONGEST = 1.0, 86400.0
_POSITIVE = re.compile(r"0*[1-9][0-9]{0,14}")


def describe(parser: argparse.ArgumentParser, description: str, examples: Sequence[tuple[str, str]]) -> None:
    """Set the sentences of a verb's help, and its examples: a command each, and what it does."""
    parser.description = "\n".join(textwrap.wrap(description, _WIDTH))
    parser.epilog = "\n".join(["examples:", *_example_lines(examples)])


def _example_lines(examples: Sequence[tuple[str, str]]) -> list[str]:
    """Commands and what they do side by side, or below each other where a line would be too wide for a terminal."""
    width = max(len(command) for command, _ in examples)
    lines = [f"  {command:{width}}  {meaning}".rstrip() for command, meaning in examples]
    if max(len(line) for line in lines) <= _WIDTH:
        return lines
    lines = []
    for command, meaning in examples:
        lines.append(f"  {command}")
        lines += textwrap.wrap(meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return lines


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config."""
    parser.add_argument(
        "--config", type=Path, default=SETTINGS_PATH, metavar="F", help="settings file (default: %(default)s)"
    )


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Add --socket; without a default, so that a --socket before the verb is not overwritten."""
    parser.add_argument(
        "--socket", type=Path, default=argparse.SUPPRESS, metavar="S", help="control socket of the daemon"
    )


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add the options of verbs that read and rehearse rule files."""
    add_json(parser)
    add_config(parser)
    parser.add_argument("--rules-dir", type=Path, metavar="D", help="rules directory; the daemon uses its own")
    parser.add_argument("--backend", choices=BACKEND_NAMES, help="iptables backend (default: that of this host)")


def add_confirm(parser: argparse.ArgumentParser, *, always: bool = False) -> None:
    """Add --confirm; with ``always`` a change is confirmed without the option, too."""
    text = "roll the change back after this time, unless fwguardctl confirm is run before"
    if always:
        parser.add_argument(
            "--confirm", type=seconds_argument, default=CONFIRM_WITHIN, metavar="60s", dest="confirm_seconds",
            help=f"{text} (default: 60s)",
        )  # fmt: skip
        return
    parser.add_argument(
        "--confirm", type=seconds_argument, nargs="?", const=CONFIRM_WITHIN, metavar="60s", dest="confirm_seconds",
        help=text,
    )  # fmt: skip


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add --force."""
    text = "apply the change although the peer of a live ssh session is denied by it"
    parser.add_argument("--force", action="store_true", help=text)


def seconds_argument(text: str) -> float:
    """The seconds of a duration on the command line. Raises ArgumentTypeError."""
    try:
        seconds = duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not _SHORTEST <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: from 1s to 24h")
    return seconds


def positive_argument(text: str) -> int:
    """A positive number on the command line. Raises ArgumentTypeError."""
    if _POSITIVE.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a positive number")
    return int(text)
