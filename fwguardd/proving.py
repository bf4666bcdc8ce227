"""What sends packets through accepted files in the worker thread: beds that set marks, and the lockout guard."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from fwguardd.enforce.prover import ProtectedPeers, Prover
from fwguardd.kernel.kept_bed import KeptBed
from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.kernel.tcp_in_use import may_have_sessions
from fwguardd.settings import OnUndecided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fwguardd.kernel.bed import LoadedBed
    from fwguardd.kernel.rehearsed_rules import RehearsedRules
    from fwguardd.packets.host import Host
    from fwguardd.packets.model import Journey, Packet, Undecided
    from fwguardd.progress import Progress
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.settings import Settings

PACKETS_PER_MARK = 500
"""Packets that are sent before the next mark."""


class MarkingBeds:
    """Beds of the worker thread: each load and each part of the packets sets a mark first."""

    def __init__(self, backend: str, progress: Progress, rehearsed: RehearsedRules) -> None:
        """``rehearsed`` has what new rules are made of."""
        self._backend, self._progress, self._rehearsed = backend, progress, rehearsed
        self._pool = NamespacePool(spares=0)
        self._beds: KeptBed | None = None

    @contextlib.contextmanager
    def prove(self, rulesets: Mapping[Family, Ruleset], host: Host) -> Iterator[_MarkingBed]:
        """A bed with these rulesets. Raises NamespaceError."""
        self._progress.mark("loading rules to send packets through them")
        with self._kept().prove(rulesets, host) as bed:
            yield _MarkingBed(bed, self._progress)

    def _kept(self) -> KeptBed:
        """Made when the first packets are to be sent."""
        from fwguardd.kernel.bed import Beds  # noqa: PLC0415 - most hosts send none.

        self._beds = self._beds or KeptBed(Beds(self._backend, self._pool, rehearsed=self._rehearsed))
        return self._beds

    def refill(self) -> None:
        """End the namespaces that are no longer used; one is kept."""
        self._pool.refill()

    def close(self) -> None:
        """End the namespaces."""
        if self._beds is not None:
            self._beds.close()
        self._pool.close()


class _MarkingBed:
    def __init__(self, bed: LoadedBed, progress: Progress) -> None:
        self._bed = bed
        self._progress = progress

    def send(self, packets: Sequence[Packet]) -> list[Journey | Undecided]:
        """What the kernel did with each packet. Raises NamespaceError."""
        outcomes: list[Journey | Undecided] = []
        for first in range(0, len(packets), PACKETS_PER_MARK):
            self._progress.mark("sending packets through the rules")
            outcomes += self._bed.send(packets[first : first + PACKETS_PER_MARK])
        return outcomes


def prover_of(beds: MarkingBeds, settings: Settings, shown: Callable[[], Mapping[Family, Ruleset]]) -> Prover:
    """What sends packets through accepted files, as the settings want it."""
    may_watch = partial(_may_watch, settings)
    return Prover(beds, _read_host, settings.undecided is OnUndecided.FAIL, watched_of(settings), shown, may_watch)


def _read_host() -> Host:
    """The network of this host. Raises OSError."""
    from fwguardd.kernel.host_network import read_host  # noqa: PLC0415 - as above.

    return read_host()


def _may_watch(settings: Settings) -> bool:
    """Whether the lockout guard may have packets to send."""
    return settings.lockout_guard and (bool(settings.lockout_peers) or may_have_sessions())


def watched_of(settings: Settings) -> Callable[[Host], ProtectedPeers] | None:
    """Who must not be locked out of a host; None where the settings have no lockout guard."""
    if not settings.lockout_guard:
        return None
    return partial(_watched, settings)


def _watched(settings: Settings, host: Host) -> ProtectedPeers:
    """Who must not be locked out of this host."""
    from fwguardd.kernel.ssh_sessions import ports_and_sessions  # noqa: PLC0415 - as above.
    from fwguardd.packets.lockout import listed_sessions  # noqa: PLC0415

    ports, sessions = ports_and_sessions(ports=frozenset(settings.lockout_ports))
    return ProtectedPeers(sessions, listed_sessions(settings.lockout_peers, ports, host))
