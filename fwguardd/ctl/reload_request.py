"""The request for a reload, with the ssh session that it is made in: the lockout guard must not close that one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import RequestRefusedError, ask
from fwguardd.control.protocol import Code

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.control.protocol import Value

MOST_ANCESTORS = 20
"""Processes above this one whose environments are read."""


def ask_for_reload(socket_path: Path, arguments: Mapping[str, Value]) -> Mapping[str, Any]:
    """The result of a reload. Raises what `fwguardd.control.client.ask` raises."""
    connection = own_connection()
    if connection:
        try:
            return ask(socket_path, "reload", {**arguments, "ssh_connection": connection})
        except RequestRefusedError as error:
            # A daemon of an earlier version, while an upgrade is under way, does not know the argument.
            if error.code is not Code.BAD_REQUEST or "ssh_connection" not in error.message:
                raise
    return ask(socket_path, "reload", arguments)


def own_connection() -> str:
    """SSH_CONNECTION (ssh(1)) of this process, or of the nearest process above it that has it: sudo removes it from the
    environment of its command. "" outside of ssh, and where it cannot be read."""
    own = os.environ.get("SSH_CONNECTION", "")
    pid = os.getppid()
    for _ in range(MOST_ANCESTORS):
        if own or pid <= 1:
            break
        own = _variable(Path(f"/proc/{pid}/environ"), b"SSH_CONNECTION")
        pid = _parent(pid)
    return own


def _variable(path: Path, name: bytes) -> str:
    """The value of a variable in the environment of a process (proc(5), environ); "" without one."""
    with contextlib.suppress(OSError):
        for entry in path.read_bytes().split(b"\0"):
            key, _, value = entry.partition(b"=")
            if key == name:
                return value.decode("ascii", "replace")
    return ""


def _parent(pid: int) -> int:
    """The process above another one (proc(5), stat); 0 where that cannot be read."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    return 0
