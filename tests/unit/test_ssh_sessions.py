"""The warning about live ssh sessions: which sessions there are, and which rules certainly deny a new one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.ssh_sessions import sessions_in, ssh_ports
from fwguardd.kernel.tcp_in_use import may_have_sessions
from fwguardd.kernel.tcp_sockets import sockets_in
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.save_format import read_saved
from fwguardd.ruleset.ssh_sessions import SshSession, closed_sessions

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.ruleset.model import Ruleset

SESSION = SshSession(ip_address("198.51.100.7"), ip_address("192.0.2.1"), 22)
TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 010200C0:0016 076433C6:D431 01 00000000:00000000 02:00000000 00000000     0        0 2 2 0
   2: 010200C0:0050 076433C6:D432 01 00000000:00000000 02:00000000 00000000     0        0 3 2 0
   3: 010200C0:0016 086433C6:D433 06 00000000:00000000 02:00000000 00000000     0        0 0 2 0
"""
TABLE6 = """  sl  local_address                         remote_address                        st
   0: 0000000000000000FFFF0000010200C0:0016 0000000000000000FFFF0000076433C6:D431 01
   1: B80D0120000000000000000001000000:0016 B80D0120000000000000000007000000:D431 01
"""


def rulesets(policy: str, *rules: str) -> dict[Family, Ruleset]:
    """The table filter of IPv4 with these rules, and with the chains ssh and other."""
    lines = ["*filter", f":INPUT {policy} [0:0]", ":ssh - [0:0]", ":other - [0:0]"]
    lines += [f"[0:0] {rule}" for rule in rules]
    lines += ["COMMIT", ""]
    return {Family.IPV4: read_saved(Family.IPV4, "\n".join(lines)).shown}


def test_sessions_are_established_connections_to_ssh_ports() -> None:
    """Listening sockets, other ports and connections that are closing are none; IPv4 over an IPv6 socket is IPv4."""
    assert list(sessions_in(sockets_in(TABLE), {22})) == [SESSION]
    six = SshSession(ip_address("2001:db8::7"), ip_address("2001:db8::1"), 22)
    assert list(sessions_in(sockets_in(TABLE6), {22})) == [SESSION, six]
    assert list(sessions_in(sockets_in(""), {22})) == []


def test_the_ports_on_which_sshd_listens(tmp_path: Path) -> None:
    """Those of the listening sockets that a process of the name sshd holds, whatever its configuration says."""
    for number, name, inode in (("17", "sshd", 3), ("18", "nginx", 4)):
        (tmp_path / "proc" / number / "fd").mkdir(parents=True)
        (tmp_path / "proc" / number / "comm").write_text(f"{name}\n")
        (tmp_path / "proc" / number / "fd" / "5").symlink_to(f"socket:[{inode}]")
    table = (
        f"{TABLE}"
        "   4: 00000000:08AE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0\n"
        "   5: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4 1 0\n"
    )
    assert ssh_ports(tmp_path, list(sockets_in(table))) == {22, 2222}


def test_the_ports_of_sshd(tmp_path: Path) -> None:
    """Those that its configuration names, with 22."""
    assert ssh_ports(tmp_path) == {22}
    (tmp_path / "etc/ssh/sshd_config.d").mkdir(parents=True)
    (tmp_path / "etc/ssh/sshd_config").write_text("#Port 23\nPort 2222\nListenAddress 0.0.0.0\n")
    (tmp_path / "etc/ssh/sshd_config.d/port.conf").write_text("port=2022\n")
    assert ssh_ports(tmp_path) == {22, 2222, 2022}


@pytest.mark.parametrize(
    ("policy", "rules", "by"),
    [
        ("DROP", ["-A INPUT -i lo -j ACCEPT"], "the policy of INPUT drops it"),
        ("DROP", ["-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"], "the policy of INPUT"),
        ("DROP", ["-A INPUT -s 203.0.113.0/24 -p tcp -m tcp --dport 22 -j ACCEPT"], "the policy of INPUT"),
        ("DROP", ["-A INPUT -p tcp -m tcp --dport 2222 -j ACCEPT"], "the policy of INPUT"),
        ("ACCEPT", ["-A INPUT -p tcp -m tcp --dport 22 -j DROP"], "-A INPUT -p tcp -m tcp --dport 22 -j DROP denies"),
        ("ACCEPT", ["-A INPUT -j ssh", "-A ssh -s 198.51.100.0/24 -j DROP"], "-A ssh -s 198.51.100.0/24 -j DROP"),
        ("DROP", ["-A INPUT -p tcp -j ssh", "-A ssh -p tcp -j RETURN", "-A ssh -j ACCEPT"], "the policy of INPUT"),
        ("DROP", ["-A INPUT -j ssh", "-A ssh -j other", "-A other -j ssh"], "the policy of INPUT"),
    ],
)
def test_a_closed_session(policy: str, rules: list[str], by: str) -> None:
    """A new connection from its peer is certainly denied, and was accepted before: one warning says by which rule."""
    after = rulesets(policy, *rules)
    (finding,) = closed_sessions(rulesets("ACCEPT"), after, [SESSION, SESSION])
    assert finding.code == "closes-ssh"
    assert finding.message.startswith("198.51.100.7 has an ssh session to port 22, and could not open a new one")
    assert by in finding.message
    assert closed_sessions(after, after, [SESSION]) == ()


@pytest.mark.parametrize(
    ("policy", "rules"),
    [
        ("ACCEPT", []),
        ("DROP", ["-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"]),
        ("DROP", ["-A INPUT -s 198.51.100.7/32 -p tcp -m multiport --dports 22,80 -j ACCEPT"]),
        ("DROP", ["-A INPUT -m set --match-set office src -j ACCEPT"]),
        ("DROP", ["-A INPUT -i eth0 -p tcp -m tcp --dport 22 -j ssh", "-A ssh -j ACCEPT"]),
        ("ACCEPT", ["-A INPUT -i eth1 -j DROP"]),
        ("ACCEPT", ["-A INPUT -s 203.0.113.0/24 -j DROP"]),
        ("ACCEPT", ["-A INPUT -j ssh", "-A ssh -i eth0 -j RETURN", "-A ssh -j DROP"]),
    ],
)
def test_a_session_that_may_go_on(policy: str, rules: list[str]) -> None:
    """Where the packet is accepted, or what decides about it is not known, nothing is reported."""
    assert closed_sessions({}, rulesets(policy, *rules), [SESSION]) == ()


def test_sessions_of_the_host_with_itself_are_not_reported() -> None:
    """They use the loopback interface, which this reading does not follow."""
    own = SshSession(SESSION.local, SESSION.local, 22)
    assert closed_sessions({}, rulesets("DROP"), [own]) == ()


def test_without_a_tcp_socket_there_is_no_session(tmp_path: Path) -> None:
    """What counts the sockets is read first, as the tables of all connections take long; in doubt there may be one."""
    assert may_have_sessions(tmp_path)
    net = tmp_path / "proc/net"
    net.mkdir(parents=True)
    (net / "sockstat").write_text("sockets: used 6\nTCP: inuse 0 orphan 0 tw 2 alloc 9 mem 0\nUDP: inuse 1 mem 0\n")
    assert not may_have_sessions(tmp_path)
    (net / "sockstat6").write_text("TCP6: inuse 1\nUDP6: inuse 0\n")
    assert may_have_sessions(tmp_path)
