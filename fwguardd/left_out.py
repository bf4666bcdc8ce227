"""Imports without the modules that the imported one can do without."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def left_out(*names: str) -> Iterator[None]:
    """In the block, importing a module of these names that is not imported yet raises ImportError, as if it
    were not installed. For use while no other thread imports."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(absent)  # type: ignore[arg-type] # None stands for a module that is not there.
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
