"""Reads denials in the event loop: opens their source, reads it in bounded pieces, and keeps its place over a restart.

A source that fails after it was opened is tried again, with growing waits. One that cannot be opened at the start is
tried again by a reload.

The checkpoint, which holds the position in the source and the counts that wait for a summary, is written to the runtime
directory: at once when few denials come, and once a second when many do. A daemon that was stopped or killed continues
from it. After a kill no line is skipped, and lines of the last second may become events twice. No timer runs while
there is nothing to read, emit or write.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.denials.checkpoint import Checkpoint, decode, encode
from fwguardd.denials.pipeline import NO_COUNTS, Pipeline
from fwguardd.denials.sources import Backlog, NoSourceError, ReadPosition, open_source
from fwguardd.ruleset.references import origins_by_prefix, origins_by_way, rules_not_read
from fwguardd.sinks.sink import dropped_events
from fwguardd.wording import counted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.denials.source import Source
    from fwguardd.ruleset.references import LoggingRule
    from fwguardd.settings import Settings
    from fwguardd.sinks.sink import Sink

CHECKPOINT: Final = "denials.json"
"""The file in the runtime directory."""

LARGEST_CHECKPOINT: Final = 16 << 20
"""Bytes that are read of it."""

CHECKPOINT_INTERVAL: Final = 1.0
"""The least number of seconds between two writes of the checkpoint."""

FLUSH_INTERVAL: Final = 0.05
"""Seconds between two attempts to flush the queue of the sink."""

QUIET_INTERVAL: Final = 60.0
"""Seconds after which kernel records without a watched prefix are worth a write too: they move the position."""

FIRST_RETRY: Final = 1.0
"""Seconds until a source that failed is tried again; the wait doubles each time, up to LAST_RETRY."""

LAST_RETRY: Final = 60.0

MOST_WAITING: Final = 1024
"""Events in the queue of the sink from which on lines are counted instead of reported one by one."""


class DenialReader:
    """The source, the pipeline that reads it, and their timers."""

    def __init__(self, settings: Settings, log: Sink, boot_id: str, *, ran_before: bool = False) -> None:
        """``ran_before``: whether fwguardd has guarded this host before, in this boot or an earlier one."""
        self._settings, self._log, self._boot_id, self._ran_before = settings, log, boot_id, ran_before
        self._rules: tuple[LoggingRule, ...] = ()
        self._not_read: tuple[LoggingRule, ...] = ()
        self._source: Source | None = None
        self._last: tuple[str, str | None] = ("", None)
        """The name and the position of the source that was read last."""
        self._why = ""
        self._opened_at = 0.0
        self._retry_wait = 0.0
        self._retry_at: float | None = None
        self._pipeline: Pipeline | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._written: tuple[object, ...] = ()
        self._written_at = 0.0

    def counts(self) -> dict[str, Any]:
        """What was read and what became of it, for `status`."""
        counts = dict(NO_COUNTS)
        if self._pipeline is not None:
            counts = self._pipeline.counts()
        if self._source is None:
            counts |= {"source": None, "position": None}
        return {**counts, "why": self._why, "dropped_events": dropped_events(self._log)}

    def use(self, settings: Settings) -> None:
        """From now on use these settings. If they name another source, or none is open, a source is opened now."""
        before, self._settings = self._settings, settings
        if self._pipeline is not None:
            self._pipeline.watch(settings.prefixes, settings.limits())
        if (settings.source, settings.nflog_group) != (before.source, before.nflog_group):
            self._stop_reading()
        if self._source is None and self._loop is not None:
            self._try_to_open()
        self._match_rules()
        self._set_timer()

    def use_rules(self, rules: tuple[LoggingRule, ...]) -> None:
        """From now on these rules log."""
        self._rules = rules
        self._match_rules()

    def _match_rules(self) -> None:
        """Let denials name the rules that log them, and warn of rules that log to another place, once."""
        if self._pipeline is None or self._source is None:
            return
        group = self._source.group
        read = [rule for rule in self._rules if rule.group == group]
        self._pipeline.use_rules(origins_by_prefix(read), origins_by_way(read))
        self._warn_of_rules_not_read(group, self._source.name)

    def _warn_of_rules_not_read(self, group: int | None, source: str) -> None:
        not_read = rules_not_read(self._rules, group, [watched.prefix for watched in self._settings.prefixes])
        if not_read and not_read != self._not_read:
            self._warn_of(tuple(map(str, not_read)), group, source)
        self._not_read = not_read

    def _warn_of(self, rules: tuple[str, ...], group: int | None, source: str) -> None:
        target = "-j LOG"
        if group is not None:
            target = f"-j NFLOG --nflog-group {group}"
        message = (
            f"denials are read from {source}, and these rules log to another place: {', '.join(dict.fromkeys(rules))}; "
            f"change them to {target}, or set source: in fwguardd.yaml"
        )
        self._log.emit(events.RULES_NOT_READ, message, source=source, rules=rules)

    @contextlib.contextmanager
    def reading(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Read denials in this loop; at the end report the counts that wait, and write the checkpoint.

        The timers of the reader also flush the queue of the sink, whatever put events there.
        """
        self._loop = loop
        self._log.on_waiting(self._sink_waits)
        self._try_to_open()
        try:
            yield
        finally:
            self._close()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pipeline is not None:
            self._pipeline.finish()
            # Events that are still in the queue are lost with this process: the next one must read their lines again.
            if not self._log.flush():
                self._write_checkpoint()
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._source is not None and self._loop is not None:
            self._loop.remove_reader(self._source.fileno())
            self._last = (self._source.name, self._source.position)
            self._source.close()
            self._source = None

    # Opening the source.

    def _try_to_open(self) -> None:
        """Open the source, or report why it cannot be opened."""
        self._retry_at = None
        try:
            self._open()
        except NoSourceError as error:
            if self._pipeline is not None:
                self._retry_later(str(error))
                return
            self._why = str(error)
            message = f"denials cannot be read: {error}; to try again: fwguardctl reload; see source: in fwguardd.yaml"
            self._log.emit(events.DENIALS_UNAVAILABLE, message, reason=str(error))

    def _retry_later(self, reason: str) -> None:
        """Try again after a wait that doubles each time; report why, unless the reason is that of the last time."""
        self._retry_wait = min(2 * self._retry_wait or FIRST_RETRY, LAST_RETRY)
        self._retry_at = time.monotonic() + self._retry_wait
        if reason != self._why:
            message = f"denials cannot be read any more: {reason}; fwguardd tries again in {self._retry_wait:g} s"
            self._log.emit(events.DENIALS_UNAVAILABLE, message, reason=reason)
        self._why = reason

    def _open(self) -> None:
        """Open the source at the right position, and begin to read it. Raises NoSourceError."""
        settings = self._settings
        checkpoint = self._last_checkpoint()
        opened = open_source(settings.source, ReadPosition(checkpoint, self._boot_id, settings.nflog_group))
        source = self._source = opened.source
        self._why, self._opened_at = opened.why, time.monotonic()
        pipeline = self._feed(source, checkpoint)
        message = f"denials are read from {source.name}, {_start(pipeline, opened.backlog, checkpoint)}"
        if opened.why:
            message += f". Reason for this source: {opened.why}"
        self._log.emit(events.DENIALS_READING, message, source=source.name, why=opened.why)
        self._match_rules()
        assert self._loop is not None
        self._loop.add_reader(source.fileno(), self._read)
        self._read()

    def _feed(self, source: Source, checkpoint: Checkpoint | None) -> Pipeline:
        """The pipeline, which reads this source from now on."""
        if self._pipeline is not None:
            self._pipeline.use_source(source)
            return self._pipeline
        settings = self._settings
        self._pipeline = Pipeline(source, settings.prefixes, settings.limits(), self._log.emit, self._has_room)
        if checkpoint is not None and checkpoint.boot_id == self._boot_id:
            self._pipeline.resume(checkpoint.waiting, checkpoint.lost, checkpoint.suspended)
        return self._pipeline

    # Reading, when the source is readable or something is due.

    def _read(self) -> None:
        """The source is readable."""
        assert self._pipeline is not None
        try:
            self._pipeline.read()
        except OSError as error:
            self._fail(str(error))
        self._after_turn()

    def _fail(self, reason: str) -> None:
        """The source cannot be read any more."""
        if time.monotonic() - self._opened_at > LAST_RETRY:
            self._retry_wait = 0.0
        self._stop_reading()
        self._retry_later(reason)

    def _wake(self) -> None:
        """Something is due."""
        self._timer = None
        if self._pipeline is not None:
            self._pipeline.tick()
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._try_to_open()
        self._after_turn()

    def _after_turn(self) -> None:
        moved = self._pipeline is not None and time.monotonic() - self._written_at > QUIET_INTERVAL
        if self._checkpoint_due() == 0.0 or (moved and not self._log.flush()):
            self._write_checkpoint()
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake up when the next thing is due, and not at all when nothing is."""
        assert self._loop is not None
        wait = self._next_wait()
        if wait is None:
            self._cancel_timer()
            return
        when = time.monotonic() + wait
        if self._timer is None or when < self._timer.when():
            self._cancel_timer()
            self._timer = self._loop.call_later(max(0.0, wait), self._wake)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next_wait(self) -> float | None:
        """Seconds until the next thing is due."""
        return min(self._waits(time.monotonic()), default=None)

    def _waits(self, now: float) -> Iterator[float]:
        checkpoint_due = self._checkpoint_due()
        if checkpoint_due is not None:
            yield checkpoint_due
        if self._log.flush():
            yield FLUSH_INTERVAL
        if self._pipeline is not None and (due := self._pipeline.due()) is not None:
            yield due - now
        if self._retry_at is not None:
            yield self._retry_at - now

    def _sink_waits(self) -> None:
        """The queue of the sink begins to fill; called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set_timer)

    def _has_room(self) -> bool:
        return self._log.flush() < MOST_WAITING

    # The checkpoint.

    @property
    def _path(self) -> Path:
        return self._settings.runtime_dir / CHECKPOINT

    def _state(self) -> tuple[object, ...]:
        """Changes whenever there is something new to write."""
        if self._pipeline is None:
            return ()
        counts = self._pipeline.counts()
        return (counts["lines"], counts["summarised"], counts["lost"])

    def _checkpoint_due(self) -> float | None:
        """Seconds until the checkpoint is to be written; None while the last one is still right.

        It is not written while events are in the queue of the sink: a kill would lose them, and their lines are then to
        be read again.
        """
        if self._pipeline is None or self._state() == self._written or self._log.flush():
            return None
        return max(0.0, self._written_at + CHECKPOINT_INTERVAL - time.monotonic())

    def _write_checkpoint(self) -> None:
        """Replace the checkpoint. If that fails, the next process cannot continue from here; nothing else depends on
        it."""
        assert self._pipeline is not None
        temporary = self._path.with_name(f".{CHECKPOINT}.new")
        with contextlib.suppress(OSError):
            temporary.write_bytes(encode(self._checkpoint(self._pipeline)))
            temporary.replace(self._path)
        self._written, self._written_at = self._state(), time.monotonic()

    def _last_checkpoint(self) -> Checkpoint | None:
        """Where reading ended: in this process, or in an earlier one."""
        if self._pipeline is not None:
            return self._checkpoint(self._pipeline)
        return self._read_checkpoint()

    def _checkpoint(self, pipeline: Pipeline) -> Checkpoint:
        name, position = self._last
        if self._source is not None:
            name, position = self._source.name, self._source.position
        waiting, lost = pipeline.waiting()
        return Checkpoint(self._boot_id, name, position, waiting, lost, pipeline.suspended)

    def _read_checkpoint(self) -> Checkpoint | None:
        """The checkpoint of an earlier process; None at the very first start, and for a damaged file."""
        try:
            with self._path.open("rb") as file:
                return decode(file.read(LARGEST_CHECKPOINT))
        except FileNotFoundError:
            if self._ran_before:
                # A reboot empties /run: reading ended in a boot that is over.
                return Checkpoint("", "", None)
            return None
        except OSError:
            return None


def _start(pipeline: Pipeline, backlog: Backlog, checkpoint: Checkpoint | None) -> str:
    """From which line on the source is read, as part of a sentence. A backlog that is to be skipped is read here."""
    match backlog:
        case Backlog.SKIP:
            skipped = pipeline.skip_backlog()
            return f"from now on; {counted(skipped, 'older line')} with a watched prefix skipped"
        case Backlog.REPORT:
            return "from the oldest line of this boot that is still there"
        case Backlog.RESUME if checkpoint is not None:
            return f"from where reading ended (position {checkpoint.position})"
        case _:
            return "from now on"
