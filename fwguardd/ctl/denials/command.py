"""The command: its options, where the events come from, and how they are printed."""

from __future__ import annotations

import argparse
import io
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.denials import filters, formats
from fwguardd.ctl.denials.filters import Filters
from fwguardd.ctl.denials.formats import ecs
from fwguardd.ctl.denials.inputs import (
    FileNotPermittedError,
    Query,
    TimeSpecError,
    UnreadableError,
    events_in_journal,
    lines_of,
    opened,
)
from fwguardd.ctl.denials.log_files import LogFileReader, StampReader
from fwguardd.ctl.denials.table import Table
from fwguardd.ctl.denials.time_specs import time_spec
from fwguardd.ctl.denials.top import SHOWN, Top
from fwguardd.denials.model import Meaning, Watched
from fwguardd.settings import DEFAULT_PATH, load_settings
from fwguardd.sinks.console import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.log_files import Counts

_Account: TypeAlias = "Callable[[], Mapping[str, object]]"
"""What became of the lines, asked for when all are read."""

NAME: Final = "denials"
DONE, WRONG_USAGE, NOT_PERMITTED, FAILED = 0, 2, 4, 5

_DESCRIPTION: Final = """\
Show the packets that the kernel logged as denied, newest last: from the journal, where fwguardd tells them, or, with
--read, from what a kernel log left behind on any machine. --read needs neither the daemon, nor root, nor systemd."""

_EPILOG: Final = """\
--src and --dport may be given several times; a packet must match one of each.

examples:
  fwguardctl denials -f                               what is denied from now on
  fwguardctl denials --since yesterday --top          who knocked most, and where
  fwguardctl denials --src 203.0.113.0/24 --dport 22 --dport 8000-8999
  fwguardctl denials --read /var/log/kern.log --since "1h ago"
  zcat /var/log/kern.log.2.gz | fwguardctl denials --read - --json"""


class _WrongUsageError(Exception):
    """Options that do not go together, or a value that is none."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How to print: ``live`` means that each event is printed as it comes."""

    top: int | None
    ecs: bool
    json: bool
    live: bool


