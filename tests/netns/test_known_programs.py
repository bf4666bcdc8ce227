"""Rule sets of real programs around ours: whatever fwguardd does, they stay, in place, to the byte and the counter."""

from __future__ import annotations

import subprocess
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from fwguardd.kernel.iptables import Backend, LiveKernel
from fwguardd.ruleset.known_programs import KNOWN_PROGRAMS
from fwguardd.ruleset.model import BUILTIN_CHAINS, FAMILIES, Family
from fwguardd.ruleset.preserve import Preserve, own_part
from tests.netns.conftest import output
from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Lines = list[tuple[str, str]]

CAPTURED = Path(__file__).parent / "known_programs"
RELOADS = scaled(gate=12, long=25)
"""The hundred that were promised are made in test_fail2ban.py, beside a program that is at work meanwhile."""
QUIET = "settle: 30s\nsettle_max: 60s\ndrift_interval: 500ms\n"
"""Nothing is applied unless it is asked for; drift is looked for all the same."""

OURS = {
    "10-host.rules": "-P INPUT DROP\n-P FORWARD DROP\n-N web\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j web\n"
    "-A FORWARD -i lan0 -j ACCEPT\n-A FORWARD -p tcp --syn -j REJECT\n",
    "20-nat.v4.rules": "*nat\n-A PREROUTING -p tcp --dport 2222 -j REDIRECT --to-ports 22\n"
    "-A POSTROUTING -o wan0 -j MASQUERADE\n*raw\n-A PREROUTING -p udp --dport 9 -j DROP\n"
    "*mangle\n-A FORWARD -o wan0 -p tcp --syn -j TCPMSS --clamp-mss-to-pmtu\n",
}


def load(backend: str, name: str) -> None:
    """Load a captured rule set behind whatever is there, as its program would: policies are not its own."""
    lines = (CAPTURED / f"{name}.v4").read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("#") and " ACCEPT [" not in line)
    argv = [f"iptables-{backend}-restore", "--noflush", "--counters", "-w", "5"]
    subprocess.run(argv, input=text, text=True, check=True)


def live(backend: str) -> Lines:
    """Every line of the kernel's IPv4 rules with its table: rules with counters, chains without."""
    table, lines = "", []
    for line in output(f"iptables-{backend}-save -c").splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith((":", "[")):
            lines.append((table, line.rpartition(" ")[0] if line.startswith(":") else line))
    return lines


def captured(name: str) -> Lines:
    """The lines of a captured rule set with their tables, without those of built-in chains."""
    table, lines = "", []
    for line in (CAPTURED / f"{name}.v4").read_text().splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith(("[", ":")) and " ACCEPT [" not in line:
            lines.append((table, line.rpartition(" ")[0] if line.startswith(":") else line))
    return lines


def theirs(lines: Lines, names: tuple[str, ...]) -> Lines:
    """Those lines that were captured, in the order in which they stand now; chains have none."""
    known = {line for name in names for line in captured(name)}
    return sorted(line for line in lines if line[1][0] == ":" and line in known) + [
        line for line in lines if line[1][0] == "[" and line in known
    ]


def blocks(lines: Lines, names: tuple[str, ...]) -> Mapping[tuple[str, str], list[str]]:
    """For each built-in chain whose rules follow upon each other: captured set after captured set, and ours."""
    owner = {line: name for name in names for line in captured(name)}
    found: dict[tuple[str, str], list[str]] = {}
    rules = [line for line in lines if line[1].startswith("[")]
    for place, group in groupby(rules, lambda line: (line[0], line[1].split()[2])):
        if place[1].isupper() and "-" not in place[1] and place[1] != "DOCKER":
            found[place] = [name for name, _ in groupby(owner.get(line, "ours") for line in group)]
    return found


