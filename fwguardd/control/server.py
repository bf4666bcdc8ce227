"""The daemon's end of the control socket. It lives in the daemon's event loop.

It takes a connection, learns from the kernel who is at the other end, reads one request, asks whether that one may,
has the verb performed, answers, and hangs up. It knows no verb's meaning: ``act`` performs, ``may`` permits.

What a client can do to it is bounded by `ServerLimits`: so many are served at once, and the rest are told "busy" at
once; a few places are kept for root, so that those who may only read cannot keep the administrator out. A request must
arrive, and an answer be taken, within a few seconds. Only running the verb has no limit here: a verb that has begun is
never cancelled because its client went away, as half a reload is worse than a whole one that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fwguardd.control.protocol import (
    LARGEST_REQUEST,
    Answer,
    Code,
    Request,
    RequestError,
    RequestFault,
    Verb,
    encode_answer,
    parse_request,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

WAITING_CLIENTS = 128
"""Connections that the kernel holds until they are taken (listen(2))."""

REST = 1.0
"""Seconds without new clients after the process has run out of descriptors or memory for them."""

LAST_WORD_WITHIN = 1.0
"""Seconds that a closing server has left to tell clients whose verbs did not end."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much of the server the clients may use: how many at once, how many of these places are kept for root, and
    the seconds for a request to arrive, for an answer to be taken, and for verbs to end when the server closes."""

    clients: int = 32
    kept_for_root: int = 8
    request_within: float = 5.0
    answer_within: float = 10.0
    verbs_end_within: float = 5.0


class ControlSocketError(Exception):
    """The control socket cannot be made. The message names it and the reason."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, as the kernel saw it when they connected (unix(7), SO_PEERCRED).

    The name is what the process calls itself: good for telling, never for deciding.
    """

    uid: int
    gid: int
    pid: int
    process: str

    def __str__(self) -> str:
        name = "".join(char if char.isprintable() else "?" for char in self.process)
        return f"uid {self.uid}, pid {self.pid}" + (f" ({name})" if name else "")


def only_root(caller: Caller, verb: Verb) -> bool:  # noqa: ARG001 - root may use every verb, and nobody else may any.
    """Root may do everything, and nobody else anything."""
    return caller.uid == 0


def root_or_reading(caller: Caller, verb: Verb) -> bool:
    """Root may do everything; all others that the mode of the socket lets in may use the verbs that only read."""
    return caller.uid == 0 or verb.reads


class ControlServer:
    """The socket and everyone who is connected to it.

    ``act`` performs a verb and gives its result, or raises Refusal. ``group`` is the id of the group that may connect
    besides root: the socket's mode is 0660 then, and 0600 without one. ``may`` decides about each request.
    """

    def __init__(
        self,
        path: Path,
        act: Callable[[Request, Caller], Awaitable[Mapping[str, Any]]],
        may: Callable[[Caller, Verb], bool] = only_root,
        *,
        group: int | None = None,
        limits: ServerLimits = ServerLimits(),
    ) -> None:
        self._path, self._act, self._may, self._group, self._limits = path, act, may, group, limits
        self._reader: socket.socket | None = None
        self._made: tuple[int, int] | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.Task[None]] = set()
        self._verbs: set[asyncio.Task[Mapping[str, Any]]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Make the socket and serve whoever connects. Raises ControlSocketError."""
        try:
            _take_away_stale(self._path)
            self._reader, self._made = _listen(self._path, self._group)
        except OSError as error:
            raise ControlSocketError(f"the control socket {self._path} cannot be made: {error}") from error
        self._take_clients()

    async def close(self) -> None:
        """Take the socket away and let go of everyone. Verbs that run get some seconds to end and to be answered."""
        self._stop_listening()
        for client in self._silent:
            client.cancel()
        await _ended(self._clients, self._limits.verbs_end_within)
        for verb in self._verbs:
            verb.cancel()
        await _ended(self._clients, LAST_WORD_WITHIN)
        left = [*self._clients, *self._verbs]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _take_clients(self) -> None:
        assert self._reader is not None
        asyncio.get_running_loop().add_reader(self._reader, self._accept, self._reader)

    def _stop_listening(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        if self._reader is not None:
            asyncio.get_running_loop().remove_reader(self._reader)
            self._reader.close()
            self._reader = None
            with contextlib.suppress(OSError):
                if _identity(self._path) == self._made:
                    self._path.unlink()

    def _accept(self, reader: socket.socket) -> None:
        for _ in range(WAITING_CLIENTS):
            try:
                client, _address = reader.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # The connection stays readable (accept(2), EMFILE): without a rest the loop would turn for nothing.
                self._have_a_rest(reader, error)
                return
            self._welcome(client)

    def _have_a_rest(self, reader: socket.socket, error: OSError) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(reader)
        self._rest = loop.call_later(REST, self._take_clients)
        loop.call_exception_handler({"message": f"{self._path} takes no clients for a while", "exception": error})

    def _welcome(self, client: socket.socket) -> None:
        client.settimeout(0)
        caller = _caller(client)
        if len(self._clients) >= self._limits.clients - (self._limits.kept_for_root if caller.uid else 0):
            busy = RequestFault(Code.BUSY, f"{len(self._clients)} requests are under way; try again in a moment")
            with client, contextlib.suppress(OSError):
                client.send(encode_answer(busy))
            return
        task = asyncio.create_task(self._serve(client, caller))
        for tasks in (self._clients, self._silent):
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        # Here and not in the task, which a cancellation may keep from ever beginning.
        task.add_done_callback(lambda _: client.close())

    async def _serve(self, client: socket.socket, caller: Caller) -> None:
        said = await _receive(client, self._limits.request_within)
        task = asyncio.current_task()
        assert task is not None
        self._silent.discard(task)
        if said is not None:
            answer = said if isinstance(said, RequestFault) else await self._answer(said, caller)
            await _send(client, answer, self._limits.answer_within)

    async def _answer(self, line: bytes, caller: Caller) -> Answer | RequestFault:
        request = parse_request(line)
        if isinstance(request, RequestFault):
            return request
        if not self._may(caller, request.verb):
            return RequestFault(Code.NOT_PERMITTED, f"{request.verb.name} is not permitted to {caller}")
        verb = asyncio.create_task(self._perform(request, caller))
        self._verbs.add(verb)
        verb.add_done_callback(self._verbs.discard)
        # Unlike "await verb", this does not cancel the verb when the one who waits for it is cancelled.
        await asyncio.wait({verb})
        return self._outcome(verb, request)

    async def _perform(self, request: Request, caller: Caller) -> Mapping[str, Any]:
        return await self._act(request, caller)

    def _outcome(self, verb: asyncio.Task[Mapping[str, Any]], request: Request) -> Answer | RequestFault:
        if verb.cancelled():
            return RequestFault(Code.FAILED, f"fwguardd stops; whether {request.verb.name} was done is not known")
        error = verb.exception()
        if error is None:
            return Answer(verb.result())
        if isinstance(error, RequestError):
            return RequestFault(error.code, error.message)
        # A defect of whoever performs. The client gets an answer, and the loop is told, so that nothing is hidden.
        message = f"{request.verb.name} failed by a defect of fwguardd: {type(error).__name__}: {error}"
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error, "task": verb})
        return RequestFault(Code.FAILED, message)


