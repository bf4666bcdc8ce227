"""What a real journald makes of the events: fields to search by, explanations to read, and nothing lost in a flood."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.bed import Bed, Guarded

pytestmark = pytest.mark.kernel_log

FLOOD = 400
LOG_ALL = '-I INPUT -p udp --dport 7000:7999 -j LOG --log-prefix "{}"\n'
NARROW = "[Journal]\nRateLimitIntervalSec=1h\nRateLimitBurst=10\n"
"""A limit that journald multiplies by six at most, for a disk with much room (journald.conf(5))."""


@pytest.fixture(scope="module")
def machine(machine: Bed) -> Bed:
    """A bed whose journald limits the rate of messages long before it would on a real host."""
    folder = machine.file("/etc/systemd/journald.conf.d")
    folder.mkdir()
    (folder / "narrow.conf").write_text(NARROW)
    return machine


@pytest.fixture(scope="module")
def peered(guarded: Guarded) -> Guarded:
    """The guarded bed with another host beside it."""
    guarded.add_peer()
    guarded.drop("05-log-all.rules", LOG_ALL.format(guarded.prefix))
    guarded.bed.run("systemctl reload fwguardd")
    return guarded


def test_a_denied_packet_is_found_by_its_fields(peered: Guarded, kernel_log_of_namespaces: Callable[[], None]) -> None:
    """A packet that the peer sends and a rule denies is an entry of the unit, with a field for whatever the kernel
    said about it."""
    kernel_log_of_namespaces()
    peered.peer_sends(7007)
    entry = peered.bed.event("denied", "FWGUARD_DPT=7007", "_SYSTEMD_UNIT=fwguardd.service")
    shown = {name: entry[f"FWGUARD_{name}"] for name in ("SRC", "DST", "PROTO", "IN", "PREFIX")}
    assert shown == {
        "SRC": "198.51.100.2",
        "DST": "198.51.100.1",
        "PROTO": "udp",
        "IN": "wan0",
        "PREFIX": peered.prefix,
    }
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("4", "fwguardd")
    assert "→ 198.51.100.1:7007 in wan0" in entry["MESSAGE"]
    assert peered.bed.show("fwguardd", "StatusText").startswith("in-force: revision ")


def test_a_change_shows_which_denied_packets_it_lets_in(
    peered: Guarded, kernel_log_of_namespaces: Callable[[], None]
) -> None:
    """Of the denials of the last hour, as the journal has them, impact and diff list those that a draft lets in, with
    the rule, and not the others."""
    bed = peered.bed
    kernel_log_of_namespaces()
    peered.peer_sends(7008, 2)
    bed.event("denied", "FWGUARD_DPT=7009")
    bed.run("cp -r /etc/fwguard.d /var/tmp/draft")
    bed.file("/var/tmp/draft/60-app.rules").write_text("-A INPUT -p udp --dport 7008 -j ACCEPT\n")
    shown = bed.run("fwguardctl impact --rules-dir /var/tmp/draft --json", check=False)
    (turned,) = json.loads(shown.stdout)["let_in"]
    assert turned["packet"]["source"] == "198.51.100.2"
    assert (turned["packet"]["destination_port"], turned["file"]) == (7008, "/var/tmp/draft/60-app.rules")
    for verb in ("impact", "diff"):
        text = bed.run(f"fwguardctl {verb} --rules-dir /var/tmp/draft", check=False).stdout
        (line,) = [line for line in text.splitlines() if line.startswith("let in ")]
        assert "198.51.100.2" in line
        assert "1 denied packet would be let in" in text


def test_the_catalog_explains_it(peered: Guarded) -> None:
    """With journalctl -x an event comes with what it means and what to do."""
    shown = peered.bed.output("journalctl --no-pager -x -t fwguardd FWGUARD_EVENT=daemon.started")
    assert "fwguardd has started" in shown
    assert "To see the state of the firewall: fwguardctl status" in shown
    listed = peered.bed.output("journalctl --no-pager --list-catalog").splitlines()
    assert "07242b5be33a42b685615e71d6680c85 fwguardd: A packet was denied" in listed


def test_drift_is_reported_and_repaired(peered: Guarded) -> None:
    """Somebody else's change is an event that names it, the repair is another, and the rules are as before."""
    before = peered.saved()
    peered.bed.run("iptables -D INPUT -i lo -j ACCEPT")
    drift = peered.bed.event("drift.detected")
    assert "-A INPUT -i lo -j ACCEPT" in drift["MESSAGE"]
    assert "(iptables)" in drift["MESSAGE"]
    peered.bed.event("drift.repaired")
    assert peered.saved() == before


def test_journald_limits_others_and_not_us(peered: Guarded, kernel_log_of_namespaces: Callable[[], None]) -> None:
    """In a flood every denied packet is in the journal, or in a number that the journal holds: journald's own limit,
    which swallows most of another service's messages, lets all of ours through."""
    bed, ports = peered.bed, range(7100, 7100 + FLOOD)
    bed.run("systemd-run --wait --unit=talker seq 300")
    assert len(bed.journal("_SYSTEMD_UNIT=talker.service", "_TRANSPORT=stdout")) < 300
    kernel_log_of_namespaces()
    peered.peer_sends(ports[0], len(ports), pause=0.001)

    def all_accounted_for() -> bool:
        entries = bed.journal("SYSLOG_IDENTIFIER=fwguardd", "FWGUARD_EVENT=denied", "FWGUARD_SRC=198.51.100.2")
        shown = {int(entry["FWGUARD_DPT"]) for entry in entries}
        lost = sum(int(entry["FWGUARD_COUNT"]) for entry in bed.journal("FWGUARD_EVENT=denials.lost"))
        return len(shown.intersection(ports)) + lost >= len(ports)

    wait_until(all_accounted_for, "events for all packets", pause=0.2)
