"""The daemon's end of the control socket. It belongs to the event loop.

It accepts a connection, gets from the kernel who is at the other end, reads one request, checks the permission, has the
verb performed, answers, and closes the connection. It does not know what a verb means: ``act`` performs it, ``may``
permits it.

What a client can use of it is bounded by `ServerLimits`: so many clients are served at once, and further ones are
answered "busy"; a few places are kept for root, and of the others one user can have a few only, so that users who may
only read can lock out neither the administrator nor each other. A request must arrive, and an answer must be read,
within a few seconds. Only the verb itself has no limit here: once begun, it is not cancelled because its client
disconnects, as half a reload is worse than a whole one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fwguardd.control.protocol import (
    LARGEST_REQUEST,
    Answer,
    Code,
    EncodedAnswer,
    Request,
    RequestError,
    RequestFault,
    Verb,
    encode_answer,
    parse_request,
)
from fwguardd.event_loop import asyncio
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

WAITING_CLIENTS = 128
"""Connections that the kernel queues until they are accepted (listen(2))."""

ACCEPT_PAUSE = 1.0
"""Seconds without new clients after the process has run out of descriptors or memory for them."""

LAST_ANSWER_WITHIN = 1.0
"""Seconds in which a closing server answers the clients whose verbs did not end."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much of the server the clients may use: how many at once, how many of these places are kept for root, how
    many one other user may have, and the seconds for a request to arrive, for an answer to be read, and for verbs to
    end when the server closes."""

    clients: int = 32
    kept_for_root: int = 8
    each_user: int = 8
    request_within: float = 5.0
    answer_within: float = 10.0
    verbs_end_within: float = 5.0


USUAL_LIMITS = ServerLimits()
"""The limits of a daemon."""


class ControlSocketError(Exception):
    """The control socket cannot be created. The message names it and the reason."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The process at the other end, as the kernel recorded it at the connect (unix(7), SO_PEERCRED).

    A process chooses its name itself: the name is for messages, and never decides anything.
    """

    uid: int
    gid: int
    pid: int
    process: str

    def __str__(self) -> str:
        name = "".join(char if char.isprintable() else "?" for char in self.process)
        return f"uid {self.uid}, pid {self.pid}" + (f" ({name})" if name else "")


def only_root(caller: Caller, verb: Verb) -> bool:  # noqa: ARG001 - the same for every verb.
    """Root may use all verbs, and other users none."""
    return caller.uid == 0


def root_or_reading(caller: Caller, verb: Verb) -> bool:
    """Root may use all verbs; other users whom the mode of the socket admits may use those that only read."""
    return caller.uid == 0 or verb.reads


class ControlServer:
    """The socket and all connections to it.

    ``act`` performs a verb and returns its result, or raises RequestError. ``may`` decides about each request.
    ``group`` is the id of the group that may connect besides root: with it the mode of the socket is 0660, without it
    0600.
    """

    def __init__(
        self,
        path: Path,
        act: Callable[[Request, Caller], Awaitable[Mapping[str, Any] | EncodedAnswer]],
        may: Callable[[Caller, Verb], bool] = only_root,
        *,
        group: int | None = None,
        limits: ServerLimits = USUAL_LIMITS,
    ) -> None:
        self._path, self._act, self._may, self._group, self._limits = path, act, may, group, limits
        self._listening: socket.socket | None = None
        self._inode: tuple[int, int] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._by_user: Counter[int] = Counter()
        self._receiving: set[asyncio.Task[None]] = set()
        self._verbs: set[asyncio.Task[Mapping[str, Any] | EncodedAnswer]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Create the socket and serve the clients. Raises ControlSocketError."""
        try:
            _remove_stale(self._path)
            self._listening, self._inode = _listen(self._path, self._group)
        except OSError as error:
            raise ControlSocketError(f"the control socket {self._path} cannot be created: {error}") from error
        self._accept_clients()

    async def close(self) -> None:
        """Remove the socket and close all connections. Verbs in progress get some seconds to end and to be answered."""
        self._stop_listening()
        for client in self._receiving:
            client.cancel()
        await _ended(self._clients, self._limits.verbs_end_within)
        for verb in self._verbs:
            verb.cancel()
        await _ended(self._clients, LAST_ANSWER_WITHIN)
        left = [*self._clients, *self._verbs]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def renew(self) -> None:
        """Create the socket again where its file was removed, with the directory. What fails is tried the next time."""
        if self._listening is None or os.path.lexists(self._path):
            return
        removed = self._listening
        try:
            self._path.parent.mkdir(mode=0o755, exist_ok=True)
            self._listening, self._inode = _listen(self._path, self._group)
        except OSError:
            return
        asyncio.get_running_loop().remove_reader(removed)
        removed.close()
        self._accept_clients()

    def _accept_clients(self) -> None:
        assert self._listening is not None
        asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _stop_listening(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
            with contextlib.suppress(OSError):
                if _identity(self._path) == self._inode:
                    self._path.unlink()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(WAITING_CLIENTS):
            try:
                client, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # The socket stays readable (accept(2), EMFILE): without a pause this would be a busy loop.
                self._pause_accepting(listening, error)
                return
            self._admit(client)

    def _pause_accepting(self, listening: socket.socket, error: OSError) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._pause = loop.call_later(ACCEPT_PAUSE, self._accept_clients)
        message = f"{self._path} accepts no clients for {ACCEPT_PAUSE:g} s"
        loop.call_exception_handler({"message": message, "exception": error})

    def _admit(self, client: socket.socket) -> None:
        client.settimeout(0)
        caller = _caller(client)
        if self._is_full_for(caller):
            busy = RequestFault(Code.BUSY, f"{len(self._clients)} requests are in progress; try again in a moment")
            with client, contextlib.suppress(OSError):
                client.send(encode_answer(busy))
            return
        task = asyncio.create_task(self._serve(client, caller))
        for tasks in (self._clients, self._receiving):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        # Not in the task itself: it may be cancelled before it begins.
        self._by_user[caller.uid] += 1
        task.add_done_callback(lambda _: self._part_with(client, caller))

    def _is_full_for(self, caller: Caller) -> bool:
        """Whether there is no place left for this caller."""
        limits, taken = self._limits, len(self._clients)
        if caller.uid == 0:
            return taken >= limits.clients
        return taken >= limits.clients - limits.kept_for_root or self._by_user[caller.uid] >= limits.each_user

    def _part_with(self, client: socket.socket, caller: Caller) -> None:
        client.close()
        self._by_user[caller.uid] -= 1
        if not self._by_user[caller.uid]:
            del self._by_user[caller.uid]

    async def _serve(self, client: socket.socket, caller: Caller) -> None:
        received = await _receive(client, self._limits.request_within)
        task = asyncio.current_task()
        assert task is not None
        self._receiving.discard(task)
        if received is None:
            return
        if isinstance(received, RequestFault):
            await _send(client, received, self._limits.answer_within)
        else:
            await _send(client, await self._answer(received, caller), self._limits.answer_within)

    async def _answer(self, line: bytes, caller: Caller) -> Answer | EncodedAnswer | RequestFault:
        request = parse_request(line)
        if isinstance(request, RequestFault):
            return request
        if not self._may(caller, request.verb):
            return RequestFault(Code.NOT_PERMITTED, f"{request.verb.name} is not permitted for {caller}")
        verb = asyncio.create_task(self._perform(request, caller))
        self._verbs.add(verb)
        verb.add_done_callback(self._verbs.discard)
        # Unlike "await verb", this does not cancel the verb when this task is cancelled.
        await asyncio.wait({verb})
        return self._outcome(verb, request)

    async def _perform(self, request: Request, caller: Caller) -> Mapping[str, Any] | EncodedAnswer:
        return await self._act(request, caller)

    def _outcome(
        self, verb: asyncio.Task[Mapping[str, Any] | EncodedAnswer], request: Request
    ) -> Answer | EncodedAnswer | RequestFault:
        if verb.cancelled():
            return RequestFault(
                Code.FAILED, f"fwguardd is stopping; {request.verb.name} may have been carried out or not"
            )
        error = verb.exception()
        if error is None:
            return _answer_with(verb.result())
        if isinstance(error, RequestError):
            return RequestFault(error.code, error.message)
        # A bug in the verb. The client gets an answer, and the event loop's exception handler reports it.
        message = f"{request.verb.name} failed because of a bug in fwguardd: {type(error).__name__}: {error}"
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error, "task": verb})
        return RequestFault(Code.FAILED, message)


