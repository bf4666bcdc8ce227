"""Which system calls of a step are one kind: those that a fault treats alike.

Calls of the process itself are one kind if they have one name and are made at one place: the files and lines of all
frames of fwguardd on the stack of the thread that stands still in the call. So a loop over families, files or tables
makes one kind of calls, and two ways through the code to one function make two. A call that is made while signals are
blocked, where the C library makes a thread or a process, cannot be asked for its place; each is a kind of its own.

Calls of programs are one kind if the program, its options, the name of the call, and what it is made on are the same:
a file, the folder of a library, a sort of socket, memory. Numbers in them do not count.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import fwguardd

if TYPE_CHECKING:
    from tests.netns.stopped_calls import Stopped

_PACKAGE: Final = f"{Path(fwguardd.__file__).parent}/"
_FRAME: Final = re.compile(r'File "(.+)", line (\d+) in (.+)')
_NUMBER: Final = re.compile(r"\d+")

_PATHS: Final = {
    "open": 0, "stat": 0, "lstat": 0, "access": 0, "execve": 0, "rename": 0, "mkdir": 0, "rmdir": 0, "unlink": 0,
    "symlink": 0, "readlink": 0, "openat": 1, "mkdirat": 1, "newfstatat": 1, "unlinkat": 1, "renameat": 1,
    "symlinkat": 0, "readlinkat": 1, "faccessat": 1, "faccessat2": 1, "renameat2": 1, "statx": 1,
}  # fmt: skip
"""Where in the arguments of a call its path is."""

_DESCRIPTORS: Final = {
    "read", "write", "fstat", "lseek", "pread64", "dup", "dup2", "dup3", "sendto", "recvfrom", "sendmsg", "recvmsg",
    "bind", "setsockopt", "getsockopt", "flock", "fsync", "getdents64",
}  # fmt: skip
"""Calls whose first argument is a descriptor."""

_LONGEST_PATH: Final = 4096


def place_in(stack: str) -> str:
    """The place in fwguardd in a stack as `faulthandler` prints it, the innermost frame first; the whole stack where
    nothing of fwguardd is on it."""
    frames = _FRAME.findall(stack)
    ours = [f"{file.removeprefix(_PACKAGE)}:{line}" for file, line, _ in frames if file.startswith(_PACKAGE)]
    return " < ".join(ours or [function for _, _, function in frames])


def takes_signal(thread: int, number: int) -> bool:
    """Whether a thread does not block a signal, as the C library does while it makes a thread or a process."""
    fields = Path(f"/proc/{thread}/status").read_text().split()
    return not int(fields[fields.index("SigBlk:") + 1], 16) >> (number - 1) & 1


def program_of(pid: int) -> str:
    """The command line of a process, its numbers aside."""
    with contextlib.suppress(OSError):
        name, *words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return _NUMBER.sub("#", " ".join([name.rpartition("/")[2], *words]).strip())
    return ""


def object_of(stopped: Stopped) -> str:
    """What a call that is stopped is made on."""
    name, arguments = stopped.name, stopped.arguments
    if name in _PATHS:
        return _folder(_text_at(stopped.thread, arguments[_PATHS[name]]))
    if name in _DESCRIPTORS:
        return _opened(stopped.thread, arguments[0])
    if name == "mmap":
        return _opened(stopped.thread, arguments[4])
    if name == "socket":
        return " ".join(map(str, arguments[:3]))
    return ""


def _text_at(thread: int, address: int) -> str:
    """The text at an address of a thread's memory."""
    with contextlib.suppress(OSError):
        memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
        try:
            return os.pread(memory, _LONGEST_PATH, address).partition(b"\0")[0].decode(errors="replace")
        finally:
            os.close(memory)
    return ""


def _opened(thread: int, descriptor: int) -> str:
    """What a descriptor of a thread is."""
    with contextlib.suppress(OSError):
        return _folder(os.readlink(f"/proc/{thread}/fd/{descriptor & 0xFFFFFFFF}"))
    return "nothing"


def _folder(path: str) -> str:
    """The folder of a path and the end of its name; numbers aside."""
    folder, slash, name = path.rpartition("/")
    ending = ".so" if ".so" in name else name
    return _NUMBER.sub("#", f"{folder}{slash}{ending}")
