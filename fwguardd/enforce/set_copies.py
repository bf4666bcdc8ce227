"""Copies of the sets in the state directory, which the boot loader gives to ``ipset restore`` before it loads rules."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    class Later(Protocol):
        """Writes now, or once the disk answers: `fwguardd.store.background.BackgroundStore.later`."""

        def __call__(self, name: str, call: Callable[[], None], /) -> None:
            """Do a job, which takes the place of one of the same name that has not begun."""

    from collections.abc import Callable

_ENDING = ".ipset"


class SetCopies:
    """One file for each set. Belongs to the worker thread, which does not wait for the disk."""

    def __init__(self, state_dir: Path, later: Later) -> None:
        """Read which copies there are; none where that cannot be read, and then they stay until they are written."""
        self._directory, self._later = state_dir / "sets", later
        self.names: set[str] = set()
        with contextlib.suppress(OSError):
            self.names = {path.name.removesuffix(_ENDING) for path in self._directory.glob(f"*{_ENDING}")}

    def write(self, name: str, script: str) -> None:
        """Replace the copy of a set. Raises OSError."""
        self.names.add(name)
        self._later(f"set {name}", partial(self._write, name, script))

    def _write(self, name: str, script: str) -> None:
        """In the thread of the store."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        new = self._directory / f".{name}.new"
        with new.open("w", encoding="ascii") as file:
            file.write(script)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._directory / f"{name}{_ENDING}")

    def remove(self, name: str) -> None:
        """Remove the copy of a set. Raises OSError."""
        self._later(f"set {name}", partial((self._directory / f"{name}{_ENDING}").unlink, missing_ok=True))
        self.names.discard(name)
