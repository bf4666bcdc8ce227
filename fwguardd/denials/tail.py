"""The road of a denial: kernel records -> LOG lines with a watched prefix -> events. Every record is accounted for.

What cannot be parsed is told raw, what the kernel overwrote before it was read is told with its number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from fwguardd import events
from fwguardd.denials.model import Denial, Meaning, Unparsed
from fwguardd.denials.parse import LineReader
from fwguardd.denials.telling import fields, sentence
from fwguardd.kernel.kmsg import Lost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.denials.model import Watched
    from fwguardd.events import Emit

NOT_READ = {"source": None, "denied": 0, "logged": 0, "lost": 0, "unparsed": 0}
"""The counts where no kernel log is read."""

_AT_ONCE = 512
"""Records read before the event loop gets its turn again."""


class Line(Protocol):
    """The text of one kernel record, as a source hands it out; `fwguardd.kernel.kmsg.Record` is one."""

    @property
    def text(self) -> str:
        """In the spelling of /dev/kmsg (`fwguardd.denials.spelling.kernel_spelling`), without a line break."""

    @property
    def seq(self) -> int | None:
        """The record's number in the kernel log; None where the source does not know it."""

    @property
    def when(self) -> float | None:
        """When the kernel made it, in seconds since 1970; None means that it has just come."""


Heard: TypeAlias = Line | Denial | Unparsed | Lost
"""What a source hands out: a line of text, to be read here; a packet that it has read itself; or a loss."""


class Source(Protocol):
    """Where kernel records come from. `fwguardd.kernel.kmsg.KernelLog` is one.

    A source never waits: the event loop watches its descriptor. It hands out only what the kernel itself wrote, each
    thing once and in order, and a `Lost` in the place where something is missing.
    """

    @property
    def name(self) -> str:
        """One word for people: kmsg, journal, nflog."""

    @property
    def position(self) -> str | None:
        """How to come back to the place after all that was handed out, in printable ASCII; only the source knows what
        it means, and it is asked between two readings. None where there is no way back, or nothing to come back to."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is something."""

    def read_available(self, limit: int) -> Sequence[Heard]:
        """What is there now, after about ``limit`` reads at most; empty when there is nothing more, or nothing of
        interest, and then the descriptor stays readable while there is more. Raises OSError."""

    def watch(self, watched: Sequence[Watched]) -> None:
        """These are the prefixes of interest, from now on. For sources that make denials themselves, or that choose
        lines early; all others do nothing."""

    def close(self) -> None:
        """Give the descriptor back; a second time does nothing."""


class Tail:
    """Reads a source whenever it has something, and tells what it means."""

    def __init__(self, source: Source, watched: Sequence[Watched], emit: Emit) -> None:
        self._source = source
        self._reader = LineReader(watched)
        source.watch(watched)
        self._emit = emit
        self._counts = dict.fromkeys(("denied", "logged", "lost", "unparsed"), 0)

    def counts(self) -> dict[str, int | str]:
        """What was told since the start, by kind, and where it came from."""
        return {"source": self._source.name, **self._counts}

    def watch(self, watched: Sequence[Watched]) -> None:
        """From now on, look for these prefixes instead."""
        self._reader = LineReader(watched)
        self._source.watch(watched)

    def read(self) -> None:
        """Tell what the source has now, a bounded piece of it."""
        for item in self._source.read_available(_AT_ONCE):
            if isinstance(item, Lost):
                records = "1 kernel record was" if item.count == 1 else f"{item.count} kernel records were"
                message = f"{records} overwritten before fwguardd could read them; denials may be among them"
                self._counts["lost"] += item.count
                self._emit(events.DENIALS_LOST, message, count=item.count)
            elif isinstance(item, (Denial, Unparsed)):
                self._tell(item, None)
            else:
                self._tell(self._reader.read(item.text), item.seq)

    def _tell(self, read: Denial | Unparsed | None, seq: int | None) -> None:
        if isinstance(read, Denial):
            kind = events.DENIED if read.watched.meaning is Meaning.DENIED else events.LOGGED
            self._counts[read.watched.meaning.value] += 1
            self._emit(kind, sentence(read), **fields(read), line=read.text, kmsg_seq=seq)
        elif isinstance(read, Unparsed):
            self._counts["unparsed"] += 1
            message = f"a kernel line has the prefix {read.watched.prefix!r} and an unknown form: {read.text}"
            self._emit(events.DENIALS_UNPARSED, message, line=read.text, expected=read.expected, kmsg_seq=seq)
