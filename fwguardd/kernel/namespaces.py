"""A scratch network namespace with a rehearsal worker in it, made and thrown away for each rehearsal.

Three ways lead to one: `unshare --net` with CAP_SYS_ADMIN; fwguardd-rehearsal.socket, where systemd starts a worker for
each connection in a namespace of its own (systemd.exec(5), PrivateNetwork=), so that the daemon needs no privilege to
make any; and `unshare --user --net` for an ordinary user. The last has a limit of its own: the kernel grants a user
namespace no large socket buffers, so iptables-nft-restore must commit every few rules there.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.kernel.privilege import CAP_SYS_ADMIN, has_capability, in_initial_user_namespace
from fwguardd.kernel.processes import PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

REHEARSAL_SOCKET = Path("/run/fwguard/rehearsal.sock")
"""Where fwguardd-rehearsal.socket listens. Only root may connect."""

ANSWER_SECONDS = 150.0
"""The longest that a worker may take to answer: two steps of a minute each, and some room."""

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_WORKER = (
    f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); from fwguardd.kernel.worker import main; sys.exit(main())"
)


class NamespaceMethod(Enum):
    """How a scratch namespace is made."""

    PRIVILEGED = "a network namespace"
    SERVICE = "a network namespace lent by fwguardd-rehearsal.socket"
    USER_NAMESPACE = "a network namespace inside a user namespace"

    @property
    def remedy(self) -> str:
        """Where to look when it does not work."""
        return _REMEDIES[self]


_REMEDIES = {
    NamespaceMethod.PRIVILEGED: "see the kernel's log",
    NamespaceMethod.SERVICE: "see: journalctl -u 'fwguardd-rehearsal@*'",
    NamespaceMethod.USER_NAMESPACE: "if user namespaces are forbidden here: systemctl start fwguardd-rehearsal.socket",
}


class NamespaceError(Exception):
    """No scratch namespace could be made, or its worker did not answer. Nothing was rehearsed, nothing was changed."""


def namespace_method() -> NamespaceMethod:
    """The way that this process's privileges allow. Root of a user namespace has its limits too."""
    if has_capability(CAP_SYS_ADMIN) and in_initial_user_namespace():
        return NamespaceMethod.PRIVILEGED
    return NamespaceMethod.SERVICE if os.access(REHEARSAL_SOCKET, os.R_OK | os.W_OK) else NamespaceMethod.USER_NAMESPACE


class ScratchNamespace:
    """One worker in one fresh namespace. Starting it does not wait: a spare one is ready when it is needed."""

    def __init__(self, way: NamespaceMethod) -> None:
        """Start the worker. Raises ScratchError where `unshare` cannot be run, or nobody lends a namespace."""
        self.way = way
        self._pid: int | None = None
        if way is NamespaceMethod.SERVICE:
            self._socket = _connected()
        else:
            self._socket, self._pid = _started(way)
        self._socket.settimeout(ANSWER_SECONDS)
        self._stream = self._socket.makefile("rwb")

    def send(
        self, backend: str, family: int, steps: Sequence[dict[str, Any]], sets: Mapping[str, int] | None = None
    ) -> None:
        """Begin steps in the namespace (`fwguardd.kernel.worker` tells their form), once it has twins of these ipsets.

        Raises ScratchError.
        """
        request = {"backend": backend, "family": family, "steps": list(steps), "sets": dict(sets or {})}
        try:
            self._stream.write(json.dumps(request).encode() + b"\n")
            self._stream.flush()
        except OSError as error:
            raise NamespaceError(f"the rehearsal worker is gone ({error.strerror})") from error

    def receive(self) -> list[dict[str, Any]]:
        """Wait for the results of the steps that were sent. Raises ScratchError."""
        try:
            line = self._stream.readline()
        except TimeoutError as error:
            raise NamespaceError(f"the rehearsal did not answer within {ANSWER_SECONDS:g} s") from error
        except OSError as error:
            raise NamespaceError(f"the rehearsal worker is gone ({error.strerror})") from error
        if not line:
            what = f"{self.way.value} could not be made, or the rehearsal worker in it ended early"
            raise NamespaceError(f"{what}; {self.way.remedy}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NamespaceError(answer["error"])
        results: list[dict[str, Any]] = answer["results"]
        return results

    def is_alive(self) -> bool:
        """Whether the worker still holds its end of the connection, for one that nothing was sent to yet."""
        end = select.poll()
        end.register(self._socket, select.POLLIN)
        return not end.poll(0)

    def close(self) -> None:
        """End the worker, and with it the namespace. One that systemd started ends by itself when it is hung up on."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _connected() -> socket.socket:
    """A connection that systemd starts a worker on. It does not wait for the worker."""
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ours.settimeout(ANSWER_SECONDS)
        ours.connect(str(REHEARSAL_SOCKET))
    except OSError as error:
        ours.close()
        message = f"{REHEARSAL_SOCKET} does not answer: {error.strerror or error}"
        raise NamespaceError(f"{message}; see: systemctl status fwguardd-rehearsal.socket") from error
    return ours


def _started(way: NamespaceMethod) -> tuple[socket.socket, int]:
    """The connection to a worker that is a child of this process, and its process id."""
    ours, theirs = socket.socketpair()
    options = ["--net"] if way is NamespaceMethod.PRIVILEGED else ["--user", "--map-root-user", "--net"]
    argv = ["unshare", *options, "--", sys.executable, "-I", "-S", "-B", "-c", _WORKER]
    with theirs:
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                {"PATH": PATH, "LC_ALL": "C"},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
                setsigdef=[signal.SIGPIPE],
                setpgroup=0,  # A terminal's Ctrl-C is for the daemon, not for what it is in the middle of.
            )
        except OSError as error:
            ours.close()
            raise NamespaceError(f"unshare cannot be run: {error.strerror}") from error
    return ours, pid


class NamespacePool:
    """Scratch namespaces, some always ready: a rehearsal waits neither for the start of a worker nor for its end.

    ``choose`` tells the way, each time that one is made: what lends namespaces may come and go.
    """

    def __init__(self, choose: Callable[[], NamespaceMethod] = namespace_method, spares: int = 2) -> None:
        self._choose = choose
        self._wanted = spares
        self._ready: list[ScratchNamespace] = []
        self._used: list[ScratchNamespace] = []

    def tend(self) -> None:
        """Throw away what was used, and have spare ones ready; for a time when nobody waits. Raises ScratchError."""
        self._close(self._used)
        while len(self._ready) < self._wanted:
            self._ready.append(ScratchNamespace(self._choose()))

    @contextlib.contextmanager
    def lend(self) -> Iterator[ScratchNamespace]:
        """A fresh one. Raises ScratchError."""
        scratch = self._ready.pop() if self._ready else ScratchNamespace(self._choose())
        if not scratch.is_alive():
            self._used.append(scratch)
            scratch = ScratchNamespace(self._choose())
        try:
            yield scratch
        finally:
            self._used.append(scratch)

    def close(self) -> None:
        """End them all."""
        self._close(self._used)
        self._close(self._ready)

    def _close(self, scratches: list[ScratchNamespace]) -> None:
        while scratches:
            scratches.pop().close()
