"""The message catalog: what journalctl -x prints about each event."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fwguardd.events import ALL_EVENTS, EventKind

CATALOG = Path(__file__).resolve().parents[2] / "packaging" / "fwguardd.catalog"
ENTRIES = dict(re.findall(r"^-- ([0-9a-f]{32})\n(.*?)(?=^-- |\Z)", CATALOG.read_text(), re.MULTILINE | re.DOTALL))


def test_each_id_stands_once_and_is_that_of_an_event() -> None:
    """No entry is stale, and none is hidden behind another with its id."""
    said = re.findall(r"^-- (.*)$", CATALOG.read_text(), re.MULTILINE)
    assert len(said) == len(set(said))
    assert set(said) == set(ENTRIES) <= {kind.message_id for kind in ALL_EVENTS.values()}


@pytest.mark.parametrize("kind", ALL_EVENTS.values(), ids=ALL_EVENTS)
def test_every_event_is_explained(kind: EventKind) -> None:
    """An event has a subject, a text that says what to do (or that there is nothing to do), and fits a terminal."""
    assert kind.message_id in ENTRIES, f"write an entry for {kind.name} into {CATALOG.name}: {kind.meaning}"
    header, _, text = ENTRIES[kind.message_id].partition("\n\n")
    subject, *others = header.splitlines()
    assert re.fullmatch(r"Subject: \S.{5,70}", subject)
    assert others[0] == "Defined-By: fwguardd"
    assert re.fullmatch(
        r"Documentation: man:(fwguardd|fwguardctl)\(8\)|Documentation: man:fwguard(d\.yaml|\.d)\(5\)", others[1]
    )
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"[Nn]othing to do|ctl |[Cc]orrect|Please report|Put a limit|nft monitor", text)
    assert "@" not in text, "journalctl would print a field that an event has not got as @FIELD@"
