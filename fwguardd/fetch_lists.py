"""Fetches the lists of the settings into set files; fwguardd-lists.timer runs it.

It is a program of its own, with a sandbox of its own, because the daemon never speaks to the network. What it writes is
read by the daemon as addresses and nothing else. A list that cannot be fetched, or has an error, leaves what was there
before: stale is better than none.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd import __version__
from fwguardd.dns_lookup import LookupFailedError, look_up, name_servers
from fwguardd.ruleset.list_sources import ListError, ListSource, holds_until, set_of
from fwguardd.settings import DEFAULT_PATH, SettingsError, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.client import HTTPMessage
    from typing import IO

LARGEST = 64 << 20
"""Bytes that a list may have."""

SECONDS = 30.0
"""The longest wait for the next part of an answer."""

SECONDS_IN_ALL = 300.0
"""The longest time for one list."""

SHORTEST_TTL = 60.0
"""The shortest time between two lookups of the same names, in seconds."""

_DONE, _FAILED, _CONFIG = 0, 1, 78


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request to follow with. Raises ListError."""
        if not newurl.startswith("https://"):
            raise ListError(f"it leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch the lists that are due; the exit code."""
    parser = argparse.ArgumentParser(prog="fwguardd-lists", description="Fetch the lists of the settings into sets.")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="F", help="settings file")
    parser.add_argument("--all", action="store_true", help="also those that are not due")
    options = parser.parse_args(argv)
    try:
        settings = settings_of(options.config)
    except SettingsError as error:
        print(f"fwguardd-lists: {error}", file=sys.stderr)  # noqa: T201
        return _CONFIG
    failed = [source for source in settings.lists if not _fetch(source, settings.lists_dir, everything=options.all)]
    return _FAILED if failed else _DONE


def _fetch(source: ListSource, directory: Path, *, everything: bool) -> bool:
    """Fetch a list if it is due. False where that failed, which is printed."""
    path = directory / f"{source.name}.set"
    if not everything and time.time() < _due_at(path, source):
        return True
    try:
        _update(source, path)
    except (ListError, LookupFailedError, OSError) as error:
        print(f"fwguardd-lists: list {source.name} from {source.origin}: {error}", file=sys.stderr)  # noqa: T201
        return False
    return True


def _due_at(path: Path, source: ListSource) -> float:
    """When a list has to be fetched again; the time of its file is that of the last success."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            until, fetched = holds_until(file.readline()), os.fstat(file.fileno()).st_mtime
    except OSError:
        return 0.0
    if until is None:
        return fetched + source.every
    return min(until, fetched + source.every)


def _update(source: ListSource, path: Path) -> None:
    """Fetch a list and write its file. Raises ListError, LookupFailedError, OSError."""
    until: float | None = None
    if source.hosts:
        fetched, holds = _look_up_all(source.hosts)
        until = time.time() + holds
    else:
        text = download(source.url, path)
        if text is None:
            os.utime(path)
            return
        fetched = text
    _, data = set_of(source, fetched, until)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.chmod(0o644)
    new.rename(path)


def _look_up_all(hosts: Sequence[str]) -> tuple[str, float]:
    """The addresses of host names, one on a line, and the seconds for which they hold. Raises LookupFailedError."""
    servers = name_servers()
    addresses: list[str] = []
    holds = float("inf")
    for host in hosts:
        found, ttl = look_up(host, servers)
        addresses += found
        holds = min(holds, ttl)
    return "\n".join(addresses), max(holds, SHORTEST_TTL)


def download(url: str, known: Path) -> str | None:
    """The text at an address; None if it has not changed since the file was written. Raises ListError, OSError."""
    if not url.startswith("https://"):
        raise ListError("its address is not https")
    request = urllib.request.Request(url, headers={"User-Agent": f"fwguardd/{__version__}"})  # noqa: S310
    if known.exists():
        request.add_header("If-Modified-Since", formatdate(known.stat().st_mtime, usegmt=True))
    opener = urllib.request.build_opener(_OnlyHttps)
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            return _read(answer).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        if error.code == 304:
            return None
        raise ListError(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ListError(str(error.reason)) from error


def _read(answer: IO[bytes]) -> bytes:
    """The whole answer. Raises ListError if it is too large or takes too long."""
    until, size = time.monotonic() + SECONDS_IN_ALL, 0
    parts: list[bytes] = []
    while part := answer.read(1 << 16):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise ListError(f"it has more than {LARGEST:,} bytes")
        if time.monotonic() > until:
            raise ListError(f"it took more than {SECONDS_IN_ALL:g} s")
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit(main())
