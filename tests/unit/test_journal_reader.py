"""Entries of the journal as journalctl prints them. tests/system/test_journal_source.py has real journals."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.denials.grammar import kernel_escaped
from fwguardd.denials.sources import escaped
from fwguardd.kernel.journal_reader import KernelMessage, read_document
from fwguardd.kernel.kmsg import Lost

KERNEL: Final[dict[str, Any]] = {
    "__CURSOR": "s=1;i=2",
    "__REALTIME_TIMESTAMP": "1700000000500000",
    "_TRANSPORT": "kernel",
    "SYSLOG_FACILITY": "0",
    "MESSAGE": "hello",
}
MISSED: Final[dict[str, Any]] = {
    **KERNEL,
    "_TRANSPORT": "driver",
    "MESSAGE_ID": "e9bf28e6e834481bb6f48f548ad13606",
    "MESSAGE": "Missed 17 kernel messages",
}
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())
values = st.one_of(scalars, st.lists(scalars), st.dictionaries(st.text(), scalars))


def test_a_message_has_its_bytes_and_its_time() -> None:
    """Text is UTF-8; what is not printable comes as a list of numbers; the time is in microseconds."""
    assert read_document(KERNEL) == KernelMessage(b"hello", 1_700_000_000.5)
    assert read_document({**KERNEL, "MESSAGE": "h\u00e9"}) == KernelMessage(b"h\xc3\xa9", 1_700_000_000.5)
    assert read_document({**KERNEL, "MESSAGE": [104, 0, 255]}) == KernelMessage(b"h\x00\xff", 1_700_000_000.5)


def test_a_loss_counts_only_if_journald_reports_it() -> None:
    """The number counts only in journald's own message, and only under its id."""
    assert read_document(MISSED) == Lost(17)
    assert read_document({**MISSED, "MESSAGE_ID": "0"}) is None
    assert read_document({**MISSED, "_TRANSPORT": "journal"}) is None
    assert read_document({**MISSED, "MESSAGE": "Missed 17 kernel messages, or so"}) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"_TRANSPORT": "journal"},
        {"_TRANSPORT": ["kernel"]},
        {"SYSLOG_FACILITY": "1"},
        {"SYSLOG_FACILITY": 0},
        {"SYSLOG_FACILITY": ["0", "1"]},
        {"MESSAGE": None},
        {"MESSAGE": [256]},
        {"MESSAGE": [True]},
        {"MESSAGE": ["hello", "again"]},
        {"__REALTIME_TIMESTAMP": "9" * 5000},
        {"__REALTIME_TIMESTAMP": "-1"},
        {"__REALTIME_TIMESTAMP": 1},
    ],
)
def test_what_is_not_the_kernels_is_nothing(changed: dict[str, Any]) -> None:
    """An entry with a field that journald would not write is ignored; none raises."""
    assert read_document({**KERNEL, **changed}) is None


@given(st.dictionaries(st.sampled_from([*MISSED]), values))
def test_no_entry_raises(changed: dict[str, Any]) -> None:
    """Every JSON object can be parsed."""
    read_document({**KERNEL, **changed})
    read_document({**MISSED, **changed})


@given(st.binary())
def test_the_quick_spelling_is_the_spelling(message: bytes) -> None:
    """Messages that need no escapes take a faster branch, with the same result."""
    assert escaped(message) == kernel_escaped(message)
    plain = bytes(byte for byte in message if 0x20 <= byte < 0x7F)
    assert escaped(plain) == kernel_escaped(plain)
