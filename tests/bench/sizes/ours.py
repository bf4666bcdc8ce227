"""fwguardd as it is measured: a real daemon in a place of its own, which logs to the socket of a journal there."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.control.client import ask
from fwguardd.enforce.schedule import NOTICE_GAP
from tests.bench.sizes.place import ROOT, Place, PlaceError
from tests.bench.sizes.rules import CHAINS, Rules, rule_files

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

PYTHON: Final = str(Path(sys.base_prefix) / "bin" / "python3")
"""The interpreter of the service: that of the system, not that of the virtual environment of the tests."""

_SETTLED: Final = 0.2
"""Seconds from a change of files to the reload. As long do changed files settle by default; the processes of the
rehearsal start when the first one changes."""

_LONGEST: Final = 300.0

# Files settle for longer than a measurement takes: every pass is asked for by a reload. An hour between two looks
# leaves only those that the kernel's notices cause.
_SETTINGS: Final = "settle: 60s\nsettle_max: 60s\ndrift_interval: 1h\nforeign: remove\n"

_SHIPPED: Final = ROOT / "etc" / "fwguard.d"


class Guard:
    """A daemon with the rules of a size, or the shipped ones."""

    def __init__(self, place: Place, backend: str = "nft") -> None:
        self.place, self._backend = place, backend
        self.rules = place.folder / "rules"
        self.rules.mkdir()
        self._control = place.folder / "run" / "control.sock"
        (place.folder / "fwguardd.yaml").write_text(_SETTINGS)
        self._process: subprocess.Popen[bytes] | None = None
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(place.folder / "notify"))
        self._changes = 0

    def write(self, rules: Rules | None) -> None:
        """Put these rules in the place of the former ones, or the shipped rules; unchanged files stay untouched. Then
        let them settle."""
        for name, text in (_shipped() if rules is None else rule_files(rules)).items():
            path = self.rules / name
            if path.exists() and path.read_text() == text:
                continue
            beside = self.rules / f".{name}.new"
            beside.write_text(text)
            beside.rename(path)
        time.sleep(_SETTLED)

    def touch(self) -> None:
        """Give one file another time, and let that settle."""
        os.utime(next(iter(sorted(self.rules.glob("*.rules")))))
        time.sleep(_SETTLED)

    def start(self) -> float:
        """Start the daemon; the seconds from exec to READY."""
        folder = str(self.place.folder)
        argv = [PYTHON, "-m", "fwguardd", "--log", "journal", "--backend", self._backend]
        argv += ["--config", f"{folder}/fwguardd.yaml", "--rules-dir", str(self.rules)]
        argv += ["--state-dir", f"{folder}/state", "--runtime-dir", f"{folder}/run"]
        begun = time.perf_counter()
        self._process = self.place.start(argv, PYTHONPATH=str(ROOT), NOTIFY_SOCKET=f"{folder}/notify")
        while b"READY=1" not in self._received(self._notify, "READY"):
            pass
        return time.perf_counter() - begun

    def _received(self, end: socket.socket, what: str) -> bytes:
        assert self._process is not None
        if not select.select([end], [], [], _LONGEST)[0]:
            raise PlaceError(f"fwguardd sent no {what}; it ended with {self._process.poll()}")
        return end.recv(1 << 20)

    def stop(self) -> None:
        """End the daemon; the rules stay loaded."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_LONGEST)
        self._process = None
        self._read_all()

    def close(self) -> None:
        """End the daemon, and let go of the socket that it notifies."""
        self.stop()
        self._notify.close()

    def reload(self) -> float:
        """A whole pass; the seconds until its answer. Raises PlaceError where the rules were not accepted."""
        self._read_all()
        begun = time.perf_counter()
        answer = ask(self._control, "reload")
        seconds = time.perf_counter() - begun
        if answer.get("outcome") not in {"applied", "unchanged"}:
            raise PlaceError(f"reload: {answer}")
        self._read_all()
        return seconds

    def foreign_change(self) -> tuple[float, float]:
        """Another program empties a chain; the seconds from its start until the event that reports it, and until the
        repair. The event often comes before the program has ended, which waits until the kernel has freed the rule."""
        ask(self._control, "drift")
        time.sleep(2 * NOTICE_GAP)  # A change right after a pass waits for that time.
        self._read_all()
        self._changes += 1
        begun = time.perf_counter()
        with self.place.start([f"iptables-{self._backend}", "-F", f"C{self._changes % CHAINS}"]) as program:
            found = self._event("drift.detected") - begun
            repaired = self._event("drift.repaired") - begun
        if program.returncode:
            raise PlaceError(f"iptables could not empty a chain: code {program.returncode}")
        return found, repaired

    def _event(self, name: str) -> float:
        wanted = f"FWGUARD_EVENT={name}\n".encode()
        while wanted not in self._received(self.place.journal, name):
            pass
        return time.perf_counter()

    def _read_all(self) -> None:
        """So that no queue fills."""
        for end in (self.place.journal, self._notify):
            while select.select([end], [], [], 0)[0]:
                end.recv(1 << 20)

    def processes(self) -> list[int]:
        """The daemon and its children."""
        assert self._process is not None
        found, unseen = [], [self._process.pid]
        while unseen:
            pid = unseen.pop()
            found.append(pid)
            unseen += [int(word) for word in _read(pid, f"task/{pid}/children").split()]
        return found

    def memory(self) -> Mapping[str, float]:
        """MiB of the daemon and its children: what they share counted once (PSS); and RSS of the daemon alone."""
        processes = self.processes()
        return {
            "memory, daemon and children": sum(_kilobytes(pid, "Pss") for pid in processes) / 1024,
            "memory, the daemon": _kilobytes(processes[0], "Rss") / 1024,
        }

    def processor_time(self) -> float:
        """Seconds of processors that the daemon, its children and those that have ended have used so far."""
        ended = 0.0
        for pid in self.processes():
            fields = _read(pid, "stat").rpartition(")")[2].split()
            ended += (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK") if fields else 0.0
        return ended + sum(_used(pid)[0] for pid in self.processes())

    def idle(self, seconds: float) -> Mapping[str, float]:
        """Processor time in ms and wake-ups of the daemon and its children in a minute in which nothing happens."""
        before = [_used(pid) for pid in self.processes()]
        time.sleep(seconds)
        after = [_used(pid) for pid in self.processes()]
        cpu, wakes = (sum(each[kind] for each in after) - sum(each[kind] for each in before) for kind in (0, 1))
        return {"idle, processor time": 1000 * cpu * 60 / seconds, "idle, wake-ups": wakes * 60 / seconds}

    def verb(self, *argv: str) -> float:
        """Run fwguardctl; the seconds that it took."""
        program = [PYTHON, "-m", "fwguardd.ctl.main", "--socket", str(self._control)]
        if argv[0].startswith("-") or argv[0] == "check":
            program = program[:3]
        return self.place.run("env", f"PYTHONPATH={ROOT}", *program, *argv)

    def boot(self) -> float:
        """The boot loader, on an empty kernel; the seconds that it took."""
        folder = self.place.folder
        self.flush()
        return self.place.run(
            *("sh", str(ROOT / "packaging" / "fwguardd-boot"), "--state-dir", str(folder / "state")),
            *("--runtime-dir", str(folder / "run"), "--emergency-dir", str(ROOT / "packaging" / "emergency")),
        )

    def flush(self) -> None:
        """Empty the tables, as a boot finds them."""
        for program in ("iptables", "ip6tables"):
            self.place.run(f"{program}-{self._backend}-restore", text="*filter\nCOMMIT\n")


def _shipped() -> Mapping[str, str]:
    return {path.name: path.read_text() for path in _SHIPPED.iterdir()}


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _kilobytes(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+([0-9]+) kB", _read(pid, "smaps_rollup"), re.MULTILINE)
    return int(found[1]) if found else 0


def _used(pid: int) -> tuple[float, int]:
    """Seconds on a processor, and how often a thread has waited."""
    seconds, waits = 0.0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        schedule = _read(pid, f"task/{task.name}/schedstat").split()
        seconds += int(schedule[0]) / 1e9 if schedule else 0.0
        found = re.search(r"^voluntary_ctxt_switches:\s+([0-9]+)", _read(pid, f"task/{task.name}/status"), re.MULTILINE)
        waits += int(found[1]) if found else 0
    return seconds, waits
