"""The problems that doctor finds on a host, and the files of a host that it reads them from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl import diagnose
from fwguardd.kernel import host
from fwguardd.kernel.host import Conntrack, PostUp
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.preserve import Preserve
from fwguardd.ruleset.program_lookup import expand_patterns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fwguardd.ruleset.model import Finding

DEFAULTS = Preserve.from_patterns(expand_patterns(["defaults"]))


def files(root: Path, contents: Mapping[str, str]) -> Path:
    """A host that has these files."""
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def codes(findings: Iterable[Finding]) -> list[str]:
    """Their codes; and each finding has a hint."""
    findings = list(findings)
    assert all(finding.hint and not finding.hint.endswith(".") for finding in findings)
    return [finding.code for finding in findings]


def live(*rules: str, chains: Iterable[str] = ()) -> dict[Family, Ruleset]:
    """A FORWARD chain with these rules, beside chains without any."""
    forward = Chain("FORWARD", "ACCEPT", tuple(map(Rule, rules)))
    others = {name: Chain(name, None) for name in chains}
    return {Family.IPV4: Ruleset(Family.IPV4, {"filter": Table("filter", {"FORWARD": forward, **others})})}


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        (["-j DOCKER-USER", "-i lan0 -j ACCEPT"], "before our rules in ipv4 filter FORWARD"),
        (["-i lan0 -j ACCEPT", "-i docker0 -o docker0 -j ACCEPT"], "after our rules in ipv4 filter FORWARD"),
        (["-j ts-forward", "-j DOCKER-USER"], "in ipv4 filter FORWARD"),
        (["-j DOCKER-USER", "-i a -j DROP", "-j DOCKER"], "between our rules in ipv4 filter FORWARD"),
    ],
)
def test_known_programs_are_found_with_the_position_of_their_rules(rules: list[str], place: str) -> None:
    """A known program is found by its chains and rules, with their position relative to fwguardd's."""
    found = diagnose.found_programs(live(*rules, chains=["DOCKER", "DOCKER-USER"]), DEFAULTS)
    assert str(found[0]) == f"Docker: 2 chains, {place}"
    assert codes(diagnose.check_programs(found)) == []


def test_a_known_program_that_is_not_preserved_is_a_problem() -> None:
    """By its chains, and by its bare rules alone."""
    for rules, chains in ((["-j DOCKER"], ["DOCKER"]), (["-i docker0 -o docker0 -j ACCEPT"], [])):
        found = diagnose.found_programs(live(*rules, chains=chains), Preserve.from_patterns(["f2b-*"]))
        assert codes(diagnose.check_programs(found)) == ["not-preserved"]


def test_enabled_services_are_those_that_boot_wants(tmp_path: Path) -> None:
    """A service is enabled by a link of systemd, unless it is masked; ufw also has to be enabled in ufw.conf."""
    wants = "etc/systemd/system/multi-user.target.wants"
    files(tmp_path, {f"{wants}/{name}.service": "" for name in ("ufw", "ferm", "nftables", "ssh", "firewalld")})
    (tmp_path / "etc/systemd/system/firewalld.service").symlink_to("/dev/null")
    assert host.enabled_services(tmp_path) == ("nftables", "ferm")
    files(tmp_path, {"etc/ufw/ufw.conf": "# x\nENABLED=yes\nLOGLEVEL=low\n"})
    assert host.enabled_services(tmp_path) == ("ufw", "nftables", "ferm")
    assert not host.flushes_at_start(tmp_path)
    files(tmp_path, {"etc/nftables.conf": "#!/usr/sbin/nft -f\n\nflush ruleset\n"})
    assert host.flushes_at_start(tmp_path)
    found = list(diagnose.check_services(host.enabled_services(tmp_path), flushes=True))
    assert codes(found) == ["other-firewall"] * 3
    assert "removes all rules of nf_tables" in found[1].message
    assert set(diagnose.SERVICES) == set(host.SERVICES)


