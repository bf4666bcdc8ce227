"""Denials on the real kernel: a packet is dropped, and there is an event about it."""

from __future__ import annotations

import secrets
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.either_backend


@pytest.mark.parametrize(("source", "target"), [("198.51.100.2", "198.51.100.1"), ("2001:db8::2", "2001:db8::1")])
def test_a_denied_syn_becomes_an_event(
    start_daemon: Callable[..., Any], peer: Any, kernel_log_of_namespaces: Callable[[], None], source: str, target: str
) -> None:
    """The event of a denied TCP SYN has source, destination, ports, interface and prefix."""
    daemon = start_daemon()
    daemon.event("rules.applied")
    # Only then does the denial reader know which rule logs what.
    daemon.end_pass()
    kernel_log_of_namespaces()
    assert not peer.connects(target, 2323, seconds=0.2)
    event = daemon.event("denied", src=source, dpt=2323)
    assert event["dst"] == target
    assert event["proto"] == "tcp"
    assert event["in"] == "guard0"
    assert event["prefix"] == "iptables denied: "
    assert isinstance(event["spt"], int)
    assert event["flags"] == ["SYN"]
    assert event["message"].startswith("denied TCP SYN ")
    assert event["message"].endswith(" in guard0 (99-log.rules:4)")
    assert event["rule"] == f"{daemon.rules}/99-log.rules:4"


def test_the_output_prefix_is_watched_too(
    start_daemon: Callable[..., Any], peer: Any, kernel_log_of_namespaces: Callable[[], None]
) -> None:
    """A line with the prefix of the shipped OUTPUT rule becomes an event of a denial: the policy dropped it."""
    daemon = start_daemon()
    daemon.event("rules.applied")
    kernel_log_of_namespaces()
    # The answer to a packet that nobody asked for would leave; instead a new connection out of this host is tried.
    with socket.socket() as attempt:
        attempt.settimeout(0.2)
        with pytest.raises(OSError, match=r"timed out|not permitted"):
            attempt.connect(("198.51.100.2", 2424))
    event = daemon.event("denied", dpt=2424)
    assert event["out"] == "guard0"
    assert event["meaning"] == "denied"
    assert peer is not None


SCAN = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for port in range(2000, 2401):
        sender.sendto(b"", ("198.51.100.1", port))
"""


def test_a_scan_is_seen_with_the_shipped_rules(
    tmp_path: Path, start_daemon: Callable[..., Any], peer: Any, kernel_log_of_namespaces: Callable[[], None]
) -> None:
    """The limit of the shipped rules lets a scan of 401 ports be seen, and how much it suppressed is reported."""
    daemon = start_daemon(settings="drift_interval: 1s\n")
    daemon.event("rules.applied")
    daemon.end_pass()
    kernel_log_of_namespaces()
    script = tmp_path / "scan.py"
    script.write_text(SCAN, encoding="ascii")
    peer.run(f"{sys.executable} {script}")
    assert daemon.event("denials.scan")["src"] == "198.51.100.2"
    event = daemon.event("denials.suppressed", place="ipv4 filter INPUT")
    assert event["reached"] >= 401
    assert 30 <= event["logged"] < 60
    assert event["count"] == event["reached"] - event["logged"]
    assert event["rule"] == f"{daemon.rules}/99-log.rules:4"


def test_own_prefixes_are_settings(
    start_daemon: Callable[..., Any], peer: Any, kernel_log_of_namespaces: Callable[[], None]
) -> None:
    """A prefix named in the settings is watched, with the meaning that the settings give it."""
    rules = '-P INPUT DROP\n-A INPUT -p tcp --dport 2525 -j LOG --log-prefix "odd one "\n'
    daemon = start_daemon({"10-log.rules": rules}, 'prefixes: [{name: odd, prefix: "odd one ", meaning: logged}]\n')
    daemon.event("rules.applied")
    kernel_log_of_namespaces()
    assert not peer.connects("198.51.100.1", 2525, seconds=0.2)
    assert daemon.event("logged", dpt=2525)["name"] == "odd"


def test_repeated_packets_become_one_summary_and_many_ports_a_scan(
    start_daemon: Callable[..., Any], kernel_log_of_namespaces: Callable[[], None]
) -> None:
    """Of a flow one event comes at once, and a summary of the others when its window ends, though no other packet
    comes; a source that asks for many ports is reported as a scan."""
    prefix = f"{secrets.token_hex(4)} "
    rules = {"10-log.rules": f'-A INPUT -p udp --dport 2000:3000 -j LOG --log-prefix "{prefix}"\n'}
    settings = f'prefixes: [{{name: knock, prefix: "{prefix}"}}]\ndenials_window: 1s\ndenials_first: 1\nscan_ports: 5\n'
    daemon = start_daemon(rules, settings)
    daemon.event("rules.applied")
    kernel_log_of_namespaces()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in [*[2000] * 8, 2001, 2002, 2003, 2004]:
            sender.sendto(b"", ("127.0.0.1", port))
    scan = daemon.event("denials.scan")
    assert scan["ports"] == ["udp/2000", "udp/2001", "udp/2002", "udp/2003", "udp/2004"]
    assert scan["spoofable"] == "yes"
    summary = daemon.event("denied.summary")
    assert (summary["count"], summary["dpt"], summary["src"]) == (7, 2000, "127.0.0.1")
    assert summary["rule"] == f"{daemon.rules}/10-log.rules:1"
    assert [event["dpt"] for event in daemon.seen if event["event"] == "denied"] == [2000, 2001, 2002, 2003, 2004]
