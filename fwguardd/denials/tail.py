"""The road of a denial: kernel records -> LOG lines with a watched prefix -> events. Every record is accounted for.

What cannot be parsed is told raw, what the kernel overwrote before it was read is told with its number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fwguardd import events
from fwguardd.denials.model import Denial, Meaning, Unparsed
from fwguardd.denials.parse import LineReader
from fwguardd.denials.telling import fields, sentence
from fwguardd.kernel.kmsg import Lost, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fwguardd.denials.model import Watched
    from fwguardd.events import Emit

NOT_READ = {"source": None, "denied": 0, "logged": 0, "lost": 0, "unparsed": 0}
"""The counts where no kernel log is read."""

_AT_ONCE = 512
"""Records read before the event loop gets its turn again."""


class Source(Protocol):
    """Where kernel records come from. `fwguardd.kernel.kmsg.KernelLog` is the real one."""

    def read_available(self, limit: int) -> Sequence[Record | Lost]:
        """What is there now, ``limit`` records at most; empty when there is nothing more. Raises OSError."""


class Tail:
    """Reads a source whenever it has something, and tells what it means."""

    def __init__(self, source: Source, watched: Iterable[Watched], emit: Emit) -> None:
        self._source = source
        self._reader = LineReader(watched)
        self._emit = emit
        self._counts = dict.fromkeys(("denied", "logged", "lost", "unparsed"), 0)

    def counts(self) -> dict[str, int | str]:
        """What was told since the start, by kind, and where it came from."""
        return {"source": "kmsg", **self._counts}

    def watch(self, watched: Iterable[Watched]) -> None:
        """From now on, look for these prefixes instead."""
        self._reader = LineReader(watched)

    def read(self) -> None:
        """Tell what the source has now, a bounded piece of it."""
        for item in self._source.read_available(_AT_ONCE):
            if isinstance(item, Lost):
                records = "1 kernel record was" if item.count == 1 else f"{item.count} kernel records were"
                message = f"{records} overwritten before fwguardd could read them; denials may be among them"
                self._counts["lost"] += item.count
                self._emit(events.DENIALS_LOST, message, count=item.count)
            else:
                self._tell(item)

    def _tell(self, record: Record) -> None:
        read = self._reader.read(record.text)
        if isinstance(read, Denial):
            kind = events.DENIED if read.watched.meaning is Meaning.DENIED else events.LOGGED
            self._counts[read.watched.meaning.value] += 1
            self._emit(kind, sentence(read), **fields(read), line=record.text, kmsg_seq=record.seq)
        elif isinstance(read, Unparsed):
            self._counts["unparsed"] += 1
            message = f"a kernel line has the prefix {read.watched.prefix!r} and an unknown form: {record.text}"
            self._emit(events.DENIALS_UNPARSED, message, line=record.text, expected=read.expected, kmsg_seq=record.seq)
