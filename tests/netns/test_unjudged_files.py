"""Rule files that cannot be judged: what is in force is guarded in the same pass all the same."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce.context import Context, Failed, Outcome
from fwguardd.enforce.reconcile import PassRequest, reconcile
from fwguardd.enforce.record import Cause
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.progress import Progress
from fwguardd.settings import Settings
from fwguardd.worker import Worker
from fwguardd.worker_report import Orders
from tests.netns.crashing import A, B, Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.enforce.state import State
    from fwguardd.enforce.validate import Validation
    from tests.netns.crashing import Saved

pytestmark = pytest.mark.either_backend


@dataclass
class _Failing:
    """A validator that raises."""

    error: Exception

    def validate(self, _snapshot: Snapshot) -> Validation:
        """Raise."""
        raise self.error


@pytest.fixture
def bench(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench with the ruleset A in force."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    made = Bench(tmp_path, backend)
    made.put(A)
    made.start()
    yield made
    made.pool.close()


def _flush(backend: str) -> None:
    for program in ("iptables", "ip6tables"):
        subprocess.run([f"{program}-{backend}", "-F"], check=True)


def test_without_a_rehearsal_drift_is_repaired(bench: Bench, saved: Saved, backend: str) -> None:
    """A changed file waits until a rehearsal is possible. The drift that there is meanwhile does not wait with it."""
    before, state = saved(), bench.start().state
    bench.put(B)
    _flush(backend)
    context = bench.context()
    object.__setattr__(context, "validator", _Failing(NamespaceError("no namespaces here")))
    outcome = reconcile(context, state, PassRequest(Cause("change")))
    assert isinstance(outcome, Failed)
    assert outcome.retry
    assert outcome.repaired
    assert saved() == before


def test_a_bug_in_a_pass_leaves_what_is_in_force_guarded(
    bench: Bench, saved: Saved, backend: str, tmp_path: Path
) -> None:
    """A step that raises what nobody foresaw ends; then what is in force is compared and repaired nevertheless."""
    before = saved()
    settings = Settings(rules_dir=bench.rules, state_dir=bench.state, runtime_dir=tmp_path)
    emitted: list[str] = []

    def emit(kind: Any, _message: str, /, **_fields: Any) -> None:
        emitted.append(kind.name)

    worker = Worker(settings, bench.context().host, emit, Progress())
    _flush(backend)

    def defective(_context: Context, _state: State) -> Outcome:
        raise ZeroDivisionError("a defect")

    report = worker._act("a pass", Orders(settings), defective)
    worker.close(Orders(settings))
    assert isinstance(report.outcome, Failed)
    assert saved() == before
    assert emitted == ["daemon.fault", "drift.detected", "drift.repaired"]


def test_an_entry_that_cannot_be_looked_at_leaves_the_guard_working(
    start_daemon: Callable[..., Any], saved: Saved, backend: str
) -> None:
    """A link in the rules directory with a target that no system call takes is a refusal that names it; drift is
    repaired as ever, and the link can be removed again."""
    daemon = start_daemon(settings="drift_interval: 200ms\n")
    daemon.event("rules.applied")
    before = saved()
    (daemon.rules / "50-link.rules").symlink_to("x" * 300)
    assert "50-link.rules" in daemon.event("rules.rejected")["message"]
    _flush(backend)
    daemon.event("drift.repaired")
    assert saved() == before
    (daemon.rules / "50-link.rules").unlink()
    daemon.event("rules.taken-back")
