"""From a file's rename into the directory to iptables-save showing it."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SETTLE = 0.05
ROUNDS = 9
MOST_RATIO = 6.0


def _files() -> dict[str, str]:
    """Ten files with a hundred rules between them, one of them for the files to be guarded by."""
    files = {
        "00-base.rules": "-P INPUT DROP\n"
        + "".join(f"-A INPUT -i lo -p tcp --dport {port} -j ACCEPT\n" for port in range(9))
    }
    for number in range(1, 10):
        ports = range(number * 100, number * 100 + 10)
        text = "".join(f"-A INPUT -s 10.{number}.{port % 250}.0/24 -p tcp --dport {port} -j ACCEPT\n" for port in ports)
        files[f"{number}0-part.rules"] = text
    return files


def _bare_restore(backend: str, text: str) -> float:
    """Seconds that one bare iptables-restore of the text takes in this namespace."""
    begun = time.perf_counter()
    subprocess.run([f"iptables-{backend}-restore"], input=text, text=True, check=True)
    return time.perf_counter() - begun


def _shown(backend: str, port: int, begun: float) -> float:
    """Seconds from ``begun`` until the end of the first iptables-save that shows the port."""
    while time.perf_counter() - begun < 5:
        saved = subprocess.run([f"iptables-{backend}-save"], capture_output=True, text=True, check=True).stdout
        if f"--dport {port} " in saved:
            return time.perf_counter() - begun
        time.sleep(0.0005)
    raise AssertionError("the rule never came")


def test_a_dropped_file_is_shown_soon(
    start_daemon: Callable[..., Any], backend: str, record_property: Callable[[str, object], None]
) -> None:
    """Less the settle time, a dropped file takes at most six times what one bare iptables-restore of the text takes:
    for a rehearsal and a load of both families, each verified."""
    daemon = start_daemon(_files(), f"settle: {int(SETTLE * 1000)}ms\n")
    daemon.event("rules.applied")
    ours: list[float] = []
    bare: list[float] = []
    for number in range(ROUNDS):
        time.sleep(0.3)
        port = 20000 + number
        beside = daemon.rules / ".new"
        beside.write_text(f"-A INPUT -p tcp --dport {port} -j ACCEPT\n")
        begun = time.perf_counter()
        beside.rename(daemon.rules / "95-new.rules")
        ours.append(_shown(backend, port, begun) - SETTLE)
        daemon.event("rules.applied")
        text = subprocess.run([f"iptables-{backend}-save"], capture_output=True, text=True, check=True).stdout
        bare.append(_bare_restore(backend, text))
    took, alone = statistics.median(ours), statistics.median(bare)
    ratio = took / alone
    figures = f"{backend}: {took * 1000:.1f} ms, bare {alone * 1000:.1f} ms, ratio {ratio:.1f}"
    record_property("latency", figures)
    print(figures)
    assert ratio <= MOST_RATIO, figures


def test_files_that_keep_coming_are_not_waited_for(start_daemon: Callable[..., Any]) -> None:
    """A pass begins settle_max after the first notice, though more come all the time."""
    daemon = start_daemon(_files(), "settle: 300ms\nsettle_max: 900ms\n")
    daemon.event("rules.applied")
    begun = time.monotonic()
    while time.monotonic() - begun < 2.0:
        (daemon.rules / ".busy").write_text("not yet a rule file\n")
        (daemon.rules / "99-busy.rules").write_text("-A INPUT -p tcp --dport 3000 -j ACCEPT\n")
        time.sleep(0.03)
    assert daemon.event("rules.applied", seconds=0.1)["cause"] == "change"
