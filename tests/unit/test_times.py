"""The words of --since, for lines that journalctl does not read, and the other values of the command line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import datetime

import pytest

from fwguardd.ctl.command_line import join_times
from fwguardd.ctl.denials.filters import networks
from fwguardd.ctl.denials.filters import ports as read_ports
from fwguardd.ctl.denials.times import time_spec, to_usec

NOW = datetime(2026, 11, 22, 23, 33, 15)  # noqa: DTZ001 - local time is meant.
SECOND = 1_000_000


def local(*parts: int) -> int:
    """Microseconds since the epoch of a local time."""
    return to_usec(datetime(*parts))  # type: ignore[arg-type] # noqa: DTZ001


@pytest.mark.parametrize(
    ("words", "usec"),
    [
        ("now", to_usec(NOW)),
        ("today", local(2026, 11, 22)),
        ("yesterday", local(2026, 11, 21)),
        ("tomorrow", local(2026, 11, 23)),
        ("2026-11-20", local(2026, 11, 20)),
        ("2026-11-20 10:30", local(2026, 11, 20, 10, 30)),
        ("2026-11-20T10:30:15.5", local(2026, 11, 20, 10, 30, 15, 500000)),
        ("2026-11-22T23:33:15Z", 1795390395 * SECOND),
        ("2026-11-22 23:33:15 UTC", 1795390395 * SECOND),
        ("2026-11-23T00:33:15+01:00", 1795390395 * SECOND),
        ("10:30", local(2026, 11, 22, 10, 30)),
        ("10:30:15", local(2026, 11, 22, 10, 30, 15)),
        ("@1795390395", 1795390395 * SECOND),
        ("@1795390395.25", 1795390395 * SECOND + 250000),
        ("-15m", to_usec(NOW) - 900 * SECOND),
        ("15m ago", to_usec(NOW) - 900 * SECOND),
        ("1h 30min ago", to_usec(NOW) - 5400 * SECOND),
        ("1h30min  ago", to_usec(NOW) - 5400 * SECOND),
        ("2 days ago", to_usec(NOW) - 172800 * SECOND),
        ("1.5h ago", to_usec(NOW) - 5400 * SECOND),
        ("+10", to_usec(NOW) + 10 * SECOND),
        ("-1w", to_usec(NOW) - 604800 * SECOND),
    ],
)
def test_words_for_a_moment(words: str, usec: int) -> None:
    """Dates, times, distances and names mean what systemd.time(7) has them mean."""
    assert time_spec(words, NOW) == usec


@pytest.mark.parametrize(
    "words",
    [
        "",
        "ago",
        " ago",
        "-",
        "+",
        "-x",
        "1 fortnight ago",
        "gurke",
        "2026-13-01",
        "25:00",
        "@",
        "@x",
        "1h",
        "0000-01-01",
    ],
)
def test_what_is_no_moment(words: str) -> None:
    """Anything else is refused with a sentence that says how to write it."""
    with pytest.raises(ValueError, match=r"is not a time that --read understands; write it as"):
        time_spec(words, NOW)


def test_a_distance_may_stand_apart() -> None:
    """`--since -15m` means what `--since=-15m` means; any other word that begins with a dash is left alone."""
    assert join_times(["denials", "--since", "-15m", "-f"]) == ["denials", "--since=-15m", "-f"]
    assert join_times(["denials", "--since", "-f", "-1h"]) == ["denials", "--since", "-f", "-1h"]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("0", range(1)),
        ("23", range(23, 24)),
        ("20-25", range(20, 26)),
        ("20:25", range(20, 26)),
        ("65535", range(65535, 65536)),
    ],
)
def test_ports(text: str, ports: range) -> None:
    """A port, or a range of them with both ends, as people and as iptables write it."""
    assert read_ports(text) == (ports,)


@pytest.mark.parametrize(
    "text", ["", "-", "no-such-service", "22,", "65536", "25-20", "1-", "-1", "1-2-3", "\u0661", "9" * 5000]
)
def test_what_is_no_port(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ArgumentTypeError, match="neither a port"):
        read_ports(text)


@pytest.mark.parametrize("text", ["", "300.0.0.1", "10.0.0.0/33", "host", "10.0.0.1-10.0.0.9"])
def test_what_is_no_source(text: str) -> None:
    """What is neither an address nor a network is refused; bits behind the mask are let pass."""
    with pytest.raises(ArgumentTypeError, match="neither an address nor a network"):
        networks(text)
    assert list(map(str, networks("10.1.2.3/8,::1"))) == ["10.0.0.0/8", "::1/128"]
