"""Whose rule it is: what the files say is the user's, and what other programs add stays theirs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.conftest import Daemon

    Start = Callable[..., Daemon]
    Saved = Callable[[], dict[str, list[str]]]

CLOSED = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"
"""The rule files of hosts that say nothing about FORWARD."""


def run(command: str, text: str = "") -> None:
    """Another program changes the rules."""
    subprocess.run(command.split(), input=text, text=True, check=True)


def test_a_policy_that_no_file_states_stays_as_it_is(start_daemon: Start, saved: Saved, backend: str) -> None:
    """Before the first load and after it: Docker closes FORWARD, and neither a load nor a repair opens it. It is no
    drift. A policy that the files stated, and state no longer, is released."""
    run(f"iptables-{backend} -w 60 -P OUTPUT DROP")
    daemon = start_daemon({"10.rules": CLOSED})
    daemon.event("rules.applied")
    assert ":OUTPUT DROP" in saved()["ipv4"]
    run(f"iptables-{backend} -w 60 -P OUTPUT ACCEPT")
    run(f"iptables-{backend} -w 60 -P FORWARD DROP")
    assert daemon.ask("drift")["count"] == 0
    daemon.repair()
    daemon.drop("20.rules", "-P FORWARD DROP\n-A FORWARD -i lo -j ACCEPT\n")
    daemon.event("rules.applied")
    assert ":FORWARD DROP" in saved()["ipv6"]
    (daemon.rules / "20.rules").unlink()
    daemon.event("rules.applied")
    assert [line for line in saved()["ipv4"] if line.startswith(":")] == [
        ":INPUT DROP",
        ":FORWARD ACCEPT",
        ":OUTPUT ACCEPT",
    ]
    assert not daemon.events_until_its_end("rules.failed")


HAIRPIN = "-s 10.0.0.5/32 -d 10.0.0.9/32 -p tcp -m tcp --dport 5432 -j MASQUERADE"
"""A rule of an administrator, in a form that Docker writes too."""


def rules_of(saved: Saved, chain: str) -> list[str]:
    """The IPv4 rules of the chains of this name."""
    return [line.removeprefix(f"-A {chain} ") for line in saved()["ipv4"] if line.startswith(f"-A {chain} ")]


def codes(daemon: Daemon) -> set[str]:
    """The codes of the findings that it has reported so far."""
    return {event["code"] for event in daemon.seen if event["event"] == "rules.finding"}


def test_what_a_rule_file_says_is_loaded(start_daemon: Start, saved: Saved, backend: str) -> None:
    """Also a rule in the form of another program's, one that names its set, and a drop on loopback. It is repaired, and
    it goes when the file does not say it any more; of a program's own rules with the same text each stays."""
    run("ipset create crowdsec-blacklists hash:ip")
    drop = "-m set --match-set crowdsec-blacklists src -j DROP"
    loopback = "-d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 80 -j DROP"
    own = f"*nat\n-A POSTROUTING {HAIRPIN}\nCOMMIT\n*raw\n-A PREROUTING {loopback}\nCOMMIT\n"
    daemon = start_daemon({"10.v4.rules": f"-A INPUT {drop}\n{own}"})
    daemon.event("rules.applied")
    assert rules_of(saved, "INPUT") == [drop]
    assert rules_of(saved, "POSTROUTING") == [HAIRPIN]
    assert rules_of(saved, "PREROUTING") == [loopback]
    before = saved()
    run(f"iptables-{backend} -w 60 -t nat -F")
    daemon.ask("drift")
    daemon.event("drift.repaired")
    assert saved() == before
    run(f"iptables-{backend} -w 60 -t nat -A POSTROUTING {HAIRPIN}")
    daemon.repair()
    assert rules_of(saved, "POSTROUTING") == [HAIRPIN, HAIRPIN]
    daemon.drop("10.v4.rules", f"-A INPUT {drop}\n*nat\nCOMMIT\n*raw\nCOMMIT\n")
    daemon.event("rules.applied")
    assert rules_of(saved, "POSTROUTING") == [HAIRPIN]
    assert rules_of(saved, "PREROUTING") == []
    daemon.drop("10.v4.rules", f"-A INPUT {drop}\n{own}")
    daemon.event("rules.finding", code="preserved-rule")
    daemon.event("rules.applied")
    assert rules_of(saved, "POSTROUTING") == [HAIRPIN]


def test_the_contents_of_docker_user_are_those_of_the_files(start_daemon: Start, saved: Saved, backend: str) -> None:
    """Before Docker has started as after: nothing needs to declare the chain, Docker's jump to it and its RETURN stay,
    what else is added to the chain is drift, and without the file the chain is empty and the jump still there."""
    rule = "-i eth0 -p tcp -m tcp --dport 81 -j DROP"
    daemon = start_daemon({"10.rules": CLOSED, "60.v4.rules": "-A DOCKER-USER -i eth0 -p tcp --dport 81 -j DROP\n"})
    daemon.event("rules.applied")
    assert rules_of(saved, "DOCKER-USER") == [rule]
    docker = "*filter\n-A DOCKER-USER -j RETURN\n-I FORWARD -j DOCKER-USER\nCOMMIT\n"
    run(f"iptables-{backend}-restore -w 60 --noflush", docker)
    assert daemon.ask("drift")["count"] == 0
    run(f"iptables-{backend} -w 60 -F DOCKER-USER")
    daemon.ask("drift")
    daemon.event("drift.repaired")
    run(f"iptables-{backend} -w 60 -A DOCKER-USER -j RETURN")
    daemon.repair()
    assert rules_of(saved, "DOCKER-USER") == [rule, "-j RETURN"]
    assert rules_of(saved, "FORWARD") == ["-j DOCKER-USER"]
    (daemon.rules / "60.v4.rules").unlink()
    daemon.event("rules.applied")
    assert rules_of(saved, "DOCKER-USER") == ["-j RETURN"]
    assert rules_of(saved, "FORWARD") == ["-j DOCKER-USER"]
    assert not codes(daemon) & {"preserved-chain", "preserved-rule", "unused-chain"}
    assert "rules.failed" not in [event["event"] for event in daemon.seen]


def test_the_chain_that_a_program_fills_is_made_by_the_files(start_daemon: Start, saved: Saved, backend: str) -> None:
    """For sshguard the administrator makes the chain and the jump: both are loaded and repaired. What it adds stays."""
    daemon = start_daemon({"10.rules": f"{CLOSED}-N sshguard\n-A INPUT -j sshguard\n"})
    daemon.event("rules.applied")
    run(f"iptables-{backend} -w 60 -I sshguard -s 192.0.2.7 -j DROP")
    assert daemon.ask("drift")["count"] == 0
    run(f"iptables-{backend} -w 60 -F INPUT")
    daemon.ask("drift")
    daemon.event("drift.repaired")
    assert rules_of(saved, "INPUT") == ["-i lo -j ACCEPT", "-j sshguard"]
    assert rules_of(saved, "sshguard") == ["-s 192.0.2.7/32 -j DROP"]
    assert not codes(daemon) & {"preserved-chain", "preserved-rule", "unused-chain"}
