"""The road of a denial on the real kernel: a packet is dropped, an event tells it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(("source", "target"), [("198.51.100.2", "198.51.100.1"), ("2001:db8::2", "2001:db8::1")])
def test_a_denied_syn_becomes_an_event_within_a_second(
    start_daemon: Callable[..., Any], peer: Any, kernel_log_of_namespaces: Callable[[], None], source: str, target: str
) -> None:
    """The event of a denied TCP SYN has source, destination, ports, interface and prefix, and comes within a second."""
    daemon = start_daemon()
    daemon.event("rules.applied")
    kernel_log_of_namespaces()
    begun = time.monotonic()
    assert not peer.connects(target, 2323, seconds=0.2)
    event = daemon.event("denied", seconds=1.0, src=source, dpt=2323)
    assert time.monotonic() - begun < 1.0
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
    """A line with the prefix of the shipped OUTPUT rule becomes an event that does not call it a denial."""
    daemon = start_daemon()
    daemon.event("rules.applied")
    kernel_log_of_namespaces()
    # The answer to a packet that nobody asked for would leave; instead a new connection out of this host is tried.
    import socket  # noqa: PLC0415

    with socket.socket() as attempt:
        attempt.settimeout(0.2)
        with pytest.raises(OSError, match=r"timed out|not permitted"):
            attempt.connect(("198.51.100.2", 2424))
    event = daemon.event("logged", seconds=1.0, dpt=2424)
    assert event["out"] == "guard0"
    assert event["meaning"] == "logged"
    assert peer is not None


def test_own_prefixes_are_settings(
    start_daemon: Callable[..., Any], peer: Any, kernel_log_of_namespaces: Callable[[], None]
) -> None:
    """A prefix named in the settings is watched, with the meaning that the settings give it."""
    rules = '-P INPUT DROP\n-A INPUT -p tcp --dport 2525 -j LOG --log-prefix "odd one "\n'
    daemon = start_daemon({"10-log.rules": rules}, 'prefixes: [{name: odd, prefix: "odd one ", meaning: logged}]\n')
    daemon.event("rules.applied")
    kernel_log_of_namespaces()
    assert not peer.connects("198.51.100.1", 2525, seconds=0.2)
    assert daemon.event("logged", seconds=1.0, dpt=2525)["name"] == "odd"
