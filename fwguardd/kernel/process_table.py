"""What is remembered of processes that may have ended: who they were, and which process made them.

The process ids are those of events (`fwguardd.kernel.process_events`), which come in order and completely, or are known
to be lost. So an id that is used again is noticed: its new process was made by a fork, which is in the table too.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.kernel.attribution import Author

MOST_AUTHORS: Final = 256
"""Processes that are remembered with all that was read of them."""
MOST_FORKS: Final = 4096
"""Processes whose parent is remembered."""
REMEMBERED_FOR: Final = 600.0
"""Seconds for which a process is remembered. One that runs longer is there to be read when it commits."""
MOST_GENERATIONS: Final = 8
"""Ancestors that are looked at."""
_FIRST_ORDINARY: Final = 3
"""Process 1 starts every service, and 2 is the kernel's: neither says where a child runs."""


class _Made(NamedTuple):
    """A fork: the parent's id, and the number of the fork."""

    parent: int
    number: int


class ProcessTable:
    """Processes by id, bounded in number and age. Belongs to one thread."""

    def __init__(self) -> None:
        self._authors: OrderedDict[int, tuple[float, Author]] = OrderedDict()
        self._forks: OrderedDict[int, _Made] = OrderedDict()
        self._number = 0

    def __len__(self) -> int:
        return len(self._authors) + len(self._forks)

    def add_fork(self, process: int, parent: int) -> None:
        """A process was made. One that had this id before has ended."""
        self._number += 1
        self._authors.pop(process, None)
        self._forks.pop(process, None)
        self._forks[process] = _Made(parent, self._number)
        if len(self._forks) > MOST_FORKS:
            self._forks.popitem(last=False)

    def add_author(self, author: Author, now: float) -> None:
        """A process was read; ``now`` is on the monotonic clock."""
        self._authors.pop(author.pid, None)
        self._authors[author.pid] = (now, author)
        if len(self._authors) > MOST_AUTHORS:
            self._authors.popitem(last=False)

    def forget_author(self, process: int) -> None:
        """The process runs another program now."""
        self._authors.pop(process, None)

    def clear(self) -> None:
        """Events were lost, so each id may be that of another process by now."""
        self._authors.clear()
        self._forks.clear()

    def author(self, process: int, name: str, now: float) -> Author | None:
        """What was read of the process with this id and name; None if it is not known, or was read too long ago."""
        read_at, author = self._authors.get(process, (0.0, None))
        if author is None or author.process != name or now - read_at > REMEMBERED_FOR:
            return None
        return author

    def ancestors(self, process: int) -> Iterator[int]:
        """The ids of the parent, its parent and so on, as far as they are known and no other process has them now."""
        made = self._forks.get(process)
        for _ in range(MOST_GENERATIONS):
            if made is None or made.parent < _FIRST_ORDINARY:
                return
            above = self._forks.get(made.parent)
            if above is not None and above.number > made.number:
                return  # The parent has ended, and its id is that of a younger process.
            yield made.parent
            made = above
