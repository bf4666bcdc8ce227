"""The real control server on a real socket, in an event loop in a thread of its own, for tests that are its clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fwguardd.control.protocol import Code, Request, RequestError
from fwguardd.control.server import Caller, ControlServer, ServerLimits, only_root
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from fwguardd.control.protocol import Verb


STATUS = b'{"v": 1, "verb": "status"}\n'
LARGE = 8 << 20
"""Bytes of the answer to "show"."""


class Serving:
    """A server that runs until the end of the with block. ``faults`` are the calls of the loop's exception handler."""

    def __init__(
        self,
        path: Path,
        act: Callable[[Request, Caller], Awaitable[Mapping[str, Any]]],
        may: Callable[[Caller, Verb], bool] = only_root,
        *,
        group: int | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self.path = path
        self.faults: list[dict[str, Any]] = []
        self._server = ControlServer(path, act, may, group=group, limits=limits or ServerLimits())
        self._opened = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._error: Exception | None = None

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda _, context: self.faults.append(context))
        try:
            async with self._server:
                self._opened.set()
                await self._stop.wait()
        except Exception as error:  # noqa: BLE001 - raised again where the test can see it.
            self._error = error
            self._opened.set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._opened.wait(LONGEST)
        if self._error:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(LONGEST)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """Begin to close the server, and do not wait for it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def tasks(self) -> int:
        """Tasks in the server's loop, less its own and the one that counts."""

        async def count() -> int:
            return len(asyncio.all_tasks()) - 2

        return asyncio.run_coroutine_threadsafe(count(), self._loop).result(LONGEST)

    def connect(self) -> socket.socket:
        """A new connection."""
        client = socket.socket(socket.AF_UNIX)
        # Without a timeout of Python's, connect waits for its turn where the queue of waiting connections is full.
        client.connect(str(self.path))
        client.settimeout(LONGEST)
        return client

    def request(self, data: bytes) -> bytes:
        """Send bytes; everything that comes back until the server closes the connection."""
        with self.connect() as client:
            client.sendall(data)
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Everything that the other end sends until it closes the connection."""
    data = bytearray()
    try:
        while chunk := client.recv(1 << 20):
            data += chunk
    except ConnectionResetError:
        pass
    return bytes(data)


def descriptors() -> int:
    """Open descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def eventually(condition: Callable[[], bool], within: float = 60.0) -> None:
    """Wait until a condition is true; fail if it does not become true in time."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.01)


@contextlib.contextmanager
def no_leak(serving: Serving, verbs: SampleVerbs) -> Iterator[None]:
    """Check that a running server has as many descriptors and tasks afterwards as before."""
    before = descriptors()
    yield
    verbs.release.set()
    eventually(lambda: serving.tasks() == 0 and descriptors() == before)


def ask(verb: str, **args: float) -> bytes:
    """A request."""
    return json.dumps({"v": 1, "verb": verb, "args": args}).encode() + b"\n"


def result(line: bytes) -> dict[str, Any]:
    """The result in an answer."""
    answer = json.loads(line)
    assert line.endswith(b"\n")
    assert (answer["v"], answer["ok"]) == (1, True), answer
    return dict(answer["result"])


def fault(line: bytes) -> tuple[str, str]:
    """The code and the message in an answer."""
    answer = json.loads(line)
    assert line.endswith(b"\n")
    assert (answer["v"], answer["ok"]) == (1, False), answer
    return answer["code"], answer["message"]


def let_others_enter(folder: Path) -> None:
    """Let other users enter a folder of the tests below /tmp, whose own mode stays as it is."""
    for each in (folder, *folder.parents):
        if Path("/tmp") in each.parents:
            each.chmod(0o755)


class SampleVerbs:
    """Verbs that do small things which a test can wait for."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.at_once = self.most_at_once = 0
        self.release = threading.Event()

    async def __call__(self, request: Request, caller: Caller) -> Mapping[str, Any]:
        """Perform a verb."""
        name = request.verb.name
        self.began.append(name)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            result = await self._do(name, caller)
        finally:
            self.at_once -= 1
        self.ended.append(name)
        return result

    async def _do(self, name: str, caller: Caller) -> Mapping[str, Any]:
        if name == "status":
            return {"uid": caller.uid, "gid": caller.gid, "caller": str(caller)}
        if name == "drift":
            await asyncio.sleep(0.5)
        elif name == "reload":
            await asyncio.get_running_loop().run_in_executor(None, self.release.wait)
        elif name == "show":
            return {"text": "x" * LARGE}
        elif name == "rollback":
            raise RequestError(Code.NOT_FOUND, "there is no revision before this one")
        elif name == "confirm":
            raise ZeroDivisionError("a defect")
        elif name == "history":
            return {"revisions": {1, 2}}
        return {"verb": name}
