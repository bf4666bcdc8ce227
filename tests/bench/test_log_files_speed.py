"""How fast `fwguardctl denials --read` goes through an old log with a filter, in time of the processor, from a file."""

from __future__ import annotations

import os
import time
from datetime import datetime
from ipaddress import ip_network
from statistics import median
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.filters import Filters
from fwguardd.ctl.denials.inputs import lines_of, opened
from fwguardd.ctl.denials.log_files import LogFileReader, StampReader
from fwguardd.settings import DEFAULT_PREFIXES
from tests.bench.test_denial_speed import REFERENCE_SECONDS, pace

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LINES: Final = 40_000
ROUNDS: Final = 5
PROMISED: Final = 50_000
"""Lines a second."""

FORM: Final = (
    "Nov 22 %02d:%02d:%02d gate kernel: [%5d.%06d] iptables denied: IN=eth0 OUT= MAC=52:54:00:12:34:56:52:54:00:65:43:"
    "21:08:00 SRC=203.0.%d.%d DST=198.51.100.4 LEN=60 TOS=0x00 PREC=0x00 TTL=51 ID=%d DF PROTO=TCP SPT=%d DPT=%d "
    "WINDOW=64240 RES=0x00 SYN URGP=0 \n"
)


def write_log(path: Path) -> None:
    """A log of denials only, ten a second, from many sources to many ports: nothing in it can be passed over."""
    with path.open("w", encoding="ascii") as log:
        for number in range(LINES):
            second = number // 10
            clock = (second // 3600, second // 60 % 60, second % 60, second, number % 10 * 100_000)
            log.write(
                FORM % (*clock, number % 200, number % 251, number % 65536, 1024 + number % 60_000, number % 1000)
            )


def test_old_lines_are_read_fast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At least 50,000 lines a second with a filter; half of that where others use the same processor's caches."""
    path = tmp_path / "kern.log"
    write_log(path)
    measured, scaled = [], []
    for _ in range(ROUNDS):
        slowness = pace()
        begun = time.process_time()
        old = LogFileReader(
            DEFAULT_PREFIXES,
            Filters((ip_network("203.0.7.0/24"),)),
            StampReader(datetime(2026, 11, 23)),  # noqa: DTZ001
        )
        with opened(path) as (descriptor, _):
            found = sum(1 for _ in old.events(lines_of(descriptor, str(path))))
        measured.append(LINES / (time.process_time() - begun))
        scaled.append(measured[-1] * max(1.0, (slowness + pace()) / 2 / REFERENCE_SECONDS))
        assert (found, old.counts.ours) == (LINES // 200, LINES)
    with capsys.disabled():
        print(f"\n{median(measured):,.0f} lines a second here, {median(scaled):,.0f} scaled", end="")
    busy = os.getloadavg()[0] > 1.5
    assert median(scaled) >= PROMISED / (2 if busy else 1)
