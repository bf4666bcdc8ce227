"""The small files of the state directory, each with its form and what it means if it cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwguardd.store import codec
from fwguardd.store.counter_codec import COUNTERS_FORM, decode_counters, encode_counters
from fwguardd.store.sealed_files import SealedValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fwguardd.ruleset.counter_history import CounterHistory
    from fwguardd.store.durable import System
    from fwguardd.store.model import Fault, UnreadableNote
    from fwguardd.store.sealed_files import DamagedFiles

_UNKNOWN_PENDING = "whether a revision waits to be confirmed, and until when, is not known"
_UNKNOWN_TOUCHED = "tables that an interrupted write had begun to fill are not emptied"
_UNKNOWN_OTHERS = "rules of other programs that were kept are reported again"
_UNKNOWN_COUNTERS = "packets that rules counted before the last reboot are not known"
_UNKNOWN_HELD = "which rule files were undone is not known"


class Notes:
    """The small files in one state directory."""

    def __init__(self, system: System, state_dir: Path) -> None:
        path, form = state_dir / "pending.json", codec.PENDING_FORM
        self.pending = SealedValue(system, path, form, codec.encode_pending, codec.decode_pending, _UNKNOWN_PENDING)
        path, form = state_dir / "held.json", codec.HELD_FORM
        self.held = SealedValue(system, path, form, codec.encode_held, codec.decode_held, _UNKNOWN_HELD)
        path, form = state_dir / "touched.json", codec.TOUCHED_FORM
        self.touched = SealedValue(system, path, form, codec.encode_touched, codec.decode_touched, _UNKNOWN_TOUCHED)
        path, form = state_dir / "others.json", codec.OTHERS_FORM
        self.others = SealedValue(system, path, form, codec.encode_others, codec.decode_others, _UNKNOWN_OTHERS)
        path = state_dir / "counters.json"
        self.counters = SealedValue(system, path, COUNTERS_FORM, encode_counters, decode_counters, _UNKNOWN_COUNTERS)
        self._held: tuple[SealedValue[Any], ...] = (self.pending, self.held, self.touched, self.others)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The names of the files."""
        return tuple(note.path for note in (*self._held, self.counters))

    def load(self, damaged: DamagedFiles) -> Iterator[Fault]:
        """Read the files that are held in memory. What is wrong with them; a damaged file is moved aside."""
        for note in self._held:
            fault = note.load(damaged)
            if fault is not None:
                yield fault

    def read_counters(
        self, damaged: DamagedFiles, report: Callable[[Fault], None]
    ) -> CounterHistory | UnreadableNote | None:
        """What rules counted, read anew: of many rules that takes too much memory to be held for a reader who asks
        once. ``report`` is told what is wrong with the file."""
        fault = self.counters.load(damaged)
        if fault is not None:
            report(fault)
        read = self.counters.value
        self.counters.forget()
        return read

    def write_counters(self, history: CounterHistory) -> None:
        """Keep what rules counted. Raises as `SealedValue.write` does."""
        try:
            self.counters.write(history)
        finally:
            self.counters.forget()
