"""The task boundary: what a defect of fwguardd's own may end, and what is said of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce.world import Done, Failure, Outcome, World
from fwguardd.kernel.iptables import Backend, find_tool
from fwguardd.settings import Settings
from fwguardd.steward import Steward

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.enforce.memory import Memory
    from fwguardd.events import EventKind

Told = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
def told() -> Told:
    """The events that were told."""
    return []


@pytest.fixture
def steward(tmp_path: Path, told: Told) -> Iterator[Steward]:
    """The one who acts, without a loop around it."""
    (tmp_path / "run").mkdir()

    def emit(kind: EventKind, message: str, /, **fields: Any) -> None:
        told.append((kind.name, message, fields))

    settings = Settings(rules_dir=tmp_path, state_dir=tmp_path / "state", runtime_dir=tmp_path / "run")
    made = Steward(settings, find_tool(Backend.NFT), emit)
    yield made
    made.close()


def _defective(_world: World, _memory: Memory) -> Outcome:
    raise ZeroDivisionError("a defect")


def test_a_defect_in_a_pass_ends_that_pass_only(steward: Steward, told: Told) -> None:
    """A pass that raises is a failure that is tried again: the memory stays, the defect is told with its place in the
    code, and the next step is taken as ever."""
    before = steward.memory
    outcome = asyncio.run(steward._act(_defective))
    assert isinstance(outcome, Failure)
    assert outcome.passing
    assert steward.memory is before
    ((name, message, fields),) = told
    assert name == "daemon.fault"
    assert message == "a pass failed by a defect of fwguardd: ZeroDivisionError: a defect; it goes on without that"
    assert "in _defective" in fields["traceback"]
    assert isinstance(asyncio.run(steward._act(lambda _, memory: Done(memory))), Done)
