"""Records of /dev/kmsg, and the accounting of those that were lost.

The device is stood in for by a pipe in packet mode (pipe(2), O_DIRECT): one write is one record, as on the device.
What only the device can do (overruns, permissions) is tested in tests/netns/test_kmsg_real.py.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.kmsg import (
    After,
    KernelLog,
    KernelLogMissingError,
    Lost,
    Record,
    StaleSequenceError,
    Start,
    parse_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class PacketPipe:
    """Writes records where a `KernelLog` can read them one by one."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
        self.path = f"/proc/self/fd/{self._read_end}"

    def write(self, *records: bytes) -> None:
        """Write records as they are."""
        for record in records:
            os.write(self._write_end, record)

    def kernel(self, *numbers: int) -> None:
        """Write well-formed records of the kernel with these sequence numbers."""
        self.write(*(b"4,%d,17,-;line %d\n" % (number, number) for number in numbers))

    def close(self) -> None:
        """Take the pipe away."""
        os.close(self._read_end)
        os.close(self._write_end)


@pytest.fixture
def pipe() -> Iterator[PacketPipe]:
    """A pipe that is closed after the test."""
    made = PacketPipe()
    yield made
    made.close()


def line(number: int) -> Record:
    """The record that `PacketPipe.kernel` writes."""
    return Record(facility=0, level=4, seq=number, usec=17, text=f"line {number}")


def test_header_fields_are_split() -> None:
    """Facility and level share the first number; sequence and microseconds follow; the text is what is after `;`."""
    record = parse_record(b"30,339,5140900,c;usb 1-1: new device\n")
    assert record == Record(facility=3, level=6, seq=339, usec=5140900, text="usb 1-1: new device")


def test_continuation_lines_do_not_belong_to_the_text() -> None:
    """Device properties after the first line do not belong to the text."""
    record = parse_record(b"6,1,2,-;eth0: link up\n SUBSYSTEM=net\n DEVICE=n2\n")
    assert record is not None
    assert record.text == "eth0: link up"


def test_unknown_header_fields_are_skipped() -> None:
    """Fields that the kernel may add before the semicolon are skipped, as the ABI requires of readers."""
    record = parse_record(b"4,7,8,-,caller=T1234,and=more;text; with; semicolons\n")
    assert record == Record(facility=0, level=4, seq=7, usec=8, text="text; with; semicolons")


def test_escapes_are_kept() -> None:
    """The kernel's escapes are kept, so a line break in a device's name cannot become one in a log."""
    record = parse_record(rb"4,7,8,-;IN=a\x0ab\x5c OUT= " + b"\n")
    assert record is not None
    assert record.text == r"IN=a\x0ab\x5c OUT= "


def test_bytes_beyond_ascii_are_escaped() -> None:
    """A byte above 0x7f that a kernel does not escape is escaped here in the same way, so the text is ASCII."""
    record = parse_record(b"4,7,8,-;\xc3\xa4\n")
    assert record is not None
    assert record.text == r"\xc3\xa4"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b";",
        b"4,7,8,-",
        b"4,7,8;no flags\n",
        b"4,7,-;no time\n",
        b"-4,7,8,-;negative\n",
        b"x,7,8,-;letters\n",
        b" 4,7,8,-;blank first\n",
        b"4,7,8,-\n;line break in the header\n",
        b"4," + b"9" * 5000 + b",8,-;a number that int() refuses\n",
        bytes(range(256)),
    ],
)
def test_malformed_record_is_none(data: bytes) -> None:
    """Data that is not in the device's format is None; nothing raises."""
    assert parse_record(data) is None


def test_records_come_in_order_and_then_nothing(pipe: PacketPipe) -> None:
    """Each record is returned once; without a record the list is empty at once."""
    pipe.kernel(5, 6)
    with KernelLog(pipe.path) as log:
        assert log.read_available(10) == [line(5), line(6)]
        assert log.read_available(10) == []
        pipe.kernel(7)
        assert log.read_available(10) == [line(7)]


def test_limit_bounds_the_reads(pipe: PacketPipe) -> None:
    """At most `limit` records are read at a time, so that a flood cannot block the event loop."""
    pipe.kernel(*range(5))
    with KernelLog(pipe.path) as log:
        assert log.read_available(2) == [line(0), line(1)]
        assert log.read_available(2) == [line(2), line(3)]
        assert log.read_available(2) == [line(4)]


def test_gap_is_reported_exactly_and_in_place(pipe: PacketPipe) -> None:
    """A gap in the sequence is a loss of that number of records, reported before the record after it."""
    pipe.kernel(5, 9)
    with KernelLog(pipe.path) as log:
        assert log.read_available(10) == [line(5), Lost(3), line(9)]


