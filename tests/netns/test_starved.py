"""Somebody changes nf_tables without pause, so that no look at the kernel ends: nothing is undone or given up for that.

iptables-save reads again from the beginning whenever somebody commits while it reads. The passes here are those of the
daemon's thread, on a real kernel and a real store (`tests.netns.crashing`).
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce.confirmation import CHANGED
from fwguardd.enforce.context import Context, Done, Failed, Outcome
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.recall import recall
from fwguardd.enforce.reconcile import PassRequest, reconcile
from fwguardd.enforce.record import Cause
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.kernel import iptables
from fwguardd.kernel.iptables import Backend, KernelStarvedError, LiveKernel, RestoreRefusedError
from fwguardd.ruleset.model import FAMILIES, Family
from tests.netns.crashing import A, B, Bench, tables
from tests.waiting import must_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.enforce.state import State
    from tests.netns.crashing import Saved, Tables


class Starving(LiveKernel):
    """A live kernel on which the looks with these numbers do not end in time, and the loads with these are refused."""

    def __init__(self, backend: Backend, looks: set[int], loads: set[int]) -> None:
        super().__init__(backend)
        self._looks, self._loads = looks, loads
        self.looked = self.loaded = 0

    def look(self, families: Any) -> Any:
        """As ever, or not in time."""
        self.looked += 1
        if self.looked in self._looks:
            raise KernelStarvedError("iptables-nft-save did not end within 30 s and was killed")
        return super().look(families)

    def restore(self, family: Family, text: str) -> None:
        """As ever, or refused."""
        self.loaded += 1
        if self.loaded in self._loads:
            raise RestoreRefusedError("line 3 failed")
        super().restore(family, text)


@pytest.fixture
def bench(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench with revision 1, which is A, in force."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    made = Bench(tmp_path, backend)
    made.put(A)
    made.start()
    made.emitted.clear()
    yield made
    made.pool.close()


@pytest.fixture
def b_tables(bench: Bench, saved: Saved) -> Tables:
    """What the kernel holds when B is in force; A is in force then."""
    bench.put(B)
    bench.start()
    found = tables(saved)
    bench.put(A)
    bench.start()
    bench.emitted.clear()
    return found


def _pass(context: Context, state: State) -> Outcome:
    return reconcile(context, state, PassRequest(Cause(CHANGED)))


def _emitted(bench: Bench) -> list[str]:
    """The events, but for findings about the files."""
    return [name for name in bench.emitted if name != "rules.finding"]


def test_what_was_written_and_cannot_be_seen_is_in_force(bench: Bench, b_tables: Tables, saved: Saved) -> None:
    """It is recorded and guarded; that it was not seen is reported once, and once more when it is seen."""
    context = replace(bench.context(), kernel=Starving(bench.backend, {2, 3}, set()))
    bench.put(B)
    outcome = _pass(context, recall(context))
    assert isinstance(outcome, Done)
    assert outcome.changes > 0
    assert outcome.state.unverified is UnverifiedState.WRITTEN
    assert outcome.state.in_force is not None
    assert outcome.state.in_force.revision == context.store.summaries()[-1].number == context.store.read_boot_revision()
    assert tables(saved) == b_tables
    again = _pass(context, outcome.state)
    assert isinstance(again, Failed) and again.retry
    assert (again.state.unverified, _emitted(bench)) == (UnverifiedState.WRITTEN, ["rules.unseen"])
    calm = _pass(context, again.state)
    assert isinstance(calm, Done) and calm.state.unverified is None
    assert _emitted(bench) == ["rules.unseen", "rules.seen"]
    assert tables(saved) == b_tables


@pytest.mark.parametrize("repair", [True, False])
def test_what_a_failed_load_left_is_undone_when_it_can_be_seen(
    bench: Bench,
    saved: Saved,
    repair: bool,  # noqa: FBT001
) -> None:
    """Half a load that could not be undone is no broken firewall: it is undone as soon as the kernel can be looked at,
    whatever is done about drift, and nobody is blamed for it."""
    before = tables(saved)
    # The looks that fail: that for another try, that of the undo, and that of the next pass.
    context = replace(bench.context(), kernel=Starving(bench.backend, {2, 3, 4}, {2}), repair=repair)
    bench.put(B)
    outcome = _pass(context, recall(context))
    assert isinstance(outcome, Failed) and outcome.retry
    assert outcome.state.unverified is UnverifiedState.UNDO
    assert tables(saved) != before
    bench.put(A)
    outcome = _pass(context, outcome.state)
    assert isinstance(outcome, Failed) and outcome.retry
    outcome = _pass(context, outcome.state)
    assert isinstance(outcome, Done) and outcome.state.unverified is None
    assert _emitted(bench) == ["rules.unseen", "rules.seen", "drift.repaired"]
    assert tables(saved) == before


def test_drift_whose_repair_fails_is_verified_once_it_is_seen(bench: Bench) -> None:
    """The state after a comparison is what was found, also where the repair that follows it fails."""
    kernel = Starving(bench.backend, {1}, set(range(1, 50)))
    context = replace(bench.context(), kernel=kernel)
    state = _pass(context, recall(context)).state
    assert state.kernel_state is KernelState.UNVERIFIED
    subprocess.run([f"iptables-{bench.backend.value}", "-w", "60", "-P", "OUTPUT", "DROP"], check=True)
    subprocess.run([f"iptables-{bench.backend.value}", "-w", "60", "-F"], check=True)
    outcome = _pass(context, state)
    assert isinstance(outcome, Failed)
    assert outcome.state.kernel_state is KernelState.DRIFTED


def test_a_look_that_cannot_be_had_is_reported_once(bench: Bench) -> None:
    """The guard says that it is blind, once, and that it sees again."""
    context = replace(bench.context(), kernel=Starving(bench.backend, {1, 2, 3}, set()))
    state = recall(context)
    for _ in range(3):
        state = _pass(context, state).state
        assert state.unverified is UnverifiedState.LOOK
    assert "unverified: " in state.sentence
    state = _pass(context, state).state
    assert (state.unverified, _emitted(bench)) == (None, ["rules.unseen", "rules.seen"])


def test_a_program_that_does_not_end_is_starved(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look, and a load, that takes longer than it may is killed, and reported as something that may pass."""
    kernel = LiveKernel(Backend(backend))
    for name in ("save_argv", "restore_argv"):
        monkeypatch.setattr(iptables, name, lambda *_, **__: ["sleep", "3600"])
    for name in ("LOOK_SECONDS", "PROGRAM_SECONDS"):
        monkeypatch.setattr(iptables, name, 0.1)
    for call in (lambda: kernel.look(FAMILIES), lambda: kernel.restore(Family.IPV4, "")):
        with must_end("the call"), pytest.raises(KernelStarvedError, match=r"sleep did not end within 0\.1"):
            call()
