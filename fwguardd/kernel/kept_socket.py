"""A socket of each thread for short questions to nf_tables, which stays open.

To close a socket of netfilter waits until the kernel has freed what the last commit has removed (nft_rcv_nl_event() in
net/netfilter/nf_tables_api.c): 5 to 10 ms, which a question right after a commit would wait in vain.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    _Place = tuple[int, ...]

_NAMESPACE = Path("/proc/thread-self/ns/net")


class _Kept:
    """A socket, and the process and the network namespace that it was opened in; closed with its last user."""

    def __init__(self, place: _Place, opened: socket.socket) -> None:
        self.place, self.socket = place, opened

    def __del__(self) -> None:
        self.socket.close()


class _OfThread(threading.local):
    kept: _Kept | None = None


_OF_THREAD = _OfThread()


@contextlib.contextmanager
def kept_socket(opened: Callable[[], socket.socket]) -> Iterator[socket.socket]:
    """The socket of this thread, in the network namespace that the thread is in now; ``opened`` makes one. After an
    error it is not used again, as an answer may still be in it. Raises what ``opened`` raises."""
    place, kept, _OF_THREAD.kept = _place(), _OF_THREAD.kept, None
    if kept is None or not place or kept.place != place:
        kept = _Kept(place, opened())
    yield kept.socket
    _OF_THREAD.kept = kept


def _place() -> _Place:
    """The process and the network namespace; nothing where they cannot be told."""
    try:
        namespace = _NAMESPACE.stat()
    except OSError:
        return ()
    return os.getpid(), namespace.st_dev, namespace.st_ino
