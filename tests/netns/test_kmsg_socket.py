"""The kernel log that fwguardd-kmsg.socket opens for the daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel import kmsg
from fwguardd.kernel.kmsg import KernelLog, KernelLogMissingError, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kernel_log

ROOT = Path(__file__).resolve().parents[2]
SENDER = [sys.executable, "-B", "-m", "fwguardd.kernel.kmsg"]


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host where the daemon finds no kernel log at the usual place; the path of the socket that it connects to."""
    monkeypatch.setattr(kmsg, "DEVICE", str(tmp_path / "no-kmsg"))
    monkeypatch.setattr(kmsg, "KMSG_SOCKET", tmp_path / "kmsg.sock")
    return tmp_path / "kmsg.sock"


@pytest.fixture
def listener(closed: Path) -> Iterator[socket.socket]:
    """The socket, which no program serves yet."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(closed))
        made.listen()
        yield made


def serve_one(listener: socket.socket) -> Thread:
    """Start the sender on the next connection, as systemd does."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            subprocess.run(SENDER, cwd=ROOT, stdin=connection.fileno(), check=True)

    serving = Thread(target=serve)
    serving.start()
    return serving


def test_a_received_log_has_the_same_records(listener: socket.socket) -> None:
    """A received descriptor returns the records that /dev/kmsg returns, and reading it never waits."""
    serving = serve_one(listener)
    with KernelLog(kmsg.DEVICE) as received, KernelLog("/dev/kmsg") as own:
        serving.join()
        theirs = [reading for reading in received.read_available(50) if isinstance(reading, Record)]
        ours = {reading.seq: reading for reading in own.read_available(100_000) if isinstance(reading, Record)}
        assert theirs
        # Between the two reads the kernel may have overwritten the oldest records.
        assert [ours[record.seq] for record in theirs if record.seq in ours] == [
            record for record in theirs if record.seq in ours
        ]
        assert not os.get_blocking(received.fileno())


def test_without_the_socket_the_log_is_missing(closed: Path) -> None:
    """Where systemd does not listen, the error says that there is no device, and names the socket."""
    assert not closed.exists()
    message = r"no such device, and fwguardd-kmsg\.socket has sent no descriptor"
    with pytest.raises(KernelLogMissingError, match=message):
        KernelLog(kmsg.DEVICE)


def test_a_closed_connection_counts_as_missing(listener: socket.socket) -> None:
    """A sender that cannot open the log closes the connection without a descriptor: the log is missing."""

    def hang_up() -> None:
        connection, _ = listener.accept()
        connection.close()

    hanging_up = Thread(target=hang_up)
    hanging_up.start()
    with pytest.raises(KernelLogMissingError):
        KernelLog(kmsg.DEVICE)
    hanging_up.join()
