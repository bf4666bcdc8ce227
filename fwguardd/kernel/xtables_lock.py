"""The lock of legacy iptables, /run/xtables.lock, held over a look and a write so that they are one step for everybody.

Legacy programs take it (flock(2)) while they write, one at a time for the whole host. fwguardd takes it itself and
gives its own programs another file to lock, so that between its iptables-save and its iptables-restore nobody who
respects the lock can write. nf_tables has no such lock: its kernel side notices a clash and the programs start over.
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
    """Somebody else holds the lock for longer than is waited for. The message names the holder where it can be seen."""


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
                raise LockHeldError(f"{path} is held by {holder(path)} for over {seconds:g} s")
            time.sleep(_POLL)
        yield
    finally:
        os.close(fd)


def holder(path: Path) -> str:
    """Who holds a lock on the file, from /proc/locks (proc(5)): process id and name, or "somebody"."""
    try:
        status = path.stat()
        table = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "somebody"
    where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in table.splitlines():
        fields = line.split()
        if "->" not in fields and where in fields:
            return _process(fields[fields.index(where) - 1])
    return "somebody"


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
