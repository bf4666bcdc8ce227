"""Whose rule it is: what the files say is the user's, and what other programs add stays theirs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from fwguardd.ruleset.canonical import Owned
from fwguardd.ruleset.model import Family
from fwguardd.store.revisions import RevisionStore
from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


KINDS = Path(__file__).parent / "author_kinds.py"


class Owners:
    """A daemon, and other programs of a given kind that change its tables while it runs."""

    def __init__(self, start: Start, folder: Path, settings: str = "") -> None:
        self.kind = folder / "kind"
        self.kind.write_text("service")
        self._start, self._settings, self._folder = start, f"foreign: keep-services\n{settings}", folder
        self.daemon = self.start({"10.rules": CLOSED + "-t nat -A POSTROUTING -o eth9 -j ACCEPT\n"})

    def start(self, rules: dict[str, str] | None = None) -> Daemon:
        """Start the daemon, or another one after it."""
        enter = (sys.executable, str(KINDS))
        self.daemon = self._start(rules, self._settings, enter=enter, FWGUARD_TEST_KIND=str(self.kind))
        return self.daemon

    def ask(self, verb: str, **arguments: Any) -> Any:
        """The result of a verb."""
        return ask(self._folder / "run" / "control.sock", verb, arguments)

    @contextlib.contextmanager
    def adding(self, text: str, kind: str) -> Iterator[None]:
        """Another program adds rules, and runs on until the end of the block."""
        self.kind.write_text(kind)
        argv = ["iptables-nft-restore", "--noflush"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            process.stdin.write(text)
            process.stdin.flush()  # It commits now, and waits for more.
            yield
            process.stdin.close()


NAMED_BRIDGE = """*nat
-I POSTROUTING -s 172.18.0.0/16 ! -o web0 -j MASQUERADE
COMMIT
*filter
-I FORWARD -i web0 ! -o web0 -j ACCEPT
COMMIT
"""
"""What dockerd adds for a bridge that a user has named."""

SPA = """*filter
:SPA_INPUT - [0:0]
-I INPUT -j SPA_INPUT
-A SPA_INPUT -s 192.0.2.8/32 -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
"""
"""What a service of the kind of fwknopd adds."""


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_rules_of_services_are_kept_and_reported_once(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """With a line for preserve:, and never again: not at a reload, a repair, a restart, nor when they come back. What
    is removed of ours meanwhile is repaired."""
    owners = Owners(start_daemon, tmp_path)
    owners.daemon.event("rules.applied")
    with owners.adding(NAMED_BRIDGE, "service"):
        event = owners.daemon.event("drift.kept")
    bridge = "-t nat -A POSTROUTING -s 172.18.0.0/16 ! -o web0 -j MASQUERADE"
    assert f"- '{bridge}'" in event["message"]
    assert "iptables-nft-restore" in event["culprit"]
    with owners.adding(SPA, "service"):
        assert owners.daemon.event("drift.kept")["others"] == ["ipv4 filter -N SPA_INPUT"]
    theirs = ["-s 172.18.0.0/16 ! -o web0 -j MASQUERADE", "-i web0 ! -o web0 -j ACCEPT", "-j SPA_INPUT"]

    def all_there() -> bool:
        found = [*rules_of(saved, "POSTROUTING"), *rules_of(saved, "FORWARD"), *rules_of(saved, "INPUT")]
        return set(theirs) <= set(found) and len(rules_of(saved, "SPA_INPUT")) == 1

    assert all_there()
    assert owners.ask("status")["state"] == "in-force"
    owners.kind.write_text("other")
    for number in range(3):
        owners.daemon.drop("20.rules", f"-A INPUT -p tcp --dport {80 + number} -j ACCEPT\n")
        owners.daemon.event("rules.applied")
        assert all_there()
    run("iptables-nft -D INPUT -i lo -j ACCEPT")
    owners.daemon.event("drift.repaired")
    run("iptables-nft -F SPA_INPUT")
    run("iptables-nft -A SPA_INPUT -s 192.0.2.9/32 -j ACCEPT")
    assert owners.ask("drift")["count"] == 0
    owners.daemon.stop()
    shown = [event["event"] for event in owners.daemon.all_events()]
    assert shown.count("drift.kept") == 2
    owners.start().event("rules.unchanged")
    assert all_there()
    listed = owners.ask("others")["rules"]
    assert [rule["standing"] for rule in listed] == ["kept"] * 3
    owners.ask("adopt", numbers=(listed[0]["number"],), remove=True)
    assert rules_of(saved, "POSTROUTING") == ["-o eth9 -j ACCEPT"]
    owners.daemon.stop()
    assert not {"drift.kept", "drift.detected"} & {event["event"] for event in owners.daemon.all_events()}


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_rules_of_any_other_process_are_drift(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Those of a login session are removed. Where the process is not known they stay, the state is drifted, and an
    administrator decides."""
    owners = Owners(start_daemon, tmp_path)
    owners.daemon.event("rules.applied")
    before = saved()
    with owners.adding(NAMED_BRIDGE, "other"):
        owners.daemon.event("drift.detected")
        owners.daemon.event("drift.repaired")
    assert saved() == before
    with owners.adding(NAMED_BRIDGE, "unknown"):
        event = owners.daemon.event("drift.undecided")
    assert "fwguardctl adopt" in event["message"]
    wait_until(lambda: owners.ask("status")["others"]["undecided"] == 2, "both tables")
    assert saved() != before
    assert owners.ask("status")["state"] == "drifted"
    drift = owners.ask("drift")
    assert (drift["count"], len(drift["undecided"])) == (0, 2)
    first, second = owners.ask("others")["rules"]
    assert {first["standing"], second["standing"]} == {"undecided"}
    result = owners.ask("adopt", numbers=(first["number"],))
    assert (result["outcome"], result["state"]) == ("unchanged", "drifted")
    result = owners.ask("adopt", numbers=(second["number"],), remove=True)
    assert (result["changes"], result["state"]) == (1, "in-force")
    assert owners.ask("adopt", numbers=(999,))["outcome"] == "failed"
    assert len([line for line in saved()["ipv4"] if "web0" in line]) == 1
    assert owners.ask("drift") == {"count": 0, "differences": [], "undecided": []}


