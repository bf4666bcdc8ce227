"""The metrics of the daemon: its counts, the answer to the verb metrics, and the file. Belongs to the event loop."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fwguardd.metrics.counts import CountingSink, EventCounts, resident_bytes
from fwguardd.metrics.families import of_daemon
from fwguardd.metrics.textfile import TextFile

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from fwguardd.control.documents import MetricsDocument, StatusDocument
    from fwguardd.ruleset.references import LoggingRule
    from fwguardd.settings import Settings
    from fwguardd.sinks.sink import Sink
    from fwguardd.worker_report import Report


class DaemonMetrics:
    """Counts events and passes from the start on, and writes the file that the settings name."""

    def __init__(self, settings: Settings, log: Sink, status: Callable[[], StatusDocument]) -> None:
        self._settings, self._status, self._counts = settings.metrics, status, EventCounts()
        self.log = CountingSink(log, self._counts)
        """The sink that counts the events."""
        self._file: TextFile | None = None

    def document(self) -> MetricsDocument:
        """The result of the verb metrics."""
        return of_daemon(self._status(), self._counts.families(), resident_bytes())

    def use_rules(self, rules: Sequence[LoggingRule]) -> None:
        """From now on these rules log."""
        self._counts.use_rules(rules)

    def step_ended(self, report: Report) -> None:
        """Count a pass; of other steps, only the sets."""
        self._counts.use_sets(report.sets)
        if report.cause:
            self._counts.passed(report.cause, type(report.outcome).__name__.lower(), report.seconds)

    def use(self, settings: Settings) -> None:
        """From now on write to the file that these settings name."""
        self._settings = settings.metrics
        if self._file is not None:
            self._file.use(self._settings.textfile)

    @contextlib.contextmanager
    def writing(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Write the file, as long as the block runs."""
        self._file = TextFile(loop, self.document, self.log.emit)
        self._counts.on_change = self._file.changed
        self._file.use(self._settings.textfile)
        try:
            yield
        finally:
            self._counts.on_change = None
            self._file.close()
