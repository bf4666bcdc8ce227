"""Imports without the modules that the imported one can do without, or does not use at once."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

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


@contextmanager
def imported_when_used(name: str) -> Iterator[None]:
    """In the block and after it, a module that is not imported yet is imported when something of it is used. For one
    that others import and do not use; importlib.util.LazyLoader would import it at their import statement."""
    if name not in sys.modules:
        stand_in = ModuleType(name)

        def attribute(wanted: str) -> Any:
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
            return getattr(import_module(name), wanted)

        stand_in.__getattr__ = attribute  # type: ignore[method-assign] # PEP 562
        sys.modules[name] = stand_in
        package, _, last = name.rpartition(".")
        setattr(import_module(package), last, stand_in)
    yield