def test_before_the_first_load_nothing_is_removed(
    start_daemon: Start, saved: Saved, backend: str, tmp_path: Path
) -> None:
    """On a host whose tables hold unknown rules the first start changes nothing, and says what to do; rules of known
    programs do not matter. What is adopted stays, what is not goes with the load."""
    for rule in (
        "INPUT -s 192.0.2.7/32 -j ACCEPT",
        "FORWARD -i web0 -j ACCEPT",
        "FORWARD -i docker0 -o docker0 -j ACCEPT",
    ):
        run(f"iptables-{backend} -w 60 -A {rule}")
    before = saved()
    owners = Owners(start_daemon, tmp_path)
    event = owners.daemon.event("rules.unmanaged")
    assert event["others"] == [
        "ipv4 filter -A INPUT -s 192.0.2.7/32 -j ACCEPT",
        "ipv4 filter -A FORWARD -i web0 -j ACCEPT",
    ]
    assert "fwguardctl reload --take-over" in event["message"]
    owners.daemon.end_pass()
    status = owners.ask("status")
    assert (status["state"], status["files"]) == ("unmanaged", "held")
    assert "fwguardctl adopt" in status["files_why"] and "reload applies" not in status["files_why"]
    owners.daemon.stop()
    owners.start().event("denials.reading")
    wait_until((tmp_path / "run" / "control.sock").exists, "the control socket")
    assert owners.ask("reload")["outcome"] == "failed"
    assert saved() == before
    first, second = owners.ask("others")["rules"]
    assert owners.ask("adopt", numbers=(first["number"],), remove=True)["outcome"] == "unchanged"
    assert owners.ask("status")["files_why"].startswith("1 rule is still to be decided about; ")
    assert saved() == before
    assert owners.ask("adopt", numbers=(second["number"],))["state"] == "in-force"
    assert rules_of(saved, "INPUT") == ["-i lo -j ACCEPT"]
    assert rules_of(saved, "FORWARD") == ["-i web0 -j ACCEPT", "-i docker0 -o docker0 -j ACCEPT"]
    assert owners.ask("status")["files"] == "applied"


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_a_reload_may_take_the_tables_over(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """What was not known goes with the first load; from then on it is drift like any other."""
    run("iptables-nft -A INPUT -s 192.0.2.7/32 -j ACCEPT")
    owners = Owners(start_daemon, tmp_path)
    owners.daemon.event("rules.unmanaged")
    assert owners.ask("reload", take_over=True)["state"] == "in-force"
    assert rules_of(saved, "INPUT") == ["-i lo -j ACCEPT"]
    assert owners.ask("others")["rules"] == []


def test_files_that_have_what_is_loaded_leave_nothing_to_decide(
    start_daemon: Start, saved: Saved, backend: str, tmp_path: Path
) -> None:
    """After a move from a tool that had loaded the same rules: the rules were unknown beside the first files, and are
    those of fwguardd once the files have them. Nothing is loaded twice, and the state is in-force."""
    run(f"iptables-{backend} -w 60 -A INPUT -s 192.0.2.7/32 -j ACCEPT")
    owners = Owners(start_daemon, tmp_path)
    owners.daemon.event("rules.unmanaged")
    owners.daemon.end_pass()
    (tmp_path / "rules" / "20-moved.v4.rules").write_text("-A INPUT -s 192.0.2.7/32 -j ACCEPT\n")
    result = owners.ask("reload")
    assert (result["outcome"], result["state"]) == ("applied", "in-force")
    assert rules_of(saved, "INPUT") == ["-i lo -j ACCEPT", "-s 192.0.2.7/32 -j ACCEPT"]
    assert owners.ask("others")["rules"] == []


def test_after_a_load_that_did_not_end_what_is_undecided_stays(
    start_daemon: Start, saved: Saved, backend: str, tmp_path: Path
) -> None:
    """After a kill in a load before the first revision what the tables hold cannot be told from what that has
    left, so the next load does not remove the rules that an administrator has to decide about."""
    run(f"iptables-{backend} -w 60 -A INPUT -s 192.0.2.7/32 -j ACCEPT")
    owners = Owners(start_daemon, tmp_path)
    owners.daemon.event("rules.unmanaged")
    owners.daemon.end_pass()
    owners.daemon.stop()
    RevisionStore(tmp_path / "state").touch(Owned({(Family.IPV4, "filter")}))
    owners.start().event("denials.reading")
    wait_until((tmp_path / "run" / "control.sock").exists, "the control socket")
    owners.ask("reload")
    assert "-s 192.0.2.7/32 -j ACCEPT" in rules_of(saved, "INPUT")
    assert [rule["standing"] for rule in owners.ask("others")["rules"]] == ["undecided"]


def test_what_other_programs_lose_is_named(start_daemon: Start, saved: Saved, backend: str) -> None:
    """A person flushes INPUT with fail2ban's jump in it: the drift event names the program, what it lost, and the
    command that makes it put that back. What a program removes itself is no loss."""
    jail = "*filter\n:f2b-sshd - [0:0]\n-A f2b-sshd -j RETURN\n-I INPUT -p tcp -m tcp --dport 22 -j f2b-sshd\nCOMMIT\n"
    run(f"iptables-{backend}-restore -w 60 --noflush", jail)
    daemon = start_daemon({"10.rules": CLOSED})
    daemon.event("rules.applied")
    daemon.repair()
    run(f"iptables-{backend} -w 60 -F INPUT")
    daemon.ask("drift")
    event = daemon.event("drift.detected")
    assert event["lost"] == ["ipv4 filter -A INPUT -p tcp -m tcp --dport 22 -j f2b-sshd"]
    assert "fail2ban has lost 1 rule" in event["message"]
    assert "systemctl restart fail2ban" in event["message"]
    daemon.event("drift.repaired")
    run(f"iptables-{backend} -w 60 -I INPUT -p tcp -m tcp --dport 22 -j f2b-sshd")
    daemon.repair()
    run(f"iptables-{backend} -w 60 -D INPUT -p tcp -m tcp --dport 22 -j f2b-sshd")
    daemon.repair()
    lost = [event["lost"] for event in daemon.seen if event.get("lost")]
    assert len(lost) == 1
    assert "-j f2b-sshd" not in " ".join(saved()["ipv4"])


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_the_same_repair_in_a_row_is_a_fight(start_daemon: Start) -> None:
    """A program that puts its chain and its jump back again and again, however slowly, is left alone after the fifth
    repair, and status shows the repairs and who caused them."""
    daemon = start_daemon({"10.rules": CLOSED})
    daemon.event("rules.applied")
    for _ in range(5):
        run("iptables-nft-restore -n", "*filter\n:MYFW-INPUT - [0:0]\n-A INPUT -j MYFW-INPUT\nCOMMIT\n")
        daemon.event("drift.repaired")
    assert daemon.event("drift.fight")["chain"] in ("ipv4 filter INPUT", "ipv4 filter MYFW-INPUT")
    repairs = daemon.ask("status")["drift"]["repairs"]
    assert repairs["count"] == 5
    assert "iptables-nft-re" in repairs["culprit"]


RELOADS = scaled(gate=10, long=100)
"""Reloads during which a service adds and removes rules; a long run has 100."""


@pytest.fixture
def service() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts programs in a control group that has the name of a service, as systemd does."""
    parent = Path("/sys/fs/cgroup")
    if not (parent / "cgroup.controllers").exists():
        parent /= "unified"
    group = parent / f"fwguard-test-{os.getpid()}.service"
    group.mkdir()

    def start(command: str) -> subprocess.Popen[str]:
        inside = f"echo $$ >{group}/cgroup.procs && exec {command}"
        return subprocess.Popen(["sh", "-c", inside], stdin=subprocess.PIPE, text=True)

    yield start
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the end of the service")
    group.rmdir()


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_a_real_service_keeps_its_rules_over_many_reloads(
    start_daemon: Start, saved: Saved, tmp_path: Path, service: Callable[[str], subprocess.Popen[str]]
) -> None:
    """A service in a control group of its own opens ports for a time, as fwknopd does, while the rule files change:
    nothing of it is ever removed, and it is reported once."""
    daemon = start_daemon({"10.rules": CLOSED}, "foreign: keep-services\n")
    daemon.event("rules.applied")
    with service("iptables-nft-restore --noflush") as process:
        assert process.stdin is not None
        process.stdin.write("*filter\n:OPENER - [0:0]\n-I INPUT -j OPENER\nCOMMIT\n")
        process.stdin.flush()
        kept = daemon.event("drift.kept")
        process.stdin.close()
    assert kept["culprit_unit"].endswith(".service")
    for number in range(RELOADS):
        with service(f"iptables-nft -A OPENER -s 192.0.2.{number + 1} -p tcp --dport 22 -j ACCEPT") as process:
            assert process.wait() == 0
        daemon.drop("50.rules", f"-A INPUT -p tcp --dport {8000 + number} -j ACCEPT\n")
        assert ask(tmp_path / "run" / "control.sock", "reload")["outcome"] in ("applied", "unchanged")
        assert len(rules_of(saved, "OPENER")) == 1
        assert rules_of(saved, "INPUT")[0] == "-j OPENER"
        with service("iptables-nft -F OPENER") as process:
            assert process.wait() == 0
    daemon.stop()
    shown = [event["event"] for event in daemon.all_events()]
    assert shown.count("drift.kept") == 1
    assert not {"drift.detected", "drift.undecided"} & set(shown)
