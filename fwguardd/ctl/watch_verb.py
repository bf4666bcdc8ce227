"""The verb watch: the events of fwguardd in the journal, as they come."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd import events
from fwguardd.ctl.denials.event import any_from_entry
from fwguardd.ctl.denials.formats import ecs
from fwguardd.ctl.journal_fields import as_number, as_text, fields_of
from fwguardd.ctl.journal_query import Query, entries_in_journal
from fwguardd.ctl.pager import is_terminal
from fwguardd.ctl.verb_options import add_json, describe
from fwguardd.sinks.console import ConsoleRenderer
from fwguardd.wording import local_time

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

_OF_DENIALS = frozenset(
    {"denied", "logged", "denied.summary", "logged.summary", "denials.unparsed", "denials.suppressed"}
)
"""Events of packets: their number can be large, and fwguardctl denials shows them better."""


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    description = (
        "Show the last events of fwguardd, and new ones as they come: what was applied, refused, repaired, and by whom "
        "it was changed. Denied packets are left out unless --denials is given. Needs root or the group "
        "systemd-journal."
    )
    examples = (
        ("fwguardctl watch", "until Ctrl-C"),
        ("fwguardctl watch --since today --no-follow", "the events of today"),
        ("fwguardctl watch --json | jq .event", "one JSON object a line"),
    )
    describe(parser, description, examples)
    add_json(parser)
    parser.add_argument("--ecs", action="store_true", help="print one JSON object a line, as Elastic Common Schema")
    parser.add_argument("--since", metavar="T", help="from this time on, as journalctl takes it")
    parser.add_argument("--until", metavar="T", help="up to this time")
    parser.add_argument("--denials", action="store_true", help="show events about denied and logged packets, too")
    parser.add_argument("--no-follow", action="store_true", help="end after the events that there are")
    parser.add_argument("--journal-dir", type=Path, metavar="D", help="read the journal in this directory")


def run(options: argparse.Namespace) -> int:
    """Print events until the journal ends, or the user does. Raises ReportedError and BrokenPipeError."""
    query = Query(_names(options), options.journal_dir, options.since, options.until, not options.no_follow)
    for text in _texts(query, _FORMS[options.ecs, options.json]):
        print(text, flush=not options.no_follow)
    return 0


def _names(options: argparse.Namespace) -> tuple[str, ...]:
    if options.denials:
        return ()
    return tuple(kind.name for kind in events.ALL_EVENTS.values() if kind.name not in _OF_DENIALS)


def _texts(query: Query, document_of: Callable[[Mapping[str, Any]], dict[str, Any]] | None) -> Iterator[str]:
    if document_of is not None:
        for entry in entries_in_journal(query):
            yield json.dumps(document_of(entry))
        return
    render = ConsoleRenderer(colours=is_terminal() and "NO_COLOR" not in os.environ)
    day = ""
    for entry in entries_in_journal(query):
        event = event_of(entry)
        moment = local_time(_seconds(entry))
        if moment[:10] != day:
            day = moment[:10]
            yield day
        yield render(None, "", {**event, "timestamp": moment})


def event_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The event in a journal entry, with the keys that the JSON lines of the daemon have."""
    name = as_text(entry.get("FWGUARD_EVENT"))
    moment = datetime.fromtimestamp(_seconds(entry), UTC).isoformat(timespec="microseconds")
    head = {
        "timestamp": moment.replace("+00:00", "Z"),
        "event": name,
        "message": as_text(entry.get("MESSAGE")),
        "message_id": as_text(entry.get("MESSAGE_ID")),
        "priority": as_number(entry.get("PRIORITY")) or events.INFO,
    }
    return {**head, **fields_of(name, entry)}


def ecs_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The same as Elastic Common Schema, by way of which a SIEM compares events of many programs."""
    return ecs(any_from_entry(entry))


_FORMS = {(False, False): None, (False, True): event_of, (True, False): ecs_of, (True, True): ecs_of}
"""How an entry is printed with --ecs and --json; None is for people."""


def _seconds(entry: Mapping[str, Any]) -> float:
    """When journald got the entry, in seconds since the epoch."""
    return (as_number(entry.get("__REALTIME_TIMESTAMP")) or 0) / 1_000_000
