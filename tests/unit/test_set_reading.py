"""Which files of lists are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.set_reading import is_missing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("name", "missing"), [("a.set", False), ("b.set", True), ("c.set", False), ("d" * 300, False)])
def test_a_file_that_cannot_be_looked_at_is_there(tmp_path: Path, name: str, missing: bool) -> None:  # noqa: FBT001
    """Only a name that is not there counts as missing. Of one that cannot be looked at, or that leads nowhere, the
    error is reported when it is read, and other lists are loaded."""
    (tmp_path / "a.set").touch()
    (tmp_path / "c.set").symlink_to("nowhere")
    assert is_missing(tmp_path / name) == missing
