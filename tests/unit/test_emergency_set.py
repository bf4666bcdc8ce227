"""The emergency set, read in fwguardd's own language. That the kernel takes it is shown in tests/netns."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import compose_files
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.lint import LintContext, lint
from fwguardd.ruleset.model import Candidate, Family, Ruleset
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.preserve import Preserve
from fwguardd.ruleset.save_format import render
from fwguardd.settings import Settings

if TYPE_CHECKING:
    from fwguardd.ruleset.statements import Reading

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "packaging" / "emergency"
SETS = {
    f"{folder}emergency.v{family.number}.rules": family for family in Family for folder in ("", "minimal/")
}  # The file's name -> its family.


def _reading(name: str) -> Reading:
    return read_rules(name, (FOLDER / name).read_bytes(), frozenset({SETS[name]}))


def _ruleset(name: str) -> Ruleset:
    return compose([_reading(name)]).candidate.rulesets[SETS[name]]


def _rules(name: str, chain: str) -> list[str]:
    return [rule.text for rule in _ruleset(name).tables["filter"].chains[chain].rules]


def test_the_folder_holds_the_four_sets() -> None:
    """There is a set and a simpler one for each family, and nothing that no test looks at."""
    assert {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()} == set(SETS)


@pytest.mark.parametrize(
    ("folder", "justified"),
    [
        ("", set()),
        # The point of the minimal set is that it does without conntrack.
        ("minimal/", {"no-established"}),
    ],
)
def test_our_own_language_finds_nothing_wrong(folder: str, justified: set[str]) -> None:
    """Read, composed and linted like rule files, a set has no error, and no warning that is not meant."""
    names = [f"{folder}emergency.v{family.number}.rules" for family in Family]
    assert [compose([_reading(name)]).findings for name in names] == [(), ()]
    candidate = Candidate({SETS[name]: _ruleset(name) for name in names})
    context = LintContext((), Preserve.from_patterns([]))
    assert {finding.code for finding in lint(candidate, [_reading(name) for name in names], context)} == justified


@pytest.mark.parametrize("name", SETS)
def test_everything_is_closed_but_what_a_rule_names(name: str) -> None:
    """A set names one table, closes its three chains by policy, and accepts nothing that it does not narrow down."""
    tables = _ruleset(name).tables
    assert set(tables) == {"filter"}
    assert {chain: tables["filter"].chains[chain].policy for chain in tables["filter"].chains} == {
        "INPUT": "DROP",
        "FORWARD": "DROP",
        "OUTPUT": "DROP",
    }
    assert not tables["filter"].chains["FORWARD"].rules
    assert all(rule != "-j ACCEPT" for chain in ("INPUT", "OUTPUT") for rule in _rules(name, chain))


@pytest.mark.parametrize("name", SETS)
def test_ssh_is_the_only_port_that_a_stranger_reaches(name: str) -> None:
    """Inbound, 22 and the port of the DHCP client are the only destination ports that are named."""
    ports = {
        rule.split("--dport ")[1].split()[0]
        for rule in _rules(name, "INPUT")
        if rule.startswith(("-p tcp", "-p udp", "-s fe80::/10 -p udp"))
    }
    assert ports == {"22", "68" if SETS[name] is Family.IPV4 else "546"}


@pytest.mark.parametrize("name", [name for name in SETS if "minimal" in name])
def test_the_minimal_set_needs_no_module_of_its_own(name: str) -> None:
    """It is for kernels that lack modules: it uses only the matches that come with iptables itself."""
    words = [rule.split() for chain in ("INPUT", "OUTPUT") for rule in _rules(name, chain)]
    matches = {match for rule in words for option, match in pairwise(rule) if option == "-m"}
    assert matches <= {"tcp", "udp", "icmp", "icmp6"}


def test_the_daemon_reads_the_same_set() -> None:
    """The daemon's last resort takes the folder as rule files: it comes to the set of each family, and nothing more."""
    snapshot = take_snapshot(FOLDER, draft=True)  # With umask 002 the group may write to a checkout.
    composition = compose_files(snapshot.files, LintContext((), Preserve.from_patterns([])), snapshot.findings)
    assert composition.findings == ()
    for family, ruleset in composition.candidate.rulesets.items():
        assert render(ruleset).text == render(_ruleset(f"emergency.v{family.number}.rules")).text


def test_daemon_and_boot_loader_look_in_the_same_places() -> None:
    """The defaults of the boot loader are those of the settings."""
    loader = (ROOT / "packaging" / "fwguardd-boot").read_text(encoding="utf-8")
    places = re.search(r"^state=(\S+) runtime=(\S+) emergency=(\S+) ", loader, re.MULTILINE)
    settings = Settings()
    assert places
    assert places.groups() == (str(settings.state_dir), str(settings.runtime_dir), str(settings.emergency_dir))


def test_ipv6_keeps_what_the_shipped_rules_keep() -> None:
    """The lines that keep IPv6 alive are those of the shipped base rules, one for one."""
    base = ROOT / "etc" / "fwguard.d" / "00-base.rules"
    shipped = compose([read_rules(base.name, base.read_bytes())]).candidate.rulesets[Family.IPV6]
    wanted = {rule.text for rule in shipped.tables["filter"].chains["INPUT"].rules if "icmp" in rule.text}
    ours = {rule.replace(" -m icmp6", "") for rule in _rules("emergency.v6.rules", "INPUT") if "icmp" in rule}
    assert ours == wanted