async def _ended(tasks: set[asyncio.Task[None]], within: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=within)


async def _receive(client: socket.socket, within: float) -> bytes | RequestFault | None:
    """The line that a client sends, also without its newline; None if it closes the connection without sending."""
    try:
        async with asyncio.timeout(within):
            data = await _received(client)
    except TimeoutError:
        return RequestFault(Code.BAD_REQUEST, f"no complete request arrived within {within:g} s")
    except OSError:
        return None
    if not data:
        return None
    return data.split(b"\n", 1)[0]


async def _received(client: socket.socket) -> bytes:
    """Everything up to a newline, the end of the connection, or the size of the largest request."""
    data = bytearray()
    while len(data) < LARGEST_REQUEST:
        chunk = await asyncio.get_running_loop().sock_recv(client, LARGEST_REQUEST)
        data += chunk
        if not chunk or b"\n" in chunk:
            break
    return bytes(data)


async def _send(client: socket.socket, answer: Answer | EncodedAnswer | RequestFault, within: float) -> None:
    # A client that has disconnected, or does not read in time, gets nothing more.
    with contextlib.suppress(OSError):
        async with asyncio.timeout(within):
            await asyncio.get_running_loop().sock_sendall(client, encode_answer(answer))


def _caller(client: socket.socket) -> Caller:
    # struct ucred, unix(7): pid_t, uid_t, gid_t. The pid is 0 for a process in a hidden pid namespace.
    pid, uid, gid = struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes().decode("utf-8", "replace").rstrip("\n")
    except OSError:
        name = ""
    return Caller(uid, gid, pid, name)


