"""The lock of legacy iptables, /run/xtables.lock, held from a look at the tables until the write that follows it.

Legacy programs take it (flock(2)) while they write, one at a time for the whole host. fwguardd takes it itself and
gives its own programs another file to lock, so that no program that respects the lock can write between its
iptables-save and its iptables-restore. nf_tables has no such lock: the kernel detects a clash and the programs start
over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_FILE = Path("/run/xtables.lock")
"""The default of iptables(8); XTABLES_LOCKFILE in the environment names another, as for iptables itself."""

_POLL = 0.02


class LockHeldError(Exception):
    """Another process held the lock for longer than the timeout. The message names the process if it can be found."""


def lock_path() -> Path:
    """The file that legacy programs lock."""
    return Path(os.environ.get("XTABLES_LOCKFILE", LOCK_FILE))


@contextlib.contextmanager
def xtables_lock(seconds: float) -> Iterator[None]:
    """Hold the lock. Raises LockHeldError after ``seconds``, and OSError where the file cannot be made."""
    path = lock_path()
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while not _try(fd):
            if time.monotonic() >= deadline:
                raise LockHeldError(f"{path} has been held by {holder(path)} for over {seconds:g} s")
            time.sleep(_POLL)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def lock_for_programs(*, is_held: bool) -> Iterator[tuple[str, dict[int, int]]]:
    """The file that a program has to lock, and the descriptors that it inherits for that. While this process holds the
    real lock (``is_held``), that is another file, in memory. Raises OSError where it cannot be made."""
    if not is_held:
        yield str(lock_path()), {}
        return
    lock = os.memfd_create("xtables.lock")
    try:
        yield "/proc/self/fd/3", {3: lock}
    finally:
        os.close(lock)


def holder(path: Path) -> str:
    """The process that holds a lock on the file, by id and name, from /proc/locks (proc(5))."""
    try:
        status = path.stat()
        table = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "an unknown process"
    return _holder_in(table, f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}")


def _holder_in(table: str, where: str) -> str:
    """The process that holds the lock of this device and inode, from the text of /proc/locks."""
    for line in table.splitlines():
        fields = line.split()
        if "->" not in fields and where in fields:
            return _process(fields[fields.index(where) - 1])
    return "an unknown process"


def _process(pid: str) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({name})"


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
