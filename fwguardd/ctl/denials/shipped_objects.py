"""Objects of JSON that log shippers and container runtimes write: the text, and where it is named program and host.

Known are Docker and CRI-O, Fluentd, Fluent Bit, Vector, Filebeat and Logstash (ECS), rsyslog, syslog-ng, GELF, and what
Elasticsearch, Splunk and the clouds export. They differ in the names of their fields only.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.journal_fields import as_text
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.ctl.denials.times import StampReader

_NESTED: Final = ("_source", "result", "jsonPayload", "fields")
"""Where Elasticsearch, Splunk and Google's logging put the fields."""

_TEXTS: Final = ("log", "MESSAGE", "message", "msg", "short_message", "SyslogMessage", "Message", "line", "_raw")
_PROGRAMS: Final = (
    "ident", "programname", "appname", "app-name", "program", "PROGRAM", "syslogtag", "tag", "ProcessName",
    "SYSLOG_IDENTIFIER", "SourceName", "process.name", "syslog.identifier",
)  # fmt: skip
_HOSTS: Final = ("_HOSTNAME", "hostname", "host", "host.name", "HOST", "logsource", "Computer", "Hostname")
_FACILITIES: Final = (
    "SYSLOG_FACILITY", "syslogfacility", "facility", "FACILITY", "Facility", "_facility", "syslog.facility",
    "log.syslog.facility.code",
)  # fmt: skip
_TIMES: Final = (
    "time", "@timestamp", "timestamp", "timereported", "date", "ts", "TimeGenerated", "_time", "EventTime",
    "talos-time",
)  # fmt: skip
_OF_KERNEL: Final = frozenset({"0", "kern", "kernel", ""})
_EARLIEST, _LATEST = 100_000_000, 10_000_000_000_000
"""A number outside is not a time of day: dmesg gives the seconds since boot."""

_MILLISECONDS: Final = 100_000_000_000
"""A number of seconds as great as this is one of milliseconds."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A text, and what the object names beside it; empty where it names nothing."""

    text: str
    program: str
    host: str
    realtime: int | None
    is_relayed: bool
    """Whether it names a facility that is not the kernel's."""


def read_shipped(entry: Mapping[str, Any], stamps: StampReader) -> Shipped | None:
    """The text in an object; None if it has none."""
    for name in _NESTED:
        inner = entry.get(name)
        if isinstance(inner, dict):
            entry = {**entry, **inner}
    text = _first(entry, _TEXTS).rstrip("\r\n")
    if not text:
        return None
    program = _first(entry, _PROGRAMS).rstrip(": ").removesuffix("[0]")
    realtime = None
    for name in _TIMES:
        realtime = realtime or _realtime(entry.get(name), stamps)
    is_relayed = _first(entry, _FACILITIES) not in _OF_KERNEL
    return Shipped(text, program, _first(entry, _HOSTS), realtime, is_relayed)


def _first(entry: Mapping[str, Any], paths: Iterable[str]) -> str:
    """The first text that there is under some names; a name with points is that of a field of an object."""
    for path in paths:
        found = _at(entry, path)
        if isinstance(found, int):
            return str(found)
        text = as_text(found)
        if text:
            return text
    return ""


def _at(entry: Mapping[str, Any], path: str) -> object:
    found: object = entry
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _realtime(value: object, stamps: StampReader) -> int | None:
    """Microseconds since the epoch, of a number of seconds or milliseconds, or of a time of ISO 8601."""
    if isinstance(value, str):
        return stamps.read_iso(value.replace(" +", "+").replace(" -", "-"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _EARLIEST < value < _LATEST:
        return None
    if value >= _MILLISECONDS:
        return round(value * 1_000)
    return round(value * 1_000_000)
