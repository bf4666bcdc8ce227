"""Events as JSON: one document for what has an end, one object a line for what has none.

An event has the keys that ``fwguardd --log json`` writes: timestamp (UTC), event, message, and its fields. A line that
tells no time of day has a null timestamp; the time since boot is ``uptime``, in seconds.

An event as Elastic Common Schema has it (ECS 8.11), for a SIEM: one JSON object a line.

What has a place in the schema is there; every field of ours that has none stands under ``fwguard``, the schema's way
for custom fields. Source: the ECS field reference of that version.

This module is pure.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from fwguardd import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.ctl.denials.event import Event


_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC; without a zone, none is printed.


def timestamp(usec: int | None) -> str | None:
    """Microseconds since the epoch as ISO 8601 in UTC; None for a time beyond the calendar."""
    try:
        if usec is not None:
            return f"{(_EPOCH + timedelta(microseconds=usec)).isoformat(timespec='microseconds')}Z"
    except OverflowError:
        pass
    return None


def event_object(event: Event) -> dict[str, Any]:
    """One event with stable keys."""
    head: dict[str, Any] = {"timestamp": timestamp(event.realtime), "event": event.name, "message": event.message}
    if event.uptime is not None:
        head["uptime"] = event.uptime / 1_000_000
    if event.host is not None:
        head["host"] = event.host
    return {**head, **{key: value for key, value in event.fields.items() if key not in head}}


def json_line(document: Mapping[str, Any]) -> str:
    """One object on one line. Characters beyond ASCII are escaped: they are hostile input as often as not."""
    return json.dumps(document)


def pieces(events: Iterable[Event]) -> Iterator[str]:
    """The beginning of the one document that holds the events, piece by piece, so that it may be of any size;
    `last_piece` ends it."""
    comma = ""
    yield '{"denials": ['
    for event in events:
        yield f"{comma}\n{json_line(event_object(event))}"
        comma = ","


def last_piece(account: Mapping[str, object] | None) -> str:
    """The end of the document: what was read, or null where the journal was."""
    return f'\n], "read": {json.dumps(account)}}}\n'


ECS_VERSION: Final = "8.11.0"

_IANA_NUMBERS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "ipv6-icmp": 58, "udplite": 136}
"""IANA's "Assigned Internet Protocol Numbers"."""

_PLACED: Final = frozenset(
    {
        "src", "spt", "mac_src", "dst", "dpt", "mac_dst", "proto", "family", "in", "out", "len", "vlan", "name", "rule",
        "meaning", "line", "kmsg_seq", "first", "last",
    }
)  # fmt: skip
"""Our fields that the schema has a place for."""


def ecs(event: Event) -> dict[str, Any]:
    """The event as nested objects."""
    found = event.fields
    parts = {
        "event": _event(event),
        "observer": _observer(event),
        "network": _network(event),
        "source": _end(found, "src", "spt", "mac_src"),
        "destination": _end(found, "dst", "dpt", "mac_dst"),
        "related": {"ip": list(dict.fromkeys(found[key] for key in ("src", "dst") if key in found)) or None},
        "rule": {"name": found.get("name"), "id": found.get("rule")},
        "fwguard": _rest(event),
    }
    document = {"@timestamp": timestamp(event.realtime), "message": event.message, "ecs": {"version": ECS_VERSION}}
    for name, part in parts.items():
        said = {key: value for key, value in part.items() if value is not None}
        if said:
            document[name] = said
    return document


def _event(event: Event) -> dict[str, Any]:
    found = event.fields
    kinds = ["info"]
    if event.is_of_packets:
        kinds = ["connection", "denied" if event.meaning == "denied" else "info"]
    return {
        "kind": "alert" if event.is_notice else "event",
        "category": ["network", "intrusion_detection"] if event.is_notice else ["network"],
        "type": kinds,
        "action": event.meaning if event.is_of_packets else event.name,
        "module": "fwguardd",
        "dataset": f"fwguardd.{event.name}",
        "original": found.get("line"),
        "sequence": found.get("kmsg_seq"),
        "start": found.get("first"),
        "end": found.get("last"),
    }


def _observer(event: Event) -> dict[str, Any]:
    found = event.fields
    return {
        "type": "firewall",
        "product": "fwguardd",
        "version": __version__,
        "hostname": event.host,
        "ingress": {"interface": {"name": found["in"]}} if "in" in found else None,
        "egress": {"interface": {"name": found["out"]}} if "out" in found else None,
    }


def _network(event: Event) -> dict[str, Any]:
    found = event.fields
    family, proto = found.get("family"), str(found.get("proto", ""))
    number = _IANA_NUMBERS.get(proto)
    return {
        "type": family if family in {"ipv4", "ipv6"} else None,
        "transport": proto if number is not None else None,
        "iana_number": str(number) if number is not None else proto if proto.isdigit() else None,
        "direction": _direction(found),
        "bytes": found.get("len"),
        "packets": found.get("count") if event.is_of_packets else None,
        "vlan": {"id": str(found["vlan"])} if "vlan" in found else None,
    }


def _direction(found: Mapping[str, Any]) -> str | None:
    """From the host's point of view; of what is forwarded the schema wants to know more than we do."""
    ways = ("in" in found, "out" in found)
    return {(True, False): "ingress", (False, True): "egress"}.get(ways)


def _end(found: Mapping[str, Any], address: str, port: str, mac: str) -> dict[str, Any]:
    """One end of the flow. A MAC address is spelled as RFC 7042 has it, as the schema wants: 00-00-5E-00-53-23."""
    hardware = str(found[mac]).upper().replace(":", "-") if mac in found else None
    return {"ip": found.get(address), "port": found.get(port), "mac": hardware}


def _rest(event: Event) -> dict[str, Any]:
    """Whatever of ours has no place in the schema."""
    rest = {key: value for key, value in event.fields.items() if key not in _PLACED}
    if event.is_of_packets:
        rest.pop("count", None)
    if event.uptime is not None:
        rest["uptime"] = event.uptime / 1_000_000
    return rest
