"""Commit notices as bytes, and the socket filter as instructions.

What only the kernel can do (sending them, dropping them, refusing) is tested in tests/netns/test_generations_real.py.
"""

from __future__ import annotations

import errno
import struct
import sys

import pytest

from fwguardd.kernel.generations import (
    Generation,
    NoticesNotPermittedError,
    NoticesUnsupportedError,
    _refusal,
    filter_program,
    parse_notice,
)

CAPTURED = bytes.fromhex(
    "38000000 0f0a 0000 02000000 53550000"  # nlmsghdr
    "00 00 0002"  # nfgenmsg, whose resource id is the lower half of the number
    "0800 0100 00000002 0800 0200 00005553 1100 0300 69707461626c65732d6e6674 00000000"
)
"""A notice as Linux 6.18 sent it on a little-endian machine, after `iptables-nft -A INPUT`."""


def attribute(kind: int, value: bytes, length: int | None = None) -> bytes:
    """One attribute, padded; `length` for a wrong one."""
    said = len(value) + 4 if length is None else length
    return struct.pack("=HH", said, kind) + value + bytes(-len(value) % 4)


def message(*attributes: bytes, kind: int = 0x0A0F, length: int | None = None) -> bytes:
    """One netlink message of nf_tables; `length` for a wrong one."""
    body = struct.pack("=BBH", 0, 0, 0) + b"".join(attributes)
    return struct.pack("=IHHII", len(body) + 16 if length is None else length, kind, 0, 0, 0) + body


NUMBER = attribute(1, b"\0\0\0\x07")
PID = attribute(2, b"\0\0\x12\x67")
NAME = attribute(3, b"iptables-restor\0")
NOTICE = message(NUMBER, PID, NAME)
COMMIT = Generation(number=7, pid=4711, process="iptables-restor")


def test_a_notice_has_number_process_id_and_name() -> None:
    """The header is in the host's byte order, the values are big endian, the name ends at its zero byte."""
    assert parse_notice(NOTICE) == [COMMIT]


@pytest.mark.skipif(sys.byteorder == "big", reason="captured on a little-endian machine")
def test_a_captured_notice() -> None:
    """A notice of a real kernel is parsed into its values."""
    assert parse_notice(CAPTURED) == [Generation(number=2, pid=0x5553, process="iptables-nft")]


def test_the_order_of_attributes_does_not_matter() -> None:
    """Netlink defines no order; of two attributes of one type the last counts, as in the kernel."""
    assert parse_notice(message(NAME, PID, attribute(1, b"\0\0\0\x01"), NUMBER)) == [COMMIT]


def test_unknown_attributes_are_skipped() -> None:
    """A newer kernel may send more attributes; the flags in the upper two bits of a type do not belong to it."""
    more = attribute(4, b"x" * 9), attribute(9, b""), attribute(0x3FFF, b"\1\2\3\4")
    assert parse_notice(message(*more, attribute(0x8001, b"\0\0\0\x07"), PID, NAME)) == [COMMIT]


def test_process_id_and_name_are_optional() -> None:
    """A notice without process id and name is a commit all the same."""
    assert parse_notice(message(NUMBER)) == [Generation(number=7, pid=0, process="")]


def test_several_messages_in_one_datagram() -> None:
    """Each commit counts, in order; messages of other types between them do not."""
    second = message(attribute(1, b"\0\0\0\x08"), PID, NAME)
    rule = message(attribute(1, b"filter\0"), kind=0x0A06)
    assert parse_notice(rule + NOTICE + rule + second) == [COMMIT, Generation(8, 4711, "iptables-restor")]


def test_every_name_is_kept() -> None:
    """A process chooses its name: line breaks and bytes that are not UTF-8 are kept (PEP 383)."""
    [commit] = parse_notice(message(NUMBER, PID, attribute(3, b"a\n)\xff\xc3\xa4\0behind")))
    assert commit.process == "a\n)\udcff\xe4"
    assert commit.process.encode("utf-8", "surrogateescape") == b"a\n)\xff\xc3\xa4"


def test_numbers_use_all_their_bits() -> None:
    """Generation numbers go up to 2**32 - 1, and are never negative."""
    assert parse_notice(message(attribute(1, b"\xff" * 4), PID, NAME))[0].number == 2**32 - 1


@pytest.mark.parametrize("end", range(len(NOTICE)))
def test_a_notice_that_is_cut_off_is_skipped(end: int) -> None:
    """A datagram may end at any byte: the cut message is skipped, and whole messages before it count."""
    assert parse_notice(NOTICE[:end]) == []
    assert parse_notice(NOTICE + NOTICE[:end]) == [COMMIT]


@pytest.mark.parametrize("missing", range(1, len(NOTICE) - 20 + 1))
def test_a_message_that_is_shorter_than_its_attributes_has_no_wrong_values(missing: int) -> None:
    """If the length of the message cuts it, fields may be missing, but none has a wrong value."""
    cut = NOTICE[: len(NOTICE) - missing]
    shown = parse_notice(struct.pack("=I", len(cut)) + cut[4:])
    assert shown in ([], [Generation(7, 4711, "")], [Generation(7, 0, "")])


