"""The task boundary: what a defect of fwguardd's own may end, and what is said of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce.context import Context, Done, Failed, Outcome
from fwguardd.kernel.iptables import Backend, find_tool
from fwguardd.settings import Settings
from fwguardd.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.enforce.state import State
    from fwguardd.events import EventKind

Told = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
def told() -> Told:
    """The events that were told."""
    return []


@pytest.fixture
def supervisor(tmp_path: Path, told: Told) -> Iterator[Supervisor]:
    """The one who acts, without a loop around it."""
    (tmp_path / "run").mkdir()

    def emit(kind: EventKind, message: str, /, **fields: Any) -> None:
        told.append((kind.name, message, fields))

    settings = Settings(rules_dir=tmp_path, state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
    made = Supervisor(settings, find_tool(Backend.NFT), emit)
    yield made
    made.close()


def _defective(_world: Context, _memory: State) -> Outcome:
    raise ZeroDivisionError("a defect")


def test_a_defect_in_a_pass_ends_that_pass_only(supervisor: Supervisor, told: Told) -> None:
    """A pass that raises is a failure that is tried again: the memory stays, the defect is told with its place in the
    code, and the next step is taken as ever."""
    before = supervisor.state
    outcome = asyncio.run(supervisor._act(_defective))
    assert isinstance(outcome, Failed)
    assert outcome.passing
    assert supervisor.state is before
    ((name, message, fields),) = told
    assert name == "daemon.fault"
    assert message == "a pass failed by a defect of fwguardd: ZeroDivisionError: a defect; it goes on without that"
    assert "in _defective" in fields["traceback"]
    assert isinstance(asyncio.run(supervisor._act(lambda _, state: Done(state))), Done)
