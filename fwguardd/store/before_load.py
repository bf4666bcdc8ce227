"""What the kernel held before a load that has not ended, kept in the runtime directory.

The newest revision says what an interrupted load is undone to, but not while the firewall is open or the emergency set
is loaded: then the kernel holds rules that no revision has. The runtime directory is emptied by a reboot, and so are
the tables of the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.store.codec import decode_revision, encode_revision
from fwguardd.store.durable import HostSystem, remove_file, replace_file
from fwguardd.store.sealed_files import seal, unseal

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.store.model import Revision

FORM = "fwguardd ruleset before a load 1"


class BeforeLoad:
    """The file with the ruleset before a load. Its number is that of the revision that was the newest one then."""

    def __init__(self, runtime_dir: Path) -> None:
        self.path = runtime_dir / "before-load.json"
        self._system = HostSystem()

    def keep(self, found: Revision) -> None:
        """Keep what the kernel holds, in place of what was kept before. Raises OSError."""
        replace_file(self._system, self.path, seal(FORM, encode_revision(found)))

    def read(self) -> Revision | None:
        """What the kernel held before a load that has not ended; None for none. Raises DamagedError, OSError."""
        try:
            return decode_revision(unseal(self._system, self.path, FORM))
        except FileNotFoundError:
            return None

    def forget(self) -> None:
        """The load has ended. Raises OSError."""
        if self.path.exists():
            remove_file(self._system, self.path)
