"""A bed: a machine that the tests boot, with a real systemd and journald, in namespaces of its own.

Nothing of this machine is touched: what is written in it goes to a tmpfs, and its network is its own. But the kernel is
shared, and so is its log: whoever reads LOG lines needs a prefix that nobody else uses.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.processes import ended_on_error
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

MACHINE = Path(__file__).with_name("machine.py")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Bed:
    """A machine: off when made, so that files can be put in place; `boot` starts it, and leaving the block ends it."""

    def __init__(self, root: Path, shared: Path, *layers: Path) -> None:
        """Set up its file system on top of ``root``, and of the layers above it, the topmost first. ``shared`` is an
        empty folder, seen inside as /shared."""
        self._cgroup = _own_cgroup(f"fwguardd-bed-{os.getpid()}-{time.monotonic_ns()}")
        join = f'echo $$ >"{self._cgroup}/cgroup.procs"; exec "$@"'
        machine = [sys.executable, "-I", "-S", str(MACHINE), ":".join(map(str, (*layers, root))), str(shared)]
        self._console = (shared / "console").open("wb")
        self._machine = subprocess.Popen(
            ["sh", "-c", join, "sh", "unshare", "--mount", "--propagation", "private", "--", *machine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._console,
            text=True,
        )
        with ended_on_error(self._machine):
            self._said("ready")
        self.tree = Path(f"/proc/{self._machine.pid}/root{shared}/machine/root")
        self.leader = 0

    @property
    def written(self) -> Path:
        """What was written on its disk: a layer for other beds with the same root."""
        return self.tree.with_name("upper")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._machine.stdin is not None
        assert self._machine.stdout is not None
        self._machine.stdin.close()
        self._machine.wait(LONGEST)
        self._machine.stdout.close()
        self._console.close()
        _remove_cgroup(self._cgroup)

    def prepare(self, command: str) -> None:
        """Run a command on its disk, while it is off."""
        argv = ["chroot", str(self.tree), "env", "-i", f"PATH={PATH}", "LC_ALL=C.UTF-8", *shlex.split(command)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LONGEST, check=False)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"

    def boot(self) -> None:
        """Switch it on, and wait until it has started all that it should."""
        assert self._machine.stdin is not None
        self._machine.stdin.write("boot\n")
        self._machine.stdin.flush()
        self._wait_for_boot()

    def reboot(self) -> None:
        """Reboot it: its processes and its network namespace end, its disk stays."""
        self.run("systemctl reboot --no-block")
        self._wait_for_boot()

    def _wait_for_boot(self) -> None:
        self.leader = int(self._said("booted"))
        assert self.leader, "the machine did not boot"
        wait_until(self._has_started, "the end of the boot")

    def _has_started(self) -> bool:
        """Waits by itself as soon as there is a systemd to ask."""
        if not Path(f"/proc/{self.leader}/root/run/systemd/private").exists():
            return False
        state = self.run("systemctl is-system-running --wait", check=False).stdout.strip()
        return state in ("running", "degraded")

    def _said(self, word: str) -> str:
        assert self._machine.stdout is not None
        line = self._machine.stdout.readline().split()
        assert line[:1] == [word], f"the machine said {line}, not {word}; {Path(self._console.name).read_text()}"
        return line[-1]

    def file(self, path: str) -> Path:
        """A file of its disk, seen from outside; what it mounts itself (/run, /tmp, /dev, /proc) is not there."""
        return self.tree / path.lstrip("/")

    def run(
        self, command: str, *, check: bool = True, stdin: str = "", longest: float = LONGEST
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root, outside of any of its units. It may take so many seconds."""
        argv = ["nsenter", f"--target={self.leader}", "--all", "--", "env", "-i", f"PATH={PATH}", "HOME=/root"]
        argv += ["LC_ALL=C.UTF-8", "SYSTEMD_PAGER=", *shlex.split(command)]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=longest, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def output(self, command: str) -> str:
        """What a command in it prints."""
        return self.run(command).stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit (systemctl show)."""
        return self.output(f"systemctl show --value --property={name} {unit}").strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Entries of its journal with these fields, oldest first."""
        lines = self.output(shlex.join(["journalctl", "--output=json", "--no-pager", "--all", *matches])).splitlines()
        return [json.loads(line) for line in lines]

    def event(self, name: str, *matches: str, after: int = 0) -> dict[str, Any]:
        """The event of this name that comes after the first ``after`` of them; waits for it."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = self.journal("SYSLOG_IDENTIFIER=fwguardd", f"FWGUARD_EVENT={name}", *matches)
            return len(found) > after

        wait_until(there, f"event {name} {matches}", pause=0.05)
        return found[after]


PEER_NETWORK = """
ip netns add peer
ip link add wan0 type veth peer name lan0 netns peer
ip address add 198.51.100.1/24 dev wan0
ip link set wan0 up
ip -n peer address add 198.51.100.2/24 dev lan0
ip -n peer link set lan0 up
"""

SEND = """
import socket, sys, time
first, count, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for port in range(first, first + count):
        sender.sendto(b"?", ("198.51.100.1", port))
        time.sleep(pause)
