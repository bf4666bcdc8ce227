"""The verb counters: what each rule has counted, by file and line, across reloads, restarts and reboots."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import field
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ask
from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.pager import fitted
from fwguardd.ctl.verb_options import add_config, add_json, add_socket, describe
from fwguardd.escaping import printable
from fwguardd.values import dataclass
from fwguardd.wording import counted, days, local_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.control.documents import RuleCountDocument


@dataclass(slots=True)
class Line:
    """One line of a rule file: the rules that were made of it, in both families. Times are in seconds since 1970."""

    place: str
    text: str
    packets: int = 0
    bytes: int = 0
    since: float = 0.0
    last: float | None = None
    families: set[str] = field(default_factory=set)

    def add(self, rule: RuleCountDocument) -> None:
        """Add what a rule has counted."""
        self.packets += rule["packets"]
        self.bytes += rule["bytes"]
        self.since = max(self.since, rule["since"])
        self.last = max(filter(None, (self.last, rule["last"])), default=None)
        self.families.add(rule["family"])


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the options."""
    description = (
        "Show the packets and bytes that each line of the rule files has matched, IPv4 and IPv6 together, since it was "
        "first in force: across reloads, restarts and reboots."
    )
    examples = (
        ("fwguardctl counters", "all lines"),
        ("fwguardctl counters --unused", "lines that never matched"),
        ("fwguardctl counters --unused --since 30d", "lines that did not match within 30 days"),
    )
    describe(parser, description, examples)
    add_json(parser)
    add_config(parser)
    add_socket(parser)
    parser.add_argument("--unused", action="store_true", help="only lines that matched no packet")
    parser.add_argument(
        "--since", type=_seconds, metavar="30d", help="with --unused: within this time, such as 12h, 30d"
    )


def run(options: argparse.Namespace) -> int:
    """Ask the daemon and print its answer; the exit code. Raises ReportedError."""
    result = ask(socket_path_of(options), "counters")
    rules: list[RuleCountDocument] = result["rules"]
    now = time.time()
    lines = lines_of(rules)
    if options.unused:
        lines = unused(lines, now, options.since)
    if options.json:
        print(json.dumps({"lines": [_document(line) for line in lines]}))
        return 0
    for text in table(lines, AnswerPainter(), unused_only=options.unused):
        print(text)
    return 0


def lines_of(rules: Iterable[RuleCountDocument]) -> list[Line]:
    """The lines of the rule files, in the order of their first rules."""
    found: dict[tuple[object, ...], Line] = {}
    for rule in rules:
        place = f"{rule['table']} {rule['chain']}"
        key: tuple[object, ...] = (place, rule["rule"])
        if rule["file"] is not None:
            place = f"{rule['file']}:{rule['line']}"
            key = (rule["file"], rule["line"], rule["chain"])
        if key not in found:
            found[key] = Line(place, f"{rule['chain']} {rule['rule']}")
        found[key].add(rule)
    return list(found.values())


def unused(lines: Sequence[Line], now: float, within: float | None) -> list[Line]:
    """The lines that matched nothing, ever or within so many seconds, and that were in force for that long."""
    found: list[Line] = []
    for line in lines:
        if within is None:
            if not line.packets:
                found.append(line)
        elif line.since <= now - within and (line.last is None or line.last < now - within):
            found.append(line)
    return found


def table(lines: Sequence[Line], ink: AnswerPainter, *, unused_only: bool) -> list[str]:
    """The lines as text, and what the numbers mean."""
    if not lines:
        return [_NOTHING[unused_only]]
    rows = [("PACKETS", "BYTES", "LAST MATCH", "LINE")]
    rows += [(_short(line.packets), _short(line.bytes), _last(line), printable(line.place)) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    texts: list[str] = []
    for row, line in zip(rows, (None, *lines), strict=True):
        head = f"{row[0]:>{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:{widths[2]}}  {row[3]}"
        texts.append(ink.bold(head) if line is None else head)
        if line is not None:
            texts.append(ink.dim(fitted(f"    {printable(line.text)}")))
    oldest = min(line.since for line in lines)
    texts.append(f"{counted(len(lines), 'line')}; counted since {local_time(oldest)} or since the line is in force")
    return texts


_NOTHING = {
    False: "No rules are in force.",
    True: "All lines have matched packets, or have not been in force for that long.",
}

_STEPS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**4, "k"))


def _short(number: int) -> str:
    """A number in at most 5 characters, as iptables -L prints it."""
    for size, unit in _STEPS:
        if number >= size:
            return f"{number // (10**3 if unit == 'k' else size)}{unit}"
    return str(number)


def _last(line: Line) -> str:
    if line.last is None:
        return "never"
    return local_time(line.last)[:16]


def _document(line: Line) -> Mapping[str, Any]:
    return {
        "place": line.place,
        "rule": line.text,
        "families": sorted(line.families),
        "packets": line.packets,
        "bytes": line.bytes,
        "since": line.since,
        "last": line.last,
    }


def _seconds(text: str) -> float:
    try:
        return days(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
