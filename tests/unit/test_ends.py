"""Rules with an end in a revision: which they are, when the next one ends, and what is left of the revision."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.ends import next_end
from fwguardd.enforce.reports import after_boot
from fwguardd.enforce.state import InForce, State
from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.expiry import RuleEnd, ends_of, files_without_ended, written_until
from fwguardd.ruleset.model import FAMILIES, NOT_STATED, Family, Origin, RuleFile
from fwguardd.ruleset.parser import read_rules
from fwguardd.store.boot_files import boot_texts
from fwguardd.store.model import Revision

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
TEXT = f"""\
-A INPUT -i lo -j ACCEPT

{written_until(NOW + 10)}
-P INPUT DROP
-A INPUT -p tcp --dport 80 -j ACCEPT
# and

{written_until(NOW + 20)}
-A OUTPUT -j ACCEPT

# fwguard: until never
-A OUTPUT -j DROP
"""
FILE = RuleFile("a.rules", TEXT.encode())
ENDS = (
    RuleEnd(Origin("a.rules", 4), NOW + 10),
    RuleEnd(Origin("a.rules", 5), NOW + 10),
    RuleEnd(Origin("a.rules", 9), NOW + 20),
)


def in_force(number: int = 7) -> InForce:
    """The file as a revision in force."""
    rulesets = compose([read_rules(FILE.path, FILE.data)]).candidate.rulesets
    return InForce(number, "", Canonical.from_revision(rulesets), NOW, "a test", ends=ends_of([FILE]))


def rules_of(revision: InForce, family: Family) -> dict[str, tuple[str | None, list[str]]]:
    """The policy and the rules of each chain that has some."""
    chains = [chain for _, chain in revision.canonical.rulesets[family].chains()]
    return {chain.name: (chain.policy, [rule.text for rule in chain.rules]) for chain in chains}


def test_the_rules_that_end_are_known_by_their_lines() -> None:
    """Each line of rules below such a comment ends at its time, up to the next empty line. What has ended is a comment
    in the files from then on, and ends no more."""
    assert ends_of([FILE]) == ENDS
    assert ends_of(files_without_ended([FILE], NOW + 10)) == ENDS[2:]
    assert ends_of(files_without_ended([FILE], NOW + 20)) == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_revision_loses_what_has_ended_and_nothing_else(family: Family) -> None:
    """Rules of ended lines are out, in both families. A policy that such a line stated is not stated any more. Before
    the first end the revision is the same object."""
    revision = in_force()
    assert revision.without_ended(NOW + 9) is revision
    left = revision.without_ended(NOW + 10)
    assert rules_of(left, family) == {
        "INPUT": (NOT_STATED, ["-i lo -j ACCEPT"]),
        "OUTPUT": (NOT_STATED, ["-j ACCEPT", "-j DROP"]),
        "FORWARD": (NOT_STATED, []),
    }
    assert rules_of(left.without_ended(NOW + 20), family)["OUTPUT"] == (NOT_STATED, ["-j DROP"])
    assert left.ends == ENDS[2:]


def test_the_next_end_is_that_of_the_directory_or_of_the_revision() -> None:
    """Rules that are in force end although no file of the directory has them any more. What should have ended already
    is not waited for: that would be a pass without a pause."""
    assert next_end(None, None, NOW) is None
    assert next_end(NOW + 5, in_force(), NOW) == NOW + 5
    assert next_end(None, in_force(), NOW) == NOW + 10
    assert next_end(NOW + 60, in_force(), NOW + 15) == NOW + 20
    assert next_end(None, in_force(), NOW + 20) is None


@pytest.mark.parametrize(
    ("report", "left"),
    [
        (f"outcome=revision\nrevision=7\nwhen={NOW + 15:.0f}\n", ENDS[2:]),
        (f"outcome=revision\nrevision=6\nwhen={NOW + 15:.0f}\n", ENDS),
        ("outcome=revision\nrevision=7\nwhen=now\n", ENDS),
        ("outcome=revision\nrevision=7\n", ENDS),
    ],
)
def test_what_the_boot_loader_left_out_is_not_in_force(tmp_path: Path, report: str, left: tuple[RuleEnd, ...]) -> None:
    """The revision that was loaded at boot lacks what had ended at the time of the report, so that this is no drift.
    Where the report is about another revision, or names no time, nothing is taken for ended."""
    (tmp_path / "boot").write_text(report)
    state = after_boot(tmp_path / "boot", State(in_force(7)))
    assert state.in_force is not None
    assert state.in_force.ends == left


def test_the_boot_files_name_each_end() -> None:
    """Before each rule that ends stands its end, and each end once behind the last table."""
    revision = Revision(7, time.time(), "", "", Backend.NFT, "", "", "", (FILE,), in_force().canonical.rulesets)
    lines = boot_texts(revision)["ipv6.rules"].decode().splitlines()
    first, second = f"{NOW + 10:.0f}", f"{NOW + 20:.0f}"
    (place,) = (number for number, line in enumerate(lines) if "--dport 80" in line)
    assert lines[place - 1] == f"# until {first}"
    assert lines[lines.index("-A OUTPUT -j ACCEPT") - 1] == f"# until {second}"
    assert [line for line in lines if line.startswith("# ends")] == [f"# ends {first}", f"# ends {second}"]
    assert len([line for line in lines if line.startswith("# until")]) == 2
