"""How fast denials go from /dev/kmsg to the journal's socket: real packets, real LOG lines, and the sum is exact.

The kernel's log holds some eight hundred such lines, so they come in bursts of less, and only the reading and emitting
is timed, in time of the processor.
"""

from __future__ import annotations

import resource
import secrets
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.denials.aggregation import AggregationLimits
from fwguardd.denials.model import Meaning, Watched
from fwguardd.denials.pipeline import Pipeline
from fwguardd.kernel.kmsg import KernelLog, Record, Start
from fwguardd.sinks.journal import JournalSink, JournalSocket
from tests.bench.conftest import MEASURING
from tests.bench.sizes.peers import unpacked
from tests.bench.sizes.place import Place, PlaceError
from tests.netns.frames import (
    ETH_IPV4,
    HOST_MAC,
    Device,
    LogFromEveryNamespace,
    ethernet,
    ipv4,
    own_network_namespace,
    tcp,
)
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.conftest import Recorder

    Rounds = Callable[[int], int]

pytestmark = pytest.mark.kernel_log

LINES: Final = 500
BURSTS: Final = 4
OLD_LINES: Final = 20_000

JOURNALD = """
import socket, sys
listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listening.bind(sys.argv[1])
print("ready", flush=True)
entries = lines = 0
while (entry := listening.recv(1 << 20)) != b"end":
    fields = dict(field.split(b"=", 1) for field in entry.split(b"\\n")[:-1])
    if fields[b"FWGUARD_EVENT"].startswith(b"denied"):
        entries += 1
        lines += int(fields.get(b"FWGUARD_COUNT", 1))
print(entries, lines)
"""
"""Stands in for journald: counts the entries, and the lines that they stand for."""


class Bench:
    """A host whose denied packets are reported to a stand-in for journald."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.prefix = f"{secrets.token_hex(4)} denied: "
        path = str(folder / "socket")
        argv = [sys.executable, "-I", "-S", "-c", JOURNALD, path]
        self._journald = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        stack.callback(self._journald.kill)
        assert self._journald.stdout is not None
        assert self._journald.stdout.readline() == "ready\n"
        self._socket = JournalSocket(path)
        stack.callback(self._socket.close)
        self.log = JournalSink(self._socket)
        self._logging = stack.enter_context(LogFromEveryNamespace())
        stack.enter_context(own_network_namespace())
        self._device = Device(b"eth0")
        stack.callback(self._device.close)
        address = HOST_MAC.hex(":")
        subprocess.run(["ip", "link", "set", "eth0", "address", address, "addrgenmode", "none", "up"], check=True)
        rule = ["iptables-nft", "-t", "raw", "-A", "PREROUTING", "-j"]
        subprocess.run([*rule, "LOG", "--log-prefix", self.prefix, "--log-level", "7"], check=True)
        subprocess.run([*rule, "DROP"], check=True)
        self._kmsg = stack.enter_context(KernelLog(start=Start.END))

    def tail(self, limits: AggregationLimits) -> Pipeline:
        """A tail that reads what this host denies."""
        watched = [Watched("bench", self.prefix, Meaning.DENIED), Watched("other", "[Output Log] ", Meaning.LOGGED)]
        return Pipeline(self._kmsg, watched, limits, self.log.emit)

    def send(self) -> None:
        """Let the host deny some packets, from many sources to many ports."""
        self._logging.set()
        for number in range(LINES):
            packet = ipv4(tcp(spt=1024 + number, dpt=number), 6, src=f"203.0.113.{number % 250}")
            self._device.send(ethernet(packet, ETH_IPV4))

    def received(self) -> tuple[int, int]:
        """What the stand-in for journald has got: entries, and lines that they stand for."""
        while self.log.flush():
            time.sleep(0.01)
        self._socket.send(b"end")
        while self.log.flush():
            time.sleep(0.01)
        answer, _ = self._journald.communicate(timeout=LONGEST)
        entries, lines = answer.split()
        return int(entries), int(lines)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench that is put away after the test."""
    with ExitStack() as stack:
        yield Bench(stack, tmp_path)


