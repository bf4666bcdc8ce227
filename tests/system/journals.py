"""Real journals, made by systemd-journal-remote from entries that a test thinks up."""

from __future__ import annotations

import struct
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final, Self

from fwguardd.sinks.journal import encode_entry
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

PROGRAM: Final = "/usr/lib/systemd/systemd-journal-remote"
MACHINE: Final = "0123456789abcdef0123456789abcdef"
BOOT: Final = "c0ffee00-0000-4000-8000-000000000001"
"""A boot of this machine's; not the present one, so that no entry of the host's can be among them."""

_TRUSTED: Final = b"_HOSTNAME=gate\n_UID=%d\n_BOOT_ID=%032x\n_MACHINE_ID=%032x\n"
_LOST_ID: Final = "e9bf28e6e834481bb6f48f548ad13606"


class GrowingJournal:
    """A directory with one journal file, to which entries are appended while others read it.

    Of several boots in a directory, journalctl follows the latest: an earlier one has to have an ``age`` in seconds.
    """

    def __init__(self, directory: Path, name: str = "system", boot: str = BOOT, age: int = 0) -> None:
        self.directory = directory
        self._boot = boot.replace("-", "")
        self._now = time.time_ns() // 1000 - age * 1_000_000
        self._writer = subprocess.Popen(
            [PROGRAM, f"--output={directory / name}.journal", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kernel(self, *messages: bytes | str, facility: str | None = "0") -> None:
        """Append messages of the kernel log, as journald writes them."""
        for message in messages:
            fields = {"_TRANSPORT": "kernel", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "kernel"}
            self.entry(message, **fields if facility is None else {**fields, "SYSLOG_FACILITY": facility})

    def missed(self, count: int) -> None:
        """Append what journald says when the kernel log ran over."""
        self.entry(f"Missed {count} kernel messages", _TRANSPORT="driver", MESSAGE_ID=_LOST_ID)

    def entry(self, message: bytes | str, **fields: str) -> None:
        """Append an entry (systemd's "Journal Export Format"); the message as bytes, which may be any."""
        self._now += 1
        said = message.encode() if isinstance(message, str) else message
        head = {
            "__REALTIME_TIMESTAMP": self._now,
            "__MONOTONIC_TIMESTAMP": self._now - 1_700_000_000_000_000,
            "_BOOT_ID": self._boot,
            "_MACHINE_ID": MACHINE,
            **fields,
        }
        text = "".join(f"{key}={value}\n" for key, value in head.items())
        assert self._writer.stdin is not None
        framed = b"MESSAGE\n" + struct.pack("<Q", len(said)) + said + b"\n\n"
        self._writer.stdin.write(text.encode() + framed)
        self._writer.stdin.flush()

    def wait(self, seconds: float = LONGEST) -> None:
        """Until there is an entry: in a directory without any, journalctl knows no boot to follow, and ends."""
        command = ["journalctl", f"--directory={self.directory}", "--quiet", "--lines=1", "--output=cat"]
        deadline = time.monotonic() + seconds
        while not subprocess.run(command, check=False, capture_output=True).stdout:
            assert time.monotonic() < deadline, f"no entry within {seconds} s"
            time.sleep(0.002)

    def close(self) -> None:
        """Finish the file."""
        assert self._writer.stdin is not None
        self._writer.stdin.close()
        self._writer.wait(timeout=LONGEST)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def exported(fields: Mapping[str, Any], realtime: int, *, uid: int = 0, unit: str = "") -> bytes:
    """One event in journald's export format: the entry that fwguardd sends, and what journald itself adds to it."""
    head = b"__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n" % (realtime, realtime % 10**12)
    own = _TRUSTED % (uid, 7, 9) + (b"_SYSTEMD_UNIT=%s\n" % unit.encode() if unit else b"")
    return head + own + encode_entry(fields) + b"\n"


def write_journal(directory: Path, entries: Iterable[bytes]) -> Path:
    """A journal directory that holds the entries."""
    directory.mkdir()
    command = [PROGRAM, "-o", str(directory / "remote.journal"), "-"]
    subprocess.run(command, input=b"".join(entries), capture_output=True, check=True, timeout=LONGEST)
    return directory
