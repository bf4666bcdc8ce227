"""Who changed the rules: what /proc still has about a process that the kernel named.

The process is often gone before anybody can look, so each part may be missing, and none is waited for. It may also be
hostile: its name and its command line are its own choice. Nothing here is proof of anything, and no decision may
depend on it: it is there to be told to a person.

This module refuses to guess. All is read below one open /proc/PID directory, which stays with its process, so that
one culprit is never put together from two; and a process with another name than the kernel told is not the one that
was meant, but a later one with its number.

Texts are left as they are, line breaks and control characters included: whoever prints them escapes them.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND_LENGTH: Final = 512
"""Characters of a command line that are kept; the last is an ellipsis if there were more."""

MOST_CULPRITS: Final = 3
"""Processes that are told of one difference; a storm of changes must not cost a look at each."""

_READ: Final = 16_384
"""Bytes read of a file in /proc: a command line may have megabytes."""
_PASSWD_READ: Final = 1 << 20
"""Bytes read of /etc/passwd."""

_UNIT_ENDINGS: Final = (".service", ".scope", ".socket", ".mount", ".swap")
"""The systemd units that can have processes (systemd.unit(5)); a slice only groups them."""

_ID: Final = r"(?P<id>[0-9a-f]{12})[0-9a-f]{52}"
"""A container's id, of which people see the first 12 digits."""
_SCOPE: Final = re.compile(
    rf"(?:.*[:-])?(?P<engine>docker|libpod|libpod-conmon|cri-containerd|crio)[:-]{_ID}(?:\.scope)?"
)
"""What Docker, Podman, containerd and CRI-O call a container's scope, in systemd's spelling or containerd's own."""
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
"""What people call the engine, by what stands in the cgroup's path."""


@dataclass(frozen=True, slots=True)
class Author:
    """A process that changed the rules, as far as it could still be seen.

    `pid` is the process, even where one of its threads was named; 0 where nobody was. `command` is the command line
    as a shell would take it. `uid` is the real user id. `unit` is the systemd unit or the container that it ran in.
    The same is told of its parent, which is often the one that people know: a script, a shell, a daemon.
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
        """Whether nothing but its name was left of it."""
        return self.command is None and self.uid is None and self.unit is None and self.parent_pid is None

    def __str__(self) -> str:
        if self.pid <= 0:
            return f"an unknown process{_bracketed(self.process)}"
        named = f"process {self.pid}{_bracketed(self.process)}"
        if self.gone:
            return f"{named}, gone already"
        if self.command is not None:
            named += f' "{self.command}"'
        if self.uid is not None:
            named += f" by {self.user or f'uid {self.uid}'}"
        return ", ".join(filter(None, (named, self._parent_clause(), f"in {self.unit}" if self.unit else None)))

    def _parent_clause(self) -> str | None:
        """The parent, with what it does not share with its child."""
        if not self.parent_pid:
            return None
        parent = f"child of {self.parent_pid}{_bracketed(self.parent)}"
        if self.parent_command is not None and self.parent_command != self.parent:
            parent += f' "{self.parent_command}"'
        if self.parent_user is not None and self.parent_user != self.user:
            parent += f" by {self.parent_user}"
        if self.parent_unit is not None and self.parent_unit != self.unit:
            parent += f" in {self.parent_unit}"
        return parent


@dataclass(frozen=True, slots=True)
class Authors:
    """Who changed the rules since the last look: the first few, since each may have made the difference that is found.

    False if nobody is known. `str` of it is a clause for people.
    """

    processes: tuple[Author, ...] = ()
    more: bool = False

    def __bool__(self) -> bool:
        return bool(self.processes)

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return len(self.processes) >= MOST_CULPRITS

    def with_another(self, author: Author | None) -> Authors:
        """These and one more; None for one that nobody looked at any more."""
        if author is None or self.full:
            return Authors(self.processes, more=True)
        return Authors((*self.processes, author), self.more)

    def __str__(self) -> str:
        return "; and by ".join([*map(str, self.processes), *(["others"] if self.more else [])])

    def fields(self) -> dict[str, object]:
        """For programs: the sentence, and what is known of the first one that could still be seen."""
        if not self.processes:
            return {"culprit": ""}
        seen = next((author for author in self.processes if not author.gone), self.processes[0])
        known = {f"culprit_{key}": value for key, value in asdict(seen).items() if value is not None}
        return {"culprit": str(self), **known}


NO_AUTHORS: Final = Authors()
"""Nobody is known to have changed anything."""


def read_author(pid: int, process: str = "") -> Author:
    """What is known about a process: read it at once, a moment later it may be gone. Never raises.

    `pid` is a process or thread id as this process's /proc numbers them, `process` the name that the kernel told with
    it, "" if none: a process that has another name by now is taken for gone. Takes less than a millisecond.
    """
    gone = Author(pid, process or None)
    directory = _open_process(pid)
    if directory is None:
        return gone
    try:
        # First what goes first: a process that has ended, but is not yet waited for, has all but this.
        command = _command_line(_read(directory, "cmdline") or b"")
        name = _read_name(directory)
        status = _read_status(directory)
        if name is None or status is None or (process and name != process):
            return gone
        unit = _read_unit(directory)
    finally:
        os.close(directory)
    parent = _read_parent(status.parent)
    return Author(
        pid=status.process,
        # A thread has a name of its own, which says less to people than its process's.
        process=name if status.process == pid else _name_of(status.process) or name,
        command=command,
        uid=status.uid,
        user=_user_name(status.uid),
        unit=unit,
        parent_pid=status.parent or None,
        parent=parent.process,
        parent_command=parent.command,
        parent_user=parent.user,
        parent_unit=parent.unit,
    )


def _read_parent(pid: int) -> Author:
    """The same of its parent, but for the parent's own."""
    directory = _open_process(pid)
    if directory is None:
        return Author(pid)
    try:
        name, command = _read_name(directory), _command_line(_read(directory, "cmdline") or b"")
        status, unit = _read_status(directory), _read_unit(directory)
    finally:
        os.close(directory)
    user = _user_name(status.uid) if status is not None else None
    return Author(pid, process=name, command=command, user=user, unit=unit)


