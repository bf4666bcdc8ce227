"""The kernel log that somebody else opened: it reads like one's own, and where there is none, that is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel import kmsg, kmsg_fd
from fwguardd.kernel.kmsg import KernelLog, KernelLogMissingError, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel_log

ROOT = Path(__file__).resolve().parents[2]
LENDER = [sys.executable, "-B", "-m", "fwguardd.kernel.kmsg_fd"]


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host where the daemon finds no kernel log at the usual place; the path of the socket that may lend one."""
    monkeypatch.setattr(kmsg, "DEVICE", str(tmp_path / "no-kmsg"))
    monkeypatch.setattr(kmsg_fd, "LOAN_SOCKET", tmp_path / "loan")
    return tmp_path / "loan"


@pytest.fixture
def reader(closed: Path) -> Iterator[socket.socket]:
    """The socket, with nobody who answers yet."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(closed))
        made.listen()
        yield made


def lend(reader: socket.socket) -> Thread:
    """Start a lender on the next connection, as systemd would."""

    def serve() -> None:
        connection, _ = reader.accept()
        with connection:
            subprocess.run(LENDER, cwd=ROOT, stdin=connection.fileno(), check=True)

    serving = Thread(target=serve)
    serving.start()
    return serving


def test_a_lent_log_reads_like_ones_own(reader: socket.socket) -> None:
    """A log that the lender opened gives the records that one's own gives, and reading it never waits."""
    serving = lend(reader)
    with KernelLog(kmsg.DEVICE) as lent, KernelLog("/dev/kmsg") as own:
        serving.join()
        theirs = [reading for reading in lent.read_available(50) if isinstance(reading, Record)]
        ours = {reading.seq: reading for reading in own.read_available(100_000) if isinstance(reading, Record)}
        assert theirs
        # The ring may have moved on between the two.
        assert [ours[record.seq] for record in theirs if record.seq in ours] == [
            record for record in theirs if record.seq in ours
        ]
        assert not os.get_blocking(lent.fileno())


def test_without_a_lender_it_is_missing(closed: Path) -> None:
    """Where nobody lends the log, the error says that there is none, and who should have lent it."""
    assert not closed.exists()
    with pytest.raises(KernelLogMissingError, match=r"no such device here, and fwguardd-kmsg\.socket lends none"):
        KernelLog(kmsg.DEVICE)


def test_a_lender_that_hangs_up_lends_nothing(reader: socket.socket) -> None:
    """Where the lender cannot open the log either it hangs up, and that is the same as none."""

    def hang_up() -> None:
        connection, _ = reader.accept()
        connection.close()

    hanging_up = Thread(target=hang_up)
    hanging_up.start()
    with pytest.raises(KernelLogMissingError):
        KernelLog(kmsg.DEVICE)
    hanging_up.join()
