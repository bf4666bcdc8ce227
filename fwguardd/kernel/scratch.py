"""A scratch network namespace with a rehearsal worker in it, made and thrown away for each rehearsal.

Two ways lead to one (a third, a socket-activated systemd unit, needs no privilege at all): `unshare --net` with
CAP_SYS_ADMIN, and `unshare --user --net` for an ordinary user. The second has a limit of its own: the kernel grants a
user namespace no large socket buffers, so iptables-nft-restore must commit every few rules there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.kernel.privilege import CAP_SYS_ADMIN, has_capability, in_initial_user_namespace
from fwguardd.kernel.processes import PATH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ANSWER_SECONDS = 150.0
"""The longest that a worker may take to answer: two steps of a minute each, and some room."""

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_WORKER = (
    f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); from fwguardd.kernel.worker import main; sys.exit(main())"
)


class Way(Enum):
    """How a scratch namespace is made."""

    PRIVILEGED = "a network namespace"
    USER_NAMESPACE = "a network namespace inside a user namespace"


class ScratchError(Exception):
    """No scratch namespace could be made, or its worker did not answer. Nothing was rehearsed, nothing was changed."""


def way_here() -> Way:
    """The way that this process's privileges allow. Root of a user namespace has its limits too."""
    return Way.PRIVILEGED if has_capability(CAP_SYS_ADMIN) and in_initial_user_namespace() else Way.USER_NAMESPACE


class Scratch:
    """One worker in one fresh namespace. Starting it does not wait: a spare one is ready when it is needed."""

    def __init__(self, way: Way) -> None:
        """Start the worker. Raises ScratchError where `unshare` cannot be run."""
        self.way = way
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_SECONDS)
        options = ["--net"] if way is Way.PRIVILEGED else ["--user", "--map-root-user", "--net"]
        argv = ["unshare", *options, "--", sys.executable, "-I", "-S", "-B", "-c", _WORKER]
        environment = {"PATH": PATH, "LC_ALL": "C", "FWGUARDD_NOT_IN": os.readlink("/proc/self/ns/net")}
        with theirs:
            try:
                self._pid = os.posix_spawnp(
                    argv[0],
                    argv,
                    environment,
                    file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
                    setsigdef=[signal.SIGPIPE],
                    setpgroup=0,  # A terminal's Ctrl-C is for the daemon, not for what it is in the middle of.
                )
            except OSError as error:
                ours.close()
                raise ScratchError(f"unshare cannot be run: {error.strerror}") from error
        self._socket = ours
        self._stream = ours.makefile("rwb")

    def send(self, backend: str, family: int, steps: Sequence[dict[str, Any]]) -> None:
        """Begin steps in the namespace (`fwguardd.kernel.worker` tells their form). Raises ScratchError."""
        request = {"backend": backend, "family": family, "steps": list(steps)}
        try:
            self._stream.write(json.dumps(request).encode() + b"\n")
            self._stream.flush()
        except OSError as error:
            raise ScratchError(f"the rehearsal worker is gone ({error.strerror})") from error

    def receive(self) -> list[dict[str, Any]]:
        """Wait for the results of the steps that were sent. Raises ScratchError."""
        try:
            line = self._stream.readline()
        except TimeoutError as error:
            raise ScratchError(f"the rehearsal did not answer within {ANSWER_SECONDS:g} s") from error
        except OSError as error:
            raise ScratchError(f"the rehearsal worker is gone ({error.strerror})") from error
        if not line:
            raise ScratchError(f"{self.way.value} could not be made, or the rehearsal worker in it ended early")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ScratchError(answer["error"])
        results: list[dict[str, Any]] = answer["results"]
        return results

    def is_alive(self) -> bool:
        """Whether the worker still runs."""
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def close(self) -> None:
        """End the worker, and with it the namespace."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


class ScratchPool:
    """Scratch namespaces, some always ready: a rehearsal waits neither for the start of a worker nor for its end."""

    def __init__(self, way: Way, spares: int = 2) -> None:
        self.way = way
        self._wanted = spares
        self._ready: list[Scratch] = []
        self._used: list[Scratch] = []

    def tend(self) -> None:
        """Throw away what was used, and have spare ones ready; for a time when nobody waits. Raises ScratchError."""
        self._close(self._used)
        while len(self._ready) < self._wanted:
            self._ready.append(Scratch(self.way))

    @contextlib.contextmanager
    def lend(self) -> Iterator[Scratch]:
        """A fresh one. Raises ScratchError."""
        scratch = self._ready.pop() if self._ready else Scratch(self.way)
        if not scratch.is_alive():
            self._used.append(scratch)
            scratch = Scratch(self.way)
        try:
            yield scratch
        finally:
            self._used.append(scratch)

    def close(self) -> None:
        """End them all."""
        self._close(self._used)
        self._close(self._ready)

    def _close(self, scratches: list[Scratch]) -> None:
        while scratches:
            scratches.pop().close()
