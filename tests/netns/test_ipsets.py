"""Rules that name ipsets: rehearsed with empty copies of the host's sets, in force with the sets themselves."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from fwguardd.kernel.ipsets import ANY_FAMILY, SetCopyError, families_of_sets, make_empty_copies
from tests.netns.conftest import output
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.conftest import Peer

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

SETS = """create nets4 hash:net
create pairs6 hash:ip,port family inet6
create lists list:set
create ports bitmap:port range 1-1024
"""
FAMILIES = {
    "nets4": socket.AF_INET,
    "pairs6": socket.AF_INET6,
    "lists": ANY_FAMILY,
    "ports": ANY_FAMILY,
}
RULES = """-4 -A INPUT -m set --match-set nets4 src -j DROP
-6 -A INPUT -m set ! --match-set pairs6 src,dst -j ACCEPT
-A INPUT -m set --match-set lists src -m set --match-set ports dst -p tcp -j ACCEPT
-4 -t mangle -A PREROUTING -j SET --map-set nets4 src --map-mark
-4 -A OUTPUT -j SET --add-set nets4 dst --exist
-6 -A OUTPUT -j SET --del-set pairs6 dst,dst
"""


@pytest.fixture
def sets() -> str:
    """The sets in the test's namespace, as ipset prints them."""
    subprocess.run(["ipset", "restore"], input=SETS, text=True, check=True)
    return output("ipset save")


def _check(folder: Path, backend: str, rules: str, user: int | None = None) -> dict[str, Any]:
    (folder / "a.rules").write_text(rules)
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "check", str(folder), "--backend", backend, "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
        user=user, group=user, extra_groups=[] if user else None,
    )  # fmt: skip
    assert ended.stdout, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def _told(document: dict[str, Any]) -> list[tuple[int, str, str, str | None]]:
    return [(shown["line"], shown["severity"], shown["code"], shown["family"]) for shown in document["findings"]]


@pytest.mark.usefixtures("sets")
def test_the_families_of_sets() -> None:
    """The kernel's answer for each set of this namespace; names that no set has, or can have, are left out."""
    assert families_of_sets([*FAMILIES, "none", "x" * 32, ""]) == FAMILIES


def test_copies_are_empty_sets_of_the_same_families(sets: str) -> None:
    """A copy is made unless there is one already; a name that no set can have is an error that names it."""
    output("ipset destroy")
    make_empty_copies(FAMILIES)
    make_empty_copies(FAMILIES)
    assert families_of_sets(FAMILIES) == FAMILIES
    assert sorted(output("ipset list -n").split()) == sorted(line.split()[1] for line in sets.splitlines())
    assert "add" not in output("ipset save")
    with pytest.raises(SetCopyError, match=r"cannot make an empty copy of the ipset x{32}: "):
        make_empty_copies({"x" * 32: ANY_FAMILY})


def test_rules_with_sets_pass_the_check(public_folder: Path, backend: str, sets: str) -> None:
    """Sets of all families, in matches and targets; the host's sets are unchanged."""
    document = _check(public_folder, backend, RULES)
    assert (document["findings"], document["rules"]) == ([], {"ipv4": 4, "ipv6": 3})
    assert output("ipset save") == sets


@pytest.mark.usefixtures("sets")
@pytest.mark.either_backend
def test_who_may_not_look_at_the_sets_is_reported(public_folder: Path, backend: str) -> None:
    """An ordinary user's check takes it that the sets exist, and warns where each is named first."""
    document = _check(public_folder, backend, RULES, user=NOBODY)
    assert document["ok"]
    assert _told(document) == [(line, "warning", "unseen-set", None) for line in (1, 2, 3)]
    assert '"lists" and ipset "ports" exist: Operation not permitted' in document["findings"][2]["message"]
    silenced = _check(public_folder, backend, f"# fwguard: allow unseen-set\n{RULES}", user=NOBODY)
    assert _told(silenced) == [(line, "warning", "unseen-set", None) for line in (3, 4)]


@pytest.mark.usefixtures("sets")
@pytest.mark.either_backend
def test_a_set_that_would_not_do_is_reported_at_its_line(public_folder: Path, backend: str) -> None:
    """One that does not exist, and one of the other family. What the hints say to write loads."""
    bad = f"{RULES}-A INPUT -m set --match-set later src -j DROP\n-A INPUT -m set --match-set pairs6 src,dst -j DROP\n"
    document = _check(public_folder, backend, bad)
    assert _told(document) == [(7, "error", "unknown-set", None), (8, "error", "set-of-other-family", "ipv4")]
    missing, other = document["findings"]
    assert missing["message"] == 'there is no ipset "later" on this host, so the rule cannot be loaded'
    assert '"ipset create later hash:net"' in missing["hint"]
    assert (other["message"], other["hint"]) == (
        'the ipset "pairs6" is for IPv6',
        "write -6 before the rule; for IPv4 name another set",
    )
    output("ipset create later hash:net")
    good = f"{RULES}-4 -A INPUT -m set --match-set later src -j DROP\n-6 -A INPUT -m set --match-set pairs6 src,dst\n"
    assert [shown for shown in _told(_check(public_folder, backend, good)) if shown[1] == "error"] == []


@pytest.mark.usefixtures("sets")
def test_rules_with_sets_are_in_force_and_guarded(
    start_daemon: Callable[..., Any],
    saved: Callable[[], dict[str, list[str]]],
    backend: str,
    peer: Peer,
    listen: Callable[[int], None],
) -> None:
    """They are loaded with the host's own sets, which decide from then on; and a rule that somebody deletes comes
    back."""
    rules = "-4 -A INPUT -m set --match-set nets4 src -j DROP\n-6 -A INPUT -m set --match-set nets6 src -j DROP\n"
    output("ipset create nets6 hash:net family inet6")
    daemon = start_daemon({"a.rules": rules}, "drift_interval: 200ms\n")
    daemon.event("rules.applied")
    before = saved()
    listen(80)
    for family, program, address in (("4", "iptables", "198.51.100."), ("6", "ip6tables", "2001:db8::")):
        assert peer.connects(f"{address}1", 80)
        output(f"ipset add nets{family} {address}2")
        assert not peer.connects(f"{address}1", 80, seconds=0.2)
        output(f"{program}-{backend} -D INPUT -m set --match-set nets{family} src -j DROP")
        daemon.event("drift.repaired")
        assert saved() == before
        assert not peer.connects(f"{address}1", 80, seconds=0.2)


def test_a_set_that_comes_later_is_found_by_a_reload(
    start_daemon: Callable[..., Any], saved: Callable[[], dict[str, list[str]]], tmp_path: Path
) -> None:
    """A file that names a set which is not there changes nothing, until it is there and somebody asks for a reload."""
    daemon = start_daemon({"a.rules": "-A INPUT -i lo -j ACCEPT\n"})
    daemon.event("rules.applied")
    before = saved()
    daemon.drop("b.rules", "-4 -A INPUT -m set --match-set later src -j DROP\n")
    refused = daemon.event("rules.rejected")
    assert (refused["code"], refused["file"]) == ("unknown-set", f"{tmp_path}/rules/b.rules:1")
    assert saved() == before
    output("ipset create later hash:net")
    ask(tmp_path / "run" / "control.sock", "reload")
    daemon.event("rules.applied")
    assert "-A INPUT -m set --match-set later src -j DROP" in saved()["ipv4"]
