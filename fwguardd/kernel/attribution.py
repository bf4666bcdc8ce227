"""Which process changed the rules: what /proc still contains about a process that a commit notice names.

The process has often ended before /proc can be read, so every field may be missing, and nothing waits for one. It may
also be hostile: it chooses its own name and command line. So nothing here is evidence, and no decision may depend on
it; it is there for people to read.

All files are read below one open /proc/PID directory, which stays with its process, so the fields of two processes are
never mixed. A process whose name is not the one in the notice is a later one with the same id, and is not reported.

Texts are kept as they are, line breaks and control characters included: the code that prints them escapes them.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMAND_LENGTH: Final = 512
"""Characters of a command line that are kept; if there were more, the last one is an ellipsis."""

MAX_AUTHORS: Final = 3
"""Processes that are read and named for one difference, so that a storm of changes does not cost a read for each."""

_READ_BYTES: Final = 16_384
"""Bytes read of a file in /proc: a command line may have megabytes."""
_PASSWD_BYTES: Final = 1 << 20
"""Bytes read of /etc/passwd."""

_UNIT_ENDINGS: Final = (".service", ".scope", ".socket", ".mount", ".swap")
"""The systemd units that can have processes (systemd.unit(5)); a slice only groups them."""

_ID: Final = r"(?P<id>[0-9a-f]{12})[0-9a-f]{52}"
"""A container's id, of which the tools of the engines print the first 12 digits."""
_SCOPE: Final = re.compile(
    rf"(?:.*[:-])?(?P<engine>docker|libpod|libpod-conmon|cri-containerd|crio)[:-]{_ID}(?:\.scope)?"
)
"""The name of a container's scope under Docker, Podman, containerd and CRI-O, with the systemd or cgroupfs driver."""
_BARE: Final = re.compile(_ID)
_LXC: Final = re.compile(r"lxc\.payload\.(?P<name>.+)")
_ENGINES: Final = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-conmon": "podman",
    "cri-containerd": "containerd",
    "crio": "cri-o",
    "kubepods": "kubernetes",
}
"""The name of the engine, by the word in the cgroup's path."""


@dataclass(frozen=True, slots=True)
class Author:
    """A process that changed the rules, with what could still be read about it.

    `pid` is the process, even where one of its threads committed; 0 if it is not known. `command` is the command line
    as a shell would take it. `uid` is the real user id. `unit` is the systemd unit or the container that it ran in.
    The fields of its parent are there because people know that one better: a script, a shell, a daemon.
    `str` of it is one clause for people.
    """

    pid: int
    process: str | None = None
    command: str | None = None
    uid: int | None = None
    user: str | None = None
    unit: str | None = None
    parent_pid: int | None = None
    parent: str | None = None
    parent_command: str | None = None
    parent_user: str | None = None
    parent_unit: str | None = None

    @property
    def gone(self) -> bool:
        """Whether only its id and name are known, because it had ended."""
        return self.command is None and self.uid is None and self.unit is None and self.parent_pid is None

    def __str__(self) -> str:
        if self.pid <= 0:
            return f"an unknown process{_bracketed(self.process)}"
        clause = f"process {self.pid}{_bracketed(self.process)}"
        if self.gone:
            return f"{clause}, gone already"
        return "".join((clause, *self._details()))

    def _details(self) -> Iterator[str]:
        if self.command is not None:
            yield f' "{self.command}"'
        if self.uid is not None:
            yield f" by {self.user or f'uid {self.uid}'}"
        if self.parent_pid:
            yield f", {self._parent_clause()}"
        if self.unit is not None:
            yield f", in {self.unit}"

    def _parent_clause(self) -> str:
        """The parent, with its command, user and unit where they differ from those of the child."""
        clause = f"child of {self.parent_pid}{_bracketed(self.parent)}"
        if self.parent_command not in (None, self.parent):
            clause += f' "{self.parent_command}"'
        if self.parent_user not in (None, self.user):
            clause += f" by {self.parent_user}"
        if self.parent_unit not in (None, self.unit):
            clause += f" in {self.parent_unit}"
        return clause


