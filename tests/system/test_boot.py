"""Booting: the firewall is there before the network is, whatever has become of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.bed import Bed, Guarded

RECORD = "ExecStart=/bin/sh -c 'iptables-save >/var/tmp/{0}.v4; ip6tables-save >/var/tmp/{0}.v6'"
NAMES_A_SET = "-A INPUT -p tcp -m set --match-set office src -j ACCEPT"
UNITS = {
    # What the boot loader alone has done.
    "early": "After=fwguardd-boot.service\nBefore=fwguardd.service network-pre.target",
    # What brings the network up: like ifupdown, networkd and others.
    "network": "After=network-pre.target\nBefore=network.target",
    # What waits for the network and is waited for by everything: like cloud-init.
    "cloud": "After=record-network.service\nBefore=sysinit.target",
}


@pytest.fixture(scope="module")
def host(machine: Bed, unguarded: Guarded) -> Guarded:
    """A host with fwguardd enabled, and units that write down what is loaded at three moments; booted once."""
    for name, order in UNITS.items():
        unit = f"[Unit]\nDefaultDependencies=no\n{order}\n[Service]\nType=oneshot\n{RECORD.format(name)}\n"
        machine.file(f"/etc/systemd/system/record-{name}.service").write_text(
            f"{unit}[Install]\nWantedBy=multi-user.target\n"
        )
    machine.prepare(f"systemctl enable fwguardd {' '.join(f'record-{name}' for name in UNITS)}")
    unguarded.drop("50-app.rules", f"-A INPUT -p tcp --dport 8080 -j ACCEPT\n{NAMES_A_SET}\n")
    unguarded.drop("office.set", "192.0.2.0/24\n2001:db8::/32\n")
    machine.boot()
    return unguarded


def recorded(host: Guarded, moment: str) -> str:
    """What was loaded for IPv4 and IPv6 at a moment of this boot; the record is taken away."""
    files = [host.bed.file(f"/var/tmp/{moment}.{family}") for family in ("v4", "v6")]
    text = "".join(file.read_text() for file in files)
    for file in files:
        file.unlink()
    assert text.count(":INPUT DROP") == 2, f"open for one family at the moment {moment!r}:\n{text}"
    return text


def no_circle(host: Guarded) -> bool:
    """Whether systemd found an order for all units, in every boot so far."""
    return not [entry for entry in host.bed.journal("_PID=1") if "ordering cycle" in str(entry["MESSAGE"])]


def test_the_first_boot_has_the_emergency_set(host: Guarded) -> None:
    """Before any revision was kept the boot loader closes the host but for ssh; by the time of the network the daemon
    has put the rule files in force."""
    early = recorded(host, "early")
    assert "--dport 22 " in early
    assert "--dport 8080 " not in early
    assert "--dport 8080 " in recorded(host, "network")
    assert recorded(host, "cloud")
    assert no_circle(host)
    report = host.bed.event("boot.report")
    assert report["FWGUARD_OUTCOME"] == "emergency"
    assert host.bed.run("systemctl is-failed fwguardd-boot", check=False).stdout == "active\n"


def test_a_second_boot_has_the_revision(host: Guarded) -> None:
    """The boot loader loads what was in force, sets before the rules; the daemon finds it there and writes nothing."""
    host.bed.reboot()
    early = recorded(host, "early")
    assert "--dport 8080 " in early
    assert "--match-set office-v6 src" in early
    assert "--dport 8080 " in recorded(host, "network")
    this_run = f"_SYSTEMD_INVOCATION_ID={host.bed.show('fwguardd', 'InvocationID')}"
    assert host.bed.journal(this_run, "FWGUARD_EVENT=rules.unchanged")
    assert not host.bed.journal(this_run, "FWGUARD_EVENT=rules.applied")
    assert not host.bed.journal(this_run, "FWGUARD_EVENT=set.loaded")
    assert "add office 192.0.2.0/24" in host.bed.output("ipset save")


def test_a_broken_rules_directory_changes_nothing(host: Guarded) -> None:
    """With rule files that are refused, or without their directory, a boot has the last revision all the same, and the
    refusal is reported."""
    host.drop("50-app.rules", "-A INPUT -j NO-SUCH-CHAIN\n")
    host.bed.event("rules.rejected")
    host.bed.reboot()
    assert "--dport 8080 " in recorded(host, "early")
    assert "--dport 8080 " in recorded(host, "network")
    assert "/etc/fwguard.d/50-app.rules:1: error: " in host.bed.show("fwguardd", "StatusText")
    aside = host.rules.rename(host.rules.with_name("aside"))
    host.bed.reboot()
    assert "--dport 8080 " in recorded(host, "early")
    assert "--dport 8080 " in recorded(host, "network")
    assert "/etc/fwguard.d: error: the rules directory cannot be read" in host.bed.show("fwguardd", "StatusText")
    aside.rename(host.rules)


def test_a_torn_state_directory_has_the_emergency_set(host: Guarded) -> None:
    """Where the boot files are torn, as by a crash, the boot loader says so and closes the host but for ssh; the daemon
    then puts the rule files in force."""
    host.drop("50-app.rules", "-A INPUT -p tcp --dport 8081 -j ACCEPT\n")
    host.bed.run("systemctl reload fwguardd")
    for path in host.bed.file("/var/lib/fwguard").rglob("*.rules"):
        path.write_bytes(path.read_bytes()[:-40])
    host.bed.reboot()
    early = recorded(host, "early")
    assert "--dport 22 " in early
    assert "--dport 808" not in early
    assert "--dport 8081 " in recorded(host, "network")
    shown = host.bed.run("systemctl status --no-pager --full fwguardd-boot", check=False).stdout
    assert "Active: failed" in shown
    assert "the emergency set is in force" in shown
    assert no_circle(host)


def test_a_boot_without_the_daemon_is_guarded(host: Guarded) -> None:
    """The boot loader needs nothing of the daemon: with that masked, the last revision is loaded."""
    host.bed.run("systemctl mask fwguardd")
    host.bed.reboot()
    assert "--dport 8081 " in recorded(host, "network")
    host.bed.run("systemctl unmask fwguardd")


def test_no_other_start_loads_the_boot_files(host: Guarded) -> None:
    """Starting any service pulls in the targets of the boot again: the boot loader must not be among them, or it would
    put an old revision in force on a running host. Nor does it run where the daemon has run."""
    host.bed.run("systemctl stop fwguardd-boot")
    host.bed.run("iptables -A INPUT -p tcp --dport 9999 -j DROP")
    host.bed.run("systemd-run --wait --quiet true")
    host.bed.run("systemctl start dbus sysinit.target basic.target")
    assert host.bed.show("fwguardd-boot", "ActiveState") == "inactive"
    host.bed.run("systemctl start fwguardd")
    host.bed.run("systemctl stop fwguardd")
    host.bed.run("iptables -A INPUT -p tcp --dport 9999 -j DROP")
    host.bed.run("systemctl start fwguardd-boot")
    assert "--dport 9999 " in host.saved()
