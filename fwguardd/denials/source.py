"""What a source of denials is, and what it returns.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.denials.model import Denial, Unparsed, Watched
    from fwguardd.kernel.kmsg import Lost


class LogLine(Protocol):
    """The text of one kernel record, as a source returns it; `fwguardd.kernel.kmsg.Record` is one."""

    @property
    def text(self) -> str:
        """In the spelling of /dev/kmsg (`fwguardd.denials.grammar.kernel_escaped`), without a line break."""

    @property
    def seq(self) -> int | None:
        """The number of the record in the kernel log; None where the source does not know it."""

    @property
    def when(self) -> float | None:
        """When the kernel made it, in seconds since 1970; None where only ``usec`` is known."""

    @property
    def usec(self) -> int | None:
        """When the kernel made it, on the printk clock, in microseconds since boot; None where ``when`` is known."""


SourceItem: TypeAlias = "LogLine | Denial | Unparsed | Lost"
"""What a source returns: a line that is still to be parsed; the result for a packet that it has parsed; or a loss."""


class Source(Protocol):
    """Where kernel records come from. `fwguardd.kernel.kmsg.KernelLog` is one.

    A source never blocks: the event loop watches its descriptor. It returns only what the kernel itself wrote, each
    item once and in order, and a `Lost` in the place where something is missing.
    """

    @property
    def name(self) -> str:
        """One word for people: kmsg, journal, nflog."""

    @property
    def group(self) -> int | None:
        """The NFLOG group whose packets are read; None where lines of the kernel log are read."""

    @property
    def position(self) -> str | None:
        """The place after everything that was returned, in printable ASCII; only the source can interpret it. None
        where reading cannot be resumed, or where nothing was read yet. Asked for between two reads."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is something."""

    def read_available(self, limit: int) -> Sequence[SourceItem]:
        """What is there now, after about ``limit`` reads at most. Empty when there is nothing more, or when all that
        was read is without a watched prefix; then the descriptor stays readable while there is more. Raises OSError."""

    def watch(self, watched: Sequence[Watched]) -> None:
        """These are the watched prefixes from now on. Matters for sources that parse or filter; others do nothing."""

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
