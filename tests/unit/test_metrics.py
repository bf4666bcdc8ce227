"""What is counted for metrics, how many series it makes, and the alerts."""

from __future__ import annotations

import _thread
import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd import events
from fwguardd.enforce.sets import SetInUse
from fwguardd.metrics.counts import MOST_SERIES, OTHER, EventCounts
from fwguardd.metrics.textfile import TextFile, replace

if TYPE_CHECKING:
    from fwguardd.events import EventKind

ALERTS = Path(__file__).with_name("alerts.test.yml")


def _samples(counts: EventCounts, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a family, by the values of their labels."""
    (family,) = (family for family in counts.families() if family.name == name)
    return {
        (sample["name"].removeprefix(name), *sample["labels"].values()): sample["value"] for sample in family.samples
    }


@pytest.mark.parametrize(
    ("kind", "fields", "name", "labels"),
    [
        (events.REJECTED, {"code": "no-such-port"}, "fwguard_refusals_total", ("no-such-port",)),
        (events.DRIFT, {"culprit_process": "sh", "culprit_unit": "x.service"}, "fwguard_drift_total", ("x.service",)),
        (events.DRIFT, {"culprit_process": "iptables"}, "fwguard_drift_total", ("iptables",)),
        (events.DRIFT, {}, "fwguard_drift_total", ("unknown",)),
        (events.REPAIRED, {}, "fwguard_repairs_total", ("unknown",)),
        (events.FIGHT, {"culprit_unit": "y.service"}, "fwguard_fights_total", ("y.service",)),
        (events.SWEEP, {"src": "192.0.2.1", "count": 9}, "fwguard_scans_total", ("sweep",)),
    ],
)
def test_an_event_is_counted_by_what_it_is_about(
    kind: EventKind, fields: dict[str, Any], name: str, labels: tuple[str, ...]
) -> None:
    """Each event counts once, under the program, code or kind that it names, and under its own name."""
    counts = EventCounts()
    counts.event(kind, fields)
    assert _samples(counts, name) == {("", *labels): 1}
    assert _samples(counts, "fwguard_events_total") == {("", kind.name): 1}


def test_a_repair_is_counted_for_the_program_of_the_drift() -> None:
    """The event of a repair names no program; the drift before it does."""
    counts = EventCounts()
    counts.event(events.DRIFT, {"culprit_process": "ufw"})
    counts.event(events.REPAIRED, {})
    assert _samples(counts, "fwguard_repairs_total") == {("", "ufw"): 1}


def test_a_summary_counts_the_packets_that_it_stands_for() -> None:
    """Single denials and summaries add up, and no label has the address of a packet."""
    counts = EventCounts()
    of_packet = {"name": "denied", "meaning": "denied", "rule": "10.rules:3", "src": "192.0.2.1", "dpt": 23}
    counts.event(events.DENIED, of_packet)
    counts.event(events.DENIED_SUMMARY, of_packet | {"count": 41})
    counts.event(events.DENIALS_SUPPRESSED, {"name": "denied", "count": 7})
    assert _samples(counts, "fwguard_logged_packets_total") == {("", "denied", "denied", "10.rules:3"): 42}
    assert _samples(counts, "fwguard_suppressed_lines_total") == {("", "denied"): 7}


def test_each_set_has_a_size_and_an_age() -> None:
    """A set has its entries and when its file was written; one that is fetched also says how often. A set that is
    loaded between two passes has its new size at once."""
    counts = EventCounts()
    counts.use_sets({"blocked": SetInUse(3, 1000.5, None), "bad": SetInUse(7, 2000.0, 3600.0)})
    counts.event(events.SET_LOADED, {"set": "blocked", "entries": 4})
    assert _samples(counts, "fwguard_set_entries") == {("", "blocked"): 4, ("", "bad"): 7}
    assert _samples(counts, "fwguard_set_written_timestamp_seconds") == {("", "blocked"): 1000.5, ("", "bad"): 2000.0}
    assert _samples(counts, "fwguard_list_interval_seconds") == {("", "bad"): 3600.0}


def test_the_number_of_series_is_bounded() -> None:
    """Rules whose lines move with each edit make no more series than the limit; the others are counted together."""
    counts = EventCounts()
    for line in range(MOST_SERIES + 5):
        counts.event(events.DENIED, {"name": "denied", "meaning": "denied", "rule": f"10.rules:{line}"})
    samples = _samples(counts, "fwguard_logged_packets_total")
    assert len(samples) == MOST_SERIES + 1
    assert samples["", OTHER, OTHER, OTHER] == 5


def test_durations_are_counted_in_every_bucket_from_their_own_on() -> None:
    """A bucket counts the passes that took at most so long; the last one counts all."""
    counts = EventCounts()
    counts.passed("change", "done", 0.05)
    counts.passed("timer", "done", 100.0)
    samples = _samples(counts, "fwguard_pass_duration_seconds")
    assert (samples["_bucket", "done", "0.025"], samples["_bucket", "done", "0.05"]) == (0, 1)
    assert (samples["_bucket", "done", "60.0"], samples["_bucket", "done", "+Inf"]) == (1, 2)
    assert (samples["_count", "done"], samples["_sum", "done"]) == (2, 100.05)
    assert _samples(counts, "fwguard_passes_total") == {("", "change", "done"): 1, ("", "timer", "done"): 1}


def test_the_file_replaces_a_link_and_follows_none(tmp_path: Path) -> None:
    """Whatever another user has put at the name is replaced, and what it leads to is not written to."""
    target, path = tmp_path / "target", tmp_path / "fwguard.prom"
    target.write_text("as it was")
    path.symlink_to(target)
    (tmp_path / ".fwguard.prom.new").symlink_to(target)
    replace(path, b"fwguard_revision 1\n")
    assert (path.read_bytes(), path.is_symlink(), path.stat().st_mode & 0o777) == (
        b"fwguard_revision 1\n",
        False,
        0o644,
    )
    assert target.read_text() == "as it was"


@pytest.mark.tools
def test_each_alert_fires_for_its_reason_and_for_no_other() -> None:
    """The alerts are run by promtool on invented series: see the file."""
    tested = subprocess.run(["promtool", "test", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_file_of_metrics_without_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host that has no thread to spare that the file cannot be removed is an event, and nothing waits or fails."""
    emitted: list[str] = []

    def refused(_run: object, _args: object) -> int:
        raise RuntimeError("can't start new thread")

    def emit(kind: EventKind, _message: str, /, **_fields: Any) -> None:
        emitted.append(kind.name)

    monkeypatch.setattr(_thread, "start_new_thread", refused)
    loop = asyncio.new_event_loop()
    file = TextFile(loop, lambda: {"families": []}, emit)
    file.use(tmp_path / "metrics.prom")
    file.close()
    loop.close()
    assert emitted == ["metrics.failed"]
