"""Reports of invented weeks, word for word."""

from __future__ import annotations

from tests.golden.reports import FOLDER, report_files


def test_reports() -> None:
    """A report of a week with all that can happen, of a quiet one, and of a host that says nothing, in each form."""
    files = report_files()
    assert set(files) == set(FOLDER.iterdir())
    for path, text in files.items():
        assert text == path.read_text(encoding="utf-8"), f"{path.name}: python -m tests.golden.update"
