"""Policy tests and the lockout guard with real packets: classic mistakes are refused in the right words."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.ctl import command_line
from fwguardd.ctl.policy_run import run_policy
from fwguardd.enforce.look import look_at
from fwguardd.enforce.proof import loaded_after
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import Valid, Validator
from fwguardd.kernel.bed import Beds
from fwguardd.kernel.iptables import Backend, LiveKernel
from fwguardd.kernel.kept_bed import KeptBed
from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.packets.host import Host, Interface, Route
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.model import Severity
from fwguardd.ruleset.preserve import STRICT, Preserve
from tests.netns.conftest import SHIPPED
from tests.unit.test_policy_tests import with_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from fwguardd.ctl.policy_run import PolicyRun
    from fwguardd.ruleset.model import Family, Ruleset
    from tests.netns.conftest import Programs

    Start = Callable[..., Any]

pytestmark = pytest.mark.either_backend

ROUTER = Host(
    (
        Interface("lo", "loopback", ("127.0.0.1/8", "::1/128")),
        Interface("eth0", addresses=("192.0.2.1/24", "2001:db8::1/64"), forwarding=True),
        Interface("lan0", addresses=("10.0.0.1/24",), rp_filter=1, forwarding=True),
        Interface("docker0", addresses=("172.17.0.1/16",), forwarding=True),
    ),
    (
        *(Route(to, dev=name, scope=253) for to, name in
          (("192.0.2.0/24", "eth0"), ("10.0.0.0/24", "lan0"), ("172.17.0.0/16", "docker0"))),
        Route("2001:db8::/64", dev="eth0"),
        Route("0.0.0.0/0", via="192.0.2.254", dev="eth0"),
    ),
)  # fmt: skip
"""A router with a network behind it, strict about reverse paths there, and with containers."""

BASE = "-P INPUT DROP\n-P FORWARD DROP\n-A INPUT -i lo -j ACCEPT\n"
ESTABLISHED = "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
SSH = "-A INPUT -p tcp --dport 22 -j ACCEPT\n"
TO_SSH = "expect: accept, in: eth0, from: 198.51.100.7, proto: tcp, dport: 22"
DOCKER = (
    "*nat\n-4 -A PREROUTING -d 192.0.2.1 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n"
    "*filter\n-4 -A FORWARD -o docker0 -d 172.17.0.2 -p tcp --dport 80 -j ACCEPT\n"
)
HAIRPIN = (
    "*nat\n-4 -A PREROUTING -d 192.0.2.1 -p tcp --dport 443 -j DNAT --to-destination 10.0.0.5\nCOMMIT\n"
    "*filter\n-4 -A FORWARD -i eth0 -o lan0 -p tcp --dport 443 -j ACCEPT\n"
)
MISTAKES = {
    "ESTABLISHED lost": (SSH, f"{TO_SSH.replace('22', '50000')}, state: established", "the policy of INPUT drops it"),
    "the wrong interface": ("-A INPUT -i eth1 -p tcp --dport 22 -j ACCEPT\n", TO_SSH, "the policy of INPUT drops it"),
    "DROP before ACCEPT": (f"-A INPUT -s 198.51.100.0/24 -j DROP\n{SSH}", TO_SSH, '-j DROP" drops it at '),
    "IPv6 forgotten": (
        f"-4 {SSH}", "expect: accept, in: eth0, proto: tcp, dport: 22",
        "tcp [2001:db8::2]:49152 → [2001:db8::1]:22, new, in eth0: expected accept, but the policy of INPUT drops",
    ),
    "-s mistyped": ("-A INPUT -s 198.15.100.0/24 -p tcp --dport 22 -j ACCEPT\n", TO_SSH, "policy of INPUT drops it"),
    "a published port that INPUT does not guard": (
        DOCKER, "expect: drop, in: eth0, from: 198.51.100.7, to: 192.0.2.1, proto: tcp, dport: 8080",
        "a.rules:8; it is forwarded to docker0, so that INPUT does not see it: filter it in FORWARD or DOCKER-USER",
    ),
    "a hairpin that loses its way": (
        HAIRPIN, "expect: accept, in: lan0, from: 10.0.0.9, out: lan0, to: 192.0.2.1, proto: tcp, dport: 443",
        "the policy of FORWARD drops it at",
    ),
    "asymmetric routing": (
        SSH, "expect: accept, in: lan0, from: 198.51.100.7, to: 10.0.0.1, proto: tcp, dport: 22",
        "it is dropped by rp_filter, since packets to 198.51.100.7 do not leave by lan0",
    ),
    "the wrong way out": (
        "-P OUTPUT ACCEPT\n", "expect: accept, out: lan0, to: 203.0.113.9, proto: udp, dport: 53", "it leaves by eth0",
    ),
}  # fmt: skip


CODES = dict.fromkeys(("asymmetric routing", "the wrong way out"), "misrouted-test")


@pytest.fixture
def try_out(tmp_path: Path, backend: str) -> Iterator[Callable[[str, str], PolicyRun]]:
    """Runs tests with rules on the router, in one pool of namespaces and one bed."""
    pool = NamespacePool(spares=2)
    beds = KeptBed(Beds(backend, pool))
    validator = Validator(Rehearsals(backend, pool).rehearse, LintContext((), STRICT))

    def run(rules: str, tests: str, around: Callable[..., Any] = lambda wanted: wanted) -> PolicyRun:
        (tmp_path / "a.rules").write_text(rules)
        (tmp_path / "a.tests.yaml").write_text(tests)
        result = validator.validate(take_snapshot(tmp_path))
        assert isinstance(result, Valid), list(map(str, result.findings))
        rulesets = around(result.rehearsed.rulesets)
        return run_policy(beds, rulesets, result.tests, ROUTER, undecided_fails=True)

    yield run
    beds.close()
    pool.close()


def test_classic_mistakes_are_shown(try_out: Callable[[str, str], PolicyRun]) -> None:
    """Each mistake fails its test, at the line of the test, in words that name what decided."""
    for mistake, (rules, test, words) in MISTAKES.items():
        findings = try_out(BASE + rules, f"tests:\n- {{{test}}}\n").findings
        code = CODES.get(mistake, "failed-test")
        assert [(each.code, each.place.line) for each in findings] == [(code, 2)], mistake
        assert words in findings[0].message, mistake


def test_an_accepted_hairpin_without_a_way_back_gets_a_warning(try_out: Callable[[str, str], PolicyRun]) -> None:
    """The packet is accepted, so its test passes; that the server answers its neighbour straight is a warning at the
    test, with the rule that brings the answers back, and with that rule there is none."""
    accept = "-4 -A FORWARD -i lan0 -o lan0 -p tcp --dport 443 -j ACCEPT\n"
    test = f"tests:\n- {{{MISTAKES['a hairpin that loses its way'][1]}}}\n"
    (finding,) = try_out(BASE + HAIRPIN + accept, test).findings
    assert (finding.code, finding.severity, finding.place.line) == ("straight-answer", Severity.WARNING, 2)
    assert "no connection comes of it. The answer does not come back through this host: 10.0.0.5" in finding.message
    rule = "-t nat -A POSTROUTING -s 10.0.0.0/24 -d 10.0.0.5 -p tcp --dport 443 -j MASQUERADE"
    assert finding.hint == f'add "{rule}"'
    assert list(try_out(f"{BASE}{HAIRPIN}{accept}{rule}\n", test).findings) == []


def test_rules_of_other_programs_are_around_the_candidate(try_out: Callable[..., PolicyRun], backend: str) -> None:
    """What another program has in the kernel decides about packets as it will after the load, in a table that no file
    names and between the rules of the files; it has no place in a file."""
    dnat = "-t nat -A PREROUTING -d 192.0.2.1 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"
    for rule in (dnat, "-N DOCKER", "-A FORWARD -o docker0 -j DOCKER", "-A DOCKER -p tcp --dport 80 -j ACCEPT"):
        subprocess.run([f"iptables-{backend}", *rule.split()], check=True)

    def around(wanted: Mapping[Family, Ruleset]) -> Mapping[Family, Ruleset]:
        preserve = Preserve.from_patterns(["DOCKER"])
        return loaded_after(look_at(LiveKernel(Backend(backend)), wanted, preserve), wanted)

    test = f"tests:\n- {{{MISTAKES['a published port that INPUT does not guard'][1]}}}\n"
    (finding,) = try_out(BASE, test, around).findings
    assert '"-A DOCKER -p tcp -m tcp --dport 80 -j ACCEPT" accepts it; it is forwarded to docker0' in finding.message


def test_all_examples_of_the_shipped_tests_hold(try_out: Callable[[str, str], PolicyRun]) -> None:
    """The shipped tests pass with the shipped rules, and so do the examples in them."""
    rules = "".join(path.read_text() for path in sorted(SHIPPED.glob("*.rules")))
    run = try_out(rules, with_examples((SHIPPED / "policy.tests.yaml").read_text()))
    assert list(map(str, run.findings)) == []
    assert (run.counts["passed"], run.without_packets) == (run.tests, 0)


@contextlib.contextmanager
def ssh_from(peer: Any) -> Iterator[None]:
    """A connection from the peer to port 22 of this host, which stays open."""
    code = "import socket, sys; s = socket.create_connection(('198.51.100.1', 22)); sys.stdin.read()"
    argv = [sys.executable, "-I", "-S", "-c", code]
    with socket.create_server(("198.51.100.1", 22)) as server, peer.started(argv):
        connection, _ = server.accept()
        with connection:
            yield


@dataclass(frozen=True)
class Ctl:
    """Runs fwguardctl in this process, with the settings and the socket of a daemon; ``check`` knows no socket."""

    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, daemon: Any, verb: str, *argv: str, session: str = "") -> tuple[int, str]:
        """The exit code of a verb, and what it prints; ``session`` is the ssh session that it runs in."""
        options = ["--config", str(daemon.config)]
        if verb != "check":
            options += ["--socket", str(daemon.config.parent / "run" / "control.sock")]
        self.monkeypatch.setenv("SSH_CONNECTION", session)
        self.capsys.readouterr()
        code = command_line.main([verb, *options, *argv])
        return code, self.capsys.readouterr().out


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ctl:
    """Runs fwguardctl."""
    return Ctl(capsys, monkeypatch)


SESSION = "198.51.100.2 40000 198.51.100.1 22"
GUARDED = "lockout guard: 1 ssh connection tried, none is lost"
CLOSED = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"


@pytest.mark.parametrize("backend", ["nft", "legacy"], indirect=True)
def test_a_pass_is_refused_by_tests_and_guard(
    start_daemon: Start, peer: Any, programs: Programs, backend: str, ctl: Ctl
) -> None:
    """A change that fails a test, or that closes ssh to a peer with a session, is refused and changes nothing; a reload
    with --force applies the latter, and then the peer is no reason any more. For packets each ruleset is loaded once
    more, on nf_tables without a program."""
    rules = f"-P INPUT DROP\n{ESTABLISHED}{SSH}-A INPUT -p tcp --dport 80 -j ACCEPT\n"
    test = "tests:\n- {expect: accept, in: guard0, proto: tcp, dport: 80}\n"
    daemon = start_daemon({"a.rules": rules, "a.tests.yaml": test}, "drift_interval: 1h\n", enter=programs.enter)
    daemon.event("rules.applied")
    with ssh_from(peer):
        before = programs.run()
        daemon.drop("a.rules", rules.replace("80", "81"))
        refused = daemon.event("rules.rejected")
        assert (refused["code"], refused["file"]) == ("failed-test", f"{daemon.rules}/a.tests.yaml:2")
        assert "the policy of INPUT drops it at" in refused["message"]
        daemon.end_pass()
        run = programs.run() - before
        assert sum(run[name] for name in run if name.endswith("restore")) == {"nft": 2, "legacy": 4}[backend], run

        daemon.drop("a.tests.yaml", "tests: []\n")
        daemon.event("rules.applied")
        daemon.drop("a.rules", CLOSED)
        refused = daemon.event("rules.rejected")
        assert (refused["code"], refused["file"]) == ("closes-ssh", f"{daemon.rules}/a.rules:1")
        assert "198.51.100.2 has an ssh session, and could not open a new connection to port 22" in refused["message"]
        code, asked = ctl(daemon, "reload", session=SESSION)
        assert code == 1
        assert "198.51.100.2, from which this change is asked for, has an ssh session" in asked
        assert ctl(daemon, "reload", "--force")[0] == 0
        warned = daemon.event("rules.finding", code="closes-ssh")
        assert "could not open a new connection" in warned["message"]
        daemon.event("rules.applied")
        daemon.drop("b.rules", "-A INPUT -p tcp --dport 8080 -j ACCEPT\n")
        daemon.event("rules.applied")


def test_the_guard_is_run_before_files_change(start_daemon: Start, peer: Any, ctl: Ctl) -> None:
    """A command that writes rules that the lockout guard refuses prints one finding, and changes nothing; --force
    applies them. ``check`` of the daemon's directory runs the guard, and says so where it does not."""
    daemon = start_daemon({"a.rules": f"-P INPUT DROP\n{ESTABLISHED}{SSH}"}, "drift_interval: 1h\n")
    daemon.event("rules.applied")
    with daemon.config.open("a") as settings:
        settings.write(f"rules_dir: {daemon.rules}\n")
    with ssh_from(peer):
        for more in ((), ("--dry-run",)):
            code, refused = ctl(daemon, "deny", "ssh", *more, session=SESSION)
            assert (code, refused.count("[closes-ssh]")) == (1, 1), refused
            assert "198.51.100.2, from which this change is asked for, has an ssh session" in refused
            assert "repeat the command with --force --confirm 60s" in refused
        assert not (daemon.rules / "05-deny.rules").exists()
        code, checked = ctl(daemon, "check")
        assert (code, checked.splitlines()[-1]) == (0, GUARDED), checked
        assert "lockout guard: not run, since these are not" in ctl(daemon, "check", str(SHIPPED))[1]
        code, forced = ctl(daemon, "deny", "ssh", "--force")
        assert (code, forced.count("[closes-ssh]")) == (0, 1), forced
        assert ctl(daemon, "remove", "deny", "ssh")[0] == 0
        daemon.drop("a.rules", CLOSED)
        assert daemon.event("rules.rejected")["code"] == "closes-ssh"
        code, checked = ctl(daemon, "check", session=SESSION)
        assert (code, checked.count("[closes-ssh]")) == (1, 1), checked
        document = json.loads(ctl(daemon, "check", "--json")[1])
        assert (document["ok"], document["lockout_guard"]["run"]) == (False, True)


