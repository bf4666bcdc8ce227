"""An event as Elastic Common Schema has it (ECS 8.11), for a SIEM: one JSON object a line.

What has a place in the schema is there; every field of ours that has none stands under ``fwguard``, the schema's way
for custom fields. Source: the ECS field reference of that version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fwguardd import __version__
from fwguardd.ctl.denials.document import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.ctl.denials.event import Event

ECS_VERSION: Final = "8.11.0"

_IANA_NUMBERS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "esp": 50, "ah": 51, "ipv6-icmp": 58, "udplite": 136}
"""IANA's "Assigned Internet Protocol Numbers"."""

_PLACES: Final[Mapping[str, str]] = {
    "src": "source.ip",
    "spt": "source.port",
    "dst": "destination.ip",
    "dpt": "destination.port",
    "in": "observer.ingress.interface.name",
    "out": "observer.egress.interface.name",
    "len": "network.bytes",
    "vlan": "network.vlan.id",
    "name": "rule.name",
    "line": "event.original",
    "kmsg_seq": "event.sequence",
    "first": "event.start",
    "last": "event.end",
}
"""Our fields that the schema has as they are, but for the name."""

_TOLD_OTHERWISE: Final = frozenset({"proto", "family", "mac_src", "mac_dst", "meaning", "vlan", "rule"})


def ecs(event: Event) -> dict[str, Any]:
    """The event as nested objects."""
    found = event.fields
    document: dict[str, Any] = {"@timestamp": timestamp(event.realtime), "message": event.message}
    for path, value in (*_event(event).items(), *_network(found).items(), *_ends(event).items()):
        if value is not None:
            _put(document, path, value)
    for key, path in _PLACES.items():
        if key in found:
            _put(document, path, found[key])
    rest = {key: value for key, value in found.items() if key not in _PLACES and key not in _TOLD_OTHERWISE}
    if event.is_of_packets and "count" in rest:
        _put(document, "network.packets", rest.pop("count"))
    if event.uptime is not None:
        rest["uptime"] = event.uptime / 1_000_000
    if rest:
        document["fwguard"] = rest
    return document


def _event(event: Event) -> dict[str, Any]:
    kinds = ["info"]
    if event.is_of_packets:
        kinds = ["connection", "denied" if event.meaning == "denied" else "info"]
    return {
        "ecs.version": ECS_VERSION,
        "event.kind": "event",
        "event.category": ["network"],
        "event.type": kinds,
        "event.action": event.meaning if event.is_of_packets else event.name,
        "event.module": "fwguardd",
        "event.dataset": f"fwguardd.{event.name}",
        "observer.type": "firewall",
        "observer.product": "fwguardd",
        "observer.version": __version__,
        "observer.hostname": event.host,
    }


def _network(found: Mapping[str, Any]) -> dict[str, Any]:
    family, proto = found.get("family"), found.get("proto")
    known = proto if proto in _IANA_NUMBERS else None
    number = _IANA_NUMBERS.get(str(proto)) or (int(proto) if proto and str(proto).isdigit() else None)
    return {
        "network.type": family if family in {"ipv4", "ipv6"} else None,
        "network.transport": known,
        "network.iana_number": str(number) if number is not None else None,
        "network.direction": _direction(found),
    }


def _direction(found: Mapping[str, Any]) -> str | None:
    """From the host's point of view; of what is forwarded the schema wants to know more than we do."""
    ways = ("in" in found, "out" in found)
    return {(True, False): "ingress", (False, True): "egress"}.get(ways)


def _ends(event: Event) -> dict[str, Any]:
    found = event.fields
    return {
        "source.mac": _mac(found.get("mac_src")),
        "destination.mac": _mac(found.get("mac_dst")),
        "related.ip": list(dict.fromkeys(str(found[key]) for key in ("src", "dst") if key in found)) or None,
        "rule.id": found.get("rule"),
    }


def _mac(address: object) -> str | None:
    """RFC 7042's spelling, as the schema wants it: 00-00-5E-00-53-23."""
    return str(address).upper().replace(":", "-") if address else None


def _put(document: dict[str, Any], path: str, value: object) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        document = document.setdefault(folder, {})
    document[name] = value
