"""Variants of a rule that the kernel refuses: without one match, with a protocol, in another place.

The rehearsal tries them to find out why the rule is refused. They are never loaded into the live tables.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.chain_graph import chains_after
from fwguardd.ruleset.model import BUILTIN_CHAINS, NOT_STATED, VERDICTS, Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.rule_view import RuleView, jump_target
from fwguardd.ruleset.tokenizer import UnterminatedQuoteError, iterate_words
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.ruleset.tokenizer import Word

PROTOCOLS = ("tcp", "udp", "sctp", "dccp", "udplite", "esp", "ah", "icmp", "ipv6-icmp")
"""The protocols that an extension may require (the ``.proto`` and the checks of net/netfilter/xt_*.c)."""

FIRST_PACKETS = "tcp --syn"
"""What TCPMSS of iptables-legacy requires: the packets that begin a TCP connection."""

_MATCH = frozenset({"-m", "--match"})
_TARGET = frozenset({"-j", "--jump", "-g", "--goto"})
_PROTOCOL = pattern(r"(?<![^ ])(?:-p|--proto(?:col)?) +[^ ]+")
_CORE = frozenset(
    {"-s", "--source", "--src", "-d", "--destination", "--dst", "-p", "--protocol", "--proto", "-f", "--fragments"}
    | {"-i", "--in-interface", "-o", "--out-interface"}
)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a rule's text: a match or a target with its options (``name`` is the extension), or other words."""

    name: str
    text: str
    is_target: bool = False

    def __str__(self) -> str:
        if self.is_target:
            return self.name
        return f"-m {self.name}"


@dataclass(frozen=True, slots=True)
class BuiltInChain:
    """A built-in chain of a table."""

    table: str
    chain: str


PLACES = tuple(BuiltInChain(table, chain) for table, chains in BUILTIN_CHAINS.items() for chain in chains)
"""All built-in chains of all tables."""


def parts_of(text: str) -> tuple[Part, ...]:
    """The parts of a rule in order. Nothing for a text with a quote that is not closed."""
    words = _words_of(text)
    if not words:
        return ()
    starts = _starts_of_parts(words)
    ends = [*starts[1:], len(words)]
    return tuple(_part(text, words[start:end]) for start, end in zip(starts, ends, strict=True))


def _words_of(text: str) -> list[Word]:
    try:
        return list(iterate_words(text))
    except UnterminatedQuoteError:
        return []


def _starts_of_parts(words: Sequence[Word]) -> list[int]:
    """The numbers of the words that begin a part: the first word, and each option that begins one."""
    return [number for number in range(len(words)) if not number or words[number].value in _MATCH | _TARGET | _CORE]


def _part(text: str, words: list[Word]) -> Part:
    """The part of a text that has these words."""
    option, name = words[0].value, ""
    if len(words) > 1 and option in _MATCH | _TARGET:
        name = words[1].value
    return Part(name, text[words[0].start : words[-1].end], option in _TARGET)


def without_part(text: str, unwanted: Part) -> str:
    """The rule without one of its parts."""
    return " ".join(part.text for part in parts_of(text) if part != unwanted)


def with_protocol(text: str, protocol: str) -> str:
    """The rule for packets of this protocol only, in place of the one that it names."""
    if protocol_of(text) is None:
        return f"-p {protocol} {text}"
    return _PROTOCOL.sub(f"-p {protocol}", text, count=1)


def protocol_of(text: str) -> str | None:
    """The protocol that the rule is for; None for all."""
    return RuleView.of(text).value("-p")


def is_extension(target: str | None) -> bool:
    """Whether a target is neither a verdict nor nothing. A chain counts as an extension here."""
    return target is not None and target not in VERDICTS


def only_this_rule(family: Family, table: Table, chain: str, text: str) -> Ruleset:
    """A ruleset in which this rule stands alone in its chain, and only the jumps that lead to it from elsewhere."""
    return with_rule(family, jumps_to(table, chain), chain, text)


def with_rule(family: Family, table: Table, chain: str, text: str) -> Ruleset:
    """A ruleset of this table, in which the chain has this rule alone."""
    chains = dict(table.chains)
    chains[chain] = replace(chains[chain], rules=(Rule(text),))
    return Ruleset(family, {table.name: Table(table.name, chains)})


def jumps_to(table: Table, chain: str) -> Table:
    """The table with the jumps that lead to a chain, and without all other rules."""
    leading = _chains_leading_to(table, chain)
    chains: dict[str, Chain] = {}
    for name, known in table.chains.items():
        rules: tuple[Rule, ...] = ()
        if name in leading and name != chain:
            rules = _rules_that_jump_to(leading, known)
        chains[name] = replace(known, rules=rules)
    return Table(table.name, chains)


def _rules_that_jump_to(targets: set[str], chain: Chain) -> tuple[Rule, ...]:
    return tuple(rule for rule in chain.rules if jump_target(rule.text) in targets)


def _chains_leading_to(table: Table, chain: str) -> set[str]:
    """The chain, and all chains from which packets can get to it by jumps."""
    sources: dict[str, set[str]] = {}
    for name in table.chains:
        for target in chains_after(table, name):
            sources.setdefault(target, set()).add(name)
    leading, waiting = {chain}, [chain]
    while waiting:
        new = sources.get(waiting.pop(), set()) - leading
        leading |= new
        waiting += new
    return leading


def rule_in(family: Family, place: BuiltInChain, text: str) -> Ruleset:
    """A ruleset with this rule alone, in a built-in chain."""
    chains: dict[str, Chain] = {}
    for name in BUILTIN_CHAINS[place.table]:
        chains[name] = Chain(name, NOT_STATED)
    chains[place.chain] = Chain(place.chain, NOT_STATED, (Rule(text),))
    return Ruleset(family, {place.table: Table(place.table, chains)})


def shown_places(places: list[BuiltInChain]) -> str:
    """Built-in chains for a sentence: "PREROUTING and OUTPUT of table nat"."""
    return "; ".join(_shown_chains(table, places) for table in dict.fromkeys(place.table for place in places))


def _shown_chains(table: str, places: list[BuiltInChain]) -> str:
    names = [place.chain for place in places if place.table == table]
    return f"{listed_words(names, 'and')} of table {table}"


def listed_words(words: list[str], conjunction: str) -> str:
    """Words for a sentence: "A", "A and B", "A, B and C"."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def _target_extensions(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        if part.is_target and is_extension(part.name):
            yield part


def extensions_of(text: str) -> Iterator[Part]:
    """The matches and targets of a rule that an extension implements; the target comes first."""
    parts = parts_of(text)
    yield from _target_extensions(parts)
    for part in parts:
        if part.name and not part.is_target:
            yield part
