"""Serves the metrics of the daemon over HTTP; fwguardd-metrics.service runs it.

It is a program of its own, with a sandbox of its own, because the daemon never speaks to the network. At each scrape it
sends the verb metrics, which only reads, to the control socket. If the daemon does not answer, fwguard_up is 0.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from fwguardd.control.client import ask
from fwguardd.defaults import SOCKET_NAME
from fwguardd.errors import ReportedError
from fwguardd.metrics.exposition import registry_of
from fwguardd.metrics.model import gauge
from fwguardd.settings import DEFAULT_PATH, SettingsError, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SECONDS = 5.0
"""The longest wait for the daemon: Prometheus itself waits 10 s by default."""

_FAILED, _CONFIG = 1, 78


class _QuietRequest(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape every few seconds is not worth a line."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind the socket. The method of the base class would look up the name of the address, and wait for DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class Scrape:
    """Asks the daemon at each scrape, and reports once that it does not answer."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._reported = ""

    def __call__(self) -> Iterable[Mapping[str, Any]]:
        """The families of the daemon, and whether it has answered."""
        families: Sequence[Mapping[str, Any]] = ()
        is_up = True
        try:
            families = ask(self._socket_path, "metrics", timeout=SECONDS)["families"]
            self._reported = ""
        except ReportedError as error:
            is_up = False
            self._report(str(error))
        return [gauge("fwguard_up", "1 if the daemon has answered.", is_up).document(), *families]

    def _report(self, message: str) -> None:
        if message != self._reported:
            print(f"fwguardd-metrics: {message}", file=sys.stderr)  # noqa: T201
        self._reported = message


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; the exit code is one of sysexits(3h)."""
    parser = argparse.ArgumentParser(prog="fwguardd-metrics", description="Serve the metrics of fwguardd over HTTP.")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="F", help="settings file")
    options = parser.parse_args(argv)
    try:
        settings = settings_of(options.config)
    except SettingsError as error:
        return _cannot_start(str(error), _CONFIG)
    host, port = settings.metrics.listen
    try:
        server = _Server((host, port), _QuietRequest)
    except OSError as error:
        return _cannot_start(f"cannot listen at {host} port {port}: {error.strerror}", _FAILED)
    server.set_app(make_wsgi_app(registry_of(Scrape(settings.runtime_dir / SOCKET_NAME))))
    server.serve_forever()
    return 0


def _cannot_start(reason: str, code: int) -> int:
    print(f"fwguardd-metrics: cannot start: {reason}", file=sys.stderr)  # noqa: T201
    return code
