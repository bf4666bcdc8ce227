"""A real fail2ban, Debian's, between the rules of Docker and kube-proxy: each program keeps its own rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from tests.netns.conftest import output
from tests.netns.test_known_programs import OURS, blocks, live, load, theirs
from tests.processes import ended_on_error
from tests.scale import scaled
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RELOADS = scaled(gate=16, long=200)
OTHERS = ("docker-classic", "kube-proxy")
JAIL = """
[DEFAULT]
bantime = 1h
findtime = 1h
maxretry = 1
[guard]
enabled = true
backend = polling
filter = guard
logpath = {folder}/guard.log
action = iptables-multiport[name=guard, port="22,2222", protocol=tcp]
"""
ACTION = """
[Init]
iptables = iptables-{backend} <lockingopt>
[Init?family=inet6]
iptables = ip6tables-{backend} <lockingopt>
"""
FILTER = r"""
[Definition]
failregex = ^\s*bad login from <HOST>$
datepattern = ^{EPOCH}
"""


class Fail2ban:
    """A fail2ban server in the test's namespace, with a configuration, socket, log and no database of its own."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.backend, self.log, self._watched = backend, folder / "fail2ban.log", folder / "guard.log"
        shutil.copytree("/etc/fail2ban", folder / "etc")
        shutil.rmtree(folder / "etc" / "jail.d")
        (folder / "etc" / "jail.local").write_text(JAIL.format(folder=folder))
        (folder / "etc" / "action.d" / "iptables.local").write_text(ACTION.format(backend=backend))
        (folder / "etc" / "filter.d" / "guard.conf").write_text(FILTER)
        (folder / "etc" / "fail2ban.local").write_text(f"[Definition]\ndbfile = None\nlogtarget = {self.log}\n")
        self._watched.touch()
        self._argv = ["-c", str(folder / "etc"), "-s", str(folder / "socket"), "-p", str(folder / "pid")]
        self._server = subprocess.Popen(
            ["fail2ban-server", "-f", *self._argv, "start"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with ended_on_error(self._server):
            wait_until(lambda: self.log.exists() and "Jail 'guard' started" in self.log.read_text(), "fail2ban")

    def report(self, address: str, now: float) -> None:
        """One bad login, in the log that it watches."""
        with self._watched.open("a") as file:
            file.write(f"{now:.0f} bad login from {address}\n")

    def unban(self, addresses: list[str]) -> None:
        """Unban by hand."""
        subprocess.run(["fail2ban-client", *self._argv, "unban", *addresses], check=True, stdout=subprocess.DEVNULL)

    def banned(self) -> set[str]:
        """The addresses that the kernel rejects for it."""
        rules = "".join(output(f"{program}-{self.backend} -S") for program in ("iptables", "ip6tables"))
        return set(re.findall(r"-A f2b-guard -s ([^ /]+)/[0-9]+ -j REJECT", rules))

    def some_of(self, addresses: frozenset[str]) -> frozenset[str]:
        """Those of the addresses that it has banned, once there are any: it reads its log once in a while."""
        wait_until(lambda: bool(addresses & self.banned()), "a ban", pause=0.05)
        return addresses & self.banned()

    def close(self) -> None:
        """End it; it takes its rules with it."""
        self._server.terminate()
        self._server.wait(timeout=LONGEST)


@pytest.fixture
def fail2ban(tmp_path: Path, backend: str) -> Iterator[Fail2ban]:
    """A server that runs for the time of the test."""
    folder = tmp_path / "fail2ban"
    folder.mkdir()
    server = Fail2ban(folder, backend)
    yield server
    server.close()


@pytest.mark.long
@pytest.mark.either_backend
def test_no_ban_is_lost_over_many_reloads(
    start_daemon: Callable[..., Any], fail2ban: Fail2ban, backend: str, tmp_path: Path
) -> None:
    """It bans and unbans, in both families, while each of many reloads changes our rules: in the end the kernel
    holds exactly its bans, it never found a rule of its own gone, the captured rules around ours are as they were, in
    order and with their counters, and nothing was called drift."""
    load(backend, OTHERS[0])
    daemon = start_daemon(OURS, "settle: 30s\nsettle_max: 60s\ndrift_interval: 1s\n")
    daemon.event("rules.applied")
    load(backend, OTHERS[1])
    before = live(backend)
    socket, wanted = tmp_path / "run" / "control.sock", set[str]()
    for number in range(RELOADS):
        address = f"192.0.2.{number + 1}" if number % 2 else f"2001:db8::{number + 1:x}"
        fail2ban.report(address, time.time())
        wanted.add(address)
        if number % 8 == 7:
            gone = sorted(fail2ban.some_of(frozenset(wanted)))[::2]
            fail2ban.unban(gone)
            wanted -= set(gone)
        rule = f"-A INPUT -p tcp --dport {8000 + number} -j ACCEPT\n"
        (daemon.rules / "20-more.rules").write_text(rule if number % 3 else f"-I INPUT -s 203.0.113.{number} -j DROP\n")
        assert ask(socket, "reload")["outcome"] == "applied"
    wait_until(lambda: fail2ban.banned() == wanted, "the last bans")
    assert 5 < len(wanted) < RELOADS
    assert ask(socket, "drift")["count"] == 0
    after = live(backend)
    assert (theirs(after, OTHERS), blocks(after, OTHERS)) == (theirs(before, OTHERS), blocks(before, OTHERS))
    assert ask(socket, "open")["outcome"] == "applied"
    assert fail2ban.banned() == wanted
    assert ask(socket, "reload")["outcome"] == "applied"
    first = output(f"iptables-{backend} -S INPUT").splitlines()[1]
    assert first == "-A INPUT -p tcp -m multiport --dports 22,2222 -j f2b-guard"

    daemon.stop()
    daemon.event("daemon.stopping")
    assert not [event for event in daemon.seen if event["event"].startswith(("drift", "rules.failed", "rules.broken"))]
    assert " ERROR " not in fail2ban.log.read_text()
