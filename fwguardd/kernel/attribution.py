"""Which process changed the rules: what /proc still contains about a process that a commit notice names.

The process has often ended before /proc can be read, so every field may be missing, and nothing waits for one. It may
also be hostile: it chooses its own name and command line, so these are for people to read. The one decision that is
made from an author, whether a rule stays (`enforce.others`), uses only ``kind``, which comes from its control group.

All files are read below one open /proc/PID directory, which stays with its process, so the fields of two processes are
never mixed. A process whose name is not the one in the notice is a later one with the same id, and is not reported.

Texts are kept as they are, line breaks and control characters included: the code that prints them escapes them.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from fwguardd.kernel.cgroups import ProcessKind, kind_of, unit_of
from fwguardd.kernel.local_users import local_user
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND_LENGTH: Final = 512
"""Characters of a command line that are kept; if there were more, the last one is an ellipsis."""

MAX_AUTHORS: Final = 3
"""Processes that are read and named for one difference, so that a storm of changes does not cost a read for each."""

_INTERNAL: Final = frozenset({"kind", "started"})
"""Fields of `Author` for decisions, which are not reported."""

_READ_BYTES: Final = 16_384
"""Bytes read of a file in /proc: a command line may have megabytes."""
"""Bytes read of /etc/passwd."""


@dataclass(frozen=True, slots=True)
class Author:
    """A process that changed the rules, with what could still be read about it.

    `pid` is the process, even where one of its threads committed; 0 if it is not known. `command` is the command line
    as a shell would take it. `uid` is the real user id. `unit` is the systemd unit or the container that it ran in.
    The fields of its parent are there because people know that one better: a script, a shell, a daemon.
    `kind` says whether it belongs to a service of this host. `started` is when it started, in clock ticks after boot:
    with the id, it identifies a process; None if it is not known. `str` of it is one clause for people.
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
    kind: ProcessKind = ProcessKind.UNKNOWN
    started: int | None = field(default=None, compare=False, repr=False)

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

    @property
    def kind(self) -> ProcessKind:
        """What kind all of them are: UNKNOWN if they differ, if one is unknown, and if there were more or none.

        Each of them may have made the difference, so a service's process does not speak for another one.
        """
        kinds = {author.kind for author in self.processes}
        if self.more or len(kinds) != 1:
            return ProcessKind.UNKNOWN
        return kinds.pop()

    def with_another(self, author: Author | None) -> Authors:
        """These and one more; None for one that was not read."""
        if author is None or self.full:
            return Authors(self.processes, more=True)
        return Authors((*self.processes, author), self.more)

    def and_others(self, others: Authors) -> Authors:
        """These and others, each once."""
        joined = self
        for author in others.processes:
            if author not in self.processes:
                joined = joined.with_another(author)
        return Authors(joined.processes, joined.more or others.more)

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
            if value is not None and key not in _INTERNAL:
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
        kind=seen.kind,
        started=seen.started,
    )


def with_ancestor(author: Author, ancestor: int, *, direct: bool) -> Author:
    """An author that had ended, with what can be read of a process that it descends from: a child runs in the control
    group of its parent unless it is moved. Only of the parent itself (``direct``) more than the kind is taken. Never
    raises."""
    seen = _read_process(ancestor)
    if author.kind is ProcessKind.UNKNOWN:
        author = replace(author, kind=seen.kind)
    if not direct or seen.name is None or author.parent_pid is not None:
        return author
    return replace(
        author,
        parent_pid=ancestor,
        parent=seen.name,
        parent_command=seen.command,
        parent_user=seen.user,
        parent_unit=seen.unit,
    )


def process_name(pid: int) -> str:
    """The name of a process, at most 15 bytes; "" if it has ended. Never raises."""
    return _decode(_read(None, f"/proc/{pid}/comm").removesuffix(b"\n"))


def _process_name(pid: int, status: _Status, name: str) -> str:
    """The name of the process that a process or thread id belongs to: a thread has a name of its own, which is less
    known."""
    if status.process == pid:
        return name
    return _read_process(status.process).name or name


def _bracketed(name: str | None) -> str:
    if not name:
        return ""
    return f" ({name})"


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
    kind: ProcessKind = ProcessKind.UNKNOWN
    started: int | None = None

    @property
    def user(self) -> str | None:
        """The name of the user that it runs as."""
        if self.status is None:
            return None
        return local_user(self.status.uid)


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
        status = parse_status(_read(directory, "status"))
        cgroup = _decode(_read(directory, "cgroup"))
        started = _start_time(_read(directory, "stat"))
    finally:
        os.close(directory)
    if not name:
        return _Process(None, command, status)
    kind = kind_of(cgroup)
    unit = unit_of(cgroup)
    if command is None and unit is None:
        # It has ended: version 1 then names the root cgroup, wherever the process was (proc_cgroup_show() in
        # kernel/cgroup/cgroup.c).
        kind = ProcessKind.UNKNOWN
    return _Process(_decode(name.removesuffix(b"\n")), command, status, unit, kind, started)


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


def parse_status(data: bytes) -> _Status | None:
    """The numbers in /proc/PID/status. Its lines can be trusted: the kernel escapes the name in it, unlike in stat.

    None for a process that ended while the file was read: its Tgid is 0, once its parent has waited for it
    (task_state() in fs/proc/array.c).
    """
    fields: dict[bytes, list[bytes]] = {}
    for line in data.split(b"\n"):
        key, _, value = line.partition(b":")
        fields[key] = value.split()
    try:
        status = _Status(int(fields[b"Tgid"][0]), int(fields[b"PPid"][0]), int(fields[b"Uid"][0]))
    except (KeyError, IndexError, ValueError):
        return None
    if status.process == 0:
        return None
    return status


def _start_time(data: bytes) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)). The name, field 2, is in brackets and can contain anything but is followed
    by fields without a bracket."""
    fields = data.rpartition(b")")[2].split()
    try:
        return int(fields[19])
    except (IndexError, ValueError):
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
