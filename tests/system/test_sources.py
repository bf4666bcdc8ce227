"""The sources other than /dev/kmsg, in the sandbox of the unit, with a real journald beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.system.bed import Bed, Guarded

pytestmark = pytest.mark.kernel_log

LOG_ALL = '-I INPUT -p udp --dport 7000:7999 -j LOG --log-prefix "{}"\n'
COPY_ALL = '-I INPUT -p udp --dport 7000:7999 -j NFLOG --nflog-group 5 --nflog-prefix "{}"\n'


@pytest.fixture(scope="module")
def machine(machine: Bed) -> Bed:
    """A bed in which fwguardd does not get the kernel log from systemd."""
    machine.file("/etc/systemd/system/fwguardd-kmsg.socket").symlink_to("/dev/null")
    return machine


@pytest.fixture(scope="module")
def peered(guarded: Guarded) -> Guarded:
    """The guarded bed with another host beside it."""
    guarded.add_peer()
    guarded.drop("05-log-all.rules", LOG_ALL.format(guarded.prefix))
    # It would log the same packets once more.
    (guarded.rules / "99-log.rules").unlink()
    guarded.set_source("journal")
    guarded.bed.run("systemctl reload fwguardd")
    return guarded


def shown(peered: Guarded) -> list[int]:
    """The ports of all denials so far, in the order of telling."""
    entries: list[dict[str, Any]] = peered.bed.journal("SYSLOG_IDENTIFIER=fwguardd", "FWGUARD_EVENT=denied")
    return [int(entry["FWGUARD_DPT"]) for entry in entries if "FWGUARD_DPT" in entry]


def test_a_closed_kernel_log_is_reported(peered: Guarded) -> None:
    """With source: kmsg and no kmsg to read, an event says that denials cannot be read, and why; a reload opens another
    source."""
    event = peered.bed.event("denials.unavailable")
    assert event["MESSAGE"].startswith("denials cannot be read: /dev/kmsg: ")
    assert peered.bed.event("denials.reading")["FWGUARD_SOURCE"] == "journal"


@pytest.mark.usefixtures("kernel_log_of_namespaces")
def test_denials_come_from_the_journal(peered: Guarded) -> None:
    """What journald read from the kernel becomes an event, all fields of it."""
    peered.peer_sends(7001)
    entry = peered.bed.event("denied", "FWGUARD_DPT=7001")
    assert (entry["FWGUARD_SRC"], entry["FWGUARD_IN"], entry["FWGUARD_PREFIX"]) == (
        "198.51.100.2",
        "wan0",
        peered.prefix,
    )
    assert entry["FWGUARD_LINE"].startswith(peered.prefix + "IN=wan0 OUT= ")


@pytest.mark.usefixtures("kernel_log_of_namespaces")
def test_a_restart_neither_repeats_nor_skips(peered: Guarded) -> None:
    """What is denied while the daemon does not run is reported when it runs again, once."""
    peered.peer_sends(7010, 5)
    peered.bed.event("denied", "FWGUARD_DPT=7014")
    peered.bed.run("systemctl stop fwguardd")
    peered.peer_sends(7015, 5)
    peered.bed.run("systemctl start fwguardd")
    peered.peer_sends(7020, 5)
    peered.bed.event("denied", "FWGUARD_DPT=7024")
    assert [port for port in shown(peered) if 7010 <= port < 7025] == [*range(7010, 7025)]


@pytest.mark.usefixtures("kernel_log_of_namespaces")
def test_a_line_of_user_space_is_not_reported(peered: Guarded) -> None:
    """A copy of a LOG line, written to /dev/kmsg, to syslog or to the journal by root itself, is no denial."""
    forged = f"{peered.prefix}IN=wan0 OUT= MAC= SRC=6.6.6.6 DST=6.6.6.6 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=47 "
    peered.bed.run("tee /dev/kmsg", stdin=f"<4>{forged}\n")
    peered.bed.run("systemd-cat -t kernel", stdin=forged)
    peered.peer_sends(7030)
    peered.bed.event("denied", "FWGUARD_DPT=7030")
    assert peered.bed.journal(f"MESSAGE={forged.rstrip()}") or peered.bed.journal(f"MESSAGE={forged}")
    assert peered.bed.journal("SYSLOG_IDENTIFIER=fwguardd", "FWGUARD_SRC=6.6.6.6") == []


def test_nflog_works_in_the_sandbox(peered: Guarded) -> None:
    """In the sandbox too packets that NFLOG rules copy are reported."""
    bed = peered.bed
    before = len(bed.journal("SYSLOG_IDENTIFIER=fwguardd", "FWGUARD_EVENT=denials.reading"))
    peered.set_source("nflog")
    peered.drop("05-log-all.rules", COPY_ALL.format(peered.prefix))
    bed.run("systemctl reload fwguardd")
    reading = bed.event("denials.reading", after=before)
    assert reading["FWGUARD_SOURCE"] == "nflog"
    peered.peer_sends(7040)
    entry = bed.event("denied", "FWGUARD_DPT=7040")
    assert (entry["FWGUARD_IN"], entry["FWGUARD_PACKET"][:2]) == ("wan0", "45")
    wait_until(lambda: "from nflog" in bed.output("fwguardctl status"), "nflog in the status")
