"""The verb `denials`: its options, where the events come from, and how they are printed."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.denials import filters, formats
from fwguardd.ctl.denials.event import EVENT_NAMES, from_entry
from fwguardd.ctl.denials.filters import Filters
from fwguardd.ctl.denials.log_files import LogFileReader
from fwguardd.ctl.denials.old_lines import OldFiles, prefix
from fwguardd.ctl.denials.table import Table
from fwguardd.ctl.denials.times import time_spec
from fwguardd.ctl.denials.top import SHOWN, Top
from fwguardd.ctl.journal_query import Query, TimeSpecError, entries_in_journal
from fwguardd.ctl.line_input import FileNotPermittedError, UnreadableError
from fwguardd.denials.line_parser import LineReader
from fwguardd.escaping import printable
from fwguardd.settings import DEFAULT_PATH, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.times import StampReader
    from fwguardd.denials.model import Watched

_Account: TypeAlias = "Callable[[], Mapping[str, object]]"
"""Gives what became of the lines, after all are read."""

DONE, WRONG_USAGE, NOT_PERMITTED, FAILED = 0, 2, 4, 5

_DESCRIPTION: Final = """\
Show the packets that the kernel logged as denied, newest last: from the events of fwguardd in the journal, or with
--read from the lines of a kernel log of any machine. --read needs neither the daemon, nor root, nor systemd."""

_EPILOG: Final = """\
--src and --dport may be given several times; a packet must match one of each.

