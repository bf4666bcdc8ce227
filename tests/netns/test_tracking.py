"""Connections that exist when the first rules are loaded that ask for states, on the real kernel."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.context import Done
from tests.netns.crashing import Bench, change, tables

if TYPE_CHECKING:
    from pathlib import Path

    from tests.netns.crashing import Saved

RULES = {"10.rules": "-P INPUT DROP\n-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"}


@pytest.mark.parametrize("backend", ["nft"])
@pytest.mark.parametrize("error", [OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)), MemoryError()])
def test_connections_that_cannot_be_tracked_are_reported(
    tmp_path: Path, backend: str, saved: Saved, error: Exception
) -> None:
    """Where the kernel's connection table takes no entries, or cannot be read, an event says so, once, and the rules
    are loaded."""

    def fails() -> int:
        raise error

    bench = Bench(tmp_path, backend)
    try:
        bench.put(RULES)
        outcome = change(replace(bench.context(), track_connections=fails))
        assert isinstance(outcome, Done)
        assert bench.emitted.count("rules.untracked") == 1
        assert tables(saved)["ipv4"]["filter"]["INPUT"][0] == "DROP"
        bench.put(RULES | {"20.rules": "-A INPUT -s 192.0.2.1 -j DROP\n"})
        assert isinstance(change(replace(bench.context(), track_connections=fails)), Done)
        assert bench.emitted.count("rules.untracked") == 1
    finally:
        bench.pool.close()
