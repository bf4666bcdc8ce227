"""What bites on a host: facts in, findings out; and the facts, from files as hosts have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl import diagnose
from fwguardd.kernel import host
from fwguardd.kernel.host import Conntrack, PostUp
from fwguardd.ruleset.known_programs import expand_patterns
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.preserve import Preserve

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
    """Their codes; and each finding says what to do."""
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
        (["-i lan0 -j ACCEPT", "-i docker0 -o docker0 -j ACCEPT"], "behind our rules in ipv4 filter FORWARD"),
        (["-j ts-forward", "-j DOCKER-USER"], "in ipv4 filter FORWARD"),
        (["-j DOCKER-USER", "-i a -j DROP", "-j DOCKER"], "among our rules in ipv4 filter FORWARD"),
    ],
)
def test_who_lives_here_is_told_with_the_place(rules: list[str], place: str) -> None:
    """A citizen is found by its chains and rules, and where they stand among ours."""
    found = diagnose.found_programs(live(*rules, chains=["DOCKER", "DOCKER-USER"]), DEFAULTS)
    assert str(found[0]) == f"Docker: 2 chains, {place}"
    assert codes(diagnose.about_citizens(found)) == []


def test_a_citizen_that_is_not_preserved_is_told() -> None:
    """By its chains, and by its bare rules alone."""
    for rules, chains in ((["-j DOCKER"], ["DOCKER"]), (["-i docker0 -o docker0 -j ACCEPT"], [])):
        found = diagnose.found_programs(live(*rules, chains=chains), Preserve.from_patterns(["f2b-*"]))
        assert codes(diagnose.about_citizens(found)) == ["not-preserved"]


def test_enabled_services_are_those_that_boot_wants(tmp_path: Path) -> None:
    """By the links of systemd; a masked one is not, and ufw only once it says so itself."""
    wants = "etc/systemd/system/multi-user.target.wants"
    files(tmp_path, {f"{wants}/{name}.service": "" for name in ("ufw", "ferm", "nftables", "ssh", "firewalld")})
    (tmp_path / "etc/systemd/system/firewalld.service").symlink_to("/dev/null")
    assert host.enabled_services(tmp_path) == ("nftables", "ferm")
    files(tmp_path, {"etc/ufw/ufw.conf": "# x\nENABLED=yes\nLOGLEVEL=low\n"})
    assert host.enabled_services(tmp_path) == ("ufw", "nftables", "ferm")
    assert not host.flushes_at_start(tmp_path)
    files(tmp_path, {"etc/nftables.conf": "#!/usr/sbin/nft -f\n\nflush ruleset\n"})
    assert host.flushes_at_start(tmp_path)
    found = list(diagnose.about_services(host.enabled_services(tmp_path), flushes=True))
    assert codes(found) == ["other-firewall"] * 3
    assert "empties all of nf_tables" in found[1].message
    assert set(diagnose.SERVICES) == set(host.SERVICES)


def test_post_up_rules_are_told_unless_they_are_preserved(tmp_path: Path) -> None:
    """Each rule of each line, with its table and the interface's name; what preserve: names is no trouble."""
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
    assert codes(diagnose.about_post_ups(host.post_up_rules(tmp_path), DEFAULTS)) == ["post-up-rule"] * 3
    mine = Preserve.from_patterns(["-t filter -A FORWARD -i wg0 -j ACCEPT"])
    assert codes(diagnose.about_post_ups(host.post_up_rules(tmp_path), mine)) == ["post-up-rule"]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (None, []),
        (Conntrack(100, 65536, 432000), []),
        (Conntrack(60000, 65536, 432000), ["conntrack-full"]),
        (Conntrack(0, 65536, 600), ["conntrack-forgets"]),
    ],
)
def test_the_connection_table(table: Conntrack | None, told: list[str]) -> None:
    """Told when it is nearly full, or when it forgets sooner than TCP asks."""
    assert codes(diagnose.about_conntrack(table)) == told


def test_the_connection_table_is_read_from_proc(tmp_path: Path) -> None:
    """All three numbers, or nothing: conntrack may not be loaded."""
    folder = "proc/sys/net/netfilter/nf_conntrack_"
    files(tmp_path, {f"{folder}count": "7\n", f"{folder}max": "99\n"})
    assert host.conntrack(tmp_path) is None
    files(tmp_path, {f"{folder}tcp_timeout_established": "432000\n"})
    assert host.conntrack(tmp_path) == Conntrack(7, 99, 432000)


def test_ipv6_may_be_switched_off_in_two_ways(tmp_path: Path) -> None:
    """Without it in the kernel ip6tables-legacy can load nothing; without it on the interfaces all goes well."""
    assert host.ipv6_switched_off(tmp_path) == "boot"
    files(tmp_path, {"proc/sys/net/ipv6/conf/all/disable_ipv6": "1\n"})
    assert host.ipv6_switched_off(tmp_path) == "sysctl"
    files(tmp_path, {"proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n"})
    assert host.ipv6_switched_off(tmp_path) == ""
    assert codes(diagnose.about_ipv6("boot", "legacy")) == ["no-ipv6"]
    assert codes(diagnose.about_ipv6("boot", "nft")) == codes(diagnose.about_ipv6("sysctl", "legacy")) == []
    assert [len(list(diagnose.notes(off, "nft", "1.8.9"))) for off in ("", "sysctl", "boot")] == [1, 2, 2]


def test_tools_and_backends(tmp_path: Path) -> None:
    """Missing programs by name; a backend that is not that of plain iptables; a kernel without the legacy one."""
    assert len(host.missing_programs("legacy", [str(tmp_path)])) == 4
    found = diagnose.about_tools(["iptables-nft-save"], "legacy", "nft", chosen=True, legacy_kernel=False)
    assert codes(found) == ["missing-program", "backend-mismatch", "no-legacy-kernel"]
    assert codes(diagnose.about_tools([], "nft", "nft", chosen=True, legacy_kernel=False)) == []
    assert not host.has_legacy("6.1.0", tmp_path)
    files(tmp_path, {"lib/modules/6.1.0/modules.dep": "kernel/net/ipv4/netfilter/ip_tables.ko: kernel/x.ko\n"})
    assert host.has_legacy("6.1.0", tmp_path)