@dataclass(frozen=True, slots=True)
class Authors:
    """The processes that changed the rules since the last comparison, up to `MAX_AUTHORS`; ``more`` if there were more.

    Each of them may have made the difference that is found. False if none is known. `str` of it is a clause for people.
    """

    processes: tuple[Author, ...] = ()
    more: bool = False

    def __bool__(self) -> bool:
        return bool(self.processes)

    @property
    def full(self) -> bool:
        """Whether another one would only be counted."""
        return len(self.processes) >= MAX_AUTHORS

    def with_another(self, author: Author | None) -> Authors:
        """These and one more; None for one that was not read."""
        if author is None or self.full:
            return Authors(self.processes, more=True)
        return Authors((*self.processes, author), self.more)

    def __str__(self) -> str:
        clauses = list(map(str, self.processes))
        if self.more:
            clauses.append("others")
        return "; and by ".join(clauses)

    def fields(self) -> dict[str, object]:
        """The clause, and the known fields of the first process that had not ended, for the journal and JSON."""
        if not self.processes:
            return {"culprit": ""}
        fields: dict[str, object] = {"culprit": str(self)}
        for key, value in asdict(self._first_alive()).items():
            if value is not None:
                fields[f"culprit_{key}"] = value
        return fields

    def _first_alive(self) -> Author:
        for author in self.processes:
            if not author.gone:
                return author
        return self.processes[0]


NO_AUTHORS: Final = Authors()
"""No process is known to have changed anything."""


def read_author(pid: int, process: str = "") -> Author:
    """What /proc contains about a process. Call it at once: a moment later the process may have ended. Never raises.

    `pid` is a process or thread id as in this process's /proc. `process` is the name in the notice, "" if it has none:
    a process with another name counts as gone. Takes less than a millisecond.
    """
    seen = _read_process(pid)
    status = seen.status
    if status is None or seen.name is None or process not in ("", seen.name):
        return Author(pid, process or None)
    name = _process_name(pid, status, seen.name)
    parent = _read_process(status.parent)
    return Author(
        pid=status.process,
        process=name,
        command=seen.command,
        uid=status.uid,
        user=seen.user,
        unit=seen.unit,
        parent_pid=status.parent or None,
        parent=parent.name,
        parent_command=parent.command,
        parent_user=parent.user,
        parent_unit=parent.unit,
    )


def _process_name(pid: int, status: _Status, name: str) -> str:
    """The name of the process that a process or thread id belongs to: a thread has a name of its own, which is less
    known."""
    if status.process == pid:
        return name
    return _read_process(status.process).name or name


def unit_of(cgroup_text: str) -> str | None:
    """The systemd unit or container in a /proc/PID/cgroup text (cgroups(7), both versions); None if there is none.

    Examples: `docker.service`, `session-3.scope`, `container docker 0123456789ab`, `container lxc web`. Of nested
    containers it is the outermost, which is the one that the host knows; of units the innermost.
    """
    # Not splitlines(): the kernel keeps only "\n" out of a cgroup's name, and no other line separator.
    paths = [_cgroup_path(line) for line in cgroup_text.split("\n")]
    for find in (_container, _unit):
        for path in paths:
            name = find(path)
            if name is not None:
                return name
    return None


def _bracketed(name: str | None) -> str:
    if not name:
        return ""
    return f" ({name})"


def _cgroup_path(line: str) -> Sequence[str]:
    """The components of the path in a line `hierarchy:controllers:path`, outermost first."""
    path = line.split(":", 2)[-1].removesuffix(" (deleted)")
    return [component for component in path.split("/") if component]


def _container(path: Sequence[str]) -> str | None:
    for index in range(len(path)):
        name = _container_at(path, index)
        if name is not None:
            return name
    return None


