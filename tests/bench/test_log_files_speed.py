"""How fast `fwguardctl denials --read` goes through an old log with a filter, in time of the processor, from a file."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.filters import Filter, Filters, networks
from fwguardd.ctl.denials.log_files import LogFileReader
from fwguardd.ctl.denials.times import StampReader
from fwguardd.ctl.line_input import blocks_of, opened
from fwguardd.settings import DEFAULT_PREFIXES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.conftest import Recorder

    Rounds = Callable[[int], int]

LINES: Final = 40_000
FORM: Final = (
    "Nov 22 %02d:%02d:%02d gate kernel: [%5d.%06d] iptables denied: IN=eth0 OUT= MAC=52:54:00:12:34:56:52:54:00:65:43:"
    "21:08:00 SRC=203.0.%d.%d DST=198.51.100.4 LEN=60 TOS=0x00 PREC=0x00 TTL=51 ID=%d DF PROTO=TCP SPT=%d DPT=%d "
    "WINDOW=64240 RES=0x00 SYN URGP=0 \n"
)


OTHER_LINES: Final = (
    "sshd[%d]: Failed password for invalid user admin from 203.0.113.9 port 51234 ssh2",
    "kernel: [   12.%06d] usb 1-1: new high-speed USB device number 4 using xhci_hcd",
    "postfix/cleanup[%d]: 4F2A: message-id=<1@example.org>",
)


def write_other_log(path: Path) -> None:
    """A log of other programs, without a denial."""
    with path.open("w", encoding="ascii") as log:
        for number in range(LINES):
            log.write(f"Nov 22 21:14:25 gate {OTHER_LINES[number % 3] % number}\n")


def write_log(path: Path) -> None:
    """A log of denials only, ten a second, from many sources to many ports: nothing in it can be passed over."""
    with path.open("w", encoding="ascii") as log:
        for number in range(LINES):
            second = number // 10
            clock = (second // 3600, second // 60 % 60, second % 60, second, number % 10 * 100_000)
            log.write(
                FORM % (*clock, number % 200, number % 251, number % 65536, 1024 + number % 60_000, number % 1000)
            )


def test_old_lines(tmp_path: Path, record: Recorder, rounds: Rounds) -> None:
    """Lines of an old log that are read for each second of the processor, with a filter."""
    path = tmp_path / "kern.log"
    write_log(path)
    speeds = []
    for _ in range(rounds(9)):
        begun = time.process_time()
        old = LogFileReader(
            DEFAULT_PREFIXES,
            Filters((Filter("src", networks("203.0.7.0/24")),)),
            StampReader(datetime(2026, 11, 23)),  # noqa: DTZ001
        )
        with opened(path) as (descriptor, _):
            found = sum(1 for _ in old.events_of_blocks(blocks_of(descriptor, str(path))))
        speeds.append(LINES / (time.process_time() - begun))
        assert (found, old.counts.ours) == (LINES // 200, LINES)
    record("denials --read with a filter", "lines/s", speeds)


def test_other_lines(tmp_path: Path, record: Recorder, rounds: Rounds) -> None:
    """Lines without a denial that are passed over for each second of the processor."""
    path = tmp_path / "syslog"
    write_other_log(path)
    speeds = []
    for _ in range(rounds(9)):
        begun = time.process_time()
        old = LogFileReader(DEFAULT_PREFIXES, Filters(), StampReader(datetime(2026, 11, 23)))  # noqa: DTZ001
        with opened(path) as (descriptor, _):
            found = list(old.events_of_blocks(blocks_of(descriptor, str(path))))
        speeds.append(LINES / (time.process_time() - begun))
        assert (found, old.counts.lines) == ([], LINES)
    record("denials --read of other lines", "lines/s", speeds)