def _used(work: Callable[[], None]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _lines(tail: Pipeline) -> int:
    return int(tail.counts()["lines"] or 0)


def _read_all(tail: Pipeline) -> None:
    position = None
    while position != (position := tail.counts()["position"]):
        tail.read()


@pytest.mark.parametrize(
    "limits",
    [AggregationLimits(window=0), AggregationLimits(window=60)],
    ids=["every line an event", "summaries"],
)
def test_denials_reach_the_journal(
    request: pytest.FixtureRequest, bench: Bench, limits: AggregationLimits, record: Recorder, rounds: Rounds
) -> None:
    """Lines for each second of the processor. What the journal got stands for every line that was read, and those are
    all that the rule made."""
    tail, speeds, count = bench.tail(limits), [], rounds(15)
    for _ in range(count):
        used, before = 0.0, _lines(tail)
        for _ in range(BURSTS):
            bench.send()
            used += _used(lambda: _read_all(tail))
        speeds.append((_lines(tail) - before) / used)
    tail.finish()
    counts = tail.counts()
    _, lines = bench.received()
    assert lines == counts["lines"]
    sent = count * BURSTS * LINES
    assert sent - int(counts["lost"] or 0) <= lines <= sent
    record(f"kernel log to journal, {request.node.callspec.id}", "lines/s", speeds)


class OldLog:
    """A source of the kernel lines in a syslog file."""

    name = "file"
    group = None
    position = None

    def __init__(self, path: Path) -> None:
        self._lines = path.open(encoding="ascii")

    def fileno(self) -> int:
        """The file's."""
        return self._lines.fileno()

    def read_available(self, limit: int) -> list[Record]:
        """The next lines, without the head that syslog put before them."""
        texts = (line.rstrip("\n").partition("] ")[2] for line in islice(self._lines, limit))
        return [Record(0, 4, 0, 0, text) for text in texts]

    def watch(self, watched: object) -> None:
        """All lines are handed out."""

    def close(self) -> None:
        """Give the file back."""
        self._lines.close()


def fail2ban_seconds(path: Path, lines: int) -> float:
    """What fail2ban takes to find the sources of a file's lines; all of which it must find."""
    argv = ["fail2ban-regex", "-o", "row", str(path), "iptables denied: .* SRC=<HOST> DST="]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(argv, check=False, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.count("'ip4'") == lines
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# What the scripts of the packages would do.
_PSAD_SETUP: Final = "ln -sf bsd-mailx /usr/bin/mail && mkdir -p /var/lib/psad /var/log/psad && : >/var/log/psad/fwdata"


@contextmanager
def _psad_place(record: Recorder) -> Iterator[Place | None]:
    """A place with the packages of psad, unpacked and not installed; None where they cannot be had, which the table
    says, or nothing is to be measured: packaging/test downloads nothing."""
    if not MEASURING:
        yield None
        return
    with ExitStack() as stack:
        place: Place | None = None
        try:
            folder = stack.enter_context(TemporaryDirectory(dir="/dev/shm", prefix="fwguardd-bench-"))
            place = Place(Path(folder), unpacked("psad"))
            stack.callback(place.close)
            place.run("sh", "-c", _PSAD_SETUP)
        except PlaceError as error:
            record(f"old log, psad is not measured: {error}", "lines/s", [0.0])
        yield place


def psad_seconds(place: Place, path: Path, lines: int) -> float:
    """What psad takes to read a file's lines, all of which it must find, and to look for attacks in them."""
    argv = [*place.enter, "psad", "-A", "-m", str(path), "--no-whois", "--no-rdns"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"Found {lines} iptables log messages" in found
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_against_fail2ban_and_psad(tmp_path: Path, record: Recorder, rounds: Rounds) -> None:
    """The same lines of an old log: reading, checking and counting whole packets, beside fail2ban's search for their
    sources, and psad's for attacks, without the starts of their programs."""
    path, empty = tmp_path / "kern.log", tmp_path / "empty.log"
    link = "IN=eth0 OUT= MAC=52:54:00:12:34:56:52:54:00:12:34:57:08:00"
    head = f"Nov 22 21:14:25 host kernel: [12345.678901] iptables denied: {link} SRC=203.0.113"
    ip = "DST=10.0.0.1 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=7 DF PROTO=TCP"
    with path.open("w", encoding="ascii") as file:
        for number in range(OLD_LINES):
            ports = f"SPT={1024 + number} DPT={number % 1000}"
            file.write(f"{head}.{number % 250} {ip} {ports} WINDOW=64240 RES=0x00 SYN URGP=0 \n")
    empty.write_text("")
    theirs, psads, ours = list[float](), list[float](), list[float]()
    with _psad_place(record) as place:
        for _ in range(rounds(3)):
            theirs.append(fail2ban_seconds(path, OLD_LINES) - fail2ban_seconds(empty, 0))
            if place is not None:
                psads.append(psad_seconds(place, path, OLD_LINES) - psad_seconds(place, empty, 0))
            ours += [_own_seconds(path) for _ in range(rounds(3))]
    record("old log, fwguardd", "lines/s", (OLD_LINES / seconds for seconds in ours))
    record("old log, fail2ban-regex", "lines/s", (OLD_LINES / seconds for seconds in theirs))
    if psads:
        record("old log, psad", "lines/s", (OLD_LINES / seconds for seconds in psads))


def _own_seconds(path: Path) -> float:
    messages: list[str] = []
    source = OldLog(path)
    watched = [Watched("denied", "iptables denied: ", Meaning.DENIED)]
    tail = Pipeline(
        source, watched, AggregationLimits(), lambda kind, message, /, **_: messages.append(f"{kind.name}: {message}")
    )
    used = _used(lambda: _read_whole(tail))
    source.close()
    assert tail.counts()["denied"] == OLD_LINES
    return used


def _read_whole(tail: Pipeline) -> None:
    while _lines(tail) < OLD_LINES:
        tail.read()
    tail.finish()
