"""What the real journalctl and the real dmesg print of a kernel log is what `fwguardctl denials --read` understands."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl.denials.filters import Filters
from fwguardd.ctl.denials.log_files import LogFileReader
from fwguardd.ctl.denials.times import StampReader
from fwguardd.denials.model import Meaning, Watched
from tests.system.journals import GrowingJournal
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.ctl.denials.counts import Counts
    from fwguardd.ctl.denials.event import Event

pytestmark = pytest.mark.tools

DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
IP = "LEN=60 TOS=0x00 PREC=0x00 TTL=51 ID=4711 DF "
PACKET = f"OUT= MAC= SRC=203.0.113.9 DST=10.0.0.1 {IP}PROTO=TCP SPT=51234 DPT=23 WINDOW=1 RES=0x00 SYN URGP=0 "
LINE = f"iptables denied: IN=eth0 {PACKET}"
KERNEL = {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel", "_HOSTNAME": "gate"}
SHORT_FORMS = (
    "short", "short-full", "short-iso", "short-iso-precise", "short-precise", "short-monotonic", "short-unix",
    "with-unit",
)  # fmt: skip


def read(data: bytes) -> tuple[list[Event], Counts]:
    """The events that the lines would have become, and the account of the lines."""
    old = LogFileReader([DENIED], Filters(), StampReader(datetime.now()))  # noqa: DTZ005 - stamps are local times.
    return list(old.events(data.splitlines())), old.counts


def run(*words: str, **env: str) -> bytes:
    """What a program prints."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **env}
    return subprocess.run(words, capture_output=True, check=True, timeout=LONGEST, env=environment).stdout


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three packets of the kernel's, one by a device with an odd name, and what others wrote to look like them."""
    directory = tmp_path_factory.mktemp("journal")
    with GrowingJournal(directory) as growing:
        for message in (LINE, f"iptables denied: IN=e\x1b[2J {PACKET}", LINE):
            growing.entry(message, **KERNEL)
        growing.entry(LINE, **{**KERNEL, "SYSLOG_FACILITY": "1", "SYSLOG_IDENTIFIER": "kern"})
        for text, name in (
            (LINE, "kernel"), (f"kernel: {LINE}", "x"), (f"x\nNov 22 23:33:15 gate kernel: {LINE}", "y"),
            (PACKET, "iptables denied"), (f" IN=eth0 {PACKET}", "iptables denied"), (LINE, "gate kernel"),
        ):  # fmt: skip
            growing.entry(text, _TRANSPORT="syslog", SYSLOG_IDENTIFIER=name, _PID="12", _HOSTNAME="gate")
        growing.wait()
    return directory


@pytest.fixture(params=["UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "IST-5:30"])
def _zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is that of another place, for us and for the programs that we run."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_zone")
@pytest.mark.parametrize("form", SHORT_FORMS)
def test_every_short_form_of_journalctl(journal: Path, form: str) -> None:
    """Each form gives the kernel's packets, with the time of the entry where the form tells one, in any zone; a message
    that journalctl left out is counted, and there with --all; nothing that others wrote is taken for a packet."""
    words = ("journalctl", f"--directory={journal}", "--quiet", f"--output={form}")
    entries, _ = read(run(*words[:-1], "--output=json"))
    for options in (), ("--no-hostname",):
        events, counts = read(run(*words, *options))
        assert (len(events), counts.ours, counts.left_out, counts.unparsed) == (2, 2, 1, 0)
        everything, counts = read(run(*words, *options, "--all"))
        assert [event.fields["in"] for event in everything] == ["eth0", "e\\x1b[2J", "eth0"]
        for event, entry in zip(everything, entries, strict=True):
            assert event.host == (None if options else "gate")
            assert entry.realtime is not None
            if form == "short-monotonic":
                assert (event.realtime, event.uptime is not None) == (None, True)
            else:
                assert event.realtime is not None
                assert 0 <= entry.realtime - event.realtime < 1_000_000


@pytest.mark.parametrize("form", ["json", "export", "json-pretty", "json-seq", "json-sse", "verbose"])
def test_every_long_form_of_journalctl(journal: Path, form: str) -> None:
    """Each form with all fields gives the kernel's packets, with their times, and nothing that others wrote."""
    words = ("journalctl", f"--directory={journal}", "--quiet", "--all")
    entries, _ = read(run(*words, "--output=json"))
    events, counts = read(run(*words, f"--output={form}"))
    assert [event.fields["in"] for event in events] == ["eth0", "e\\x1b[2J", "eth0"]
    assert [(event.host, event.realtime) for event in events] == [(entry.host, entry.realtime) for entry in entries]
    assert (counts.ours, counts.unparsed, counts.bare) == (3, 0, 0)


def test_messages_alone(journal: Path) -> None:
    """Without any head the text decides, and the account says so: whoever may write to the journal can write it."""
    words = ("journalctl", f"--directory={journal}", "--quiet", "--all", "--output=cat", "_TRANSPORT=kernel")
    events, counts = read(run(*words))
    assert [event.fields["in"] for event in events] == ["eth0", "e\\x1b[2J", "eth0", "eth0"]
    assert counts.bare == 4


@pytest.mark.parametrize("options", [["-t"], ["-e"], ["-J"], ["-x", "-J"], ["-x", "-t"]])
def test_forms_of_dmesg_without_the_time_of_day(tmp_path: Path, options: list[str]) -> None:
    """Each form without a whole time is read; where it has the facility, a line that user space wrote is not."""
    path = tmp_path / "log"
    path.write_text(f"<4>[   12.345678] {LINE}\n<12>[   12.345679] {LINE}\n", encoding="ascii")
    events, counts = read(run("dmesg", "--file", str(path), "--nopager", *options))
    assert counts.ours == (1 if "-x" in options else 2)
    assert events[0].fields["src"] == "203.0.113.9"


@pytest.mark.parametrize(
    "options", [[], ["-T"], ["-x"], ["-r"], ["-d"], ["--time-format=iso"], ["-x", "-T"], ["-x", "--time-format=iso"]]
)
def test_forms_of_dmesg(tmp_path: Path, options: list[str]) -> None:
    """Each form that tells a time; where it tells the facility, a line that user space wrote is passed over."""
    path = tmp_path / "log"
    path.write_text(f"<4>[   12.345678] {LINE}\n<12>[   12.345679] {LINE}\n", encoding="ascii")
    events, counts = read(run("dmesg", "--file", str(path), "--nopager", *options))
    decoded = "-x" in options or "-r" in options
    assert (counts.ours, counts.foreign) == ((1, 1) if decoded else (2, 0))
    assert events[0].fields["src"] == "203.0.113.9"
    assert (events[0].realtime is None) != (events[0].uptime is None)
