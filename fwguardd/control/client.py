"""fwguardctl's end of the control socket: one question, one answer, plain blocking code.

It gives the result of the verb, or one of three errors, each with a message that says what to do: the daemon cannot be
reached, it is not permitted, it refused. An answer that is late, torn, too large or in another language is never taken
for a result.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from fwguardd.control.protocol import (
    LARGEST_ANSWER,
    LARGEST_REQUEST,
    Code,
    RequestFault,
    encode_request,
    parse_answer,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LONG_VERBS = frozenset({"reload", "rollback", "open"})
LONG, SHORT = 600.0, 30.0
"""Seconds to wait for an answer. A verb that writes waits for its turn, a rehearsal, and the lock of iptables."""


class DaemonUnreachableError(Exception):
    """Nobody answers at the control socket, or not in time."""


class ControlNotPermittedError(Exception):
    """The user may not connect, or may not use the verb."""


class RequestRefusedError(Exception):
    """The daemon answered, and not with a result."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def ask(
    socket_path: Path, verb: str, args: Mapping[str, int | float | None] | None = None, timeout: float | None = None
) -> Mapping[str, Any]:
    """The result of a verb. Raises UnreachableError, NotPermittedError and RefusedError."""
    wait = timeout if timeout is not None else LONG if verb in LONG_VERBS else SHORT
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        _connect(server, socket_path)
        answer = parse_answer(_exchange(server, encode_request(verb, args or {}), verb, wait))
    if not isinstance(answer, RequestFault):
        return answer.result
    if answer.code is Code.NOT_PERMITTED:
        raise ControlNotPermittedError(f"{answer.message}; try it as root")
    raise RequestRefusedError(answer.code, answer.message)


def _connect(server: socket.socket, path: Path) -> None:
    # In blocking mode the kernel waits this long for room in the server's queue (unix(7), socket(7)). With a timeout of
    # Python's, which makes the socket non-blocking, a full queue would be an error at once.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(SHORT), 0))
    try:
        server.connect(str(path))
    except PermissionError as error:
        raise ControlNotPermittedError(f"{path} may not be opened by this user; try it as root") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise DaemonUnreachableError(
            f"fwguardd does not run, or its control socket is not {path}; look at: systemctl status fwguardd"
        ) from error
    except BlockingIOError as error:
        raise DaemonUnreachableError(
            "fwguardd runs but takes no clients; look at: systemctl status fwguardd"
        ) from error
    except OSError as error:
        raise DaemonUnreachableError(f"{path} cannot be used: {error}; look at: systemctl status fwguardd") from error


def _exchange(server: socket.socket, request: bytes, verb: str, wait: float) -> bytes:
    """The daemon's line, without its newline."""
    deadline = time.monotonic() + wait
    data = bytearray()
    server.settimeout(wait)
    try:
        # A daemon that is busy answers and hangs up before it has read the request.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            server.sendall(request)
        while not data.endswith(b"\n") and len(data) <= LARGEST_ANSWER:
            server.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = server.recv(LARGEST_REQUEST)
            if not chunk:
                break
            data += chunk
    except TimeoutError as error:
        raise DaemonUnreachableError(
            f"fwguardd has not answered for {wait:g} s; {verb} may still be under way; look at: journalctl -u fwguardd"
        ) from error
    except OSError as error:
        raise DaemonUnreachableError(f"the connection to fwguardd broke: {error}; {_unknown(verb)}") from error
    if not data.endswith(b"\n"):
        raise DaemonUnreachableError(f"fwguardd hung up before it had answered; {_unknown(verb)}")
    return bytes(data[:-1])


def _unknown(verb: str) -> str:
    return f"whether {verb} was done is not known; look at: journalctl -u fwguardd"
