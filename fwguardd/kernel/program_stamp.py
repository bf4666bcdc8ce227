"""Whether the programs of iptables are still the same: what they print, and accept, may change with an upgrade."""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import chain, product, starmap
from pathlib import Path

from fwguardd.kernel.processes import find_program, program

Stamp = tuple[tuple[int, int, int, int], ...]
"""Device, inode, size and time of change (nanoseconds) of each file; zeros for one that is missing."""

_EXTENSIONS = ("usr/lib/*/xtables", "usr/lib*/xtables", "usr/local/lib/xtables", "etc/protocols")
"""Directories of the extensions, in which a package manager replaces files; and the names of protocols."""


def program_stamp(backend: str) -> Stamp:
    """The files of iptables as they are now. Raises nothing."""
    names = starmap(program, product((backend,), (4, 6), ("restore", "save")))
    return tuple(map(_stamp_of, (*map(find_program, names), *_extension_folders())))


@lru_cache(maxsize=1)
def _extension_folders() -> tuple[str, ...]:
    return tuple(sorted(map(str, chain.from_iterable(map(Path("/").glob, _EXTENSIONS)))))


def _stamp_of(path: str) -> tuple[int, int, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - follows links: Debian's names lead to the program by two of them.
    except OSError:
        return 0, 0, 0, 0
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns
