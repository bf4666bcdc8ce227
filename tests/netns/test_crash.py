"""Kill -9 at any instant of a pass: after the restart one revision is in force, whole, and it is the wanted one.

Most instants are those of a process that is forked for it (`tests.netns.crashing`). It does what the daemon's thread
does at a start and at a reload (`recall`, `expire`, `reconcile`), with the real store and the real kernel; only the
verdicts of the rehearsals were reached before, since a rehearsal touches neither. So a pass is nothing but the part
that writes, a restart takes a tenth of a second instead of a whole one, and every boundary can be visited: the process
kills itself before each look at the kernel, before and after each table that is committed, and before each call of the
store that changes a name. Between two of these nothing changes that the next process would see.

Others (thousands with packaging/test --long) are picked at random: for each backend 40 of such a process, and 6 of the
whole daemon between SIGHUP and the end of the pass, its rehearsal included. In half of them the iptables that it
has started lives on and ends what it began, as after a kill of one process; in the other half it dies too, as when
systemd kills a whole unit.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce import known_lines, record
from fwguardd.enforce.context import boottime
from fwguardd.store.revisions import RevisionStore
from tests.netns.crashing import (
    MORE_TABLES,
    A,
    B,
    Bench,
    change,
    held_in,
    kill,
    letters,
    pending_in,
    put,
    reload_to_confirm,
    start,
    summary,
    tables,
)
from tests.scale import scaled
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.netns.crashing import Saved, Step, Tables

    Start = Callable[..., Any]

RANDOM_INSTANTS = scaled(gate=8, long=1000)
"""At random, for each backend, once with iptables outliving the daemon and once with it dying too."""

STEP = scaled(gate=3, long=1)
"""With packaging/test --long each boundary is visited, and every third one as a rule: several before and after a table
leave the same to the next process."""

DAEMON_INSTANTS = scaled(gate=6, long=200)
NO_WATCH = "settle: 30s\nsettle_max: 60s\ndrift_interval: 1h\n"


@pytest.fixture
def bench(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench with revision 1, which is A, in force."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    monkeypatch.setattr(record, "MANY_RULES", 1)
    monkeypatch.setattr(known_lines, "FEWEST", 1)
    made = Bench(tmp_path, backend)
    made.put(A)
    made.start()
    yield made
    made.pool.close()


@pytest.fixture
def states(bench: Bench, saved: Saved) -> tuple[Tables, Tables]:
    """What the kernel holds when A is in force, and when B is; A is in force then."""
    a = tables(saved)
    bench.put(B)
    bench.start()
    b = tables(saved)
    assert all(a[family][table] != b[family][table] for family in a for table in ("filter", "nat", "mangle"))
    bench.put(A)
    bench.start()
    assert tables(saved) == a
    return a, b


@pytest.mark.long
def test_killed_at_boundaries_of_a_pass(bench: Bench, saved: Saved, states: tuple[Tables, Tables]) -> None:
    """Whatever was done last before the kill, each table is whole, and the first pass after it makes all of them B's;
    the way back from B to A likewise. The boot files follow, or the next boot would load an older revision."""
    stopped: Counter[str] = Counter()
    for at in count(0, STEP):
        killed = 0
        for files, before, after in ((B, *states), (A, *states[::-1])):
            bench.put(files)
            if bench.killed(change, at):
                killed += 1
                stopped[summary(letters(tables(saved), before, after))] += 1
                bench.start()
            assert tables(saved) == after, f"after a kill at boundary {at}"
            store = RevisionStore(bench.state)
            assert store.read_boot_revision() == store.summaries()[-1].number, f"after a kill at boundary {at}"
        if not killed:
            break
    print(f"{stopped.total()} boundaries: {dict(stopped)}")
    assert set(stopped) == {"all A", "all B", "between the families", "inside a family"}


@pytest.mark.long
@pytest.mark.parametrize("dies", [False, True], ids=["iptables lives on", "iptables dies too"])
def test_killed_at_random(bench: Bench, saved: Saved, states: tuple[Tables, Tables], seed: int, dies: bool) -> None:  # noqa: FBT001
    """As above, at instants spread over a pass by chance. Where iptables outlives the daemon each family is whole."""
    chance, length = random.Random(seed), _length(bench)
    stopped: Counter[str] = Counter()
    sides = [(A, *states[::-1]), (B, *states)]
    assert tables(saved) == states[0]
    for number in range(4 * RANDOM_INSTANTS):
        files, before, after = sides[(number + 1) % 2]
        bench.put(files)
        reading, writing = os.pipe()
        pid = bench.fork(change, ready=writing)
        os.close(writing)
        assert os.read(reading, 1) == b""
        os.close(reading)
        time.sleep(chance.uniform(0, length))
        kill(pid, with_children=dies)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
            where = summary(letters(tables(saved), before, after))
            assert dies or where != "inside a family"
            stopped[where.replace("all A", "all before").replace("all B", "all after")] += 1
        else:
            length *= 0.9  # It was over before: on a machine that was busier when a pass was measured.
        bench.start()
        assert tables(saved) == after, f"instant {number}"
        if stopped.total() == RANDOM_INSTANTS:
            break
    print(f"{stopped.total()} instants: {dict(stopped)}")
    assert stopped.total() == RANDOM_INSTANTS
    assert len(stopped) >= scaled(gate=1, long=2)


def _length(bench: Bench) -> float:
    """Seconds that a pass takes which is not disturbed."""
    lengths = []
    for files in (B, A, B, A):
        bench.put(files)
        context = bench.context()
        begun = time.monotonic()
        change(context)
        lengths.append(time.monotonic() - begun)
    return max(lengths)


@pytest.mark.long
def test_killed_at_boundaries_of_a_reload_to_confirm(bench: Bench, saved: Saved, states: tuple[Tables, Tables]) -> None:
    """A kill at no instant puts B in force with nothing pending: B was never in force, and the files are held; or it is
    undone at once or at the deadline, A is in force whole, and the files are held. Only before the reload has written
    anything are the files like any others."""
    a, b = states
    outcomes: Counter[str] = Counter()
    for at in count(0, STEP):
        digest = bench.put(B)
        if not bench.killed(reload_to_confirm, at):
            break
        where = summary(letters(tables(saved), a, b))
        promised, held = pending_in(bench.state), held_in(bench.state)
        bench.start()
        if promised is None and held is None:
            assert (where, tables(saved)) == ("all A", b)
            outcomes["nothing written"] += 1
        elif promised is None:
            assert where == "all A"
            outcomes["held"] += 1
            _assert_undone(bench, saved, a, digest)
        else:
            outcomes[f"promised, {where}"] += 1
            if tables(saved) != a:
                assert tables(saved) == b
                time.sleep(max(0.0, promised.deadline - boottime()))
                bench.start()
            _assert_undone(bench, saved, a, digest)
        bench.put(A)
        bench.start()
        assert tables(saved) == a
    print(f"{outcomes.total()} boundaries: {dict(outcomes)}")
    moments = ("all A", "inside a family", "between the families", "all B")
    every = {"nothing written", "held", *(f"promised, {moment}" for moment in moments)}
    # The files are held at one boundary only, which the short form may pass over.
    assert every - set(outcomes) <= ({"held"} if STEP > 1 else set())
    assert set(outcomes) <= every


@pytest.mark.either_backend
def test_a_kill_does_not_shorten_a_deadline(bench: Bench, saved: Saved, states: tuple[Tables, Tables]) -> None:
    """What was put in force and recorded stays in force over a kill and a start until its deadline, and no longer."""
    a, b = states
    bench.put(B)
    reload_to_confirm(bench.context(), 3600.0)
    pending = pending_in(bench.state)
    assert pending is not None
    bench.start()
    assert tables(saved) == b
    later = pending_in(bench.state)
    assert later == pending
    RevisionStore(bench.state).set_pending(replace(pending, deadline=boottime()))
    bench.start()
    assert tables(saved) == a


def _assert_undone(bench: Bench, saved: Saved, a: Tables, digest: str) -> None:
    """A is in force, also after one more pass, and the files in the directory are held."""
    for _ in range(2):
        assert tables(saved) == a
        held = held_in(bench.state)
        assert held is not None
        assert held.digest == digest
        assert pending_in(bench.state) is None
        bench.start()


@pytest.mark.long
def test_killed_at_boundaries_of_an_undo(bench: Bench, saved: Saved, states: tuple[Tables, Tables]) -> None:
    """A kill while an unconfirmed revision is undone does not keep it in force: the next start ends what was begun."""
    a, b = states
    stopped: Counter[str] = Counter()
    digest = bench.put(B)
    for at in count(0, STEP):
        reload_to_confirm(bench.context(), 0.01)
        assert tables(saved) == b
        pending = pending_in(bench.state)
        assert pending is not None
        time.sleep(max(0.0, pending.deadline - boottime()))
        if not bench.killed(start, at):
            break
        stopped[summary(letters(tables(saved), a, b))] += 1
        bench.start()
        _assert_undone(bench, saved, a, digest)
    print(f"{stopped.total()} boundaries: {dict(stopped)}")
    assert set(stopped) == {"all A", "all B", "between the families", "inside a family"}


@pytest.mark.parametrize("step", [change, reload_to_confirm])
def test_tables_that_only_the_killed_pass_wrote_are_let_go(
    bench: Bench, saved: Saved, states: tuple[Tables, Tables], step: Step
) -> None:
    """Where B has a table that A has not, and A shall be in force after the kill, because its files are back or because
    nobody confirmed B, nothing of B's table stays. Every third boundary is tried."""
    a, _ = states
    left: list[int] = []
    for at in count(2, 3):
        bench.put(MORE_TABLES)
        if not bench.killed(step, at):
            break
        if step is change or pending_in(bench.state) is None:
            bench.put(A)
        bench.start()
        while (pending := pending_in(bench.state)) is not None:
            time.sleep(max(0.0, pending.deadline - boottime()))
            bench.start()
        if tables(saved) != a:
            left.append(at)
            bench.put(MORE_TABLES | {"50-changed.rules": "-A INPUT -s 192.0.2.1 -j DROP\n"})
            bench.start()
        bench.put(A)
        bench.start()
        assert tables(saved) == a
    assert not left, f"the raw table of the ruleset that was never recorded stays after kills at boundaries {left}"


