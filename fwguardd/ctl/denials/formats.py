"""Events as JSON, in the form of ``fwguardd --log json`` or as Elastic Common Schema (ECS 8.11).

An event has the keys that ``fwguardd --log json`` writes: timestamp (UTC), event, message, and its fields. A line
without a time of day has a null timestamp; the time since boot is ``uptime``, in seconds.

In ECS an event has the schema's fields; every field of fwguardd that the schema has no place for is under ``fwguard``,
as the schema wants for custom fields. Source: the ECS field reference of that version.

This module is pure.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from fwguardd import __version__
from fwguardd.ctl.denials import ecs_events
from fwguardd.ctl.denials.community_id import community_id

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

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


def _without(fields: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """The fields that have none of these names."""
    return {key: value for key, value in fields.items() if key not in names}


def event_object(event: Event) -> dict[str, Any]:
    """One event, with stable keys."""
    head: dict[str, Any] = {"timestamp": timestamp(event.realtime), "event": event.name, "message": event.message}
    if event.uptime is not None:
        head["uptime"] = event.uptime / 1_000_000
    if event.host is not None:
        head["host"] = event.host
    return {**head, **_without(event.fields, head)}


def json_line(document: Mapping[str, Any]) -> str:
    """One object on one line. Characters beyond ASCII are escaped: they are often hostile input."""
    return json.dumps(document)


def pieces(events: Iterable[Event]) -> Iterator[str]:
    """The document with the events, without its end, piece by piece: it can be of any size. `last_piece` is its end."""
    comma = ""
    yield '{"denials": ['
    for event in events:
        yield f"{comma}\n{json_line(event_object(event))}"
        comma = ","


def last_piece(account: Mapping[str, object] | None) -> str:
    """The end of the document: the account of the lines, or null if the journal was read."""
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
"""Fields that the schema has a place for."""


def ecs(event: Event) -> dict[str, Any]:
    """The event as nested objects."""
    found = event.fields
    parts = {
        "event": _event(event),
        "observer": _observer(event),
        "network": _network(event),
        "source": _end(found, "src", "spt", "mac_src"),
        "destination": _end(found, "dst", "dpt", "mac_dst"),
        "related": {"ip": _addresses(found)},
        "rule": {"name": found.get("name"), "id": found.get("rule")},
        "process": ecs_events.process(found),
        "user": ecs_events.user(found),
        "error": {"stack_trace": found.get("traceback")},
        "fwguard": _rest(event),
    }
    document = {"@timestamp": timestamp(event.realtime), "message": event.message, "ecs": {"version": ECS_VERSION}}
    for name, part in parts.items():
        values = _known(part)
        if values:
            document[name] = values
    return document


def _known(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None}


def _addresses(found: Mapping[str, Any]) -> list[Any] | None:
    addresses: list[Any] = []
    for key in ("src", "dst"):
        if key in found and found[key] not in addresses:
            addresses.append(found[key])
    return addresses or None


def _event(event: Event) -> dict[str, Any]:
    found = event.fields
    return {
        **_categories(event),
        "module": "fwguardd",
        "dataset": f"fwguardd.{event.name}",
        "reason": found.get("reason"),
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
        "ingress": _interface(found.get("in")),
        "egress": _interface(found.get("out")),
    }


_TYPES: Final = {"denied": "denied", "allowed": "allowed"}


def _categories(event: Event) -> dict[str, Any]:
    if event.is_notice:
        return {
            "kind": "alert",
            "category": ["network", "intrusion_detection"],
            "type": ["info"],
            "action": event.name,
        }
    if event.is_of_packets:
        types = ["connection", _TYPES.get(event.meaning, "info")]
        return {"kind": "event", "category": ["network"], "type": types, "action": event.meaning}
    return ecs_events.categories(event.name)


def _interface(name: str | None) -> dict[str, Any] | None:
    if name is None:
        return None
    return {"interface": {"name": name}}


def _network(event: Event) -> dict[str, Any]:
    found = event.fields
    network = {**_protocol(str(found.get("proto", ""))), "direction": _direction(found), "bytes": found.get("len")}
    if found.get("family") in {"ipv4", "ipv6"}:
        network["type"] = found["family"]
    if event.is_of_packets:
        network["packets"] = found.get("count")
        network["community_id"] = community_id(found)
    if "vlan" in found:
        network["vlan"] = {"id": str(found["vlan"])}
    return network


def _protocol(proto: str) -> dict[str, Any]:
    if proto in _IANA_NUMBERS:
        return {"transport": proto, "iana_number": str(_IANA_NUMBERS[proto])}
    if proto.isdigit():
        return {"iana_number": proto}
    return {}


def _direction(found: Mapping[str, Any]) -> str | None:
    """From the point of view of the host. For a forwarded packet the schema needs to know which side is internal."""
    ways = ("in" in found, "out" in found)
    return {(True, False): "ingress", (False, True): "egress"}.get(ways)


def _end(found: Mapping[str, Any], address: str, port: str, mac: str) -> dict[str, Any]:
    """One end of the flow. A MAC address is spelled as RFC 7042 has it, as the schema wants: 00-00-5E-00-53-23."""
    hardware = None
    if mac in found:
        hardware = str(found[mac]).upper().replace(":", "-")
    return {"ip": found.get(address), "port": found.get(port), "mac": hardware}


def _rest(event: Event) -> dict[str, Any]:
    """The fields that the schema has no place for."""
    rest = _without(event.fields, _PLACED | ecs_events.PLACED)
    if event.is_of_packets:
        rest.pop("count", None)
    if event.uptime is not None:
        rest["uptime"] = event.uptime / 1_000_000
    return rest
