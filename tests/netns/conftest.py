"""A network namespace for each test, a peer host on the other end of a veth, and a real daemon.

The test process itself moves into a fresh namespace, and so does everything that it starts: no test here can reach the
machine's own rules. After the test it moves back.
"""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from fwguardd.control import client
from fwguardd.control.client import ask
from fwguardd.enforce import known_lines, proof, record
from fwguardd.kernel import iptables
from fwguardd.kernel.kmsg import KernelLog, Record, Start
from fwguardd.kernel.ssh_sessions import ssh_sessions
from tests.netns.fault_bench import PROGRAM_SECONDS, FaultBench
from tests.netns.namespaces import OUTSIDE, SYSCTL, fresh_namespace
from tests.netns.small_host import small_host
from tests.processes import end, ended_on_error
from tests.scale import BACKENDS, EITHER
from tests.unit.emitted import check_json
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.netns.crashing import Saved

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "etc" / "fwguard.d"


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    """Every test in this folder runs in a namespace of its own, whether it asks for it or not."""
    own = os.readlink("/proc/thread-self/ns/net")
    with fresh_namespace():
        assert os.readlink("/proc/thread-self/ns/net") != own
        yield
    assert os.readlink("/proc/thread-self/ns/net") == own


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory: a daemon forces each file to the disk, and takes a disk that is busy with the files of other
    tests for one that hangs. Tests run scripts in it, which some containers forbid in /dev/shm."""
    memory = Path("/dev/shm")
    if os.statvfs(memory).f_flag & os.ST_NOEXEC:
        memory = Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix="fwguardd-test-", dir=memory) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _patient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks a daemon waits longer for the answer than the command line does: the machine may be busy."""
    monkeypatch.setattr(client, "SHORT", LONGEST)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, seed: int) -> str:
    """Each of the two backends; or one of them, which the seed chooses for each test with the mark either_backend."""
    if request.param == EITHER:
        return random.Random(f"{seed} {request.node.nodeid}").choice(BACKENDS)
    return str(request.param)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can read. Those of pytest lie in one that each start of pytest closes to others."""
    with tempfile.TemporaryDirectory(prefix="fwguardd-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


class Peer:
    """Another host: a namespace on the far end of a veth, 198.51.100.2 and 2001:db8::2; this end has .1 and ::1."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        with ended_on_error(self._holder):
            self._set_up()

    def _set_up(self) -> None:
        own = os.readlink("/proc/thread-self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != own, "the peer's namespace")
        for command in (
            f"ip link add guard0 type veth peer name peer0 netns {self._holder.pid}",
            "ip address add 198.51.100.1/24 dev guard0",
            "ip address add 2001:db8::1/64 dev guard0 nodad",
            "ip link set guard0 up",
        ):
            subprocess.run(command.split(), check=True)
        self.run("ip address add 198.51.100.2/24 dev peer0")
        self.run("ip address add 2001:db8::2/64 dev peer0 nodad")
        self.run("ip link set peer0 up")
        self.run("ip link set lo up")
        state = Path("/sys/class/net/guard0/operstate")
        wait_until(lambda: "UP" in output("ip -o link show guard0") or state.exists(), "the veth")

    def run(self, command: str) -> str:
        """Run a command on the peer."""
        return output(f"nsenter --net=/proc/{self._holder.pid}/ns/net {command}")

    @contextmanager
    def started(self, argv: Sequence[str]) -> Iterator[IO[str]]:
        """A program that runs on the peer until its input ends; what it prints."""
        inside = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *argv]
        with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            yield process.stdout
            process.stdin.close()

    def connects(self, address: str, port: int, seconds: float = LONGEST) -> bool:
        """Whether a TCP connection from the peer comes about."""
        family = "AF_INET6" if ":" in address else "AF_INET"
        code = (
            f"import socket; s = socket.socket(socket.{family}); s.settimeout({seconds});"
            f"raise SystemExit(s.connect_ex(({address!r}, {port})) != 0)"
        )
        argv = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", sys.executable, "-I", "-S", "-c", code]
        return subprocess.run(argv, check=False).returncode == 0

    def close(self) -> None:
        """The peer goes away, and the veth with it."""
        end(self._holder)


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A host to send packets from."""
    made = Peer()
    yield made
    made.close()


@pytest.fixture
def kernel_log_of_namespaces() -> Iterator[Callable[[], None]]:
    """LOG lines of namespaces reach the kernel log; call it right before sending. Put back afterwards."""
    before = OUTSIDE.submit(SYSCTL.read_text).result()

    def switch_on() -> None:
        OUTSIDE.submit(SYSCTL.write_text, "1").result()

    switch_on()
    yield switch_on
    OUTSIDE.submit(SYSCTL.write_text, before).result()


class Daemon:
    """A real fwguardd in the test's namespace, its events as they come."""

    def __init__(
        self, folder: Path, backend: str, settings: str, environment: dict[str, str], *, enter: Sequence[str] = ()
    ) -> None:
        """Start it, by the program ``enter`` if one is given, which has to become it."""
        self.rules = folder / "rules"
        self.config = folder / "fwguardd.yaml"
        self.config.write_text(_with_defaults(settings))
        argv = [*enter, sys.executable, "-m", "fwguardd", "--log", "json", "--backend", backend]
        argv += ["--config", str(self.config), "--rules-dir", str(self.rules)]
        argv += ["--state-dir", str(folder / "state"), "--runtime-dir", str(folder / "run")]
        self.process = subprocess.Popen(
            argv,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.seen: list[dict[str, Any]] = []
        self.backend = backend
        self._repairs = 0
        self._events: queue.Queue[tuple[float, dict[str, Any]]] = queue.Queue()
        self.arrived = 0.0
        """When the event that `event` returned last was read, by time.monotonic(): for the benches."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put((time.monotonic(), json.loads(line)))

    def event(self, name: str, **fields: object) -> dict[str, Any]:
        """The next event of this name with these fields; events before it are passed over."""
        deadline = time.monotonic() + LONGEST
        while True:
            try:
                self.arrived, event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                ended = "" if self.process.poll() is None else f"; it ended with {self.process.returncode}"
                raise AssertionError(f"no {name} {fields} within {LONGEST:g} s{ended}; seen: {self.seen}") from None
            self.seen.append(event)
            check_json(event)
            if event["event"] == name and all(event.get(key) == value for key, value in fields.items()):
                return event

    def drop(self, name: str, text: str) -> None:
        """Put a rule file in place the way that careful programs do: written beside, then renamed."""
        drop(self.rules, name, text)

    def ask(self, verb: str) -> dict[str, Any]:
        """The result of a verb of the control socket."""
        return dict(ask(self.config.parent / "run" / "control.sock", verb))

    def end_pass(self) -> None:
        """Wait until the pass that emitted the last event has ended: the worker thread answers this verb after it. A
        daemon that has just been started may not have its control socket yet."""

        def answered() -> bool:
            try:
                self.ask("drift")
            except client.DaemonUnreachableError:
                return False
            return True

        wait_until(answered, "the end of the pass", pause=0.02)

    def repair(self) -> dict[str, Any]:
        """Change the rules and wait for the repair: a whole pass that began after everything so far. Tests in which
        nothing must happen wait for this in place of a span of time."""
        self._repairs += 1  # The same rule again and again would be a fight.
        argv = [f"iptables-{self.backend}", "-A", "OUTPUT", "-s", f"203.0.113.{self._repairs}", "-j", "DROP"]
        subprocess.run([*argv, "-w", "60"], check=True)
        if self.backend == "legacy":
            self.ask("drift")  # Only a look finds a change of legacy tables, and the timer may be a minute away.
        repaired = self.event("drift.repaired")
        self.end_pass()
        return repaired

    def events_until_its_end(self, name: str) -> list[dict[str, Any]]:
        """Stop it; all events of this name that it has ever emitted."""
        self.stop()
        return [event for event in self.all_events() if event["event"] == name]

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONGEST)

    def all_events(self) -> list[dict[str, Any]]:
        """All events that it emitted until its end, those included that were passed over."""
        self.process.wait(LONGEST)
        self._reader.join(LONGEST)
        while not self._events.empty():
            self.seen.append(self._events.get()[1])
        return list(self.seen)

    def denials_emitted(self) -> tuple[int, int, int]:
        """Denials that were emitted one by one until its end, those in summaries, and those that were lost."""
        seen = self.all_events()

        def summed(name: str) -> int:
            return sum(event["count"] for event in seen if event["event"] == name)

        return sum(event["event"] == "denied" for event in seen), summed("denied.summary"), summed("denials.lost")

    def close(self) -> None:
        """End it, however it is."""
        self.process.kill()
        self._reader.join(LONGEST)
        end(self.process)


def _with_defaults(settings: str) -> str:
    """Settings for a test: files settle quickly, and rules that a test adds are drift, whichever process adds them."""
    for default in ("settle: 50ms\n", "foreign: remove\n"):
        if default.split()[0] not in settings:
            settings = default + settings
    return settings


def drop(folder: Path, name: str, text: str) -> None:
    """Write a file beside, and rename it into place."""
    beside = folder / f".{name}.new"
    beside.write_text(text)
    beside.rename(folder / name)


@pytest.fixture
def start_daemon(tmp_path: Path, backend: str) -> Iterator[Callable[..., Daemon]]:
    """Starts a daemon on a copy of the shipped rules, or on given ones."""
    started: list[Daemon] = []

    def start(
        rules: dict[str, str] | None = None, settings: str = "", *, enter: Sequence[str] = (), **environment: str
    ) -> Daemon:
        folder = tmp_path / "rules"
        if not folder.exists():
            folder.mkdir()
            if rules is None:
                shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
            for name, text in (rules or {}).items():
                (folder / name).write_text(text)
        started.append(Daemon(tmp_path, backend, settings, environment, enter=enter))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


class Programs:
    """The iptables programs of a backend, with wrappers before them that count how often each is run."""

    def __init__(self, folder: Path, backend: str) -> None:
        folder.mkdir()
        self._log = folder / "log"
        self._log.touch()
        for family in ("iptables", "ip6tables"):
            for name in (f"{family}-{backend}", f"{family}-{backend}-save", f"{family}-{backend}-restore"):
                wrapper = folder / name
                wrapper.write_text(f'#!/bin/sh\necho {name} >>{self._log}\nexec /usr/sbin/{name} "$@"\n')
                wrapper.chmod(0o755)
        mount = f'mount --bind {folder} /usr/local/sbin && exec "$@"'
        self.enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh")
        """Starts a daemon in a mount namespace in which the wrappers lie in /usr/local/sbin, first on its PATH."""

    def run(self) -> Counter[str]:
        """How often each program has been run so far."""
        return Counter(self._log.read_text().split())


@pytest.fixture
def programs(tmp_path: Path, backend: str) -> Programs:
    """Counts the programs that are run by a daemon that is started with ``enter=programs.enter``."""
    return Programs(tmp_path / "counted", backend)


@pytest.fixture
def saved(backend: str) -> Callable[[], dict[str, list[str]]]:
    """What is loaded, by family: iptables-save without comments and counters."""

    def save() -> dict[str, list[str]]:
        return {
            name: _save(f"{program}-{backend}-save") for name, program in (("ipv4", "iptables"), ("ipv6", "ip6tables"))
        }

    return save


def _save(program: str) -> list[str]:
    lines = output(program).splitlines()
    return [line.partition(" [")[0] if line.startswith(":") else line for line in lines if not line.startswith("#")]


def output(command: str) -> str:
    """Run a command; its output."""
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


def newest_number() -> int:
    """The sequence number of the newest record of the kernel log."""
    with KernelLog(start=Start.OLDEST) as log:
        newest = 0
        while found := log.read_available(10_000):
            newest = max([newest, *(record.seq for record in found if isinstance(record, Record))])
    return newest


@pytest.fixture
def listen() -> Iterator[Callable[[int], None]]:
    """Servers in the test's namespace that accept connections on IPv4 and IPv6."""
    import socket  # noqa: PLC0415 - this file's other names shadow nothing.

    servers: list[socket.socket] = []

    def start(port: int) -> None:
        server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        servers.append(server)

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def fault_bench(backend: str, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultBench]:
    """A bench for faults, in a file system in memory: it forces each file to the disk thousands of times."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        monkeypatch.setenv("XTABLES_LOCKFILE", f"{folder}/lock")
        monkeypatch.setattr(iptables, "LOOK_SECONDS", PROGRAM_SECONDS)
        monkeypatch.setattr(iptables, "PROGRAM_SECONDS", PROGRAM_SECONDS)
        monkeypatch.setattr(record, "MANY_RULES", 1)  # The files of a revision are made beside the load.
        monkeypatch.setattr(known_lines, "FEWEST", 1)
        root = small_host(Path(folder, "host"))
        monkeypatch.setattr(proof, "ssh_sessions", partial(ssh_sessions, root))
        made = FaultBench(Path(folder), backend, saved)
        yield made
        made.close()
