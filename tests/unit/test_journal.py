"""The native journal protocol: what goes out is what an independent reader of it gets."""

from __future__ import annotations

import mmap
import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd import events
from fwguardd.sinks.journal import LONGEST_QUEUE, JournalSocket, encode_entry, entry_of
from fwguardd.sinks.sink import Statistics
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def decode(data: bytes) -> list[tuple[str, bytes]]:
    """A reader of the protocol, written from its documentation and not from the encoder."""
    fields: list[tuple[str, bytes]] = []
    while data:
        head, _, data = data.partition(b"\n")
        if b"=" in head:
            key, _, value = head.partition(b"=")
        else:
            key, size = head, int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[8 + size :]
            assert data[:1] == b"\n"
            data = data[1:]
        fields.append((key.decode(), value))
    return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """A stand-in for journald's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.settimeout(LONGEST)
        yield listening


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalSocket]:
    """A socket that is connected to it."""
    made = JournalSocket(str(tmp_path / "socket"))
    yield made
    made.close()


def test_fields_have_their_names() -> None:
    """What journald knows keeps journald's name, all else is FWGUARD_ and upper case, a list is a field for each,
    and what is empty is no field."""
    fields = {"src": "192.0.2.1", "flags": ["SYN", "ACK"], "spt": 0, "line": "", "rule": None, "hosts": ()}
    assert decode(entry_of(events.DENIED, "m", fields)) == [
        ("MESSAGE", b"m"),
        ("PRIORITY", b"4"),
        ("SYSLOG_IDENTIFIER", b"fwguardd"),
        ("FWGUARD_EVENT", b"denied"),
        ("MESSAGE_ID", events.DENIED.message_id.encode()),
        ("FWGUARD_SRC", b"192.0.2.1"),
        ("FWGUARD_FLAGS", b"SYN"),
        ("FWGUARD_FLAGS", b"ACK"),
        ("FWGUARD_SPT", b"0"),
    ]


@pytest.mark.parametrize("hostile", ["a\n\nMESSAGE=forged\n", "\n", "x\nPRIORITY=0", "\udcff\n\udcfe", "=\n="])
def test_no_value_can_start_a_field_or_an_entry(hostile: str) -> None:
    """A value with newlines arrives as one value of its own field."""
    fields = decode(encode_entry({"src": hostile, "dst": "after"}))
    hostile_bytes = hostile.encode("utf-8", "surrogateescape")
    assert sorted(fields) == [("FWGUARD_DST", b"after"), ("FWGUARD_SRC", hostile_bytes)]


@given(st.dictionaries(st.sampled_from(["src", "dst", "line"]), st.text(st.characters()) | st.integers(), max_size=3))
def test_any_value_arrives_as_it_was(fields: dict[str, str | int]) -> None:
    """Whatever a value holds, it arrives as it was, in its own field, and nothing else does."""
    wanted = {
        (f"FWGUARD_{key.upper()}", str(value).encode("utf-8", "backslashreplace"))
        for key, value in fields.items()
        if value != ""
    }
    arrived = set(decode(encode_entry(fields)))
    assert {key for key, _ in arrived} == {key for key, _ in wanted}
    if not any("\udc80" <= char <= "\udcff" for value in fields.values() for char in str(value)):
        assert arrived == wanted


def test_a_journal_that_comes_back_is_found(journal: JournalSocket, tmp_path: Path) -> None:
    """When journald's socket is made anew, the next entry goes to the new one, and none is lost."""
    for number in range(3):
        (tmp_path / "socket").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(str(tmp_path / "socket"))
            journal.send(encode_entry({"count": number}))
            listening.settimeout(LONGEST)
            assert decode(listening.recv(65536)) == [("FWGUARD_COUNT", b"%d" % number)]


def test_entries_arrive_in_order(journald: socket.socket, journal: JournalSocket) -> None:
    """One datagram an entry."""
    for number in range(5):
        journal.send(encode_entry({"count": number}))
    assert [decode(journald.recv(65536)) for _ in range(5)] == [[("FWGUARD_COUNT", b"%d" % n)] for n in range(5)]


def test_a_large_entry_goes_as_a_sealed_file(journald: socket.socket, journal: JournalSocket) -> None:
    """What no datagram can carry arrives as a descriptor of the same bytes."""
    entry = encode_entry({"text": "x" * 3_000_000})
    journal.send(entry)
    data, fds, _, _ = socket.recv_fds(journald, 16, 1)
    assert (data, len(fds)) == (b"", 1)
    with mmap.mmap(fds[0], 0, prot=mmap.PROT_READ) as content:
        assert content[:] == entry
    os.close(fds[0])


def test_a_journal_that_is_away_blocks_nothing(journal: JournalSocket, tmp_path: Path) -> None:
    """Entries are queued while no journald runs and sent when one does; those that did not fit are counted, in the
    statistics and in one entry."""
    path = tmp_path / "socket"
    for number in range(LONGEST_QUEUE + 7):
        journal.send(encode_entry({"count": number}), "denied")
    assert journal.flush() == LONGEST_QUEUE
    assert journal.statistics() == Statistics("journal", {}, {"denied": 7})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(LONGEST)
        seen: list[dict[str, bytes]] = []
        while len(seen) < LONGEST_QUEUE + 1:
            journal.flush()
            assert len(seen) <= LONGEST_QUEUE
            seen.append(dict(decode(listening.recv(65536))))
    losses = [entry for entry in seen if entry.get("FWGUARD_EVENT") == b"events.dropped"]
    assert [entry["FWGUARD_COUNT"] for entry in losses] == [b"7"]
    passed = {"denied": LONGEST_QUEUE, "events.dropped": 1}
    assert journal.statistics() == Statistics("journal", passed, {"denied": 7})


def test_every_event_has_an_identity_of_its_own() -> None:
    """Names and message ids are unique, ids are 128 bits, and no event is at critical or above."""
    kinds = list(events.ALL_EVENTS.values())
    declared = [value for value in vars(events).values() if isinstance(value, events.EventKind)]
    assert sorted(kind.name for kind in kinds) == sorted(kind.name for kind in declared)
    assert len({kind.message_id for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert len(bytes.fromhex(kind.message_id)) == 16
        assert events.ERROR <= kind.priority <= events.DEBUG
        assert kind.meaning.endswith(".")


def test_no_event_about_packets_is_above_warning() -> None:
    """Journald syncs its files for each message at critical or above; a flood must not make it do so."""
    for kind in events.ALL_EVENTS.values():
        if kind.name.startswith(("denied", "logged", "denials.")):
            assert kind.priority >= events.WARNING