def test_post_up_rules_are_found_unless_they_are_preserved(tmp_path: Path) -> None:
    """Each rule of each line, with its table and the interface's name; preserved rules are not a problem."""
    lines = (
        "[Interface]\npostup = iptables -A FORWARD -i %i -j ACCEPT;"
        " iptables -w -t nat -I POSTROUTING 1 -o eth0 -j MASQUERADE\n"
        "PostUp=ip6tables -A FORWARD -i %i -j ACCEPT\n#PostUp = iptables -A INPUT -j DROP\n"
        "PostDown = iptables -D FORWARD\n"
    )
    files(tmp_path, {"etc/wireguard/wg0.conf": lines})
    path = str(tmp_path / "etc/wireguard/wg0.conf")
    assert host.post_up_rules(tmp_path) == (
        PostUp(path, "iptables", "filter", "FORWARD", "-i wg0 -j ACCEPT"),
        PostUp(path, "iptables", "nat", "POSTROUTING", "-o eth0 -j MASQUERADE"),
        PostUp(path, "ip6tables", "filter", "FORWARD", "-i wg0 -j ACCEPT"),
    )
    assert codes(diagnose.check_post_up_rules(host.post_up_rules(tmp_path), DEFAULTS)) == ["post-up-rule"] * 3
    mine = Preserve.from_patterns(["-t filter -A FORWARD -i wg0 -j ACCEPT"])
    assert codes(diagnose.check_post_up_rules(host.post_up_rules(tmp_path), mine)) == ["post-up-rule"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (None, []),
        (Conntrack(100, 65536, 432000), []),
        (Conntrack(60000, 65536, 432000), ["conntrack-full"]),
        (Conntrack(0, 65536, 600), ["conntrack-forgets"]),
    ],
)
def test_the_connection_table(table: Conntrack | None, expected: list[str]) -> None:
    """A problem if it is nearly full, or if its timeout is shorter than the keepalive time of TCP."""
    assert codes(diagnose.check_conntrack(table)) == expected


def test_the_connection_table_is_read_from_proc(tmp_path: Path) -> None:
    """All three numbers are read, or None: conntrack may not be loaded."""
    folder = "proc/sys/net/netfilter/nf_conntrack_"
    files(tmp_path, {f"{folder}count": "7\n", f"{folder}max": "99\n"})
    assert host.conntrack(tmp_path) is None
    files(tmp_path, {f"{folder}tcp_timeout_established": "432000\n"})
    assert host.conntrack(tmp_path) == Conntrack(7, 99, 432000)


def test_ipv6_may_be_switched_off_in_two_ways(tmp_path: Path) -> None:
    """Without IPv6 in the kernel ip6tables-legacy cannot load rules; the sysctl causes no problem."""
    assert host.ipv6_switched_off(tmp_path) == "boot"
    files(tmp_path, {"proc/sys/net/ipv6/conf/all/disable_ipv6": "1\n"})
    assert host.ipv6_switched_off(tmp_path) == "sysctl"
    files(tmp_path, {"proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n"})
    assert host.ipv6_switched_off(tmp_path) == ""
    assert codes(diagnose.check_ipv6("boot", "legacy")) == ["no-ipv6"]
    assert codes(diagnose.check_ipv6("boot", "nft")) == codes(diagnose.check_ipv6("sysctl", "legacy")) == []
    assert [len(list(diagnose.notes(off, "nft"))) for off in ("", "sysctl", "boot")] == [0, 1, 1]


def test_tools_and_backends(tmp_path: Path) -> None:
    """Missing programs, a backend that is not that of plain iptables, a kernel without legacy iptables."""
    assert len(host.missing_programs("legacy", [str(tmp_path)])) == 4
    found = diagnose.check_tools(["iptables-nft-save"], "legacy", "nft", chosen=True, legacy_kernel=False)
    assert codes(found) == ["missing-program", "backend-mismatch", "no-legacy-kernel"]
    assert codes(diagnose.check_tools([], "nft", "nft", chosen=True, legacy_kernel=False)) == []
    assert not host.has_legacy("6.1.0", tmp_path)
    files(tmp_path, {"lib/modules/6.1.0/modules.dep": "kernel/net/ipv4/netfilter/ip_tables.ko: kernel/x.ko\n"})
    assert host.has_legacy("6.1.0", tmp_path)
