"""The task boundary: what a bug in fwguardd may end, and what is reported of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce.context import Context, Done, Failed, Outcome, RecordedHost
from fwguardd.kernel.iptables import Backend, find_tool
from fwguardd.kernel.privilege import boot_id, kernel_release
from fwguardd.progress import Progress
from fwguardd.settings import Settings
from fwguardd.worker import Worker
from fwguardd.worker_report import Orders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.enforce.state import State
    from fwguardd.events import EventKind

pytestmark = pytest.mark.either_backend

Emitted = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
def emitted() -> Emitted:
    """The events that were emitted."""
    return []


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    """Orders with directories of the test."""
    (tmp_path / "run").mkdir()
    return Orders(Settings(rules_dir=tmp_path, state_dir=tmp_path / "state", runtime_dir=tmp_path / "run"))


@pytest.fixture
def worker(orders: Orders, emitted: Emitted) -> Iterator[Worker]:
    """The worker, in the thread of the test."""

    def emit(kind: EventKind, message: str, /, **fields: Any) -> None:
        emitted.append((kind.name, message, fields))

    host = RecordedHost(find_tool(Backend.NFT), kernel_release(), boot_id())
    made = Worker(orders.settings, host, emit, Progress())
    yield made
    made.close(orders)


def _defective(_context: Context, _state: State) -> Outcome:
    raise ZeroDivisionError("a defect")


def test_a_bug_in_a_pass_ends_that_pass_only(worker: Worker, orders: Orders, emitted: Emitted) -> None:
    """A pass that raises is a failure that is tried again: the state stays, the bug is reported with its place in the
    code, and the next step is taken as always."""
    report = worker._act("a pass", orders, _defective)
    assert isinstance(report.outcome, Failed)
    assert report.outcome.retry
    assert report.state == report.before
    ((name, message, fields),) = emitted
    assert name == "daemon.fault"
    assert message == "a pass failed because of a bug in fwguardd: ZeroDivisionError: a defect; fwguardd continues"
    assert "in _defective" in fields["traceback"]
    assert isinstance(worker._act("a pass", orders, lambda _, state: Done(state)).outcome, Done)
