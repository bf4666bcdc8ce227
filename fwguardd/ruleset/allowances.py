"""``# fwguard: allow CODE``: the warnings that an author has read and silenced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALLOW = re.compile(r"#[ \t]*fwguardd?:[ \t]*allow[ \t]+([a-z0-9-]+(?:[ \t,]+[a-z0-9-]+)*)")


def allowances(lines: Sequence[str]) -> dict[int, frozenset[str]]:
    """Codes silenced by ``# fwguard: allow CODE``: on the line itself, or on comment lines right above it."""
    allowed: dict[int, frozenset[str]] = {}
    above: frozenset[str] = frozenset()
    for number, line in enumerate(lines, 1):
        match = _ALLOW.search(line)
        here = frozenset(re.split(r"[ \t,]+", match[1])) if match else frozenset()
        comment = line.lstrip(" \t").startswith("#")
        if here or above:
            allowed[number] = here | above
        above = above | here if comment else frozenset()
    return allowed
