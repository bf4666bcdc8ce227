"""Events in the journal, read with journalctl.

Any program may write a journal entry that looks like an event. Only entries count of which journald itself says that
the writer was root, or was in the unit of fwguardd (the fields that begin with an underscore,
systemd.journal-fields(7)).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.ctl.journal_fields import as_number
from fwguardd.ctl.line_input import FileNotPermittedError, UnreadableError, lines_of
from fwguardd.errors import ReportedError
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


class TimeSpecError(ReportedError):
    """journalctl does not understand --since or --until."""


ALL_NAMES: Final = tuple(sorted(kind.name for kind in events.ALL_EVENTS.values()))
TRUSTED: Final = ("_UID=0", "_SYSTEMD_UNIT=fwguardd.service")
"""Either is enough: fwguardd that was started by hand is not in its own unit."""

_NO_ENTRIES: Final = re.compile("No journal files were|not seeing messages")
_NOT_PERMITTED: Final = re.compile("insufficient permissions|not seeing messages|Permission denied")
_WRONG_TIME: Final = re.compile("Failed to parse timestamp|--since= must be before --until")
"""What journalctl prints (src/journal/journalctl.c, src/shared/journal-util.c)."""

_OLD_LINES: Final = "for old kernel log lines: fwguardctl denials --read FILE"


@dataclass(frozen=True, slots=True)
class Query:
    """What to ask journalctl for: the events of these names, or all; ``since`` and ``until`` as journalctl takes them,
    ``directory`` None for the journal of this host, ``lines`` the number of the last entries to begin with."""

    names: tuple[str, ...] = ()
    directory: Path | None = None
    since: str | None = None
    until: str | None = None
    follow: bool = False
    lines: int | None = None
    fields: tuple[str, ...] = ()
    """The fields of an entry that are wanted, as the journal spells them; without any, all are."""

    @property
    def following(self) -> tuple[str, ...]:
        """The options to follow the journal: from ``since`` on, or else from the last ten events on."""
        if not self.follow:
            return ()
        if self.lines is not None:
            return ("--follow", f"--lines={self.lines}")
        if self.since is None:
            return ("--follow", "--lines=10")
        return ("--follow", "--no-tail")

    def command(self, *options: str) -> list[str]:
        """The command line, with some more options."""
        words = ["journalctl", *options, "--all", "--no-pager", *self._limits()]
        names = [f"FWGUARD_EVENT={name}" for name in self.names or ALL_NAMES]
        if self.fields:
            words.append(f"--output-fields={','.join(self.fields)}")
        return [*words, *names, TRUSTED[0], "+", *names, TRUSTED[1]]

    def _limits(self) -> Iterator[str]:
        for option, value in (("directory", self.directory), ("since", self.since), ("until", self.until)):
            if value is not None:
                yield f"--{option}={value}"


def entries_in_journal(query: Query) -> Iterator[dict[str, Any]]:
    """The entries, oldest first. A query that follows never ends, and begins with the last ten events unless it has a
    --since.

    Raises UnreadableError and TimeSpecError; while reading UnreadableError, and BrokenPipeError when it follows and
    nobody reads standard output any more.
    """
    _check(query)
    return _stream(query)


def oldest_time(directory: Path | None) -> float | None:
    """The time of the oldest entry of any program that this user may read, in seconds since 1970; None where that is
    not known. The journal of this host, or that in a directory."""
    words = ["journalctl", "--quiet", "--no-pager", "--output=json", "--output-fields=__REALTIME_TIMESTAMP"]
    if directory is not None:
        words.append(f"--directory={directory}")
    try:
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            process.terminate()
    except OSError:
        return None
    for entry in _entries([first]):
        return (as_number(entry.get("__REALTIME_TIMESTAMP")) or 0) / 1_000_000
    return None


def _check(query: Query) -> None:
    """Ask for no line: that shows whether there is a journal, and whether this user may read it. Not in JSON, since
    then journalctl does not report a missing journal."""
    done = _run_journalctl(query.command("--lines=0"))
    if done.returncode or _NO_ENTRIES.search(done.stderr):
        raise _error(query, done.stderr)


def _run_journalctl(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Raises UnreadableError if the program cannot be started."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=_environment(), check=False
        )
    except FileNotFoundError:
        raise UnreadableError(
            f"journalctl: program not found; without systemd's journal no event is kept; {_OLD_LINES}"
        ) from None
    except OSError as error:
        raise UnreadableError(f"journalctl: {error.strerror}; {_OLD_LINES}") from error


def _stream(query: Query) -> Iterator[dict[str, Any]]:
    command = query.command("--output=json", *query.following)
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=_environment()) as process,
    ):
        assert process.stdout is not None
        try:
            yield from _entries(lines_of(process.stdout.fileno(), "journalctl", live=query.follow))
        finally:
            process.terminate()
        if process.wait() > 0:
            errors.seek(0)
            raise _error(query, errors.read(4096).decode("utf-8", "replace"))


def _entries(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def _error(query: Query, printed: str) -> Exception:
    """The error for what journalctl printed."""
    place = str(query.directory or "the journal")
    message = " ".join(printed.split()) or "journalctl failed and printed no reason"
    if _WRONG_TIME.search(message):
        return TimeSpecError(f"{message}; see systemd.time(7) for the form of a time")
    if _NOT_PERMITTED.search(message):
        return FileNotPermittedError(f"{place}: not permitted; run it as root or in the group systemd-journal")
    if "No journal files were found" in message:
        return UnreadableError(f"{place}: there are no journal files; is systemd-journald running? {_OLD_LINES}")
    return UnreadableError(f"{place}: {message}; {_OLD_LINES}")


def _environment() -> dict[str, str]:
    """The environment of this process with messages in English, since errors are recognized by them."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}
