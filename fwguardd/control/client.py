"""fwguardctl's end of the control socket: one request, one answer, plain blocking code.

`ask` returns the result of the verb or raises one of three errors, each with a message that says what to do: the daemon
cannot be reached, the user is not permitted, the daemon refused. An answer that is late, incomplete, too large or in
another version of the protocol is never taken for a result.
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
    Value,
    encode_request,
    parse_answer,
)
from fwguardd.errors import NotPermittedError, ReportedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LONG_VERBS = frozenset({"reload", "rollback", "open", "hold"})
LONG, SHORT = 600.0, 30.0
"""Seconds to wait for an answer. A verb that writes waits for the pass before it, a rehearsal, and the xtables lock."""


class DaemonUnreachableError(ReportedError):
    """No daemon answers at the control socket, or not in time."""


class ControlNotPermittedError(NotPermittedError):
    """The user may not connect, or may not use the verb."""


class RequestRefusedError(ReportedError):
    """The daemon answered that it did not perform the verb."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def ask(
    socket_path: Path, verb: str, args: Mapping[str, Value] | None = None, timeout: float | None = None
) -> Mapping[str, Any]:
    """The result of a verb. Raises DaemonUnreachableError, ControlNotPermittedError and RequestRefusedError."""
    if timeout is None:
        timeout = _timeout_of(verb)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        _connect(server, socket_path)
        answer = parse_answer(_exchange(server, encode_request(verb, args or {}), verb, timeout))
    if isinstance(answer, RequestFault):
        raise _refusal(answer)
    return answer.result


def _refusal(fault: RequestFault) -> Exception:
    if fault.code is Code.NOT_PERMITTED:
        return ControlNotPermittedError(f"{fault.message}; run it as root")
    return RequestRefusedError(fault.code, fault.message)


def _timeout_of(verb: str) -> float:
    if verb in LONG_VERBS:
        return LONG
    return SHORT


def _connect(server: socket.socket, path: Path) -> None:
    # In blocking mode the kernel waits this long for room in the server's queue (unix(7), socket(7)). A timeout set by
    # Python makes the socket non-blocking, and then a full queue is an error at once.
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(SHORT), 0))
    try:
        server.connect(str(path))
    except PermissionError as error:
        advice = "run it as root, or, for a verb that only reads, as a member of the group fwguard"
        raise ControlNotPermittedError(f"no permission to open {path}: {advice}") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise DaemonUnreachableError(
            f"fwguardd is not running, or its control socket is not {path}; see: systemctl status fwguardd"
        ) from error
    except BlockingIOError as error:
        raise DaemonUnreachableError(
            f"fwguardd accepts no connections at {path}; see: systemctl status fwguardd"
        ) from error
    except OSError as error:
        raise DaemonUnreachableError(f"cannot connect to {path}: {error}; see: systemctl status fwguardd") from error


def _exchange(server: socket.socket, request: bytes, verb: str, wait: float) -> bytes:
    """The line that the daemon sends, without its newline."""
    deadline = time.monotonic() + wait
    server.settimeout(wait)
    try:
        # A daemon that is busy answers and closes the connection before it has read the request.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            server.sendall(request)
        data = _receive(server, deadline)
    except TimeoutError as error:
        raise DaemonUnreachableError(
            f"fwguardd has not answered for {wait:g} s; {verb} may still be in progress; see: journalctl -u fwguardd"
        ) from error
    except OSError as error:
        raise DaemonUnreachableError(f"the connection to fwguardd was lost: {error}; {_unknown(verb)}") from error
    if not data.endswith(b"\n"):
        raise DaemonUnreachableError(f"fwguardd closed the connection before it had answered; {_unknown(verb)}")
    return data[:-1]


def _receive(server: socket.socket, deadline: float) -> bytes:
    """Everything up to a newline, the end of the connection, or more than the largest answer."""
    data = bytearray()
    while not data.endswith(b"\n") and len(data) <= LARGEST_ANSWER:
        server.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = server.recv(LARGEST_REQUEST)
        if not chunk:
            break
        data += chunk
    return bytes(data)


def _unknown(verb: str) -> str:
    return f"{verb} may have been carried out or not; see: journalctl -u fwguardd"
