"""Looking up known programs: by name, as the setting ``preserve`` does, by chain, and by table of nf_tables.

This module is pure.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import chain
from typing import TYPE_CHECKING

from fwguardd.ruleset.known_programs import KNOWN_PROGRAMS
from fwguardd.ruleset.rule_view import jump_target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.ruleset.known_programs import KnownProgram

DEFAULTS = "defaults"
"""The entry of the setting ``preserve`` that stands for all known programs."""

_WITHOUT = "without "
CHAINS_FOR_ADMINISTRATORS = frozenset(chain.from_iterable(program.for_administrators for program in KNOWN_PROGRAMS))
"""Chains of table filter that a program makes and jumps to. What a rule file writes into them is owned."""

CHAINS_FILLED = frozenset(chain.from_iterable(program.filled for program in KNOWN_PROGRAMS))
"""Chains of table filter that an administrator makes and jumps to, and a program fills. What it writes is not owned."""

CHAIN_PATTERNS = frozenset(chain.from_iterable(program.chains for program in KNOWN_PROGRAMS))
"""The patterns for chains of all known programs."""

BY_NAME = {program.name: program for program in KNOWN_PROGRAMS}


class UnknownProgramError(ValueError):
    """A name that is not one of a known program. The message suggests the nearest name, or lists all of them."""


def expand_patterns(entries: Iterable[str]) -> tuple[str, ...]:
    """The patterns that the entries of the setting ``preserve`` stand for, each once, in order.

    ``defaults`` stands for all known programs, a name for that program, and ``without NAME`` excludes one; any other
    entry is a pattern. Raises UnknownProgramError.
    """
    patterns: dict[str, None] = {}
    excluded: set[str] = set()
    for entry in entries:
        if entry.startswith(_WITHOUT):
            excluded.update(_known_program(entry.removeprefix(_WITHOUT)).patterns)
        else:
            patterns |= dict.fromkeys(_patterns_of(entry))
    return tuple(pattern for pattern in patterns if pattern not in excluded)


def _patterns_of(entry: str) -> Iterable[str]:
    if entry == DEFAULTS:
        return chain.from_iterable(program.patterns for program in KNOWN_PROGRAMS)
    if entry in BY_NAME:
        return BY_NAME[entry].patterns
    return (entry,)


def owner_of_nft_table(family: str, name: str) -> KnownProgram | None:
    """The known program that makes a table of this name in nf_tables; None if there is none."""
    place = f"{family} {name}"
    for program in KNOWN_PROGRAMS:
        if any(fnmatchcase(place, pattern) for pattern in program.nft_tables):
            return program
    return None


def maker_of_chain(name: str) -> KnownProgram | None:
    """The known program that makes user-defined chains of this name; None if there is none."""
    for program in KNOWN_PROGRAMS:
        if any(fnmatchcase(name, pattern) for pattern in program.chains):
            return program
    return None


def owner_of_rule(text: str, table: str, chain: str) -> KnownProgram | None:
    """The known program that writes such a rule, or the chain that it stands in or jumps to; None if there is none."""
    for program in KNOWN_PROGRAMS:
        if _is_of(program, text, table, chain):
            return program
    return None


def _is_of(program: KnownProgram, text: str, table: str, chain: str) -> bool:
    names = [chain, jump_target(text) or ""]
    if _any_matches(names, program.chains):
        return True
    places = (text, f"-t {table} {text}", f"-A {chain} {text}", f"-t {table} -A {chain} {text}")
    return _any_matches(places, program.rules)


def _any_matches(texts: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text, pattern) for text in texts for pattern in patterns)


def _known_program(name: str) -> KnownProgram:
    if name in BY_NAME:
        return BY_NAME[name]
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for this import.

    advice = f"the known programs are {', '.join(BY_NAME)}"
    close = get_close_matches(name, BY_NAME, 1)
    if close:
        advice = f"did you mean {close[0]!r}?"
    raise UnknownProgramError(f"{name!r} is not a known program; {advice}")
