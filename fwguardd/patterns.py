"""Regular expressions that are compiled when they are used first: many of them are for faults and for rare lines.

This module is pure.
"""

from __future__ import annotations

import re
from typing import Any, cast


def pattern(expression: str, flags: int = 0) -> re.Pattern[str]:
    """As `re.compile`, later. An expression that is wrong raises re.error when it is used.

    No more than its methods and attributes may be used: the functions of re do not take it.
    """
    return cast("re.Pattern[str]", _CompiledLater(expression, flags))


class _CompiledLater:
    """Takes a method from the compiled expression when it is looked up first. From then on it is found at once."""

    def __init__(self, expression: str, flags: int) -> None:
        self._expression, self._flags = expression, flags
        self._compiled: re.Pattern[str] | None = None

    def __getattr__(self, name: str) -> Any:
        compiled = self._compiled or re.compile(self._expression, self._flags)
        self._compiled = compiled
        found = getattr(compiled, name)
        setattr(self, name, found)
        return found
