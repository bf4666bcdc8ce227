"""A network and mount namespace of its own for each program that is measured."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[3]

_LONGEST: Final = 120.0
"""Seconds after which a program counts as one that does not end."""

# The holder tells when it is there, and ends with its input. Each folder of the unpacked packages lies over that of the
# machine, and what is written goes to memory.
_HOLD: Final = """
mount -t tmpfs tmpfs /run && ip link set lo up || exit
mkdir -p /run/over /run/systemd/journal /run/lock
: >/run/systemd/journal/socket; mount --bind "$1/journal" /run/systemd/journal/socket || exit
for name in usr etc var; do
    [ -d "$2/$name" ] || mkdir -p "/run/over/none/$name"
    lower=$2/$name; [ -d "$lower" ] || lower=/run/over/none/$name
    mkdir -p "/run/over/$name/upper" "/run/over/$name/work"
    over=upperdir=/run/over/$name/upper,workdir=/run/over/$name/work
    mount -t overlay overlay -o "lowerdir=$lower:/$name,$over" "/$name" || exit
done
echo there
read -r _
"""


class PlaceError(Exception):
    """A program failed, or no namespaces can be made."""


class Place:
    """The namespaces, in which ``journal`` is the socket of the journal, and a folder in memory. ``packages`` is a
    folder that packages were unpacked in, or none."""

    def __init__(self, folder: Path, packages: Path | None = None) -> None:
        self.folder = folder
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.journal.bind(str(folder / "journal"))
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _HOLD, "sh", str(folder)]
        self._holder = subprocess.Popen(
            [*argv, str(packages or "/nonexistent")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "there\n":
            raise PlaceError("no namespaces can be made; run this as root")
        self.enter = ("nsenter", f"--net=/proc/{self.pid}/ns/net", f"--mount=/proc/{self.pid}/ns/mnt", "--")
        """What starts a program there."""

    @property
    def pid(self) -> int:
        """A process there."""
        return self._holder.pid

    def run(self, *argv: str, text: str | None = None) -> float:
        """Run a program there; the seconds that it took. Raises PlaceError if it fails."""
        command = [*self.enter, *argv]
        with _input(text) as given:
            begun = time.perf_counter()
            ended = subprocess.run(
                command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_LONGEST, check=False
            )
            seconds = time.perf_counter() - begun
        if ended.returncode != 0:
            raise PlaceError(
                f"{' '.join(argv)}: code {ended.returncode}: {ended.stdout.decode(errors='replace')[-500:]}"
            )
        return seconds

    def write(self, files: Mapping[str, str]) -> None:
        """Write files whose paths begin at the root of the place."""
        for path, text in files.items():
            self.run("sh", "-c", 'mkdir -p "$(dirname "/$1")" && cat >"/$1"', "sh", path, text=text)

    def start(self, argv: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start a program there, which its caller has to end."""
        return subprocess.Popen([*self.enter, *argv], cwd=ROOT, env=os.environ | environment)

    def close(self) -> None:
        """The namespaces go away with their last process."""
        self.journal.close()
        self._holder.communicate("\n")


@contextmanager
def _input(text: str | None) -> Iterator[int]:
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write((text or "").encode())
        file.seek(0)
        yield file.fileno()