async def _ended(tasks: set[asyncio.Task[None]], within: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=within)


async def _receive(client: socket.socket, within: float) -> bytes | RequestFault | None:
    """The line that a client sends, or its end without a newline; None if it hangs up without a word."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    try:
        async with asyncio.timeout(within):
            while len(data) < LARGEST_REQUEST:
                chunk = await loop.sock_recv(client, LARGEST_REQUEST)
                data += chunk
                if not chunk or b"\n" in chunk:
                    break
    except TimeoutError:
        return RequestFault(Code.BAD_REQUEST, f"no whole request came within {within:g} s")
    except OSError:
        return None
    return bytes(data).split(b"\n", 1)[0] if data else None


async def _send(client: socket.socket, answer: Answer | RequestFault, within: float) -> None:
    # A client that is gone, or that does not take its answer in time, is told nothing more.
    with contextlib.suppress(OSError):
        async with asyncio.timeout(within):
            await asyncio.get_running_loop().sock_sendall(client, encode_answer(answer))


def _caller(client: socket.socket) -> Caller:
    # struct ucred, unix(7): pid_t, uid_t, gid_t. The pid is 0 if the process is in a namespace that is not seen here.
    pid, uid, gid = struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes().decode("utf-8", "replace").rstrip("\n")
    except OSError:
        name = ""
    return Caller(uid, gid, pid, name)


def _listen(path: Path, group: int | None) -> tuple[socket.socket, tuple[int, int]]:
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # bind(2) gives the file the mode that the socket has before (net/unix/af_unix.c), so that there is no instant
        # at which it is open to others, and the umask of the whole process is left alone.
        os.fchmod(reader.fileno(), 0o600)
        reader.bind(str(path))
        if group is not None:
            _give_to(path, group)
        made = _identity(path)
        reader.listen(WAITING_CLIENTS)
    except OSError:
        reader.close()
        raise
    return reader, made


def _give_to(path: Path, group: int) -> None:
    """Let a group in. A service whose own group it is needs no privilege, and must not use chown(2), for that."""
    if path.lstat().st_gid != group:
        os.chown(path, -1, group)
    path.chmod(0o660)


def _take_away_stale(path: Path) -> None:
    """Remove the socket that a killed daemon left. One that is answered, and what is no socket, are left alone."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlSocketError(f"{path} is in the way of the control socket, and no socket itself")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass
    raise ControlSocketError(f"another process serves the control socket {path}")


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
