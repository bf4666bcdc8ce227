"""The names of the users of this host, from /etc/passwd alone.

getpwuid(3) may query a directory server over the network, which would hang while the firewall blocks it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

_USERS: Final = Path("/etc/passwd")
_MOST_BYTES: Final = 1 << 20


def local_user(uid: int) -> str | None:
    """The local user with this id; None if /etc/passwd has none, or cannot be read."""
    try:
        status = _USERS.stat()
        return _name_in(uid, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    except OSError:
        return None


@lru_cache(maxsize=64)
def _name_in(uid: int, _version: tuple[int, ...]) -> str | None:
    """The name in this version of the file: reading it takes longer than all files of a process. Raises OSError."""
    with _USERS.open("rb") as file:
        for line in file.read(_MOST_BYTES).split(b"\n"):
            fields = line.split(b":")
            if len(fields) > 2 and fields[2] == b"%d" % uid:
                return fields[0].decode("utf-8", "replace")
    return None
