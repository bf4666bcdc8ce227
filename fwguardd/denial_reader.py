"""The one part that listens for denials: it waits in the event loop for their source, and reads a bounded piece.

A source that could be read and fails is tried again, with growing waits. One that cannot be had at the start is tried
again by a reload.

Where the reading stands is written to the runtime directory, at once when little happens and each second when much
does, together with what is counted and not told yet: a daemon that was stopped or killed goes on from there. After a
kill nothing is skipped, and what was told in the second before it may be told again. Nobody wakes up while there is
nothing to read, to tell or to write.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.denials.checkpoint import Checkpoint, decode, encode
from fwguardd.denials.pipeline import NOT_READ, Pipeline
from fwguardd.denials.sources import Backlog, NoSourceError, ReadPosition, SourceChoice, open_source
from fwguardd.ruleset.references import origins_by_prefix, rules_not_read
from fwguardd.sinks.sink import dropped_events

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.denials.pipeline import Source
    from fwguardd.ruleset.references import LoggingRule
    from fwguardd.settings import Settings
    from fwguardd.sinks.sink import Sink

BOOKMARK: Final = "denials.json"
"""The file in the runtime directory."""

LARGEST_BOOKMARK: Final = 16 << 20
"""Bytes that are read of it."""

BOOKMARK_GAP: Final = 1.0
"""Seconds between two writings of the bookmark."""

FLUSH_GAP: Final = 0.05
"""Seconds between two tries to hand on what a slow journald has not taken."""

QUIET_GAP: Final = 60.0
"""Seconds after which records that are none of ours make the bookmark worth writing, should one just come."""

RETRY_FIRST: Final = 1.0
"""Seconds until a source that failed is tried again; they double each time, up to RETRY_MOST."""

RETRY_MOST: Final = 60.0

MOST_WAITING: Final = 1024
"""Events in the queue for journald from which on lines are counted, not told."""


class DenialReader:
    """The source, the tail that reads it, and the timers of both."""

    def __init__(self, settings: Settings, log: Sink, boot_id: str, *, ran_before: bool = False) -> None:
        """``ran_before`` tells that fwguardd has guarded this host before, in whichever boot."""
        self._settings, self._log, self._boot_id, self._ran_before = settings, log, boot_id, ran_before
        self._rules: tuple[LoggingRule, ...] = ()
        self._silent: tuple[LoggingRule, ...] = ()
        self._source: Source | None = None
        self._ended: tuple[str, str | None] = ("", None)
        self._why = ""
        self._opened_at = 0.0
        self._retry_wait = 0.0
        self._retry_at: float | None = None
        self._tail: Pipeline | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._written: tuple[object, ...] = ()
        self._written_at = 0.0

    @property
    def _path(self) -> Path:
        return self._settings.runtime_dir / BOOKMARK

    def counts(self) -> dict[str, Any]:
        """What was read and what became of it, for `status`."""
        counts = dict(NOT_READ) if self._tail is None else self._tail.counts()
        if self._source is None:
            counts |= {"source": None, "position": None}
        return {**counts, "why": self._why, "dropped_events": dropped_events(self._log)}

    def use(self, settings: Settings) -> None:
        """From now on, these settings. Another source is opened at once, and one that could not be opened is tried."""
        before, self._settings = self._settings, settings
        if self._tail is not None:
            self._tail.watch(settings.prefixes, settings.limits())
        if (settings.source, settings.nflog_group) != (before.source, before.nflog_group):
            self._stop_reading()
        if self._source is None and self._loop is not None:
            self._try()
        self._name_rules()
        self._set_timer()

    def use_rules(self, rules: tuple[LoggingRule, ...]) -> None:
        """From now on, these rules log."""
        self._rules = rules
        self._name_rules()

    def _name_rules(self) -> None:
        """Let denials name the rules that log them, and tell of rules that log where nobody listens, once."""
        if self._tail is None or self._source is None:
            return
        group = self._settings.nflog_group if self._source.name == SourceChoice.NFLOG.value else None
        self._tail.use_rules(origins_by_prefix(rule for rule in self._rules if rule.group == group))
        silent = rules_not_read(self._rules, group, [watched.prefix for watched in self._settings.prefixes])
        if silent and silent != self._silent:
            named = ", ".join(dict.fromkeys(map(str, silent)))
            instead = "LOG" if group is None else f"NFLOG to group {group}"
            message = (
                f"denials are read from {self._source.name}, and these rules log elsewhere: {named}; let them say "
            )
            message += f"{instead}, or choose another source: in fwguardd.yaml"
            self._log.emit(events.RULES_NOT_READ, message, source=self._source.name, rules=tuple(map(str, silent)))
        self._silent = silent

    @contextlib.contextmanager
    def listening(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Read denials in this loop until the end; then tell what is counted, and write down where the reading ended.

        Here too events that a slow journald did not take are handed on, whoever told them.
        """
        self._loop = loop
        self._log.on_waiting(self._events_wait)
        self._try()
        try:
            yield
        finally:
            self._close()

    def _try(self) -> None:
        """Open the source, or tell why it cannot be opened."""
        self._retry_at = None
        try:
            self._open()
        except NoSourceError as error:
            if self._tail is not None:
                self._retry_later(str(error))
                return
            self._why = str(error)
            message = f"denials are not told: {error}; fwguardctl reload tries again; see also source: in fwguardd.yaml"
            self._log.emit(events.DENIALS_UNAVAILABLE, message, reason=str(error))

    def _retry_later(self, reason: str) -> None:
        """Try again after a while, twice as long as the last time, and tell why; the same reason is told once."""
        self._retry_wait = min(2 * self._retry_wait or RETRY_FIRST, RETRY_MOST)
        self._retry_at = time.monotonic() + self._retry_wait
        if reason != self._why:
            message = f"denials are not told any more: {reason}; fwguardd tries again in {self._retry_wait:g} s"
            self._log.emit(events.DENIALS_UNAVAILABLE, message, reason=reason)
        self._why = reason

    def _open(self) -> None:
        """Open the source at the right place, and begin to read it. Raises NoSourceError."""
        checkpoint = self._read_checkpoint() if self._tail is None else self._checkpoint()
        settings = self._settings
        taken = open_source(settings.source, ReadPosition(checkpoint, self._boot_id, settings.nflog_group))
        source = self._source = taken.source
        self._why, self._opened_at = taken.why, time.monotonic()
        if self._tail is None:
            self._tail = Pipeline(source, settings.prefixes, settings.limits(), self._log.emit, self._has_room)
            if checkpoint is not None and checkpoint.boot_id == self._boot_id:
                self._tail.go_on(checkpoint.waiting, checkpoint.lost)
        else:
            self._tail.use_source(source)
        message = f"denials are read from {source.name}, {self._since(taken.old_lines, checkpoint)}"
        because = f": {taken.why}" if taken.why else ""
        self._log.emit(events.DENIALS_READING, message + because, source=source.name, why=taken.why)
        self._name_rules()
        assert self._loop is not None
        self._loop.add_reader(source.fileno(), self._read)
        self._read()

    def _since(self, old_lines: Backlog, checkpoint: Checkpoint | None) -> str:
        """From where on the source is read, for a sentence; old lines are passed over here."""
        if old_lines is Backlog.SKIP:
            assert self._tail is not None
            return f"from now on; {self._tail.pass_over()} older lines with a watched prefix are passed over"
        if old_lines is Backlog.TELL:
            return "from the oldest one that is left of this boot"
        if old_lines is Backlog.RESUME and checkpoint is not None:
            return f"from where the reading ended, after {checkpoint.position}"
        return "from now on"

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._tail is not None:
            self._tail.finish()
            # What a slow journald has not taken ends with this process: the next one reads those lines again.
            if not self._log.flush():
                self._write_checkpoint()
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._source is not None and self._loop is not None:
            self._loop.remove_reader(self._source.fileno())
            self._ended = (self._source.name, self._source.position)
            self._source.close()
            self._source = None

    def _read(self) -> None:
        """The source is readable."""
        assert self._tail is not None
        try:
            self._tail.read()
        except OSError as error:
            self._fail(str(error))
        self._keep_up()

    def _fail(self, reason: str) -> None:
        """The source cannot be read any more."""
        if time.monotonic() - self._opened_at > RETRY_MOST:
            self._retry_wait = 0.0
        self._stop_reading()
        self._retry_later(reason)

    def _wake(self) -> None:
        """Something is due."""
        self._timer = None
        if self._tail is not None:
            self._tail.tick()
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._try()
        self._keep_up()

    def _keep_up(self) -> None:
        moved = self._tail is not None and time.monotonic() - self._written_at > QUIET_GAP
        if self._checkpoint_due() == 0.0 or (moved and not self._log.flush()):
            self._write_checkpoint()
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake up when the next thing is due, and not at all when nothing is."""
        assert self._loop is not None
        now = time.monotonic()
        waits = [self._checkpoint_due(), FLUSH_GAP if self._log.flush() else None]
        if self._tail is not None and (due := self._tail.due()) is not None:
            waits.append(due - now)
        if self._retry_at is not None:
            waits.append(self._retry_at - now)
        wait = min((wait for wait in waits if wait is not None), default=None)
        if wait is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None or now + wait < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.0, wait), self._wake)

    def _events_wait(self) -> None:
        """The queue for journald begins to fill; any thread may say so."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set_timer)

    def _has_room(self) -> bool:
        return self._log.flush() < MOST_WAITING

    def _state(self) -> tuple[object, ...]:
        """What changes when there is something new to write down."""
        if self._tail is None:
            return ()
        counts = self._tail.counts()
        return (counts["lines"], counts["summarised"], counts["lost"])

    def _checkpoint_due(self) -> float | None:
        """Seconds until the bookmark is to be written; None when the one that is there is good.

        While events wait for journald it is not moved: a kill would lose them with the queue, and they are to be read
        again then.
        """
        if self._tail is None or self._state() == self._written or self._log.flush():
            return None
        return max(0.0, self._written_at + BOOKMARK_GAP - time.monotonic())

    def _checkpoint(self) -> Checkpoint:
        """Where the reading stands, or ended."""
        assert self._tail is not None
        source = self._source
        name, position = self._ended if source is None else (source.name, source.position)
        waiting, lost = self._tail.waiting()
        return Checkpoint(self._boot_id, name, position, waiting, lost)

    def _write_checkpoint(self) -> None:
        """Put the bookmark in place of the one before. What /run does not take costs nothing but the resuming."""
        beside = self._path.with_name(f".{BOOKMARK}.new")
        with contextlib.suppress(OSError):
            beside.write_bytes(encode(self._checkpoint()))
            beside.replace(self._path)
        self._written, self._written_at = self._state(), time.monotonic()

    def _read_checkpoint(self) -> Checkpoint | None:
        """The bookmark that was left; None at the very first start, and for a damaged one."""
        try:
            with self._path.open("rb") as file:
                return decode(file.read(LARGEST_BOOKMARK))
        except FileNotFoundError:
            # A reboot empties /run: the reading ended in a boot that is over.
            return Checkpoint("", "", None) if self._ran_before else None
        except OSError:
            return None