examples:
  fwguardctl denials -f                               what is denied from now on
  fwguardctl denials --since yesterday --top          the sources, ports and rules with most denials
  fwguardctl denials --src 203.0.113.0/24 --dport 22 --dport 8000-8999
  fwguardctl denials --read /var/log/kern.log --since "1h ago"
  zcat /var/log/kern.log.2.gz | fwguardctl denials --read - --json"""


_POSITIVE: Final = re.compile(r"0*[1-9][0-9]{0,5}")


class _WrongUsageError(Exception):
    """Options that exclude each other, or a wrong value."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How to print: ``live`` means that each event is printed as it comes."""

    top: int | None
    ecs: bool
    json: bool
    live: bool


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    parser.usage = "fwguardctl denials [options]"
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="also print what is denied from now on, as it comes")
    add("--since", metavar="T", help='from this time on: "yesterday", "23:30", "1h ago", "-15m", "2026-11-22 23:30" …')
    add("--until", metavar="T", help="up to this time")
    add("--src", action="append", default=[], type=filters.source, metavar="ADDR", help="from this address or network")
    add(
        "--dport", action="append", default=[], type=filters.port, metavar="PORT",
        help="to this port, or a range such as 20-25",
    )  # fmt: skip
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
        "--read", action="append", metavar="FILE",
        help="read kernel log lines from a file (- is standard input), in any form: syslog text, journalctl -k, dmesg, "
        "records of /dev/kmsg, behind grep -n or in the log of a container; may be given several times; a time "
        "without a zone is local",
    )  # fmt: skip
    place.add_argument("--journal-dir", type=Path, metavar="D", help="read the journal in this directory")
    add(
        "--prefix", action="append", type=prefix, metavar="[MEANING=]TEXT",
        help="with --read: the --log-prefix to look for, '' for rules without one; MEANING is denied (the default), "
        "logged or allowed",
    )  # fmt: skip
    add(
        "--any-prefix", action="store_true",
        help="with --read: any --log-prefix; what is neither watched nor given with --prefix is shown as logged",
    )  # fmt: skip
    add("--config", type=Path, default=DEFAULT_PATH, metavar="F", help="settings file (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run the verb; the exit code. Raises SettingsError and BrokenPipeError."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return _fail("standard output is closed", FAILED)
    # A terminal or a pipe that cannot show a character gets its code instead of a traceback.
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _show(options)
    except (_WrongUsageError, TimeSpecError) as error:
        return _fail(error, WRONG_USAGE)
    except FileNotPermittedError as error:
        return _fail(error, NOT_PERMITTED)
    except UnreadableError as error:
        return _fail(error, FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        # Every other error has a class of its own: standard output is on a full disk.
        return _report_incomplete(error)
    return DONE


def _report_incomplete(error: OSError) -> int:
    """Report that standard output could not be written."""
    # Python flushes the buffer at its end, so it needs a place that takes it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _fail(f"standard output: {error.strerror}; the output is not complete", FAILED)


def _show(options: argparse.Namespace) -> None:
    if options.read is not None:
        _show_old_lines(options)
    else:
        _show_journal(options)
    sys.stdout.flush()


def _show_journal(options: argparse.Namespace) -> None:
    _refuse_prefixes(options)
    form = _form(options)
    wanted = Filters(tuple(options.src), tuple(options.dport))
    query = Query(EVENT_NAMES, options.journal_dir, options.since, options.until, options.follow)
    shown = _print(_wanted(entries_in_journal(query), wanted), form, None)
    if not shown and not options.json:
        _print_note("the journal has no such denials")


def _wanted(entries: Iterable[Mapping[str, Any]], wanted: Filters) -> Iterator[Event]:
    for entry in entries:
        event = from_entry(entry)
        if event is not None and wanted.takes(event):
            yield event


def _show_old_lines(options: argparse.Namespace) -> None:
    if options.follow and options.read != ["-"]:
        raise _WrongUsageError("-f cannot follow a file; use tail: tail -F FILE | fwguardctl denials -f --read -")
    form = _form(options)
    wanted = _filters(options)
    watched = _watched(options)

    def reader(stamps: StampReader) -> LogFileReader:
        flows_only = form.top is not None
        return LogFileReader(watched, wanted, stamps, flows_only=flows_only, any_prefix=options.any_prefix)

    files = OldFiles(options.read, reader)
    with files:
        _print(files.events(live=form.live), form, files.account)
    sys.stdout.flush()
    for note in files.notes():
        _print_note(note)


def _refuse_prefixes(options: argparse.Namespace) -> None:
    for option, value in (("--prefix", options.prefix), ("--any-prefix", options.any_prefix)):
        if value:
            raise _WrongUsageError(
                f"{option} needs --read: the events in the journal are of the prefixes in the settings"
            )


def _form(options: argparse.Namespace) -> _Form:
    is_ecs = options.format == "ecs"
    if options.top is not None:
        _check_top(is_ecs=is_ecs, follow=options.follow)
    return _Form(options.top, is_ecs, options.json, options.follow)


def _check_top(*, is_ecs: bool, follow: bool) -> None:
    """Refuse the options that exclude --top."""
    if is_ecs:
        raise _WrongUsageError("--top and --format ecs exclude each other; use --top --json")
    if follow:
        raise _WrongUsageError("--top and -f exclude each other: -f has no end at which to print the top")


def _filters(options: argparse.Namespace) -> Filters:
    now = datetime.now()  # noqa: DTZ005 - local times are meant.
    try:
        since, until = _time(options.since, now), _time(options.until, now)
    except ValueError as error:
        raise _WrongUsageError(str(error)) from error
    return Filters(tuple(options.src), tuple(options.dport), since, until)


def _time(text: str | None, now: datetime) -> int | None:
    if text is None:
        return None
    return time_spec(text, now)


def _watched(options: argparse.Namespace) -> tuple[Watched, ...]:
    if options.prefix:
        try:
            LineReader(options.prefix)
        except ValueError as error:
            raise _WrongUsageError(str(error)) from error
        return tuple(options.prefix)
    return settings_of(options.config).prefixes


def _print(events: Iterable[Event], form: _Form, account: _Account | None) -> int:
    """Print events; how many there were."""
    counter = _Counter(events)
    for piece in _pieces(counter, form, account):
        sys.stdout.write(piece)
    return counter.count


def _json_pieces(events: Iterable[Event], account: _Account | None, *, live: bool) -> Iterator[str]:
    """A line for each event while the log is followed; one document of a log that has an end."""
    if live:
        yield from _json_lines(events, formats.event_object)
        return
    yield from formats.pieces(events)
    yield formats.last_piece(_read(account))


def _pieces(events: Iterable[Event], form: _Form, account: _Account | None) -> Iterator[str]:
    if form.top is not None:
        yield from _top_pieces(events, form, form.top, account)
    elif form.ecs:
        yield from _json_lines(events, formats.ecs)
    elif form.json:
        yield from _json_pieces(events, account, live=form.live)
    else:
        yield from _table_pieces(events, form)


def _json_lines(events: Iterable[Event], as_object: Callable[[Event], dict[str, Any]]) -> Iterator[str]:
    for event in events:
        yield f"{formats.json_line(as_object(event))}\n"


def _top_pieces(events: Iterable[Event], form: _Form, number: int, account: _Account | None) -> Iterator[str]:
    top = Top()
    top.add(events)
    if form.json:
        yield f"{formats.json_line({**top.document(number), 'read': _read(account)})}\n"
        return
    for line in top.lines(number, AnswerPainter()):
        yield f"{line}\n"


def _table_pieces(events: Iterable[Event], form: _Form) -> Iterator[str]:
    table = Table(AnswerPainter())
    lines = table.lines(events)
    if form.live:
        lines = table.live_lines(events)
    for line in lines:
        yield f"{line}\n"


def _read(account: _Account | None) -> Mapping[str, object] | None:
    """The account of the lines; None where the journal was read."""
    if account is None:
        return None
    return account()


class _Counter:
    """Counts events as they are iterated over."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = events
        self.count = 0

    def __iter__(self) -> Iterator[Event]:
        for event in self._events:
            self.count += 1
            yield event


def _positive(text: str) -> int:
    if _POSITIVE.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 999999")
    return int(text)


def _print_note(sentence: object) -> None:
    print(f"fwguardctl: {printable(str(sentence))}", file=sys.stderr)


def _fail(error: Exception | str, code: int) -> int:
    _print_note(error)
    return code
