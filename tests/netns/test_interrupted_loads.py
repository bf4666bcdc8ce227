"""Kill -9 during a load in place of the emergency set, or one that ends an opening: what was in force before comes back
at the next start, as long as no other ruleset was recorded.

In these two states no revision says what the kernel holds. The kill comes at each boundary of `tests.netns.crashing`.
"""

from __future__ import annotations

import errno
import subprocess
from itertools import count
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.opening import open_firewall
from fwguardd.enforce.recall import recall, recall_again
from fwguardd.enforce.reconcile import reload_files
from fwguardd.enforce.record import Cause
from fwguardd.enforce.repair import enforce
from fwguardd.enforce.rollback import rollback
from fwguardd.kernel.attribution import NO_AUTHORS
from fwguardd.store.before_load import BeforeLoad
from fwguardd.store.model import RevisionKind
from fwguardd.store.revisions import RevisionStore
from tests.netns.conftest import ROOT, output
from tests.netns.crashing import Bench, recalled, start, tables
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.enforce.context import Context, Outcome
    from tests.netns.crashing import Saved, Step

STEP = scaled(gate=2, long=1)
"""With packaging/test --long each boundary is visited, and every second one as a rule."""

FILES = {
    "10-filter.rules": "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-4 -A INPUT -m set --match-set allow src -j ACCEPT\n",
    "20-nat.rules": "*nat\n-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080\n",
}
OTHERS = {
    "10-filter.rules": "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n",
    "30-raw.rules": "*raw\n-A PREROUTING -p udp --dport 53 -j DROP\n",
}


@pytest.fixture
def bench(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench with revision 1 in force, which names a set."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    output("ipset create allow hash:net")
    made = Bench(tmp_path, backend)
    made.put(FILES)
    made.start()
    yield made
    made.pool.close()


def _boot(bench: Bench) -> None:
    """A boot at which the set does not exist: the boot loader loads the emergency set."""
    for program in ("iptables", "ip6tables"):
        for table in ("filter", "nat"):
            output(f"{program}-{bench.backend.value} -t {table} -F")
    output("ipset destroy allow")
    argv = [str(ROOT / "packaging" / "fwguardd-boot"), "--state-dir", str(bench.state), "--runtime-dir", str(bench.run)]
    argv += ["--emergency-dir", str(ROOT / "packaging" / "emergency")]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 1
    assert (bench.run / "boot").read_text().startswith("outcome=emergency\n")


def _reload(context: Context) -> Outcome:
    return reload_files(context, recalled(context), Cause("reload", "somebody"), None)


def _roll_back(context: Context) -> Outcome:
    return rollback(context, recalled(context), 1, "somebody")


def _newest(bench: Bench) -> RevisionKind:
    return RevisionStore(bench.state).summaries()[-1].kind


@pytest.mark.parametrize("step", [start, _roll_back])
def test_killed_while_the_emergency_set_cannot_be_replaced(bench: Bench, saved: Saved, step: Step) -> None:
    """The set that the revision names is missing, so its load fails: the emergency set is loaded after it, whole and
    alone, whether the daemon was killed meanwhile or not, and the state says so."""
    _boot(bench)
    emergency = tables(saved)
    assert start(bench.context()).state.kernel_state is KernelState.EMERGENCY
    assert tables(saved) == emergency
    seen_apart = 0
    for at in count(0, STEP):
        if not bench.killed(step, at):
            break
        seen_apart += tables(saved) != emergency
        state = start(bench.context()).state
        assert (state.kernel_state, tables(saved)) == (KernelState.EMERGENCY, emergency), f"a kill at boundary {at}"
    assert seen_apart, "no kill has left anything to undo"
    assert tables(saved) == emergency
    output("ipset create allow hash:net")
    assert start(bench.context()).state.kernel_state is KernelState.IN_FORCE


@pytest.mark.long
def test_killed_while_other_files_replace_the_emergency_set(bench: Bench, saved: Saved) -> None:
    """Until the new revision is recorded, a kill leaves the emergency set to the next start; if the files are taken
    back then, it stays."""
    _boot(bench)
    emergency = tables(saved)
    assert start(bench.context()).state.kernel_state is KernelState.EMERGENCY
    for at in count(0, STEP):
        bench.put(OTHERS)
        if not bench.killed(_reload, at) or len(RevisionStore(bench.state).summaries()) > 1:
            break
        bench.put(FILES)
        state = start(bench.context()).state
        assert (state.kernel_state, tables(saved)) == (KernelState.EMERGENCY, emergency), f"a kill at boundary {at}"
    state = start(bench.context()).state
    assert (state.kernel_state, state.revision) == (KernelState.IN_FORCE, 2)


@pytest.mark.parametrize("step", [_reload, _roll_back])
def test_killed_while_an_opening_ends(bench: Bench, saved: Saved, step: Step) -> None:
    """Everything stays accepted, with the rules that somebody has added by hand, until another revision is recorded;
    from then on that is in force. Nobody claims that everything is accepted before that is so."""
    closed = tables(saved)
    open_firewall(bench.context(), recalled(bench.context()), "somebody")
    bench.put(OTHERS)
    for table in ("filter", "nat"):
        output(f"iptables-{bench.backend.value} -t {table} -A OUTPUT -d 192.0.2.7 -j RETURN")
    opened = tables(saved)
    seen_apart = 0
    for at in count(0, STEP):
        if not bench.killed(step, at) or _newest(bench) is RevisionKind.RULES:
            break
        if tables(saved) != opened:
            seen_apart += 1
            assert recall(bench.context()).kernel_state is KernelState.UNVERIFIED
        state = start(bench.context()).state
        assert (state.kernel_state, tables(saved)) == (KernelState.OPEN, opened), f"a kill at boundary {at}"
    assert seen_apart, "no kill has left anything to undo"
    assert start(bench.context()).state.kernel_state is KernelState.IN_FORCE
    assert (tables(saved) == closed) == (step is _roll_back)


def test_a_note_that_cannot_be_read_is_read_again(bench: Bench, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    """While what the kernel held before an opening's end cannot be read, the kernel stays as the kill left it, nobody
    claims to know it, and the note stays; once it can be read, it is put back."""
    open_firewall(bench.context(), recalled(bench.context()), "somebody")
    bench.put(OTHERS)
    output(f"iptables-{bench.backend.value} -t nat -A OUTPUT -d 192.0.2.7 -j RETURN")
    opened = tables(saved)
    left, at = opened, 0
    while left == opened:
        assert bench.killed(_reload, at)
        left, at = tables(saved), at + 1
    with monkeypatch.context() as patch:
        patch.setattr(BeforeLoad, "read", _eio)
        context = bench.context()
        state = recall_again(context, recall(context))
        outcome = enforce(context, state, NO_AUTHORS)
        assert (outcome.state.kernel_state, tables(saved)) == (KernelState.UNVERIFIED, left)
    state = recall_again(context, outcome.state)
    assert (state.kernel_state, tables(saved)) == (KernelState.OPEN, opened)


def _eio(_note: BeforeLoad) -> None:
    raise OSError(errno.EIO, "Input/output error")
