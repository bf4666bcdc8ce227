"""The sentence about what the kernel holds, and what is left to be tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.context import Failed, unfinished
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.reports import BootReport, end_emergency, read_boot_report
from fwguardd.enforce.schedule import Unfinished
from fwguardd.enforce.state import EMERGENCY_CAUSE, InForce, State
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.ruleset.canonical import Canonical, Emptying, Owned
from fwguardd.ruleset.model import Family, Ruleset, Table
from fwguardd.ruleset.others import OtherRule, RuleOrChain, Standing, without_vanished
from fwguardd.store.model import RevisionKind

if TYPE_CHECKING:
    from pathlib import Path

IN_FORCE = InForce(7, "digest", Canonical.emptied(Emptying.for_open(Owned())), 0.0, "change", by="root")
UNVERIFIED = State(IN_FORCE, unverified=UnverifiedState.LOOK, unverified_why="iptables-save fails", compared=1.0)


def test_an_emergency_set_is_named_while_the_kernel_cannot_be_compared() -> None:
    """The state is unverified, as nothing else was measured, and its sentence says that the emergency set was loaded,
    by the boot loader or by the daemon. So it does of a firewall that was opened."""
    by_boot = replace(UNVERIFIED, emergency="loaded at boot: there is no set")
    by_daemon = replace(UNVERIFIED, in_force=replace(IN_FORCE, cause=EMERGENCY_CAUSE))
    opened = replace(UNVERIFIED, in_force=replace(IN_FORCE, kind=RevisionKind.OPEN))
    for state in (by_boot, by_daemon, opened, UNVERIFIED):
        assert state.kernel_state is KernelState.UNVERIFIED
        assert "is not known: iptables-save fails; fwguardd tries again" in state.sentence
    assert "the emergency set (loaded at boot: there is no set); whether" in by_boot.sentence
    assert "the emergency set (no revision could be put in force); whether" in by_daemon.sentence
    assert "the last ruleset known to be loaded accepts everything, opened by root at" in opened.sentence
    assert "last ruleset" not in UNVERIFIED.sentence


def test_what_a_step_has_left_is_tried_again() -> None:
    """Each kind is known by itself. What retrying does not help is not tried again."""
    fine = State(IN_FORCE, compared=1.0)
    assert unfinished(Failed(fine, "why", retry=False), fine) == frozenset()
    hidden = replace(fine, unverified=UnverifiedState.HIDDEN)
    assert unfinished(Failed(hidden, "why", retry=False), hidden) == frozenset()
    overdue = Failed(UNVERIFIED, "why", retry=True, overdue=True)
    assert unfinished(overdue, UNVERIFIED) == {Unfinished.FAILED, Unfinished.UNVERIFIED, Unfinished.UNDO}
    assert unfinished(Failed(fine, "why", retry=False), replace(fine, blocked="why")) == {Unfinished.FILES}


@pytest.mark.parametrize("outcome", ["revision", "emergency", "minimal", "failed"])
def test_what_the_boot_loader_reports_is_told_apart(outcome: str, tmp_path: Path) -> None:
    """Only with the emergency set and the minimal set the host is closed. It is over once the revision is in force."""
    path = tmp_path / "boot"
    path.write_text(f"outcome={outcome}\nreason=why\nrevision=7\n")
    report = read_boot_report(path)
    assert isinstance(report, BootReport)
    assert bool(report.emergency) == (outcome in ("emergency", "minimal"))
    assert bool(report.problem) == (outcome != "revision")
    assert f"the {outcome} set" not in report.message or report.emergency
    before = State(IN_FORCE, emergency=report.emergency)
    end_emergency(path, before, State(IN_FORCE, compared=1.0))
    assert (read_boot_report(path) or report).problem == ""


def test_a_rule_to_be_decided_about_is_forgotten_once_it_is_gone() -> None:
    """Not one that is kept, as the program may add it again, and not one of a family that was not read."""
    gone = RuleOrChain(Family.IPV4, "filter", "INPUT", "-p udp -j ACCEPT")
    unread = replace(gone, family=Family.IPV6)
    others = tuple(
        OtherRule(number, place, "", 0.0, standing)
        for number, (place, standing) in enumerate(
            [(gone, Standing.UNDECIDED), (gone, Standing.KEPT), (unread, Standing.UNDECIDED)]
        )
    )
    live = {Family.IPV4: Ruleset(Family.IPV4, {"filter": Table("filter", {})})}
    assert [other.number for other in without_vanished(others, live)] == [1, 2]
