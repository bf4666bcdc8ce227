"""What a script gives to iptables-restore, as the commands that do the same.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_PROGRAM = re.compile(r"(?:.*/)?(ip6?tables)(?:-legacy|-nft)?-restore")
_NO_FLUSH = frozenset({"-n", "--noflush"})
_WITHOUT_EFFECT = frozenset({"-c", "--counters", "-w", "--wait", "-v", "--verbose"})
_TABLE = re.compile(r"\*([a-z]+)")
_CHAIN = re.compile(r":([^ \t]+)[ \t]+([^ \t]+)(?:[ \t]+\[[0-9]+:[0-9]+\])?")
_RULE = re.compile(r"(?:\[[0-9]+:[0-9]+\][ \t]*)?((-[A-Z])[ \t]+([^ \t]+).*)")


@dataclass(frozen=True, slots=True)
class Restore:
    """A call of iptables-restore: for which family, and whether it flushes the tables that it reads."""

    family: int
    flushes: bool


@dataclass(frozen=True, slots=True)
class RestoreCommand:
    """A command in its input: the line, the table, the verb, the chain and the whole text. A table that is flushed has
    the verb ``*``. Where nothing can be made of a line the verb is empty."""

    number: int
    table: str
    verb: str
    chain: str
    text: str


def restore_of(words: Sequence[str]) -> Restore | None:
    """The call in the words of a command; None for another program, and for options that change what it does."""
    if not words:
        return None
    program = _PROGRAM.fullmatch(words[0])
    if program is None:
        return None
    options = {word for word in words[1:] if not word.isdecimal()}
    if options - _NO_FLUSH - _WITHOUT_EFFECT:
        return None
    return Restore(4 + 2 * (program[1] == "ip6tables"), not options & _NO_FLUSH)


def commands(lines: Iterable[tuple[int, str]]) -> Iterator[RestoreCommand]:
    """The commands of numbered lines."""
    table = ""
    for number, line in lines:
        text = line.strip()
        if not text or text.startswith("#") or text == "COMMIT":
            continue
        begun = _TABLE.fullmatch(text)
        if begun is not None:
            table = begun[1]
            yield RestoreCommand(number, table, "*", "", text)
        else:
            yield _command(number, table, text)


def _command(number: int, table: str, text: str) -> RestoreCommand:
    rule = _RULE.fullmatch(text)
    if not table:
        return RestoreCommand(number, table, "", "", text)
    if rule is not None:
        return RestoreCommand(number, table, rule[2], rule[3], rule[1])
    return _declaration(number, table, text)


def _declaration(number: int, table: str, text: str) -> RestoreCommand:
    chain = _CHAIN.fullmatch(text)
    if chain is None:
        return RestoreCommand(number, table, "", "", text)
    if chain[2] == "-":
        return RestoreCommand(number, table, "-N", chain[1], f"-N {chain[1]}")
    return RestoreCommand(number, table, "-P", chain[1], f"-P {chain[1]} {chain[2]}")