def _listen(path: Path, group: int | None) -> tuple[socket.socket, tuple[int, int]]:
    """A socket that accepts connections from the instant at which its file exists, and the identity of that file."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # As long as the name itself: sockaddr_un has room for 108 bytes.
    unfinished = path.with_name(f"{path.name[:-1]}~")
    try:
        # bind(2) gives the file the mode that the socket has before (net/unix/af_unix.c): so there is no instant at
        # which other users can connect, and the umask of the whole process is not changed.
        os.fchmod(listening.fileno(), 0o600)
        unfinished.unlink(missing_ok=True)
        listening.bind(str(unfinished))
        if group is not None:
            _admit_group(unfinished, group)
        listening.listen(WAITING_CLIENTS)
        # link(2), unlike rename(2), fails where another process was faster.
        path.hardlink_to(unfinished)
        unfinished.unlink()
        made = _identity(path)
    except OSError:
        listening.close()
        raise
    return listening, made


def _admit_group(path: Path, group: int) -> None:
    """Let a group connect. A service that runs with this group needs no chown(2), which its sandbox forbids."""
    if path.lstat().st_gid != group:
        os.chown(path, -1, group)
    path.chmod(0o660)


def _answer_with(result: Mapping[str, Any] | EncodedAnswer) -> Answer | EncodedAnswer:
    if isinstance(result, EncodedAnswer):
        return result
    return Answer(result)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a daemon that was killed. A socket that is served, and other files, are left alone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlSocketError(f"{path} is in the way of the control socket, and is not a socket; move it away")
    if _is_served(path):
        raise ControlSocketError(f"another process serves the control socket {path}")
    path.unlink(missing_ok=True)


def _is_served(path: Path) -> bool:
    """Whether a process listens on a socket, also if its queue of connections is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
    return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