INVARIANT = "tests:\n- never: {to_port: 5432, proto: tcp, not_from: [10.0.0.0/8, '2001:db8::/32']}\n"


def test_a_pass_is_refused_by_an_invariant(start_daemon: Start) -> None:
    """A change after which a packet violates an invariant is refused, with the packet, the rule and its place, and that
    the kernel accepts it; without the rule it is applied."""
    rules = f"-P INPUT DROP\n-P FORWARD DROP\n{ESTABLISHED}{SSH}"
    daemon = start_daemon({"a.rules": rules, "a.tests.yaml": INVARIANT}, "drift_interval: 1h\n")
    daemon.event("rules.applied")
    daemon.drop("b.rules", "-A INPUT -p tcp --dport 5000:6000 -j ACCEPT\n")
    refused = daemon.event("rules.rejected")
    assert (refused["code"], refused["file"]) == ("failed-invariant", f"{daemon.rules}/a.tests.yaml:2")
    assert f'--dport 5000:6000 -j ACCEPT" at {daemon.rules}/b.rules:1 accepts it' in refused["message"]
    assert "confirmed by sending it" in refused["message"]
    daemon.drop("b.rules", "-A INPUT -p tcp --dport 5000:5431 -j ACCEPT\n")
    daemon.event("rules.applied")
