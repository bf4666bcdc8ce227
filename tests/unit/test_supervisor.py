"""The event loop's side of the firewall, with a real worker thread and an empty state directory."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd import documents
from fwguardd.control.documents import (
    DriftDocument,
    DriftStateDocument,
    HistoryDocument,
    OutcomeDocument,
    StatusDocument,
)
from fwguardd.kernel.iptables import Backend, Tool
from fwguardd.settings import OnDrift, Settings
from fwguardd.supervisor import Supervisor
from tests.unit.canned import STATUS
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.events import EventKind
    from fwguardd.worker import Worker
    from fwguardd.worker_report import Orders


def _discard(_kind: EventKind, _message: str, /, **_fields: Any) -> None:
    """Nothing in these tests emits an event that counts."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with directories of the test."""
    return Settings(rules_dir=tmp_path, state_dir=tmp_path / "state", runtime_dir=tmp_path)


@pytest.fixture
def supervisor(settings: Settings) -> Iterator[Supervisor]:
    """A supervisor that has nothing in force."""
    made = Supervisor(settings, Tool(Backend.NFT, "1.8.9"), _discard)
    yield made
    made.close()


def test_requests_to_compare_share_a_comparison(supervisor: Supervisor) -> None:
    """However many requests arrive while the worker thread is busy, it compares once for all of them; a request that
    arrives after a comparison has begun gets one of its own, since it asks for the state now."""
    release = threading.Event()

    def wait(_worker: Worker, _orders: Orders) -> None:
        release.wait(LONGEST)

    async def run() -> None:
        busy = supervisor._worker.submit(wait)
        requests = [asyncio.ensure_future(supervisor.find_drift()) for _ in range(20)]
        await asyncio.sleep(0)
        shared = supervisor._comparison
        assert shared is not None
        release.set()
        assert await asyncio.gather(*requests) == [()] * 20
        assert busy.done()
        assert supervisor._comparison is shared
        assert await supervisor.find_drift() == ()
        assert supervisor._comparison is not shared

    asyncio.run(run())


def test_a_request_that_is_cancelled_does_not_cancel_the_comparison(supervisor: Supervisor) -> None:
    """The others that share it get their answer."""
    release = threading.Event()

    def wait(_worker: Worker, _orders: Orders) -> None:
        release.wait(LONGEST)

    async def run() -> None:
        supervisor._worker.submit(wait)
        first, second = (asyncio.ensure_future(supervisor.find_drift()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        release.set()
        assert await second == ()

    asyncio.run(run())


def test_a_pause_counts_for_steps_that_are_queued_already(supervisor: Supervisor) -> None:
    """A step reads its orders when it begins: a pause that is answered before is not overtaken by a repair."""
    release = threading.Event()

    def wait(_worker: Worker, _orders: Orders) -> None:
        release.wait(LONGEST)

    def read(_worker: Worker, orders: Orders) -> str:
        return orders.why_not

    supervisor._worker.submit(wait)
    queued = supervisor._worker.submit(read)
    supervisor.pause(60.0)
    release.set()
    assert queued.result(LONGEST).startswith("repairs are paused until ")
    assert not supervisor.repairs()
    supervisor.pause(None)
    assert supervisor._worker.submit(read).result(LONGEST) == ""
    assert supervisor.repairs()


def test_settings_may_say_that_nothing_is_repaired(settings: Settings, supervisor: Supervisor) -> None:
    """With on_drift: report there is nothing to resume, and a pause changes nothing."""
    supervisor.use(Settings(rules_dir=settings.rules_dir, on_drift=OnDrift.REPORT))
    supervisor.pause(60.0)
    assert not supervisor.repairs()
    assert supervisor.held_for() is None
    assert supervisor._worker.orders.why_not == "on_drift is report"


def test_status_has_the_keys_of_its_document(supervisor: Supervisor) -> None:
    """The keys of a result are exactly those of its type, also one level deeper: they are a contract."""
    status = supervisor.status(STATUS["denials"])
    assert status.keys() == StatusDocument.__annotations__.keys()
    assert status["drift"].keys() == {*DriftDocument.__annotations__, *DriftStateDocument.__annotations__}
    assert (status["state"], status["files"]) == ("unmanaged", "settling")
    described = supervisor.describe()
    history = documents.history(supervisor.revisions, supervisor.faults, supervisor.state, described, None)
    assert history.keys() == HistoryDocument.__annotations__.keys()
    assert (history["revisions"], history["damaged"], history["state"]) == ([], [], "unmanaged")


def test_an_outcome_has_the_keys_of_its_document(supervisor: Supervisor) -> None:
    """A confirmation where nothing waits is a failure with a reason, and has all keys."""
    report = asyncio.run(supervisor.confirm())
    document = documents.outcome(supervisor.host, report.before, report.outcome, report.state)
    assert document.keys() == OutcomeDocument.__annotations__.keys()
    assert document["outcome"] == "failed"
    assert document["reason"]