@pytest.mark.long
@pytest.mark.parametrize("dies", [False, True], ids=["iptables lives on", "iptables dies too"])
def test_the_daemon_killed_at_random(start_daemon: Start, saved: Saved, tmp_path: Path, seed: int, dies: bool) -> None:  # noqa: FBT001
    """The whole daemon, killed while a reload runs that SIGHUP asked for and started again on the same directories:
    every table is whole after the kill, and its first pass makes all of them what the files say."""
    chance = random.Random(seed)
    daemon = start_daemon(A, NO_WATCH, XTABLES_LOCKFILE=str(tmp_path / "lock"))
    daemon.event("rules.applied")
    found = [tables(saved)]
    put(daemon.rules, B)
    begun = time.monotonic()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.event("rules.applied")
    length = time.monotonic() - begun
    found.append(tables(saved))
    stopped: Counter[str] = Counter()
    for number in range(DAEMON_INSTANTS // 2):
        put(daemon.rules, (A, B)[number % 2])
        before, after = found[(number + 1) % 2], found[number % 2]
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(chance.uniform(0, 2 * length))  # A daemon that has just started takes longer.
        kill(daemon.process.pid, with_children=dies)
        daemon.process.wait()
        where = summary(letters(tables(saved), before, after))
        assert dies or where != "inside a family"
        stopped[where.replace("all A", "all before").replace("all B", "all after")] += 1
        daemon = start_daemon(settings=NO_WATCH, XTABLES_LOCKFILE=str(tmp_path / "lock"))
        assert _first_pass(daemon) in ("rules.applied", "rules.unchanged")
        assert tables(saved) == after, f"instant {number}"
    print(f"{stopped.total()} instants: {dict(stopped)}")


def _first_pass(daemon: Any) -> str:
    """The event that a started daemon's first pass ends with; nothing on the disk may look damaged to it. What it tells
    of the kernel log is not asked for: others write there too."""
    while True:
        name = str(daemon._events.get(timeout=LONGEST)[1]["event"])
        if name.startswith(("rules.", "state.", "daemon.fault")) and name != "rules.finding":
            return name
