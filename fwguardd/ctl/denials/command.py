"""The verb `denials`: its options, where the events come from, and how they are printed."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections import deque
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.denials import filters, groups
from fwguardd.ctl.denials.event import EVENT_NAMES, from_entry
from fwguardd.ctl.denials.filters import Filter, Filters
from fwguardd.ctl.denials.histogram import AUTOMATIC, step
from fwguardd.ctl.denials.log_files import LogFileReader
from fwguardd.ctl.denials.network_database import NAME_KEYS, Database, DatabaseError, NetworkNames
from fwguardd.ctl.denials.old_lines import OldFiles, prefix
from fwguardd.ctl.denials.output_forms import Account, Form, OutputForm, pieces
from fwguardd.ctl.denials.times import time_spec
from fwguardd.ctl.denials.top import SHOWN
from fwguardd.ctl.journal_query import Query, TimeSpecError, entries_in_journal
from fwguardd.ctl.line_input import FileNotPermittedError, UnreadableError
from fwguardd.ctl.verb_options import describe, positive_argument
from fwguardd.denials.aggregation import AggregationLimits
from fwguardd.denials.line_parser import LineReader
from fwguardd.escaping import printable
from fwguardd.settings import DEFAULT_PATH, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.times import StampReader
    from fwguardd.denials.model import Watched

DONE, WRONG_USAGE, NOT_PERMITTED, FAILED = 0, 2, 4, 5

_DESCRIPTION: Final = (
    "Show the packets that the kernel logged as denied, newest last: from the events of fwguardd in the journal, or "
    "with --read from the lines of a kernel log of any machine. --read needs neither the daemon, nor root, nor "
    "systemd. Options that choose packets may be given several times; a packet must match one of each."
)
_EXAMPLES: Final = (
    ("fwguardctl denials -f", "what is denied from now on"),
    ("fwguardctl denials --since today --top", "the scans, and the sources, ports and rules with most denials"),
    ("fwguardctl denials --src 203.0.113.0/24 --dport ssh,8000-8999 --not src=203.0.113.9", "some of them"),
    ("fwguardctl denials --since yesterday --dport 22 --by net --top 20", "the networks with most denials of ssh"),
    ("fwguardctl denials --by dport --unique src", "from how many sources each port was tried"),
    ("fwguardctl denials --since yesterday --histogram", "how many an hour"),
    ('fwguardctl denials --read /var/log/kern.log --since "1h ago"', "from a kernel log"),
    ("zcat /var/log/kern.log.2.gz | fwguardctl denials --read - --json", "from standard input, for programs"),
)

_DATABASE_FOLDERS: Final = (Path("/usr/share/GeoIP"), Path("/var/lib/GeoIP"))
"""Where Debian's packages and geoipupdate(1) put databases of networks."""

_POSITIVE: Final = re.compile(r"0*[1-9][0-9]{0,5}")


class _WrongUsageError(Exception):
    """Options that exclude each other, or a wrong value."""


