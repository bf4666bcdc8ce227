"""The names of sets in rules: a rule that names a set file names the kernel's set of its family.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.ruleset.set_files import ENDING, bad_name, kernel_name, name_of
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class SetNames:
    """The names of set files, and the options of rules that name them, None without names."""

    pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, names: Collection[str]) -> Self:
        """The names of these files."""
        if not names:
            return cls()
        choices = "|".join(map(re.escape, sorted(names)))
        return cls(re.compile(rf"(--(?:match|add|del|map)-set +)({choices})(?= )"))

    def may_be_in(self, text: str) -> bool:
        """Whether a rule may name one of the sets. Most rules name none."""
        return self.pattern is not None and "-set " in text

    def for_ipv6(self, text: str) -> str:
        """The text of the rule for IPv6."""
        if self.pattern is None:
            return text
        return self.pattern.sub(_renamed, text)


def _renamed(match: re.Match[str]) -> str:
    return match[1] + kernel_name(match[2], Family.IPV6)


def kernel_sets(names: Collection[str]) -> Mapping[str, Family]:
    """The kernel's sets that the files make, with their families."""
    sets: dict[str, Family] = {}
    for name in names:
        for family in FAMILIES:
            sets[kernel_name(name, family)] = family
    return sets


def is_set_file(name: str) -> bool:
    """Whether a file of this name holds the entries of a set."""
    return name.endswith(ENDING) and not name.startswith(".")


def names_of_sets(files: Iterable[str]) -> frozenset[str]:
    """The names of the sets that files of these names hold the entries of."""
    return frozenset(name_of(file) for file in files if is_set_file(file) and bad_name(file) is None)
