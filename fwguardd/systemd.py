"""Notifications to systemd (sd_notify(3)) that never block, and the watchdog that covers both threads of the daemon.

A datagram socket whose reader is slow fills up: ten datagrams by default (net.unix.max_dgram_qlen), and then a blocking
send waits for as long as systemd does. So the socket is non-blocking. What it does not take is kept, a newer value of
a variable replacing an older one, and is sent together with the next notification or as soon as there is room.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import sdnotify

from fwguardd.event_loop import asyncio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_PHASES = ("READY", "RELOADING", "MONOTONIC_USEC", "STOPPING")
"""The variables that say which phase the service is in: a newer phase makes an unsent older one obsolete."""

_WATCHDOG = "WATCHDOG"
"""A sign of life counts when it is sent. One that could not be sent is dropped: the next one follows soon."""

EXTENSION = 120.0
"""Seconds by which a start is extended each time: more than a program of iptables and the reading of the state take."""


class SystemdNotifier:
    """Sends notifications to $NOTIFY_SOCKET; does nothing where systemd gave none. Belongs to the event loop."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        if os.environ.get("NOTIFY_SOCKET"):
            self._socket = sdnotify.SystemdNotifier().socket
        self._unsent: dict[str, str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        if self._socket is not None:
            self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature.

    def notify(self, **variables: str | int) -> None:
        """Send variables such as ``READY=1``. Never blocks and never raises."""
        if self._socket is None:
            return
        if not self._unsent.keys().isdisjoint(_PHASES) and not variables.keys().isdisjoint(_PHASES):
            for name in _PHASES:
                self._unsent.pop(name, None)
        for name, value in variables.items():
            self._unsent[name] = str(value)
        self._flush(self._socket)

    def resend_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on, let this loop send what the socket did not take as soon as it has room again."""
        self._loop = loop

    def close(self) -> None:
        """Send nothing any more."""
        self._wait_for_room(wanted=False)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _flush(self, connected: socket.socket) -> None:
        text = "\n".join(f"{name}={value}" for name, value in self._unsent.items())
        full = False
        try:
            connected.send(text.encode("utf-8", "backslashreplace"))
        except BlockingIOError:
            full = True
            self._unsent.pop(_WATCHDOG, None)
        except OSError:
            # Nobody reads the socket any more. It counts as writable, so to wait for room would be a busy loop.
            self._unsent.pop(_WATCHDOG, None)
        else:
            self._unsent.clear()
        self._wait_for_room(wanted=full and bool(self._unsent))

    def _wait_for_room(self, *, wanted: bool) -> None:
        if self._loop is None or self._socket is None:
            return
        if wanted:
            self._loop.add_writer(self._socket, self._flush, self._socket)
        else:
            self._loop.remove_writer(self._socket)


class Watchdog:
    """Feeds systemd's watchdog while both threads make progress. Belongs to the event loop.

    That the event loop turns is shown by `feed` being called. ``overdue`` says what the worker thread should have
    finished by now, or None: while it is not None nothing is sent, and systemd ends the daemon and starts it again.
    ``report`` is called once, with the step, when feeding stops.
    """

    def __init__(
        self, notifier: SystemdNotifier, overdue: Callable[[], str | None], report: Callable[[str], None]
    ) -> None:
        self._notifier, self._overdue, self._report = notifier, overdue, report
        self._reported = False

    def feed(self) -> None:
        """Send one sign of life, unless the worker thread is stuck."""
        step = self._overdue()
        if step is None:
            self._reported = False
            self._notifier.notify(WATCHDOG=1)
        elif not self._reported:
            self._reported = True
            self._report(step)

    async def feed_until_cancelled(self, interval: float | None) -> None:
        """Feed twice as often as systemd asks for, every ``interval`` seconds (sd_watchdog_enabled(3)); None: never."""
        while interval is not None:
            self.feed()
            await asyncio.sleep(interval / 2)


async def extend_start_until_cancelled(notifier: SystemdNotifier, overdue: Callable[[], str | None]) -> None:
    """Let systemd wait for READY for as long as the first pass makes progress, however long that takes.

    Without this a start ends after TimeoutStartSec (90 s by default), and the first pass over 50,000 rules takes
    longer. Once the worker thread is stuck, nothing is sent any more.
    """
    while overdue() is None:
        extend_start(notifier)
        await asyncio.sleep(EXTENSION / 4)


def extend_start(notifier: SystemdNotifier) -> None:
    """Let systemd wait for the next notification for `EXTENSION` seconds from now (sd_notify(3))."""
    notifier.notify(EXTEND_TIMEOUT_USEC=int(EXTENSION * 1_000_000))


def watchdog_interval() -> float | None:
    """Seconds within which systemd wants a sign of life from this process; None when it wants none."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1_000_000
