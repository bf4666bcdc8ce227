"""What must hold of the notice parser for every datagram."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from fwguardd.kernel.generations import Generation, parse_notice

numbers = st.integers(0, 2**32 - 1)
names = st.binary(max_size=15).filter(lambda name: b"\0" not in name)
generations = st.builds(
    lambda number, pid, name: Generation(number, pid, name.decode("utf-8", "surrogateescape")), numbers, numbers, names
)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def notice(generation: Generation) -> bytes:
    """The message with which the kernel tells of a commit."""
    name = generation.process.encode("utf-8", "surrogateescape") + b"\0"
    values = struct.pack(">I", generation.number), struct.pack(">I", generation.pid), name
    body = bytes(4) + b"".join(attribute(kind, value) for kind, value in enumerate(values, 1))
    return struct.pack("=IHHII", len(body) + 16, 0x0A0F, 0, 0, 0) + body


@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    """Reading is total: any bytes are commits or none, and never an exception."""
    assert all(isinstance(shown, Generation) for shown in parse_notice(data))


@given(st.binary(max_size=200), st.integers(0, 220))
def test_any_content_of_a_notice_is_read(body: bytes, length: int) -> None:
    """The same where the header is that of a notice, and says any length."""
    shown = parse_notice(struct.pack("=IHHII", length, 0x0A0F, 0, 0, 0) + body)
    assert len(shown) <= 1 + len(body) // 16
    assert parse_notice(struct.pack("=IHHII", len(body) + 16, 0x0A0F, 0, 0, 0) + body)[1:] == []


@given(generations, st.data())
def test_any_mutation_of_a_notice_is_read(generation: Generation, data: st.DataObject) -> None:
    """One byte of a notice changed: never an exception, and never two commits out of one message."""
    raw = bytearray(notice(generation))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert len(parse_notice(bytes(raw))) <= 1


@given(st.lists(generations, max_size=8))
def test_every_commit_comes_back_as_it_was_told(shown: list[Generation]) -> None:
    """Numbers, ids and names come through as they are, whatever the names are, one message after the other."""
    assert parse_notice(b"".join(map(notice, shown))) == shown
