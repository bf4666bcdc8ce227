"""The files of a revision that are made beside its load: they are those that would be made after it."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from fwguardd.enforce.record import Recording
from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.model import Chain, Family, Origin, Rule, Ruleset, Table
from fwguardd.store import prepared
from fwguardd.store.folder import seal_revision
from fwguardd.store.revisions import Revision, RevisionStore

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.enforce.context import Context

PATH = "/etc/fwguard.d/10-many.rules"


def revision(rules: int, text: str = "-s 192.0.2.1/32 -j ACCEPT") -> Revision:
    """A revision with so many rules."""
    chain = Chain("INPUT", "DROP", tuple(Rule(text, Origin(PATH, line)) for line in range(1, rules + 1)))
    ruleset = Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": chain})})
    rulesets = {Family.IPV4: ruleset, Family.IPV6: Ruleset(Family.IPV6, {})}
    return Revision(1, 1.7e9, "reload", "", Backend.NFT, "v1.8.9", "6.1.0", "ab12", (), rulesets)


class Bench:
    """A store, and the events that were reported."""

    def __init__(self, state: Path) -> None:
        self.state, self.store, self.events = state, RevisionStore(state), list[str]()
        self.context = cast("Context", SimpleNamespace(store=self.store, emit=self._emit))

    def _emit(self, kind: Any, _message: str) -> None:
        self.events.append(kind.name)

    def files(self) -> dict[str, bytes]:
        """All files of the store, by name."""
        return {path.name: path.read_bytes() for path in self.state.rglob("*") if path.is_file()}


@pytest.mark.parametrize("rules", [1, 600])
def test_the_files_are_those_that_would_be_made_later(tmp_path: Path, rules: int) -> None:
    """Whether they were made beside the load, or after it."""
    beside, after = Bench(tmp_path / "beside"), Bench(tmp_path / "after")
    with Recording(beside.context, revision(rules)) as recording:
        recording.begin()
        assert recording.keep(for_boot=True) is None
    with Recording(after.context, revision(rules)) as recording:
        assert recording.keep(for_boot=True) is None
    assert beside.events == after.events == []
    assert beside.files() == after.files()


def test_the_files_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a large revision before it is recorded; they are not made again then."""
    made: list[int] = []

    def counted(one: Revision) -> Any:
        made.append(one.number)
        return seal_revision(one)

    monkeypatch.setattr(prepared, "seal_revision", counted)
    bench = Bench(tmp_path / "state")
    with Recording(bench.context, revision(600)) as recording:
        recording.begin()
        recording.keep(for_boot=True)
    assert made == [1]


def test_nothing_is_left_after_a_load_that_failed(tmp_path: Path) -> None:
    """The files are forgotten, and a revision of the same number with other rules is written as it is."""
    bench = Bench(tmp_path / "state")
    with contextlib.suppress(ValueError), Recording(bench.context, revision(600)) as recording:
        recording.begin()
        raise ValueError("refused")
    other = revision(600, "-j DROP")
    bench.store.record(other)
    kept = RevisionStore(tmp_path / "state").newest()
    assert getattr(kept, "revision", None) == other


def test_text_that_cannot_be_written_is_reported_when_it_is_recorded(tmp_path: Path) -> None:
    """Not by the thread that makes the files."""
    bench = Bench(tmp_path / "state")
    wrong = revision(600, "-m comment --comment \ud800 -j ACCEPT")
    with Recording(bench.context, wrong) as recording:
        recording.begin()
        assert recording.keep(for_boot=True) is wrong
    assert bench.events == ["state.failed"]


def test_what_is_in_force_already_is_not_recorded(tmp_path: Path) -> None:
    """There is no revision to make files of."""
    bench = Bench(tmp_path / "state")
    with Recording(bench.context, None) as recording:
        recording.begin()
        assert recording.revision is None
