"""Reports tables of other programs that also filter this host's packets, each time that they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.kernel.other_tables import other_tables
from fwguardd.ruleset.other_tables import describe

if TYPE_CHECKING:
    from fwguardd.events import Emit
    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.canonical import Owned
    from fwguardd.ruleset.other_tables import OtherTable


class OtherTablesReport:
    """What was reported last. Belongs to the worker thread."""

    def __init__(self, backend: Backend, emit: Emit) -> None:
        self._backend, self._emit = backend, emit
        self._known: tuple[OtherTable, ...] = ()
        self._error = ""

    def update(self, hidden: Owned) -> None:
        """Look for such tables. ``hidden`` are tables that iptables cannot show and that are not ours."""
        try:
            found = other_tables(self._backend, hidden)
        except OSError as error:
            if str(error) != self._error:
                message = f"could not check whether other tables filter this host's packets: {error}"
                self._emit(events.OTHER_RULES, message, table=())
            self._error = str(error)
            return
        self._error = ""
        if found and found != self._known:
            self._emit(events.OTHER_RULES, describe(found), table=tuple(str(table) for table in found))
        self._known = found
