"""What the sources of this room have in common: a `with` statement closes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Something open, which is closed where its `with` block ends."""

    @abstractmethod
    def close(self) -> None:
        """Give up what is open; a second time does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