def add_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to a parser whose subparsers have the destination ``verb``."""
    parser = verbs.add_parser(
        NAME,
        help="what the kernel denied: from the journal, live, the top talkers, or from old log lines",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on with what is denied from now on; print it as it comes")
    add("--since", metavar="T", help='not before: "yesterday", "23:30", "1h ago", "-15m", "2026-11-22 23:30" …')
    add("--until", metavar="T", help="not after")
    add("--src", action="append", type=filters.source, metavar="ADDR", help="from this address or network")
    add("--dport", action="append", type=filters.port, metavar="PORT", help="to this port, or a range such as 20-25")
    add(
        "--top", nargs="?", type=_positive, const=SHOWN, metavar="N",
        help="the N sources, ports and rules with most packets (default: %(const)s)",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document; with -f one JSON object a line")
    form.add_argument(
        "--format", choices=["table", "ecs"], default="table",
        help="ecs: Elastic Common Schema, one JSON object a line",
    )  # fmt: skip
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--read", metavar="FILE",
        help="read kernel log lines from a file (- is standard input): syslog text, journalctl -k, also with -o json, "
        "dmesg, or records of /dev/kmsg; local times are meant where none says its zone",
    )  # fmt: skip
    place.add_argument("--journal-dir", type=Path, metavar="D", help="read the journal in this directory")
    add("--prefix", action="append", metavar="TEXT", help="with --read: look for this --log-prefix, not the settings'")
    add("--config", type=Path, default=DEFAULT_PATH, metavar="F", help="settings file (default: %(default)s)")


def join_times(argv: Sequence[str]) -> list[str]:
    """The command line with ``--since -15m`` as ``--since=-15m``: argparse takes the former for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in {"--since", "--until"} and word[:1] == "-" and word[1:2].isdigit():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def run(options: argparse.Namespace) -> int:
    """Print what was asked for; the exit code. Raises SettingsError and BrokenPipeError."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return _fail("there is no standard output to print to", FAILED)
    # A terminal or a pipe that cannot show a character gets its code instead of a traceback.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if options.read is not None:
            _read_old_lines(options)
        else:
            _read_journal(options)
        sys.stdout.flush()
    except (_WrongUsageError, TimeSpecError) as error:
        return _fail(error, WRONG_USAGE)
    except FileNotPermittedError as error:
        return _fail(error, NOT_PERMITTED)
    except UnreadableError as error:
        return _fail(error, FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        # Whatever else is read or run says so in an error of its own: this is a full disk. What is left in the buffer
        # has to go somewhere when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"standard output: {error.strerror}; the answer is not complete", FAILED)
    return DONE


def _read_journal(options: argparse.Namespace) -> None:
    if options.prefix:
        raise _WrongUsageError("--prefix goes with --read: events in the journal carry the prefix that made them")
    form = _form(options)
    wanted = Filters(tuple(options.src or ()), tuple(options.dport or ()))
    query = Query(options.journal_dir, options.since, options.until, options.follow)
    events = events_in_journal(query)
    shown = _print((event for event in events if wanted.takes(event)), form, None)
    if not shown and not options.json:
        _say("no such denials in the journal")


def _read_old_lines(options: argparse.Namespace) -> None:
    if options.follow and options.read != "-":
        raise _WrongUsageError("-f follows no file; let tail do it: tail -F FILE | fwguardctl denials -f --read -")
    form = _form(options)
    wanted = _filters(options)
    watched = _watched(options)
    path = None if options.read == "-" else Path(options.read)
    place = "standard input" if path is None else str(path)
    with opened(path) as (descriptor, changed):
        stamps = StampReader(changed)
        try:
            old = LogFileReader(watched, wanted, stamps, flows_only=form.top is not None)
        except ValueError as error:
            raise _WrongUsageError(str(error)) from error
        _print(old.events(lines_of(descriptor, place, live=form.live)), form, old.account)
    sys.stdout.flush()
    _say_what_was_read(place, old.counts, stamps)


def _form(options: argparse.Namespace) -> _Form:
    is_ecs = options.format == "ecs"
    if options.top is not None and is_ecs:
        raise _WrongUsageError("--top has no form in ECS; use --top --json")
    if options.top is not None and options.follow:
        raise _WrongUsageError("--top counts what is there; with -f there is no end to count to")
    return _Form(options.top, is_ecs, options.json, options.follow)


def _filters(options: argparse.Namespace) -> Filters:
    now = datetime.now()  # noqa: DTZ005 - local times are meant.
    try:
        since, until = (time_spec(text, now) if text is not None else None for text in (options.since, options.until))
    except ValueError as error:
        raise _WrongUsageError(str(error)) from error
    return Filters(tuple(options.src or ()), tuple(options.dport or ()), since, until)


def _watched(options: argparse.Namespace) -> tuple[Watched, ...]:
    if options.prefix:
        return tuple(Watched(prefix.strip() or prefix, prefix, Meaning.DENIED) for prefix in options.prefix)
    return load_settings(options.config, must_exist=options.config != DEFAULT_PATH).prefixes


def _print(events: Iterable[Event], form: _Form, account: _Account | None) -> int:
    """Print events; how many there were."""
    counted = _Counting(events)
    for piece in _pieces(counted, form, account):
        sys.stdout.write(piece)
    return counted.count


def _pieces(events: Iterable[Event], form: _Form, account: _Account | None) -> Iterator[str]:
    if form.top is not None:
        top = Top()
        top.add(events)
        read = account() if account is not None else None
        lines = (
            [formats.json_line({**top.document(form.top), "read": read})]
            if form.json
            else top.lines(form.top, AnswerPainter())
        )
        yield from (f"{line}\n" for line in lines)
    elif form.ecs:
        yield from (f"{formats.json_line(ecs(event))}\n" for event in events)
    elif form.json and form.live:
        yield from (f"{formats.json_line(formats.event_object(event))}\n" for event in events)
    elif form.json:
        yield from formats.pieces(events)
        yield formats.last_piece(account() if account is not None else None)
    else:
        table = Table(AnswerPainter())
        yield from (f"{line}\n" for line in (table.live_lines(events) if form.live else table.lines(events)))


class _Counting:
    """Events, counted while they pass."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = events
        self.count = 0

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            self.count += 1
            yield event


def _say_what_was_read(place: str, counts: Counts, stamps: StampReader) -> None:
    """The account of the lines, on standard error, and what was assumed."""
    parts = [
        f"{counts.ours} ours",
        f"{counts.unparsed} unparsed",
        f"{counts.foreign} foreign",
        f"{counts.others} of no concern",
    ]
    _say(f"{place}: {_lines(counts.lines)}: {', '.join(parts)}")
    if counts.foreign:
        _say(
            f"foreign: {_lines(counts.foreign)} with a watched prefix, but nothing shows the kernel's hand; passed over"
        )
    if counts.left_out:
        _say(f"{_lines(counts.left_out)} of the kernel's without text: journalctl leaves out odd bytes, unless --all")
    if counts.undated:
        _say(f"{_lines(counts.undated)} of ours tell no time of day, and are left out by --since and --until")
    if stamps.years:
        years = " and ".join(str(year) for year in sorted(stamps.years))
        _say(f"the stamps name no year: {years} assumed, from when the file was last written to")


def _lines(number: int) -> str:
    return f"{number} line{'s' * (number != 1)}"


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 999999")
    return int(text)


def _say(sentence: object) -> None:
    print(f"fwguardctl: {printable(str(sentence))}", file=sys.stderr)


def _fail(error: Exception | str, code: int) -> int:
    _say(error)
    return code
