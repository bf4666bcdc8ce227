"""The kernel log itself: lines about packets in a namespace of the test's own arrive, are counted, and parse.

The log is one per machine and others write to it too: each test has a prefix that no other run has.
"""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Extent, Meaning, Tcp, Udp, Watched
from fwguardd.denials.sentences import sentence
from fwguardd.kernel.kmsg import After, KernelLog, Lost, Record, StaleSequenceError, Start
from tests.netns.frames import Device, LogFromEveryNamespace, host_with_device, ipv4, ipv6, packet_frame, tcp, udp
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.kernel.kmsg import Reading

pytestmark = pytest.mark.kernel_log

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = LONGEST
"""Seconds to wait for a line."""


class LoggedHost:
    """A namespace with one device and a LOG rule for each family; what is sent to it comes up in the kernel log."""

    def __init__(self, device: Device, logging: LogFromEveryNamespace, prefix: str) -> None:
        self.prefix = prefix
        self._device = device
        self._logging = logging

    def send(self, packet: bytes) -> None:
        """Let the host receive a packet."""
        self._logging.set()
        self._device.send(packet_frame(packet))

    def records(self, readings: list[Reading]) -> list[Record]:
        """Those of the readings that are about this host."""
        return [reading for reading in readings if isinstance(reading, Record) and reading.text.startswith(self.prefix)]

    def next_record(self, log: KernelLog) -> Record:
        """The next record about this host, waited for as an event loop waits."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self.records(log.read_available(1000))
            if found:
                assert len(found) == 1
                return found[0]
            select.select([log], [], [], deadline - time.monotonic())
        pytest.fail("no line in the kernel log")


@pytest.fixture(scope="module")
def logging() -> Iterator[LogFromEveryNamespace]:
    """The sysctl, opened in the initial network namespace: that of a test has none."""
    with LogFromEveryNamespace() as switch:
        yield switch


@pytest.fixture(params=["", "-legacy"], ids=["nft", "legacy"])
def host(request: pytest.FixtureRequest, logging: LogFromEveryNamespace) -> Iterator[LoggedHost]:
    """A host with either backend."""
    prefix = f"{secrets.token_hex(4)} denied: "
    with host_with_device() as device:
        for tool in ("iptables", "ip6tables"):
            rule = ["-t", "raw", "-A", "PREROUTING", "-j", "LOG", "--log-prefix", prefix]
            subprocess.run([f"{tool}{request.param}", *rule], check=True)
        yield LoggedHost(device, logging, prefix)


def read(host: LoggedHost, record: Record) -> Denial:
    """The denial that a record must be."""
    denial = LineReader([Watched("test", host.prefix, Meaning.DENIED)]).read(record.text)
    assert isinstance(denial, Denial)
    return denial


def test_denied_packet_becomes_a_denial(host: LoggedHost) -> None:
    """A packet that a real rule logs arrives as a record of facility 0, with its addresses and ports."""
    with KernelLog(start=Start.END) as log:
        host.send(ipv4(tcp(spt=51234, dpt=23), 6, src="203.0.113.9", dst="10.0.0.1"))
        record = host.next_record(log)
    denial = read(host, record)
    assert (record.facility, record.level) == (0, 4)
    assert isinstance(denial.transport, Tcp)
    assert denial.extent is Extent.WHOLE
    assert sentence(denial) == "denied TCP SYN 203.0.113.9:51234 → 10.0.0.1:23 in eth0"


def test_ipv6_packet_becomes_a_denial(host: LoggedHost) -> None:
    """The same for IPv6, with the address in its short form."""
    with KernelLog(start=Start.END) as log:
        host.send(ipv6(udp(spt=5353, dpt=443), 17, src="2001:db8::9", dst="2001:db8::1"))
        denial = read(host, host.next_record(log))
    assert isinstance(denial.transport, Udp)
    assert sentence(denial) == "denied UDP [2001:db8::9]:5353 → [2001:db8::1]:443 in eth0"


def test_forged_line_of_user_space_is_not_returned(host: LoggedHost) -> None:
    """A process can write a watched prefix with facility 0 to /dev/kmsg; its record is skipped, and is not a loss."""
    forged = f"<4>{host.prefix}IN=forged OUT= MAC= SRC=6.6.6.6 DST=6.6.6.6 PROTO=47 "
    with KernelLog(start=Start.END) as log:
        Path("/dev/kmsg").write_text(forged, encoding="ascii")
        host.send(ipv4(tcp(), 6))
        record = host.next_record(log)
    assert read(host, record).devices.incoming == "eth0"


def test_resuming_neither_repeats_nor_skips(host: LoggedHost) -> None:
    """A second reader that begins after a record sees exactly what came after it."""
    with KernelLog(start=Start.END) as log:
        host.send(ipv4(tcp(dpt=1), 6))
        first = host.next_record(log)
        host.send(ipv4(tcp(dpt=2), 6))
        second = host.next_record(log)
        host.send(ipv4(tcp(dpt=3), 6))
        third = host.next_record(log)
    with KernelLog(start=After(first.seq)) as log:
        assert host.records(log.read_available(10_000)) == [second, third]
    with KernelLog(start=Start.OLDEST) as log:
        assert host.records(log.read_available(100_000)) == [first, second, third]


def test_number_of_another_boot_is_refused(host: LoggedHost) -> None:
    """A sequence number that the kernel has not reached is from another boot."""
    with KernelLog(start=Start.END) as log:
        host.send(ipv4(tcp(), 6))
        newest = host.next_record(log).seq
    with pytest.raises(StaleSequenceError):
        KernelLog(start=After(newest + 10_000_000))


def test_overrun_is_counted_exactly(host: LoggedHost) -> None:
    """When the ring buffer overflows, the records read and the records lost add up to the records logged."""
    packets = 3000
    with KernelLog(start=Start.END) as log:
        host.send(ipv4(tcp(dpt=1), 6))
        first = host.next_record(log)
        for _ in range(packets):
            host.send(ipv4(tcp(dpt=2), 6))
        host.send(ipv4(tcp(dpt=3), 6))
        readings: list[Reading] = []
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not _is_last(host, readings):
            readings += log.read_available(10_000)
    lost = sum(reading.count for reading in readings if isinstance(reading, Lost))
    records = [reading for reading in readings if isinstance(reading, Record)]
    last = host.records(readings)[-1]
    assert lost > 0
    assert lost + len(host.records(readings)) >= packets + 1
    # Records of user space are passed over without a word, so the sum may be below the span of numbers, never above.
    assert lost + len([record for record in records if record.seq <= last.seq]) <= last.seq - first.seq


def _is_last(host: LoggedHost, readings: list[Reading]) -> bool:
    records = host.records(readings[-100:])
    return bool(records) and " DPT=3 " in records[-1].text


def test_without_the_capability_the_error_says_which(host: LoggedHost) -> None:
    """Where kernel.dmesg_restrict is 1, the error of a process without CAP_SYSLOG names the capability."""
    assert host.prefix
    if Path("/proc/sys/kernel/dmesg_restrict").read_text(encoding="ascii").strip() != "1":
        pytest.skip("kernel.dmesg_restrict is 0: anyone may read the kernel log here")
    program = (
        "from fwguardd.kernel.kmsg import KernelLog, KernelLogNotPermittedError\n"
        "try:\n    KernelLog()\nexcept KernelLogNotPermittedError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], user=65534, env=environment, check=True, capture_output=True, text=True
    )
    assert "CAP_SYSLOG" in done.stdout
    assert "dmesg_restrict" in done.stdout