@pytest.mark.parametrize(
    "attributes",
    [
        (PID, NAME),
        (attribute(1, b""), PID, NAME),
        (attribute(1, b"\0\0\x07"), PID, NAME),
        (attribute(1, bytes(8)), PID, NAME),
        (NUMBER, attribute(2, b"\x12\x67"), NAME),
        (NUMBER, attribute(2, bytes(8)), NAME),
        (NUMBER, PID, attribute(3, b"name", length=0)),
        (NUMBER, PID, attribute(3, b"name", length=3)),
        (NUMBER, PID, attribute(3, b"name", length=9)),
        (NUMBER, PID, attribute(3, b"name", length=0xFFFF)),
        (NUMBER, PID, NAME, b"\0"),
        (NUMBER, PID, NAME, b"\4\0\1"),
    ],
)
def test_a_notice_with_wrong_attributes_is_skipped(attributes: tuple[bytes, ...]) -> None:
    """A missing number, one that has not four bytes, or an impossible length: no notice, and the next one counts."""
    wrong = message(*attributes)
    assert parse_notice(wrong) == []
    assert parse_notice(wrong + bytes(-len(wrong) % 4) + NOTICE) == [COMMIT]


@pytest.mark.parametrize("length", [0, 1, 15, len(NOTICE) + 1, 0xFFFFFFFF])
def test_parsing_ends_at_a_message_of_impossible_length(length: int) -> None:
    """The beginning of the next message is not known then."""
    assert parse_notice(message(NUMBER, PID, NAME, length=length)) == []
    assert parse_notice(NOTICE + message(NUMBER, PID, NAME, length=length)) == [COMMIT]


@pytest.mark.parametrize("length", [16, 17, 19])
def test_a_message_without_its_family_header_is_skipped(length: int) -> None:
    """A message can end before nfgenmsg does."""
    assert parse_notice(message(length=length)) == []


@pytest.mark.parametrize("kind", [0, 2, 3, 0x0A10, 0x0A06, 0x0F0A, 0x000F])
def test_other_messages_are_not_notices(kind: int) -> None:
    """Only NFT_MSG_NEWGEN is one, also if the attributes look the same."""
    assert parse_notice(message(NUMBER, PID, NAME, kind=kind)) == []


def test_filter_on_a_little_endian_machine() -> None:
    """Load the type, compare, accept all or nothing; the type's bytes 0f 0a read as 0x0f0a by a big-endian load."""
    assert filter_program("little") == bytes.fromhex(
        "2800 00 00 04000000"  # ldh [4]
        "1500 00 01 0a0f0000"  # jeq #0x0f0a, next, skip one
        "0600 00 00 ffffffff"  # ret #-1
        "0600 00 00 00000000"  # ret #0
    )


def test_filter_on_a_big_endian_machine() -> None:
    """The same instructions in big endian; there the type's bytes are 0a 0f."""
    assert filter_program("big") == bytes.fromhex(
        "0028 00 00 00000004 0015 00 01 00000a0f 0006 00 00 ffffffff 0006 00 00 00000000"
    )


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("kind", [0x0A0F, 0x0F0A, 0x0A10, 0x0A06, 2])
def test_filter_passes_notices_only(byteorder: str, kind: int) -> None:
    """Executed as in the kernel, with either byte order, it passes NFT_MSG_NEWGEN and nothing else."""
    prefix = "<" if byteorder == "little" else ">"
    program = filter_program("little" if byteorder == "little" else "big")
    load, compare, accept, drop = struct.iter_unpack(prefix + "HBBI", program)
    header = struct.pack(prefix + "IHHII", 16, kind, 0, 0, 0)
    loaded = int.from_bytes(header[load[3] : load[3] + 2], "big")
    taken = (accept, drop)[compare[1] if loaded == compare[3] else compare[2]]
    assert bool(taken[3]) == (kind == 0x0A0F)


def test_filter_is_for_this_machine() -> None:
    """The default byte order is that of the machine that it runs on."""
    assert filter_program() == filter_program(sys.byteorder)


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        (errno.EPERM, NoticesNotPermittedError, "CAP_NET_ADMIN"),
        (errno.EPROTONOSUPPORT, NoticesUnsupportedError, "nfnetlink"),
        (errno.EAFNOSUPPORT, NoticesUnsupportedError, "RestrictAddressFamilies="),
        (errno.ENOENT, NoticesUnsupportedError, "nf_tables"),
        (errno.EINVAL, NoticesUnsupportedError, "nf_tables"),
        (errno.EOPNOTSUPP, NoticesUnsupportedError, "nf_tables"),
        (errno.EMFILE, OSError, "Too many open files"),
    ],
)
def test_each_errno_has_its_exception(number: int, kind: type[Exception], word: str) -> None:
    """A kernel without support and a process without permission are different exceptions; the rest are OSError."""
    refusal = _refusal(number)
    assert type(refusal) is kind
    assert word in str(refusal)
