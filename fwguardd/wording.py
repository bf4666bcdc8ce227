"""Words of messages that have to agree with a number.

This module is pure.
"""

from __future__ import annotations


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number with its words: "1 rule", "2 rules". ``plural`` is for words that do more than take an s: "was lost",
    "were lost"."""
    if number == 1:
        return f"1 {singular}"
    return f"{number} {plural or singular + 's'}"
