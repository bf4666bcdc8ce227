"""Events in the Elastic Common Schema: the Community ID of packets, and events that are not about packets."""

from __future__ import annotations

from typing import Any

import pytest

from fwguardd import events
from fwguardd.ctl.denials.community_id import community_id
from fwguardd.ctl.watch_verb import ecs_of

_CATEGORIES = {"configuration": {"change", "info"}, "network": {"info", "connection", "denied"}}
_CATEGORIES |= {"host": {"info", "start", "end"}, "intrusion_detection": {"info"}}
"""The types that ECS 8.11 allows for each category, as far as events have them."""


@pytest.mark.parametrize(
    ("proto", "src", "dst", "numbers", "expected"),
    [
        ("tcp", "128.232.110.120", "66.35.250.204", {"spt": 34855, "dpt": 80}, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("tcp", "66.35.250.204", "128.232.110.120", {"spt": 80, "dpt": 34855}, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("udp", "192.168.1.52", "8.8.8.8", {"spt": 54585, "dpt": 53}, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        ("icmp", "192.168.0.89", "192.168.0.1", {"icmp_type": 8, "icmp_code": 0}, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
        ("icmp", "192.168.0.89", "192.168.0.1", {"icmp_type": 3, "icmp_code": 1}, "1:LXCfhMUFbYXe+CEMrQuZCbiLY3o="),
        (
            *("ipv6-icmp", "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", {"icmp_type": 135}),
            "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=",
        ),
        ("47", "192.168.0.89", "192.168.0.1", {}, "1:5YJ6uTyKrB0n5ETMmLUBJamOs6Q="),
        ("tcp", "128.232.110.120", "66.35.250.204", {"dpt": 80}, None),
        ("arp", "128.232.110.120", "66.35.250.204", {}, None),
    ],
)
def test_the_community_id_is_that_of_other_programs(
    proto: str, src: str, dst: str, numbers: dict[str, int], expected: str | None
) -> None:
    """Each id is the one that the reference implementation of the specification computes, in both directions of a flow;
    without a port there is none."""
    assert community_id({"proto": proto, "src": src, "dst": dst, **numbers}) == expected


def _entry(name: str, **fields: object) -> dict[str, Any]:
    return {
        "FWGUARD_EVENT": name,
        "MESSAGE": "words",
        "__REALTIME_TIMESTAMP": "1795851994536816",
        "_HOSTNAME": "gate",
        **{f"FWGUARD_{key.upper()}": value for key, value in fields.items()},
    }


def test_drift_names_its_process_and_user() -> None:
    """The process that has changed the rules, its parent and its user are where the schema has them."""
    fields = {"culprit_pid": "812", "culprit_process": "iptables", "culprit_command": "iptables -F", "culprit_uid": "0"}
    found = ecs_of(_entry("drift.detected", **fields, culprit_user="root", culprit_parent="bash", changes="3"))
    assert found["process"] == {
        "pid": 812, "name": "iptables", "command_line": "iptables -F", "parent": {"name": "bash"},
    }  # fmt: skip
    assert found["user"] == {"id": "0", "name": "root"}
    assert found["event"]["type"] == ["change"]
    assert found["fwguard"] == {"changes": 3}
    assert found["@timestamp"] == "2026-11-28T07:46:34.536816Z"


@pytest.mark.parametrize("kind", events.ALL_EVENTS.values(), ids=events.ALL_EVENTS)
def test_every_event_is_in_the_schema(kind: events.EventKind) -> None:
    """Every event has a kind, a category, and a type that the schema allows for the category."""
    event = ecs_of(_entry(kind.name))["event"]
    assert event["kind"] in {"event", "alert"}
    for category in event["category"]:
        assert set(event["type"]) <= _CATEGORIES[category] | {"connection", "denied"}
    assert event["dataset"] == f"fwguardd.{kind.name}"
