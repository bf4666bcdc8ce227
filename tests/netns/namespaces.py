"""Moving into a network namespace of one's own, and reaching the initial one from there."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSCTL = Path("/proc/sys/net/netfilter/nf_log_all_netns")
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

# The sysctl is there only for a reader in the initial namespace. This thread starts there, and stays.
OUTSIDE = ThreadPoolExecutor(1)
OUTSIDE.submit(SYSCTL.exists).result()

_libc = ctypes.CDLL(None, use_errno=True)


def _system_call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _set_up_loopback() -> None:
    """As ``ip link set lo up``, without a program for each of a thousand tests."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        flags = struct.pack("16sh22x", b"lo", IFF_UP)
        fcntl.ioctl(asking, SIOCSIFFLAGS, flags)


@contextmanager
def fresh_namespace() -> Iterator[None]:
    """The calling thread, and what it starts, in a network namespace of its own."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _system_call("unshare", CLONE_NEWNET)
        _set_up_loopback()
        yield
    finally:
        _system_call("setns", before, CLONE_NEWNET)
        os.close(before)
