"""Which rules can be rehearsed alone."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.plain_rules import is_plain, needs_nothing_outside


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-j ACCEPT",
        "-s 192.0.2.1 -p tcp --dport 22 -j ACCEPT",
        "-s 192.0.2.1/32,198.51.100.0/24 ! -i lo -p tcp -m tcp --dport 1:1024 -j DROP",
        "! -s 2001:db8::/32 -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j RETURN",
        "-p udp -m multiport --dports 53,67:68 -m limit --limit 5/min --limit-burst 10 -j REJECT",
        '-m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "of the office" -j ACCEPT',
        '-p tcp --syn -j LOG --log-prefix "iptables denied: " --log-level 7',
    ],
)
def test_what_needs_nothing_outside_is_plain(text: str) -> None:
    """Numeric addresses and ports, matches without a name, and targets that are no chain."""
    assert is_plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "-j WEB",
        "-g WEB",
        "-s example.org -j ACCEPT",
        "-s cafe -j ACCEPT",
        "-s 192.0.2.1,example.org -j ACCEPT",
        "-s 192.0.2.1-j ACCEPT",
        "-p tcp --dport ssh -j ACCEPT",
        "-p 17 --dport 53 -j ACCEPT",
        "-p tcp -m set --match-set office src -j ACCEPT",
        "-m owner --uid-owner bob -j ACCEPT",
        "-m recent --set --name ssh -j ACCEPT",
        "-m hashlimit --hashlimit-above 5/sec --hashlimit-name a -j DROP",
        "-m rateest --rateest RE1 --rateest-lt --rateest-bps 1mbit -j ACCEPT",
        "-j RATEEST --rateest-name RE1 --rateest-interval 250ms --rateest-ewma 0.5s",
        "-j MARK --set-mark 1",
        "-j DNAT --to-destination 192.0.2.1",
        "-j ACCEPT -s 192.0.2.1",
        '-m comment --comment "a \\" b" -j ACCEPT',
        "-s 192.0.2.1 -j ACCEPT ",
    ],
)
def test_what_is_in_doubt_is_not_plain(text: str) -> None:
    """Names, jumps, and matches and targets that share something with other rules."""
    assert not is_plain(text)


@pytest.mark.parametrize(
    ("text", "nothing"),
    [
        ("-j ACCEPT", True),
        ("-s 192.0.2.1 -p tcp --dport 22 -j WEB", True),
        ("-o eth0 -j MASQUERADE", True),
        ("-i lo -g WEB", True),
        ("-s example.org -j WEB", False),
        ("-m owner --uid-owner bob -j WEB", False),
        ("-j CT --helper ftp", False),
        ("-j", False),
    ],
)
def test_a_jump_names_nothing_outside(text: str, nothing: bool) -> None:  # noqa: FBT001
    """Chains are in the files; hosts, users, sets and helpers are not."""
    assert needs_nothing_outside(text) is nothing