_FILTER_OPTIONS: Final = (
    ("src", "ADDR", "from these addresses or networks, with commas between them"),
    ("dst", "ADDR", "to these addresses or networks"),
    ("dport", "PORT", "to these ports, ranges and services, such as 22,80-90,ssh"),
    ("proto", "PROTO", "of these protocols, by name or number"),
    ("in", "DEV", "that came in by these interfaces; eth+ is every one that begins with eth"),
    ("out", "DEV", "that went out by these interfaces"),
    ("rule", "RULE", "logged by these rules: FILE:LINE, FILE, or the name of the prefix"),
    ("host", "HOST", "of these hosts"),
)


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    parser.usage = "fwguardctl denials [options]"
    describe(parser, _DESCRIPTION, _EXAMPLES)
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="also print what is denied from now on, as it comes")
    add("--since", metavar="T", help='from this time on: "yesterday", "23:30", "1h ago", "-15m", "2026-11-22 23:30" …')
    add("--until", metavar="T", help="up to this time")
    add("-n", "--lines", type=positive_argument, metavar="N", help="only the newest N; with -f begin with the last N")
    for key, metavar, text in _FILTER_OPTIONS:
        add(f"--{key}", action="append", default=[], type=filters.PARSERS[key], metavar=metavar, help=text)
    add(
        "--not", dest="excluded", action="append", default=[], type=filters.excluded, metavar="KEY=VALUE",
        help="not these, as in src=10.0.0.0/8; KEY is the name of one of the options above",
    )  # fmt: skip
    add(
        "--top", nargs="?", type=_positive, const=SHOWN, metavar="N",
        help="the N sources, ports and rules with most packets, or the N first of --by (default: %(const)s)",
    )  # fmt: skip
    add(
        "--by", type=groups.keys, default=(), metavar="KEY[,KEY]",
        help=f"count packets by these keys: {', '.join(groups.KEYS)}; net is the /24 or /64 of the source",
    )  # fmt: skip
    add("--unique", type=groups.key, metavar="KEY", help="count the different values of this key, for each of --by")
    add(
        "--names", action="append", type=Path, metavar="FILE",
        help="the database of networks for the keys country and as, in the form of MaxMind (*.mmdb)",
    )  # fmt: skip
    add(
        "--histogram", nargs="?", type=step, const=AUTOMATIC, metavar="STEP",
        help="packets over time, in steps such as 10m, 1h or 1d",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document; with -f one JSON object a line")
    form.add_argument("--csv", action="store_true", help="print comma-separated values, with a heading")
    form.add_argument(
        "--format", choices=["table", "json-lines", "ecs", "csv"], default="table",
        help="json-lines: one JSON object a line; ecs: the same, as Elastic Common Schema",
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
    except (UnreadableError, DatabaseError) as error:
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
    wanted = Filters(_tests(options))
    query = Query(EVENT_NAMES, options.journal_dir, options.since, options.until, options.follow, options.lines)
    shown = _print(_newest(_wanted(entries_in_journal(query), wanted), options), form, None)
    if not shown and not options.json:
        _print_note("the journal has no such denials")


def _wanted(entries: Iterable[Mapping[str, Any]], wanted: Filters) -> Iterator[Event]:
    for entry in entries:
        event = from_entry(entry)
        if event is not None and wanted.takes(event):
            yield event


def _newest(events: Iterable[Event], options: argparse.Namespace) -> Iterable[Event]:
    """The events that -n leaves; while the log is followed, the source counts them."""
    if options.lines is None or options.follow:
        return events
    return deque(events, maxlen=options.lines)


def _show_old_lines(options: argparse.Namespace) -> None:
    if options.follow and options.read != ["-"]:
        raise _WrongUsageError("-f cannot follow a file; use tail: tail -F FILE | fwguardctl denials -f --read -")
    form = _form(options)
    wanted = _filters(options)
    watched, limits = _watched(options), _limits(options)

    def reader(stamps: StampReader) -> LogFileReader:
        return LogFileReader(
            watched, wanted, stamps, flows_only=form.counts, any_prefix=options.any_prefix, scans=limits
        )

    files = OldFiles(options.read, reader)
    with files:
        _print(_newest(files.events(live=form.live), options), form, files.account)
    sys.stdout.flush()
    for note in files.notes():
        _print_note(note)


def _refuse_prefixes(options: argparse.Namespace) -> None:
    for option, value in (("--prefix", options.prefix), ("--any-prefix", options.any_prefix)):
        if value:
            raise _WrongUsageError(
                f"{option} needs --read: the events in the journal are of the prefixes in the settings"
            )


def _form(options: argparse.Namespace) -> Form:
    kind = OutputForm(options.format)
    if options.json:
        kind = OutputForm.JSON
    if options.csv:
        kind = OutputForm.CSV
    form = Form(kind, options.follow, options.top, options.by, options.unique, options.histogram, _names(options))
    if form.counts:
        _check_counts(form)
    return form


def _names(options: argparse.Namespace) -> NetworkNames | None:
    """The databases of networks, if a key needs one. Raises UnreadableError."""
    wanted = {*options.by, options.unique}.intersection(NAME_KEYS)
    if not wanted:
        return None
    paths = options.names or _installed_databases()
    if not paths:
        places = " or ".join(map(str, _DATABASE_FOLDERS))
        raise UnreadableError(
            f"--by {min(wanted)}: there is no database of networks (*.mmdb) in {places}; name one with --names FILE"
        )
    return NetworkNames(tuple(map(_database, paths)))


def _installed_databases() -> list[Path]:
    return [path for folder in _DATABASE_FOLDERS for path in sorted(folder.glob("*.mmdb"))]


def _database(path: Path) -> Database:
    try:
        return Database(path.read_bytes())
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}; --names takes a database in the form of MaxMind") from error
    except DatabaseError as error:
        raise UnreadableError(f"{path}: this is not a database in the form of MaxMind: {error}") from error


def _check_counts(form: Form) -> None:
    """Refuse the options that do not go with counts."""
    option = _count_option(form)
    if form.histogram is not None and (form.by or form.unique or form.top):
        raise _WrongUsageError("--histogram excludes --top, --by and --unique")
    if form.kind in (OutputForm.ECS, OutputForm.JSON_LINES):
        raise _WrongUsageError(f"{option} and --format {form.kind.value} exclude each other; use {option} --json")
    if form.live:
        raise _WrongUsageError(f"{option} and -f exclude each other: -f has no end at which to print counts")


def _count_option(form: Form) -> str:
    """The option by which packets are counted."""
    if form.histogram is not None:
        return "--histogram"
    if form.by:
        return "--by"
    if form.unique:
        return "--unique"
    return "--top"


def _filters(options: argparse.Namespace) -> Filters:
    now = datetime.now()  # noqa: DTZ005 - local times are meant.
    try:
        since, until = _time(options.since, now), _time(options.until, now)
    except ValueError as error:
        raise _WrongUsageError(str(error)) from error
    return Filters(_tests(options), since, until)


def _tests(options: argparse.Namespace) -> tuple[Filter, ...]:
    """A filter for each key: several values, or several options of one key, are alternatives."""
    found: list[Filter] = []
    for key, _, _ in _FILTER_OPTIONS:
        values = tuple(chain.from_iterable(getattr(options, key)))
        if values:
            found.append(Filter(key, values))
    found += [Filter(key, values, negated=True) for key, values in options.excluded]
    return tuple(found)


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


def _limits(options: argparse.Namespace) -> AggregationLimits | None:
    """From which numbers on there is a scan or a sweep; None where only packets are counted."""
    if options.by or options.unique or options.histogram is not None:
        return None
    if options.prefix:
        return AggregationLimits()
    return settings_of(options.config).limits()


def _print(events: Iterable[Event], form: Form, account: Account | None) -> int:
    """Print events; how many there were."""
    counter = _Counter(events)
    for piece in pieces(counter, form, account):
        sys.stdout.write(piece)
    return counter.count


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