def test_first_record_has_no_gap_before_it(pipe: PacketPipe) -> None:
    """Nothing is known of what was before the oldest record."""
    pipe.kernel(1000)
    with KernelLog(pipe.path) as log:
        assert log.read_available(10) == [line(1000)]


def test_other_facilities_are_skipped_but_counted(pipe: PacketPipe) -> None:
    """User space cannot write facility 0; its records are not returned, and are not counted as lost."""
    pipe.kernel(5)
    pipe.write(b"12,6,17,-;iptables denied: IN=forged OUT= \n", b"30,7,17,-;systemd\n")
    pipe.kernel(8)
    with KernelLog(pipe.path) as log:
        assert log.read_available(10) == [line(5), line(8)]


def test_malformed_record_counts_as_lost(pipe: PacketPipe) -> None:
    """A record that cannot be parsed is reported as lost, because its number is missing."""
    pipe.kernel(5)
    pipe.write(b"no such format\n")
    pipe.kernel(7)
    with KernelLog(pipe.path) as log:
        assert log.read_available(10) == [line(5), Lost(1), line(7)]


def test_end_skips_earlier_records_and_counts_from_there(pipe: PacketPipe) -> None:
    """From the end: earlier records are skipped, and losses right after the opening are counted all the same."""
    pipe.kernel(5, 6)
    with KernelLog(pipe.path, Start.END) as log:
        pipe.kernel(9)
        assert log.read_available(10) == [Lost(2), line(9)]


def test_after_resumes_without_repeating(pipe: PacketPipe) -> None:
    """After a given number: records up to it are not repeated, the next one is not skipped."""
    pipe.kernel(5, 6, 7)
    with KernelLog(pipe.path, After(6)) as log:
        assert log.read_available(10) == [line(7)]


def test_after_the_newest_waits_for_the_next(pipe: PacketPipe) -> None:
    """When the given record is the newest, there is nothing to return yet."""
    pipe.kernel(5, 6)
    with KernelLog(pipe.path, After(6)) as log:
        assert log.read_available(10) == []
        pipe.kernel(7)
        assert log.read_available(10) == [line(7)]


def test_after_reports_what_was_overwritten_meanwhile(pipe: PacketPipe) -> None:
    """When the records after the given one are overwritten, their number is reported before the oldest one left."""
    pipe.kernel(9, 10)
    with KernelLog(pipe.path, After(6)) as log:
        assert log.read_available(10) == [Lost(2), line(9), line(10)]


def test_after_a_user_record_resumes(pipe: PacketPipe) -> None:
    """The given record may be of any facility, and the first one after it too."""
    pipe.write(b"12,6,17,-;user\n", b"12,7,17,-;user\n")
    pipe.kernel(8)
    with KernelLog(pipe.path, After(6)) as log:
        assert log.read_available(10) == [line(8)]


def test_number_of_another_boot_is_refused(pipe: PacketPipe) -> None:
    """A number beyond the newest record is from another boot; waiting for it would take days."""
    pipe.kernel(5, 6)
    with pytest.raises(StaleSequenceError, match="another boot"):
        KernelLog(pipe.path, After(700))


def test_missing_device_is_named(tmp_path: Path) -> None:
    """Without a device the error says so, and names the path."""
    with pytest.raises(KernelLogMissingError, match="no such device"):
        KernelLog(tmp_path / "kmsg")


def test_another_device_in_its_place_is_refused() -> None:
    """A sandbox that hides the log puts another device there, which would never have a record."""
    with pytest.raises(KernelLogMissingError, match="ProtectKernelLogs"):
        KernelLog("/dev/null")


def test_close_twice_does_nothing(pipe: PacketPipe) -> None:
    """Closing a closed log does nothing; its descriptor is then -1."""
    log = KernelLog(pipe.path)
    assert log.fileno() >= 0
    log.close()
    log.close()
    assert log.fileno() == -1


def test_what_was_read_before_a_failure_is_returned(pipe: PacketPipe) -> None:
    """When the log fails, the records read before are returned first, and then the error is raised."""
    pipe.kernel(5, 6)
    log = KernelLog(pipe.path, After(4))
    os.close(log.fileno())
    assert log.read_available(10) == [line(5)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        log.read_available(10)


def test_position_is_for_resuming(pipe: PacketPipe) -> None:
    """The position is the number of the last record that was read, of any facility; a reader after it goes on there."""
    with KernelLog(pipe.path) as log:
        assert log.position is None
        pipe.kernel(5, 6)
        pipe.write(b"12,7,17,-;user\n")
        log.read_available(10)
        assert log.position == "7"
