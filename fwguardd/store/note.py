"""A note: one small value in a sealed file of its own, or no file and no value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from fwguardd.store.durable import NotSyncedError, remove_file, replace_file
from fwguardd.store.model import DamagedError
from fwguardd.store.seal import seal, unseal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fwguardd.store.damage import DamagedFolder
    from fwguardd.store.durable import System

Value = TypeVar("Value")


class Note(Generic[Value]):
    """A value and the file that keeps it. ``value`` is always what a reader of the file would find.

    ``without`` is a clause for people: what it means that the file cannot be read.
    """

    def __init__(
        self,
        system: System,
        path: Path,
        form: str,
        encode: Callable[[Value], bytes],
        decode: Callable[[bytes], Value],
        without: str,
    ) -> None:
        self.path = path
        self.value: Value | None = None
        self._system = system
        self._form = form
        self._encode = encode
        self._decode = decode
        self._without = without

    def load(self, damaged: DamagedFolder) -> str | None:
        """Read the file. What is wrong with it, as a sentence; the value is None then."""
        self.value = None
        try:
            self.value = self._decode(unseal(self._system, self.path, self._form))
        except FileNotFoundError:
            return None
        except DamagedError as damage:
            return f"{damaged.take(self.path, str(damage))}; {self._without}"
        except OSError as error:
            return f"{self.path} cannot be read: {error.strerror}; {self._without}"
        return None

    def write(self, value: Value) -> None:
        """Keep a value in place of the one before. Raises OSError, and NotSyncedError where it is in place."""
        try:
            replace_file(self._system, self.path, seal(self._form, self._encode(value)))
        except NotSyncedError:
            self.value = value
            raise
        self.value = value

    def remove(self) -> None:
        """Keep no value. Raises OSError, and NotSyncedError where it is gone."""
        try:
            remove_file(self._system, self.path)
        except NotSyncedError:
            self.value = None
            raise
        self.value = None
