"""A bed that is kept from one proof to the next: most changes are a few rules, and hosts rarely change.

To make a bed takes a process, a network and a load of all rules; to change the rules of one takes a tenth of that.
Nothing of a packet stays in it: connections are removed, and limits are not loaded (`fwguardd.packets.bed_rules`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fwguardd.kernel.namespaces import NamespaceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.kernel.bed import Beds, LoadedBed
    from fwguardd.packets.host import Host
    from fwguardd.ruleset.model import Family, Ruleset


class KeptBed:
    """Beds of one kind, of which the last one is kept (`fwguardd.enforce.prover.Beds`). Belongs to one thread."""

    def __init__(self, beds: Beds) -> None:
        self._beds = beds
        self._opened = contextlib.ExitStack()
        self._kept: LoadedBed | None = None

    @contextlib.contextmanager
    def prove(self, rulesets: Mapping[Family, Ruleset], host: Host) -> Iterator[LoadedBed]:
        """A bed with these rulesets, which are such as iptables-save prints: the kept one where it is one of this host
        and differs little. It is kept only if nothing fails while it is used. Raises NamespaceError."""
        kept, self._kept = self._kept, None
        if kept is None or not _is_changed(kept, rulesets, host):
            self._opened.close()
            kept = self._opened.enter_context(self._beds.prove(rulesets, host))
        yield kept
        self._kept = kept

    def close(self) -> None:
        """End the use of the kept bed."""
        self._kept = None
        self._opened.close()


def _is_changed(bed: LoadedBed, rulesets: Mapping[Family, Ruleset], host: Host) -> bool:
    """Whether the bed has these rulesets now. Where changing it failed, its process has ended, for instance."""
    try:
        return bed.change(rulesets, host)
    except NamespaceError:
        return False