def unit_of(cgroup_text: str) -> str | None:
    """The systemd unit or container that a /proc/PID/cgroup text (cgroups(7), both versions) tells of; None if none.

    Examples: `docker.service`, `session-3.scope`, `container docker 0123456789ab`, `container lxc web`. Of containers
    inside each other it is the outermost, which is the one that the host knows; of units the innermost.
    """
    # Not splitlines(): of all that may end a line, the kernel keeps only "\n" out of a cgroup's name.
    paths = [_cgroup_path(line) for line in cgroup_text.split("\n")]
    for tell in (_container, _unit):
        for path in paths:
            told = tell(path)
            if told is not None:
                return told
    return None


def _bracketed(name: str | None) -> str:
    return f" ({name})" if name else ""


def _cgroup_path(line: str) -> Sequence[str]:
    """The components of the path in a line `hierarchy:controllers:path`, outermost first."""
    path = line.split(":", 2)[-1].removesuffix(" (deleted)")
    return [component for component in path.split("/") if component]


def _container(path: Sequence[str]) -> str | None:
    for index, component in enumerate(path):
        scope = _SCOPE.fullmatch(component)
        if scope is not None:
            return f"container {_ENGINES[scope['engine']]} {scope['id']}"
        bare = _BARE.fullmatch(component)
        if bare is not None:
            # /docker/ID, /kubepods/besteffort/podUID/ID: the engine's name is the first one above.
            engine = re.sub(r"[^a-z].*", "", path[0]) if index else ""
            return " ".join(filter(None, ("container", _ENGINES.get(engine), bare["id"])))
        payload = _LXC.fullmatch(component)
        if payload is not None:
            return f"container lxc {payload['name']}"
        if component in {"lxc", "lxc.payload"} and index + 1 < len(path):
            return f"container lxc {path[index + 1]}"
    return None


def _unit(path: Sequence[str]) -> str | None:
    if "payload" in path:
        # What systemd-nspawn runs: the units below it are the container's, not the host's.
        path = path[: path.index("payload")]
    return next((component for component in reversed(path) if component.endswith(_UNIT_ENDINGS)), None)


class _Status(NamedTuple):
    """What is used of /proc/PID/status."""

    process: int
    parent: int
    uid: int


def _open_process(pid: int) -> int | None:
    if pid <= 0:
        return None
    try:
        return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _read(directory: int | None, name: str, size: int = _READ) -> bytes | None:
    """The beginning of a file; None if it cannot be read, because the process is gone or hidden (proc(5), hidepid)."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        return os.read(fd, size)
    except OSError:
        return None
    finally:
        os.close(fd)


def _read_name(directory: int) -> str | None:
    name = _read(directory, "comm")
    return None if name is None else name.removesuffix(b"\n").decode("utf-8", "surrogateescape")


def _read_unit(directory: int) -> str | None:
    return unit_of((_read(directory, "cgroup") or b"").decode("utf-8", "surrogateescape"))


def _read_status(directory: int) -> _Status | None:
    """The numbers in /proc/PID/status. Its lines can be trusted: in it, unlike in stat, the kernel escapes the name."""
    lines = (_read(directory, "status") or b"").split(b"\n")
    fields = {key: value.split() for key, _, value in (line.partition(b":") for line in lines)}
    try:
        return _Status(int(fields[b"Tgid"][0]), int(fields[b"PPid"][0]), int(fields[b"Uid"][0]))
    except (KeyError, IndexError, ValueError):
        return None


def _name_of(pid: int) -> str | None:
    directory = _open_process(pid)
    if directory is None:
        return None
    try:
        return _read_name(directory)
    finally:
        os.close(directory)


def _command_line(data: bytes) -> str | None:
    """/proc/PID/cmdline as a shell would take it; None for a process that has none, such as one that has ended."""
    words = [word.decode("utf-8", "surrogateescape") for word in data.rstrip(b"\0").split(b"\0")]
    if words == [""]:
        return None
    # A single word is the program alone, or a title that the process gave itself: quotes would add nothing.
    text = words[0] if len(words) == 1 else shlex.join(words)
    return text if len(text) <= COMMAND_LENGTH else text[: COMMAND_LENGTH - 1] + "…"


def _user_name(uid: int) -> str | None:
    """The local user with this id; None if /etc/passwd has none.

    getpwuid(3) may ask a directory server over the network, and that would hang just when the firewall is broken.
    """
    for line in (_read(None, "/etc/passwd", _PASSWD_READ) or b"").split(b"\n"):
        fields = line.split(b":")
        if len(fields) > 2 and fields[2] == b"%d" % uid:
            return fields[0].decode("utf-8", "surrogateescape")
    return None
