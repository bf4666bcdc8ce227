"""The reports of invented weeks, as text, HTML and JSON: ``python -m tests.golden.update`` writes the files again."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.report.contents import outline_of
from fwguardd.ctl.report.document import document_of
from fwguardd.ctl.report.html_form import html_of
from fwguardd.ctl.report.text_form import BLOCKS, text_of
from tests.golden import report_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fwguardd.ctl.report.facts import Facts

FOLDER: Final = Path(__file__).parent / "report"

WEEKS: Final = {"example": report_facts.example, "quiet": report_facts.quiet, "unknown": report_facts.unknown}


@contextlib.contextmanager
def utc() -> Iterator[None]:
    """Local times are UTC, as long as the block runs."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        del os.environ["TZ"]
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


def report_files() -> dict[Path, str]:
    """The text of each file."""
    found: dict[Path, str] = {}
    with utc():
        for name, week in WEEKS.items():
            facts = week()
            found |= {FOLDER / f"{name}.{ending}": form(facts) for ending, form in _FORMS.items()}
    return found


def as_text(facts: Facts) -> str:
    """A report as text."""
    return "".join(f"{line}\n" for line in text_of(outline_of(facts), AnswerPainter(colours=False), BLOCKS))


def as_html(facts: Facts) -> str:
    """A report as HTML."""
    return html_of(outline_of(facts))


def as_json(facts: Facts) -> str:
    """A report as JSON, in lines."""
    return json.dumps(document_of(facts), indent=1) + "\n"


_FORMS: Final[dict[str, Callable[[Facts], str]]] = {"txt": as_text, "html": as_html, "json": as_json}
