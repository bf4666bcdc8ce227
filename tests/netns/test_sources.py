"""A real daemon with each source of denials: which one it opens, why, and the events."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.kernel.nflog import PacketLog
from tests.netns.conftest import ROOT
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]

pytestmark = pytest.mark.either_backend

one_backend = pytest.mark.parametrize("backend", ["nft"])
"""For what has nothing to do with the backend."""

NFLOG = '-j NFLOG --nflog-prefix "iptables denied: "'
RULES = {"10-nflog.rules": f"-P INPUT DROP\n-A INPUT -p tcp {NFLOG} --nflog-group 5\n-A INPUT -p ipv6-icmp -j ACCEPT\n"}


@pytest.mark.parametrize(("source", "target"), [("198.51.100.2", "198.51.100.1"), ("2001:db8::2", "2001:db8::1")])
def test_a_packet_that_nflog_copied_becomes_an_event(start_daemon: Start, peer: Any, source: str, target: str) -> None:
    """With NFLOG rules a denied SYN becomes an event, in a namespace where LOG would be silent: the same event
    as that of a LOG line, with the packet's bytes in the place of the line."""
    daemon = start_daemon(RULES, "source: nflog\n")
    daemon.event("rules.applied")
    daemon.end_pass()
    assert not peer.connects(target, 2323, seconds=0.2)
    event = daemon.event("denied", src=source, dpt=2323)
    assert (event["dst"], event["proto"], event["flags"], event["in"]) == (target, "tcp", ["SYN"], "guard0")
    assert event["message"].startswith("denied TCP SYN ")
    assert event["rule"] == f"{daemon.rules}/10-nflog.rules:2"
    assert bytes.fromhex(event["packet"])[0] >> 4 == (6 if ":" in source else 4)
    assert "line" not in event


@one_backend
def test_auto_is_the_kernel_log_where_it_can_be_read(start_daemon: Start) -> None:
    """Also in a network namespace, whose LOG rules may write nothing: the event names the sysctl."""
    event = start_daemon(RULES, "source: auto\n").event("denials.reading")
    assert event["source"] == "kmsg"
    assert "only while net.netfilter.nf_log_all_netns is 1" in event["message"]


IN_A_CONTAINER = """mount -t tmpfs dev /dev && mknod /dev/null c 1 3 && exec "$0" -c '
from fwguardd.denials.sources import NoSourceError, ReadPosition, SourceChoice, open_source
try:
    opened = open_source(SourceChoice.AUTO, ReadPosition(None, "boot", 7))
    print(opened.source.name, opened.why)
except NoSourceError as error:
    print("none", error)
'"""
"""The source of auto where there is no /dev/kmsg."""


def _opened_in_a_container() -> str:
    argv = ["unshare", "--mount", "sh", "-c", IN_A_CONTAINER, sys.executable]
    return subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_auto_is_nflog_in_a_container() -> None:
    """Where LOG rules write nothing and the kernel log cannot be opened auto is NFLOG, and the event says why."""
    said = _opened_in_a_container()
    assert said.startswith("nflog LOG rules write nothing in a network namespace")
    assert "/dev/kmsg" in said


def test_auto_says_why_each_source_cannot_be_opened() -> None:
    """When the group is in use too, the message names the process that has it."""
    with PacketLog(7) as other:
        said = _opened_in_a_container()
        assert f"NFLOG group 7 is bound to netlink port {other.port}" in said
    assert "/dev/kmsg" in said


@one_backend
def test_a_source_that_cannot_be_opened_is_reported_and_tried_at_a_reload(start_daemon: Start) -> None:
    """The one source that was asked for cannot be had: an event says why, and a reload takes it when it can be had."""
    with PacketLog(7):
        daemon = start_daemon(RULES, "source: nflog\nnflog_group: 7\n")
        event = daemon.event("denials.unavailable")
        assert "NFLOG group 7 is bound to" in event["message"]
        assert "fwguardctl reload" in event["message"]
        daemon.event("rules.applied")
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.event("denials.reading")["source"] == "nflog"


@one_backend
def test_a_reload_may_change_the_source(start_daemon: Start, peer: Any) -> None:
    """Another source in the settings is taken at the next reload."""
    daemon = start_daemon(RULES, "source: kmsg\n")
    assert daemon.event("denials.reading")["source"] == "kmsg"
    daemon.event("rules.applied")
    daemon.config.write_text("settle: 50ms\nsource: nflog\n")
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.event("denials.reading")["source"] == "nflog"
    assert not peer.connects("198.51.100.1", 2525, seconds=0.2)
    daemon.event("denied", dpt=2525)


FAULTY = """#!/bin/sh
[ ! -e "$0.broken" ] || { echo "no journal today" >&2; exit 1; }
exec /usr/bin/journalctl "$@"
"""
"""A journalctl that can be broken."""


@one_backend
def test_a_journalctl_that_ends_is_reported_and_started_again(start_daemon: Start, tmp_path: Path) -> None:
    """When the journalctl dies the daemon says so, and tries again, with growing waits, until there is another one."""
    faulty = tmp_path / "bin" / "journalctl"
    faulty.parent.mkdir()
    faulty.write_text(FAULTY)
    faulty.chmod(0o755)
    daemon = start_daemon(RULES, "source: journal\n", PATH=f"{faulty.parent}:{os.environ['PATH']}")
    assert daemon.event("denials.reading")["source"] == "journal"
    (child,) = children(daemon.process.pid, "journalctl")
    faulty.with_suffix(".broken").touch()
    os.kill(child, signal.SIGKILL)
    event = daemon.event("denials.unavailable")
    assert "journalctl has ended: killed by signal 9; fwguardd tries again in 1 s" in event["message"]
    event = daemon.event("denials.unavailable")
    assert "journalctl failed: no journal today; fwguardd tries again in 2 s" in event["message"]
    faulty.with_suffix(".broken").unlink()
    assert daemon.event("denials.reading")["source"] == "journal"
    (again,) = children(daemon.process.pid, "journalctl")
    assert daemon.stop() == 0
    wait_until(lambda: not Path(f"/proc/{again}").exists(), "the end of the journalctl")


@one_backend
def test_rules_that_log_to_another_place_are_named(start_daemon: Start) -> None:
    """A LOG rule with a watched prefix, while denials come from NFLOG, is named in an event, with what to do."""
    rules = RULES["10-nflog.rules"]
    daemon = start_daemon({"10-nflog.rules": rules, "20-log.rules": '-A OUTPUT -j LOG --log-prefix "[Output Log] "\n'})
    event = daemon.event("denials.unheard")
    assert (
        f"these rules log to another place: {daemon.rules}/10-nflog.rules:2 (NFLOG to group 5); change them to -j LOG"
        in (event["message"])
    )
    daemon.config.write_text("settle: 50ms\nsource: nflog\n")
    daemon.process.send_signal(signal.SIGHUP)
    event = daemon.event("denials.unheard")
    assert f"{daemon.rules}/20-log.rules:1 (LOG); change them to -j NFLOG --nflog-group 5" in event["message"]


def children(pid: int, name: str) -> list[int]:
    """The children of a process that run a program of this name."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, _, rest = (folder / "stat").read_text().rpartition(") ")
            if int(rest.split()[1]) == pid and (folder / "comm").read_text().strip() == name:
                found.append(int(folder.name))
        except OSError:
            continue
    return found
