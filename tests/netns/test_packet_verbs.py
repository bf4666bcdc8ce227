"""explain, why, exposure, impact and trial on a host with sockets, connections, NAT and a peer: by real packets."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.ctl import command_line
from fwguardd.kernel.conntrack import NewConnections, tracked_connections
from fwguardd.kernel.sockets import listening_sockets
from tests.processes import ended_on_error
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.netns.conftest import Peer

pytestmark = pytest.mark.either_backend

RULES = """\
-P INPUT DROP
-P OUTPUT DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p tcp --dport 2222 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT -s 10.1.0.0/16 -p tcp --dport 5432 -m conntrack --ctstate NEW -j ACCEPT
-A INPUT -p tcp --dport 8080 -m conntrack --ctstate NEW -j ACCEPT
-4 -t nat -A PREROUTING -p tcp --dport 22 -j REDIRECT --to-ports 2222
"""
CONNECT = (
    "import socket, sys\n"
    "ends = [socket.create_connection(('198.51.100.1', port)) for port in map(int, sys.argv[1:])]\n"
    "print(len(ends), flush=True)\n"
    "sys.stdin.read()\n"
)
"""Connects to ports of the host, and keeps the connections until its input ends."""


class Verbs:
    """Runs verbs with the rules of a directory and one backend."""

    def __init__(self, folder: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.rules, self.draft, self.backend = folder / "rules", folder / "draft", backend
        self._config, self._capsys = folder / "fwguardd.yaml", capsys
        for directory in (self.rules, self.draft):
            directory.mkdir()
            (directory / "10.rules").write_text(RULES)
        settings = {"rules_dir": self.rules, "state_dir": folder / "state", "runtime_dir": folder / "run"}
        self._config.write_text("".join(f"{name}: {path}\n" for name, path in settings.items()))
        for family, program in (("4", "iptables"), ("6", "ip6tables")):
            text = self.text("render", "--family", family)[1]
            subprocess.run([f"{program}-{backend}-restore"], input=text, text=True, check=True)

    def argv(self, verb: str, *words: str) -> list[str]:
        """The command line without the name of the program."""
        return [verb, "--config", str(self._config), "--backend", self.backend, *words]

    def text(self, verb: str, *words: str) -> tuple[int, str]:
        """The exit code of a verb, and what it prints."""
        code = command_line.main(self.argv(verb, *words))
        return code, self._capsys.readouterr().out

    def document(self, verb: str, *words: str) -> tuple[int, Any]:
        """The exit code of a verb with --json, and the document."""
        code, text = self.text(verb, "--json", *words)
        return code, json.loads(text)


@pytest.fixture
def verbs(peer: Peer, tmp_path: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> Verbs:
    """The verbs, where the rules are in force."""
    peer.run("true")
    return Verbs(tmp_path, backend, capsys)


@contextlib.contextmanager
def servers(*ports: int) -> Iterator[None]:
    """Sockets that listen on all addresses of IPv4."""
    with contextlib.ExitStack() as listening:
        for port in ports:
            listening.enter_context(socket.create_server(("0.0.0.0", port)))
        yield


def write_as_advised(path: Path, rule: dict[str, Any]) -> None:
    """Write a line where explain says that it has to be."""
    lines = path.read_text().splitlines()
    lines.insert(rule["line"] - (rule["position"] == "before"), rule["rule"])
    path.write_text("\n".join(lines) + "\n")


def test_a_packet_is_explained_by_the_rules_that_it_meets(verbs: Verbs) -> None:
    """NAT, the deciding rule with its line, the answer; for one that is dropped the least to add, which was tried,
    and which does what it should where a person writes it."""
    code, document = verbs.document("explain", "in", "guard0", "tcp", "198.51.100.2", ":22")
    assert (code, document["ok"], document["verdict"], document["routed"]) == (0, True, "accept", "local")
    changed = [step["change"] for step in document["steps"] if step["change"]]
    assert changed == ["The packet is now 198.51.100.2:49152 → 198.51.100.1:2222."]
    assert (f"{verbs.rules}/10.rules", 6) in {(step["file"], step["line"]) for step in document["steps"]}
    assert document["reply"]["verdict"] == "accept"
    code, document = verbs.document("explain", "--live", "in", "guard0", "tcp", "198.51.100.2", ":5432")
    assert (code, document["verdict"]) == (1, "drop")
    (rule,) = document["add"]["rules"]
    wanted = "-A INPUT -i guard0 -s 198.51.100.2 -p tcp --dport 5432 -m conntrack --ctstate NEW -j ACCEPT"
    assert (rule["rule"], rule["file"], rule["line"], rule["position"]) == (
        wanted,
        f"{verbs.rules}/10.rules",
        8,
        "after",
    )
    assert document["add"]["proven"] is True
    for deciding in ("", "-I INPUT -s 198.51.100.0/24 -j DROP\n"):
        (verbs.rules / "10.rules").write_text(RULES + deciding)
        packet = ("explain", "in", "guard0", "tcp", "198.51.100.2", ":5432")
        (rule,) = verbs.document(*packet)[1]["add"]["rules"]
        write_as_advised(verbs.rules / "10.rules", rule)
        assert verbs.document(*packet)[1]["verdict"] == "accept"


def test_why_names_the_rule_and_the_program(verbs: Verbs) -> None:
    """A port is reached if the rules accept the packet and a program listens where NAT sends it; both are said."""
    with servers(2222):
        code, text = verbs.text("why", "198.51.100.2", "2222")
        assert (code, text.splitlines()[0]) == (0, "Yes: 198.51.100.2 can reach port 2222/tcp of 198.51.100.1.")
        code, text = verbs.text("why", "198.51.100.2", "22")
        assert (code, text.splitlines()[:2]) == (
            0,
            [
                "Yes: 198.51.100.2 can reach port 22/tcp of 198.51.100.1.",
                "NAT changes the destination to port 2222/tcp of 198.51.100.1.",
            ],
        )
        code, text = verbs.text("why", "198.51.100.2", "8080")
        assert code == 1
        assert "No program of this host listens on port 8080/tcp." in text
        assert verbs.text("why", "10.1.2.3", "5433") == (1, "No: this host has no route to 10.1.2.3.\n")
        code, text = verbs.text("why", "198.51.100.9", "5433")
        assert code == 1
        assert "what no rule is for is dropped" in text
        assert "With this it was accepted in a rehearsal." in text


HAIRPIN = (
    "-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"
    "*nat\n-A PREROUTING -d 198.51.100.1 -p tcp --dport 443 -j DNAT --to-destination 10.0.0.5\n{nat}COMMIT\n"
    "*filter\n{accept}"
)
FORWARDED = "-4 -A FORWARD -i lan0 -p tcp --dport 443 -j ACCEPT\n"
HOME_ROUTER = """
interfaces:
- {name: guard0, addresses: [198.51.100.1/24], forwarding: true}
- {name: lan0, addresses: [10.0.0.1/24], forwarding: true}
routes:
- {to: 198.51.100.0/24, dev: guard0, scope: 253}
- {to: 10.0.0.0/24, dev: lan0, scope: 253}
"""


@pytest.mark.parametrize("accept", ["", FORWARDED])
def test_a_hairpin_that_loses_its_way_is_told(verbs: Verbs, tmp_path: Path, accept: str) -> None:
    """A client asks the public address for a server of its own network: the server answers it straight. Explain says
    so, also of a packet that the rules drop as yet, and the rule that it gives brings the answer back."""
    (tmp_path / "host.yaml").write_text(HOME_ROUTER)
    packet = ("explain", "--host", str(tmp_path / "host.yaml"), "in", "lan0", "tcp", "10.0.0.9", "198.51.100.1:443")
    rules = verbs.rules / "10.rules"
    rules.write_text(HAIRPIN.format(nat="", accept=accept))
    code, text = verbs.text(*packet)
    assert (code, "The answer is" in text) == (1, False)
    assert "The answer does not come back through this host: 10.0.0.5 sends it straight to\n10.0.0.9" in text
    rule = verbs.document(*packet)[1]["straight_answer"]["rule"]
    assert rule == "-t nat -A POSTROUTING -s 10.0.0.0/24 -d 10.0.0.5 -p tcp --dport 443 -j MASQUERADE"
    rules.write_text(HAIRPIN.format(nat=f"{rule.removeprefix('-t nat ')}\n", accept=FORWARDED))
    code, document = verbs.document(*packet)
    assert (code, document["straight_answer"]) == (0, None)


def test_sockets_are_shown_with_those_who_reach_them(verbs: Verbs) -> None:
    """From the network of an interface, from one that a rule names, and rules for ports without a program."""
    with servers(2222, 5432, 9000):
        code, document = verbs.document("exposure", "--all-ports")
    assert code == 0
    found = {one["port"]: one for one in document["sockets"] if one["address"] == "0.0.0.0"}
    assert "guard0 (198.51.100.0/24)" in found[2222]["reachable_from"]
    assert found[2222]["program"]["pid"] > 0
    assert found[9000]["closed"] is True
    assert [one["ports"] for one in document["open_without_listener"]] == [["8080/tcp"]]
    open_ports = {one["first"] for one in document["ports"] if "guard0 (198.51.100.0/24)" in one["reachable_from"]}
    assert open_ports == {22, 2222, 8080}


def test_a_change_cuts_a_live_connection_and_opens_a_socket(verbs: Verbs, peer: Peer) -> None:
    """What a draft does to a connection that exists and to sockets, before it is in force; nothing for equal files."""
    text = RULES.replace("ESTABLISHED,", "").replace("--dport 8080", "--dport 9000")
    (verbs.draft / "10.rules").write_text(text)
    with servers(2222, 9000), peer.started([sys.executable, "-I", "-c", CONNECT, "22", "2222"]) as printed:
        assert printed.readline() == "2\n"
        connections, more = tracked_connections(10)
        assert {one.destination_port for one in connections} == {22, 2222}
        assert not more
        assert {one.port for one in listening_sockets()} >= {2222, 9000}
        code, document = verbs.document("impact", "--rules-dir", str(verbs.draft))
        assert code == 1
        assert len(document["cut"]) == 2
        assert [one["name"].split()[0] for one in document["opened"]] == ["9000/tcp"]
        assert document["cut"][0]["file"] == f"{verbs.draft}/10.rules"
        assert document["undecided"] == 0
        code, document = verbs.document("impact")
        assert (code, document["cut"], document["closed"], document["opened"]) == (0, [], [], [])
        assert "Impact: 2 connections would be cut" in verbs.text("diff", "--rules-dir", str(verbs.draft))[1]


def test_a_draft_is_tried_with_its_own_sets(verbs: Verbs) -> None:
    """The sets of a draft are not on this host: explain, why and impact know them from the files beside its rules."""
    draft = str(verbs.draft)
    guarded = RULES.replace("--dport 8080", "--dport 9000 -m set --match-set office src")
    (verbs.draft / "10.rules").write_text(guarded)
    (verbs.draft / "office.set").write_text("198.51.100.0/24\n")
    for source, verdict in (("198.51.100.2", "accept"), ("203.0.113.9", "drop")):
        packet = ("in", "guard0", "tcp", source, ":9000")
        assert verbs.document("explain", "--rules-dir", draft, *packet)[1]["verdict"] == verdict
    with servers(9000):
        assert verbs.text("why", "--rules-dir", draft, "198.51.100.2", "9000")[0] == 0
        document = verbs.document("impact", "--rules-dir", draft)[1]
    assert ([one["name"].split()[0] for one in document["opened"]], document["undecided"]) == (["9000/tcp"], 0)


def test_a_trial_reports_new_connections_that_a_draft_would_drop(verbs: Verbs, peer: Peer, tmp_path: Path) -> None:
    """Each kind once, as it comes, and the sum when it is interrupted."""
    (verbs.draft / "10.rules").write_text(RULES.replace("--dport 2222", "--dport 2223"))
    argv = [sys.executable, "-m", "fwguardd.ctl.main", *verbs.argv("trial", "1h", str(verbs.draft))]
    printed = tmp_path / "printed"
    with servers(2222), NewConnections() as seen, printed.open("w") as output:
        trial = subprocess.Popen(argv, stdout=output)
        connections: set[int | None] = set()

        def is_reported() -> bool:
            """Connect again, until the trial has begun and reports it."""
            assert peer.connects("198.51.100.1", 2222)
            connections.update(one.destination_port for one in seen.available())
            return bool(printed.read_text())

        with ended_on_error(trial):
            wait_until(is_reported, "a connection that is reported")
        trial.send_signal(signal.SIGINT)
        assert trial.wait() == 1
    assert connections == {2222}
    lines = printed.read_text().splitlines()
    assert lines[0].startswith("tcp 198.51.100.2:")
    assert lines[-1].endswith(" would have been dropped.")
    assert len([line for line in lines if line.startswith("tcp ")]) == 1