def _container_at(path: Sequence[str], index: int) -> str | None:
    """The container that one component of a path names."""
    component = path[index]
    scope = _SCOPE.fullmatch(component)
    if scope is not None:
        return f"container {_ENGINES[scope['engine']]} {scope['id']}"
    bare = _BARE.fullmatch(component)
    if bare is not None:
        return f"container {_engine_of_path(path, index)}{bare['id']}"
    payload = _LXC.fullmatch(component)
    if payload is not None:
        return f"container lxc {payload['name']}"
    if component in {"lxc", "lxc.payload"} and index + 1 < len(path):
        return f"container lxc {path[index + 1]}"
    return None


def _engine_of_path(path: Sequence[str], index: int) -> str:
    """The engine and a blank, from the first component: /docker/ID, /kubepods/besteffort/podUID/ID. "" if unknown."""
    word = re.sub(r"[^a-z].*", "", path[0])
    if index == 0 or word not in _ENGINES:
        return ""
    return f"{_ENGINES[word]} "


def _unit(path: Sequence[str]) -> str | None:
    if "payload" in path:
        # The units below this component are those of a systemd-nspawn container, not the host's.
        path = path[: path.index("payload")]
    for component in reversed(path):
        if component.endswith(_UNIT_ENDINGS):
            return component
    return None


class _Status(NamedTuple):
    """What is used of /proc/PID/status."""

    process: int
    parent: int
    uid: int


class _Process(NamedTuple):
    """What /proc contains about one process; None for each part that cannot be read."""

    name: str | None = None
    command: str | None = None
    status: _Status | None = None
    unit: str | None = None

    @property
    def user(self) -> str | None:
        """The name of the user that it runs as."""
        if self.status is None:
            return None
        return _user_name(self.status.uid)


def _read_process(pid: int) -> _Process:
    if pid <= 0:
        return _Process()
    try:
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return _Process()
    try:
        # The command line is read first because it is lost first: it is gone when a process has ended, and the others
        # are there until its parent has waited for it.
        command = _command_line(_read(directory, "cmdline"))
        name = _read(directory, "comm")
        status = _parse_status(_read(directory, "status"))
        unit = unit_of(_decode(_read(directory, "cgroup")))
    finally:
        os.close(directory)
    if not name:
        return _Process(None, command, status, unit)
    return _Process(_decode(name.removesuffix(b"\n")), command, status, unit)


def _read(directory: int | None, name: str, size: int = _READ_BYTES) -> bytes:
    """The beginning of a file; empty if the process has ended or is hidden (proc(5), hidepid)."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return b""
    try:
        return os.read(fd, size)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _parse_status(data: bytes) -> _Status | None:
    """The numbers in /proc/PID/status. Its lines can be trusted: the kernel escapes the name in it, unlike in stat."""
    fields: dict[bytes, list[bytes]] = {}
    for line in data.split(b"\n"):
        key, _, value = line.partition(b":")
        fields[key] = value.split()
    try:
        return _Status(int(fields[b"Tgid"][0]), int(fields[b"PPid"][0]), int(fields[b"Uid"][0]))
    except (KeyError, IndexError, ValueError):
        return None


def _command_line(data: bytes) -> str | None:
    """/proc/PID/cmdline as a shell would take it; None for a process without one, such as one that has ended."""
    words = _decode(data.rstrip(b"\0")).split("\0")
    if words == [""]:
        return None
    text = words[0]
    if len(words) > 1:
        # A single word is the program alone, or a title that the process has set: it is not quoted.
        text = shlex.join(words)
    if len(text) > COMMAND_LENGTH:
        return text[: COMMAND_LENGTH - 1] + "…"
    return text


def _user_name(uid: int) -> str | None:
    """The local user with this id; None if /etc/passwd has none.

    getpwuid(3) may query a directory server over the network, which would hang while the firewall blocks it.
    """
    for line in _read(None, "/etc/passwd", _PASSWD_BYTES).split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 2 and fields[2] == b"%d" % uid:
            return _decode(fields[0])
    return None
