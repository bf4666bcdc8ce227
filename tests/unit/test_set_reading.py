"""Which set files are there, and what they hold."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce import answering
from fwguardd.enforce.set_reading import is_missing, sets_beside

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("name", "missing"), [("a.set", False), ("b.set", True), ("c.set", False), ("d" * 300, False)])
def test_a_file_that_cannot_be_looked_at_is_there(tmp_path: Path, name: str, missing: bool) -> None:  # noqa: FBT001
    """Only a name that is not there counts as missing. Of one that cannot be looked at, or that leads nowhere, the
    error is reported when it is read, and other lists are loaded."""
    (tmp_path / "a.set").touch()
    (tmp_path / "c.set").symlink_to("nowhere")
    assert is_missing(tmp_path / name) == missing


def test_sets_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be read, or does not answer, is told from one without set files: invariants are not
    checked then, and a pass does not wait."""
    assert sets_beside(tmp_path / "missing") is None
    assert sets_beside(tmp_path) == []
    (tmp_path / "bad.set").write_text("192.0.2.1\nno address\n")
    (tmp_path / "good.set").write_text("192.0.2.1\n")
    found = sets_beside(tmp_path)
    assert found is not None
    assert [file.name for file in found] == ["good"]
    monkeypatch.setitem(answering._unanswered, str(tmp_path), Future())
    assert sets_beside(tmp_path) is None
