"""A temporary network namespace with a rehearsal worker in it, for each rehearsal a new one.

There are three methods to make one: `unshare --net` with CAP_SYS_ADMIN; fwguardd-rehearsal.socket, where systemd starts
a worker in a namespace of its own for each connection (systemd.exec(5), PrivateNetwork=), so that the daemon needs no
privilege; and `unshare --user --net` for an ordinary user. The last one has a limit: the kernel grants a user namespace
no large socket buffers, so iptables-nft-restore must commit every few rules there.
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

from fwguardd.errors import ReportedError
from fwguardd.kernel.privilege import CAP_SYS_ADMIN, has_capability, in_initial_user_namespace
from fwguardd.kernel.processes import PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fwguardd.kernel.named_objects import NamedObject

REHEARSAL_SOCKET = Path("/run/fwguard/rehearsal.sock")
"""Where fwguardd-rehearsal.socket listens. Only root may connect."""

ANSWER_SECONDS = 150.0
"""The longest that a worker may take to answer: two steps of a minute each, and some room."""

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_IN_WORKER = "from fwguardd.kernel.rehearsal_worker import main; sys.exit(main())"
_WORKER = f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); {_IN_WORKER}"


PREPARE_BED = {"prepare": "bed"}
"""A request that a worker does not answer: a bed will be asked for."""


class NamespaceMethod(Enum):
    """How a temporary namespace is made."""

    PRIVILEGED = "a network namespace"
    SERVICE = "a network namespace of fwguardd-rehearsal.socket"
    USER_NAMESPACE = "a network namespace inside a user namespace"

    @property
    def advice(self) -> str:
        """What to do when this method fails."""
        return _ADVICE[self]


_ADVICE = {
    NamespaceMethod.PRIVILEGED: "see the kernel log: journalctl -k",
    NamespaceMethod.SERVICE: "see: journalctl -u 'fwguardd-rehearsal@*'",
    NamespaceMethod.USER_NAMESPACE: (
        "if this host forbids user namespaces, run the command as root, or as root: "
        "systemctl start fwguardd-rehearsal.socket"
    ),
}


class NamespaceError(ReportedError):
    """No temporary namespace could be made, or its worker did not answer. Nothing was rehearsed or changed."""


def namespace_method() -> NamespaceMethod:
    """The method that this process's privileges allow.

    Root of a user namespace has no large socket buffers either, so only the machine's own root counts as privileged.
    """
    if has_capability(CAP_SYS_ADMIN) and in_initial_user_namespace():
        return NamespaceMethod.PRIVILEGED
    if os.access(REHEARSAL_SOCKET, os.R_OK | os.W_OK):
        return NamespaceMethod.SERVICE
    return NamespaceMethod.USER_NAMESPACE


class ScratchNamespace:
    """One worker in one new namespace. Starting it does not wait, so a spare one is ready when it is needed."""

    def __init__(self, method: NamespaceMethod) -> None:
        """Start the worker. Raises NamespaceError where `unshare` or the connection to systemd's socket fails."""
        self.method = method
        self._pid: int | None = None
        self._errors: int | None = None
        """The descriptor of what `unshare` or the worker print before they end."""
        if method is NamespaceMethod.SERVICE:
            self._socket = _connect()
        else:
            self._socket, self._pid, self._errors = _start(method)
        self._socket.settimeout(ANSWER_SECONDS)
        self._stream = self._socket.makefile("rwb")

    def send(
        self,
        backend: str,
        family: int,
        steps: Sequence[dict[str, Any]],
        sets: Mapping[str, int] | None = None,
        objects: Sequence[NamedObject] = (),
    ) -> None:
        """Begin steps in the namespace (`fwguardd.kernel.rehearsal_worker` describes them), after making empty ipsets.

        ``sets`` are their names and families; ``objects`` are made too. Raises NamespaceError.
        """
        request = {"backend": backend, "family": family, "steps": list(steps), "sets": dict(sets or {})}
        if objects:
            request["objects"] = list(objects)
        self.request(request)

    def request(self, request: Mapping[str, Any]) -> None:
        """Send a request, which `fwguardd.kernel.rehearsal_worker` describes. Raises NamespaceError."""
        try:
            self._stream.write(json.dumps(request).encode() + b"\n")
            self._stream.flush()
        except OSError as error:
            raise self._ended(error.strerror) from error

    def receive(self) -> list[dict[str, Any]]:
        """Wait for the results of the steps that were sent. Raises NamespaceError."""
        results: list[dict[str, Any]] = self.answer()["results"]
        return results

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to a request. Raises NamespaceError, also for an answer that is an error."""
        line = self._read_line()
        if not line.endswith(b"\n"):  # It ended, or was given up, while it answered.
            raise self._ended("it closed the connection")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NamespaceError(answer["error"])
        return answer

    def _read_line(self) -> bytes:
        try:
            return self._stream.readline()
        except TimeoutError as error:
            message = f"the rehearsal worker did not answer within {ANSWER_SECONDS:g} s, so nothing was rehearsed"
            raise NamespaceError(f"{message}; {self.method.advice}") from error
        except OSError as error:
            raise self._ended(error.strerror) from error

    def give_up(self) -> None:
        """Let whoever waits for an answer have a NamespaceError at once. From any thread."""
        with contextlib.suppress(OSError):  # The worker has gone by itself.
            self._socket.shutdown(socket.SHUT_RDWR)

    def is_alive(self) -> bool:
        """Whether the worker still has its end of the connection open. Only before anything was sent to it."""
        end = select.poll()
        end.register(self._socket, select.POLLIN)
        return not end.poll(0)

    def close(self) -> None:
        """End the worker, and with it the namespace. One that systemd started ends when the connection is closed."""
        if self._errors is not None:
            os.close(self._errors)
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _ended(self, reason: object) -> NamespaceError:
        printed = self._last_line()
        what = f"{self.method.value} could not be made, or the rehearsal worker in it has ended ({reason})"
        if printed.startswith("unshare:"):
            what = f"{self.method.value} could not be made ({printed}{_limit()})"
        elif printed:
            what = f"the rehearsal worker has ended ({printed})"
        return NamespaceError(f"{what}, so nothing was rehearsed; {self.method.advice}")

    def _last_line(self) -> str:
        """The last line that `unshare` or the worker have printed."""
        if self._errors is None:
            return ""
        lines = os.pread(self._errors, 1 << 16, 0).decode("utf-8", "replace").splitlines()
        return "".join(lines[-1:])


_LIMITS = ("max_user_namespaces", "max_net_namespaces")


def _limit() -> str:
    """The setting that forbids every namespace (namespaces(7)), as part of a sentence."""
    for name in _LIMITS:
        with contextlib.suppress(OSError):
            if Path("/proc/sys/user", name).read_text(encoding="ascii").strip() == "0":
                return f"; user.{name} is 0"
    return ""


def _connect() -> socket.socket:
    """A connection that systemd starts a worker on. It does not wait for the worker."""
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ours.settimeout(ANSWER_SECONDS)
        ours.connect(str(REHEARSAL_SOCKET))
    except OSError as error:
        ours.close()
        message = f"cannot connect to {REHEARSAL_SOCKET}: {error.strerror or error}"
        raise NamespaceError(f"{message}; see: systemctl status fwguardd-rehearsal.socket") from error
    return ours


def _start(method: NamespaceMethod) -> tuple[socket.socket, int, int]:
    """The connection to a worker that is a child of this process, its process id, and what its standard error is."""
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise NamespaceError(f"the rehearsal worker cannot be started: {error.strerror}") from error
    errors = os.memfd_create("rehearsal-errors")
    unshare = ["unshare", "--net", "--"]
    if method is NamespaceMethod.USER_NAMESPACE:
        # First the user namespace with its map, then the network namespace: the kernel gives /proc/net/ip_tables_names,
        # mode 0440, to the root of the user namespace only where that has a map already (net/netfilter/x_tables.c).
        unshare = ["unshare", "--user", "--map-root-user", "--", *unshare]
    argv = [*unshare, sys.executable, "-I", "-S", "-B", "-c", _WORKER]
    with theirs:
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                {"PATH": PATH, "LC_ALL": "C"},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, errors, 2)],
                setsigdef=[signal.SIGPIPE],
                setpgroup=0,  # Ctrl-C in a terminal is meant for the daemon, which ends its workers itself.
            )
        except OSError as error:
            ours.close()
            os.close(errors)
            raise NamespaceError(f"cannot run unshare: {error.strerror}; apt install util-linux") from error
    return ours, pid, errors


class NamespacePool:
    """Temporary namespaces, some of them started in advance: a rehearsal waits neither for the start of a worker nor
    for the end of one.

    ``choose`` gives the method, each time that one is made: fwguardd-rehearsal.socket may be started and stopped. The
    spare ones ``for_beds`` import the modules of a bed before they are needed.
    """

    def __init__(
        self, choose: Callable[[], NamespaceMethod] = namespace_method, spares: int = 2, *, for_beds: bool = False
    ) -> None:
        self._choose = choose
        self._for_beds = for_beds
        self._wanted = spares
        self._ready: list[ScratchNamespace] = []
        self._lent: list[ScratchNamespace] = []
        self._used: list[ScratchNamespace] = []
        self._gives_up = False

    def refill(self) -> None:
        """Close the used ones and start spare ones, at a time when no rehearsal waits. Raises NamespaceError."""
        self.close_used()
        while len(self._ready) < self._wanted:
            self._ready.append(ScratchNamespace(self._choose()))
            if self._for_beds:
                self._ready[-1].request(PREPARE_BED)

    @contextlib.contextmanager
    def acquire(self) -> Iterator[ScratchNamespace]:
        """A new one, for one rehearsal. Raises NamespaceError."""
        self._go_on_or_raise()
        scratch = self._take()
        self._lent.append(scratch)
        try:
            self._go_on_or_raise()
            yield scratch
        finally:
            self._lent.remove(scratch)
            self._used.append(scratch)

    def _go_on_or_raise(self) -> None:
        if self._gives_up:
            raise NamespaceError("the rehearsal was given up, as something else waits")

    def give_up(self) -> None:
        """Let every rehearsal end with a NamespaceError, and so those to come, until `go_on`. From any thread."""
        self._gives_up = True
        for scratch in tuple(self._lent):
            scratch.give_up()

    def go_on(self) -> None:
        """Let rehearsals go on that begin from now on."""
        self._gives_up = False

    def close_used(self) -> None:
        """End the used ones: the kernel needs 10 to 100 ms to take down a namespace."""
        _close_all(self._used)

    def close(self) -> None:
        """End them all."""
        self.close_used()
        _close_all(self._ready)

    def _take(self) -> ScratchNamespace:
        """A spare one whose worker is still there, else one that is started now."""
        while self._ready:
            scratch = self._ready.pop()
            if scratch.is_alive():
                return scratch
            self._used.append(scratch)
        return ScratchNamespace(self._choose())


def _close_all(namespaces: list[ScratchNamespace]) -> None:
    while namespaces:
        namespaces.pop().close()
