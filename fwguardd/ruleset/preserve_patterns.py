"""The patterns of ``preserve``, prepared for the names and places that a host has.

All patterns of known programs as one regular expression take a tenth of a start to compile, and hosts have few of these
programs. So names are compared as texts where a pattern is a name or a beginning, and the patterns for rules are
compiled for each kind of place when a rule there is looked at.

This module is pure.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, TypeAlias

from fwguardd.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PLACE = pattern(r"(?:-t ([^ ]+) )?(?:-A ([^ ]+) )?(.*)", re.DOTALL)
_ANYWHERE = "*-m "
_GLOB = pattern(r"[*?[]")

_MOST_PLACES = 4096
"""Chains whose expression is remembered."""

_Place: TypeAlias = tuple[str | None, str | None]
"""A table and a chain; None stands for any."""


class NamePatterns:
    """Shell patterns for names."""

    def __init__(self, patterns: Iterable[str]) -> None:
        names, beginnings, others = set[str](), list[str](), list[str]()
        for each in patterns:
            head = _GLOB.split(each, 1)[0]
            if head == each:
                names.add(each)
            elif each == f"{head}*":
                beginnings.append(head)
            else:
                others.append(each)
        self._names, self._beginnings = frozenset(names), tuple(beginnings)
        self._heads = tuple(_GLOB.split(each, 1)[0] for each in others)
        self._others = pattern("|".join(map(translate, others)))

    def match(self, name: str) -> bool:
        """Whether a name matches one of the patterns."""
        if name in self._names or name.startswith(self._beginnings):
            return True
        return name.startswith(self._heads) and self._others.match(name) is not None


class RulePatterns:
    """Shell patterns for the texts of rules, some of them for one table or chain."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._texts: dict[_Place, list[str]] = {}
        for each in patterns:
            found = _PLACE.match(each)
            assert found is not None
            self._texts.setdefault((found[1], found[2]), []).append(found[3])
        self._compiled: dict[tuple[_Place, ...], re.Pattern[str]] = {}
        self._of_places: dict[tuple[str, str], re.Pattern[str] | None] = {}

    def match(self, table: str, chain: str, text: str) -> bool:
        """Whether a rule of this text in this place matches one of the patterns."""
        place = table, chain
        if place not in self._of_places:
            if len(self._of_places) >= _MOST_PLACES:  # Some programs make a chain of another name each time.
                self._of_places.clear()
            self._of_places[place] = self._for_place(table, chain)
        expression = self._of_places[place]
        return expression is not None and expression.match(text) is not None

    def _for_place(self, table: str, chain: str) -> re.Pattern[str] | None:
        """The patterns for a place, compiled once for all places that have the same; None where there are none."""
        all_places: tuple[_Place, ...] = ((table, chain), (table, None), (None, chain), (None, None))
        places = tuple(place for place in all_places if place in self._texts)
        if not places:
            return None
        if places not in self._compiled:
            self._compiled[places] = re.compile(_any_text([text for place in places for text in self._texts[place]]))
        return self._compiled[places]


def _any_text(patterns: Sequence[str]) -> str:
    """A regular expression for any of the patterns. Those that start with any text and a match ("*-m ") are put
    together: each by itself would read every rule to its end."""
    anywhere: list[str] = []
    texts: list[str] = []
    for each in patterns:
        if each.startswith(_ANYWHERE):
            anywhere.append(translate(each.removeprefix(_ANYWHERE)))
        else:
            texts.append(translate(each))
    if anywhere:
        texts.append(f".*?-m (?:{'|'.join(anywhere)})")
    return "|".join(texts)