@pytest.mark.long
@pytest.mark.parametrize(("first", "later"), [("docker-classic", "kube-proxy"), ("docker-28", "kube-proxy")])
@pytest.mark.either_backend
def test_citizens_stay_as_they_are(
    start_daemon: Callable[..., Any], backend: str, tmp_path: Path, first: str, later: str
) -> None:
    """Around our rules, over reloads that each change them, `open`, a rollback and a repair: no captured
    rule is lost, moved or counted anew, and none of it is ever called drift."""
    names, socket = (first, later), tmp_path / "run" / "control.sock"
    load(backend, first)
    daemon = start_daemon(OURS, QUIET)
    daemon.event("rules.applied")
    load(backend, later)
    before = live(backend)
    wanted, places = theirs(before, names), blocks(before, names)
    assert sorted(wanted) == sorted(captured(first) + captured(later))
    assert places["*filter", "FORWARD"] == [first, "ours", later]

    for number in range(RELOADS):
        early, late = (
            f"-I FORWARD -s 192.0.2.{number}/32 -j DROP\n",
            f"-A FORWARD -p tcp --dport {number + 1} -j DROP\n",
        )
        more = f"-A web -p tcp --dport {1000 + number} -j ACCEPT\n"
        (daemon.rules / "30-more.rules").write_text(late + more if number % 2 else f"-4 {early}" + more)
        assert ask(socket, "reload")["outcome"] == "applied"
    assert (theirs(live(backend), names), blocks(live(backend), names)) == (wanted, places)

    earlier = ask(socket, "history")["revisions"][RELOADS // 2]["revision"]
    assert ask(socket, "rollback", {"revision": earlier})["outcome"] == "applied"
    assert (theirs(live(backend), names), blocks(live(backend), names)) == (wanted, places)
    assert not [event for event in daemon.seen if event["event"].startswith("drift")]

    for command in ("-D INPUT -i lo -j ACCEPT", "-P FORWARD ACCEPT", "-F web", "-I FORWARD 3 -s 192.0.2.66 -j ACCEPT"):
        subprocess.run([f"iptables-{backend}", "-w", "5", *command.split()], check=True)
    wait_until(lambda: ask(socket, "drift")["count"] == 0, "the repair")
    assert (theirs(live(backend), names), blocks(live(backend), names)) == (wanted, places)

    assert ask(socket, "open")["outcome"] == "applied"
    assert theirs(live(backend), names) == wanted
    assert ask(socket, "reload")["outcome"] == "applied"
    assert theirs(live(backend), names) == wanted


def test_a_copy_of_others_rules_in_a_file_is_left_out(start_daemon: Callable[..., Any], backend: str) -> None:
    """Whoever saved the whole firewall into a rule file does not take Docker's rules from Docker: each is left out,
    with a warning, and Docker may change them."""
    load(backend, "docker-classic")
    before = theirs(live(backend), ("docker-classic",))
    daemon = start_daemon({"10-saved.v4.rules": (CAPTURED / "docker-classic.v4").read_text()})
    codes = {daemon.event("rules.finding")["code"] for _ in range(2)}
    assert codes == {"preserved-chain", "preserved-rule"}
    daemon.event("rules.unchanged", rules=0)
    assert theirs(live(backend), ("docker-classic",)) == before


def test_rules_are_recognized_as_iptables_prints_them(backend: str) -> None:
    """The patterns match what the real iptables-save prints of the rules of many programs: nothing is left as ours."""
    load(backend, "small-programs")
    assert sorted(live(backend)) == sorted([*captured("small-programs"), *builtin_chains()])
    patterns = [pattern for program in KNOWN_PROGRAMS for pattern in program.patterns]
    shown = LiveKernel(Backend(backend)).look(FAMILIES)[Family.IPV4].shown
    own = own_part(shown, Preserve.from_patterns(patterns))
    chains = [chain for table in own.tables.values() for chain in table.chains.values()]
    assert [rule.text for chain in chains for rule in chain.rules] == []
    assert [chain.name for chain in chains if chain.policy is None] == []


def builtin_chains() -> Lines:
    """The lines of all built-in chains, as `live` has them."""
    return [(f"*{table}", f":{chain} ACCEPT") for table, chains in BUILTIN_CHAINS.items() for chain in chains]


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_a_jump_that_comes_between_a_look_and_a_write_fails_no_reload(
    start_daemon: Callable[..., Any], backend: str, tmp_path: Path
) -> None:
    """Somebody makes and removes a chain and the jump to it, at the head of INPUT, without a pause: nf_tables has no
    lock that would keep him out, and every reload is applied all the same, each rule of ours in its place."""
    daemon = start_daemon(OURS, "settle: 30s\nsettle_max: 60s\ndrift_interval: 1h\n")
    daemon.event("rules.applied")
    jump = "INPUT -p tcp -m multiport --dports 22 -j f2b-x"
    commands = ("-N f2b-x", f"-I {jump}", f"-D {jump}", "-X f2b-x")
    script = "".join(f"iptables-{backend} -w {command};" for command in commands)
    loop = subprocess.Popen(["sh", "-c", f"while :; do {script} done"], stderr=subprocess.DEVNULL)
    try:
        for number in range(RELOADS):
            place = "-A" if number % 2 else "-I"
            (daemon.rules / "30-more.rules").write_text(f"{place} INPUT -p tcp --dport {1000 + number} -j ACCEPT\n")
            answer = ask(tmp_path / "run" / "control.sock", "reload")
            assert answer["outcome"] == "applied", answer["reason"]
    finally:
        loop.kill()
        loop.wait()
    assert ask(tmp_path / "run" / "control.sock", "drift")["count"] == 0
