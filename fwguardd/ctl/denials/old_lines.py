"""The files of ``fwguardctl denials --read``: all are read as one, and one account says what became of their lines."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from contextlib import ExitStack
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from fwguardd.ctl.denials.counts import Counts
from fwguardd.ctl.denials.times import StampReader
from fwguardd.ctl.line_input import blocks_of, opened
from fwguardd.denials.any_prefix import NO_PREFIX
from fwguardd.denials.model import Meaning, Watched
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.log_files import LogFileReader

    MakeReader = Callable[[StampReader], LogFileReader]

_SHOWN_PREFIXES: Final = 5

_MEANING: Final = re.compile(f"({'|'.join(meaning.value for meaning in Meaning)})=(.*)", re.DOTALL)


def prefix(text: str) -> Watched:
    """The value of --prefix: the text of a --log-prefix, with its meaning before it, as in ``allowed=[UFW ALLOW] ``;
    without one it means denied. Raises ArgumentTypeError."""
    meaning = Meaning.DENIED
    match = _MEANING.fullmatch(text)
    if match is not None:
        meaning, text = Meaning(match[1]), match[2]
    if "\n" in text:
        raise ArgumentTypeError(f"{text!r} has a line break; no --log-prefix has one")
    return Watched(text.strip() or text or NO_PREFIX, text, meaning)


class OldFiles:
    """The files, open until the end of the ``with`` block. Raises UnreadableError before the first line is read, if a
    file cannot be opened."""

    def __init__(self, names: Sequence[str], make_reader: MakeReader) -> None:
        self._names, self._make_reader = names, make_reader
        self._stack = ExitStack()
        self._read: list[tuple[str, int, LogFileReader]] = []
        self._years: list[StampReader] = []

    def __enter__(self) -> Self:
        with self._stack:
            for name in self._names:
                path: Path | None = Path(name)
                place = name
                if name == "-":
                    path, place = None, "standard input"
                descriptor, changed = self._stack.enter_context(opened(path))
                stamps = StampReader(changed)
                self._years.append(stamps)
                self._read.append((place, descriptor, self._make_reader(stamps)))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def events(self, *, live: bool) -> Iterator[Event]:
        """The events of all files, by their times. Raises UnreadableError."""
        streams: list[Iterator[Event]] = []
        for place, descriptor, reader in self._read:
            streams.append(reader.events_of_blocks(blocks_of(descriptor, place, live=live)))
        if len(streams) == 1:
            return streams[0]
        timed = [_timed(stream) for stream in streams]
        return (event for _, event in merge(*timed, key=_time))

    @property
    def place(self) -> str:
        """The names of the files, for a message."""
        return ", ".join(place for place, _, _ in self._read)

    def counts(self) -> Counts:
        """What became of the lines of all files."""
        total = Counts()
        for _, _, reader in self._read:
            total.add(reader.counts)
        return total

    def years(self) -> list[int]:
        """The years that were assumed for stamps without a year."""
        found: set[int] = set()
        for stamps in self._years:
            found |= stamps.years
        return sorted(found)

    def account(self) -> dict[str, object]:
        """The account of the lines, with stable keys."""
        return {**self.counts().document(), "assumed_years": self.years()}

    def notes(self) -> Iterator[str]:
        """What became of the lines, and what was assumed, in sentences."""
        counts = self.counts()
        yield (
            f"{self.place}: {counted(counts.lines, 'line')}: {counts.ours} parsed, {counts.unparsed} of unknown form, "
            f"{counts.foreign} not from the kernel, {counts.others} without a watched prefix"
        )
        yield from _notes(counts)
        if self.years():
            years = " and ".join(map(str, self.years()))
            yield f"the stamps have no year: {years} was assumed, from the time of the last change of the file"


def _timed(events: Iterable[Event]) -> Iterator[tuple[int, Event]]:
    """Events with the time to merge them by: without a time of its own an event goes with the one before it."""
    time = 0
    for event in events:
        if event.realtime is not None:
            time = event.realtime
        yield time, event


def _time(timed: tuple[int, Event]) -> int:
    return timed[0]


def _notes(counts: Counts) -> Iterator[str]:
    """A sentence for each kind of line that there is, beside those that were parsed from the kernel's own log."""
    for number, noun, sentence in (
        (counts.foreign, "line", "ignored {} with a watched prefix but no sign that the kernel wrote it"),
        (counts.left_out, "line", "{} without text: journalctl omits odd bytes unless it is given --all"),
        (counts.undated, "line", "--since and --until excluded {} without a time of day"),
        (counts.bare, "line", "{} parsed by the text alone: no name before the prefix shows that the kernel wrote it"),
        (counts.relayed, "line", "{} parsed that another program relayed, under a facility that is not the kernel's"),
        (counts.lost, "message", "the log reports {} lost; denials may be among them"),
    ):
        if number:
            yield sentence.format(counted(number, noun))
    yield from _imitations(counts)
    if counts.other_prefixes:
        yield _other_prefixes(counts)


def _imitations(counts: Counts) -> Iterator[str]:
    for program, number in sorted(counts.imitations.items()):
        yield f"ignored {counted(number, 'line')} of {program}, which prints packets in user space as the kernel does"


def _other_prefixes(counts: Counts) -> str:
    """The sentence for a user who does not know yet which prefixes the file has."""
    found = sorted(counts.other_prefixes.items(), key=_by_count)
    names = ", ".join(f'"{name}" ({number})' for name, number in found[:_SHOWN_PREFIXES])
    if len(found) > _SHOWN_PREFIXES:
        names += " …"
    prefixes = "other prefixes"
    if len(found) == 1:
        prefixes = "another prefix"
    lines = _logged_lines(sum(counts.other_prefixes.values()))
    return f"{lines} with {prefixes}: {names}; try --prefix or --any-prefix"


def _logged_lines(number: int) -> str:
    if number == 1:
        return "1 line looks like a LOG line"
    return f"{number} lines look like LOG lines"


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