"""


class Guarded:
    """A bed that fwguardd guards, with a watched prefix that no other machine's lines have."""

    def __init__(self, bed: Bed, prefix: str) -> None:
        """Write the prefix into its settings and its rules. Denials come from the kernel log."""
        self.bed, self.prefix = bed, prefix
        self.rules = bed.file("/etc/fwguard.d")
        settings = bed.file("/etc/fwguardd.yaml")
        self._shipped = settings.read_text()
        self.set_source("kmsg")
        log = self.rules / "99-log.rules"
        log.write_text(log.read_text().replace("iptables denied: ", prefix))

    def set_source(self, source: str) -> None:
        """Have denials come from there, after the next start or reload."""
        text = f'source: {source}\ndenials_window: 0s\nprefixes:\n  - {{name: denied, prefix: "{self.prefix}"}}\n'
        self.bed.file("/etc/fwguardd.yaml").write_text(self._shipped + text)

    def drop(self, name: str, text: str) -> None:
        """Put a rule file in place as careful programs do: written beside, then renamed."""
        beside = self.rules / f".{name}.new"
        beside.write_text(text)
        beside.rename(self.rules / name)

    def remove(self, name: str) -> None:
        """Take a rule file away, and wait until that is in force."""
        (self.rules / name).unlink()
        self.bed.run("fwguardctl reload")

    @contextlib.contextmanager
    def drop_in(self, unit: str, text: str) -> Iterator[None]:
        """Change a unit's [Service] section, and restart fwguardd with that; back again afterwards."""
        folder = self.bed.file(f"/etc/systemd/system/{unit}.d")
        folder.mkdir()
        (folder / "test.conf").write_text(f"[Service]\n{text}\n")
        self._begin_anew()
        yield
        (folder / "test.conf").unlink()
        folder.rmdir()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.bed.run("systemctl daemon-reload")
        self.bed.run("systemctl restart fwguardd")

    def add_peer(self) -> None:
        """Another host, 198.51.100.2, on the far end of wan0, which has 198.51.100.1."""
        for command in PEER_NETWORK.strip().splitlines():
            self.bed.run(command)

    def peer_sends(self, port: int, count: int = 1, pause: float = 0.0) -> None:
        """The peer sends UDP packets to this port and those above it, so many in all."""
        self.bed.run(f"ip netns exec peer python3 - {port} {count} {pause}", stdin=SEND)

    def saved(self) -> str:
        """What is loaded for IPv4, without comments and counters."""
        lines = self.bed.output("iptables-save").splitlines()
        return "\n".join(line.partition(" [")[0] if line[0] == ":" else line for line in lines if line[0] != "#")


def _own_cgroup(name: str) -> Path:
    unified = Path("/sys/fs/cgroup/unified")
    parent = Path("/sys/fs/cgroup") if Path("/sys/fs/cgroup/cgroup.controllers").exists() else unified
    cgroup = parent / name
    cgroup.mkdir()
    return cgroup


def _remove_cgroup(cgroup: Path) -> None:
    """Take away the groups that systemd made in it, the innermost first; they are empty a moment after the last end."""

    def empty() -> bool:
        for folder in sorted(cgroup.rglob("*/"), key=lambda path: -len(path.parts)):
            _try_rmdir(folder)
        return _try_rmdir(cgroup)

    wait_until(empty, f"the end of the processes in {cgroup}")


def _try_rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
