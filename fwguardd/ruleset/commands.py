"""A command of iptables(8) in a rule file -> a statement: ``[counters] [iptables] [-4|-6] [-t TABLE] -A|-I|-N|-P …``.

Rule files may hold what people copy from a shell as well as what iptables-save prints, so a command may begin with the
name of the program, and may name its table and its family.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.families import IPV4_ONLY, IPV6_ONLY, MixedFamilies, infer_families, is_free_text, narrowed
from fwguardd.ruleset.model import BOTH, ZERO, Counters, Family
from fwguardd.ruleset.statements import Addition, Declaration, Statement, parse_counters
from fwguardd.ruleset.syntax_errors import (
    foreign_line,
    refuse_chain_name,
    refuse_forbidden_options,
    refuse_imperative,
    refuse_policy,
    refuse_shell_words,
    refuse_unknown_table,
)
from fwguardd.ruleset.tokenizer import LineFault, TokenizedLine, Word, refuse_continuation, refuse_rest, values_of
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM = pattern(r"(?:/[^=]*/)?(ip6?tables)")
_FAMILIES_OF_PROGRAM = {"iptables": BOTH, "ip6tables": IPV6_ONLY}
_FAMILY_OPTIONS = {"-4": IPV4_ONLY, "--ipv4": IPV4_ONLY, "-6": IPV6_ONLY, "--ipv6": IPV6_ONLY}
_TABLE_OPTION = pattern(r"(?:-t|--table=)(.+)|(?:-t|--table)")
_VERBS = {
    **dict.fromkeys(("-A", "--append"), "-A"),
    **dict.fromkeys(("-I", "--insert"), "-I"),
    **dict.fromkeys(("-N", "--new-chain", "--new"), "-N"),
    **dict.fromkeys(("-P", "--policy"), "-P"),
}


@dataclass(slots=True)
class _Command:
    """A command while its words are taken from the left. ``table`` is None after a COMMIT."""

    line: TokenizedLine
    words: list[Word]
    families: frozenset[Family]
    table: str | None
    counters: Counters = ZERO

    def narrow(self, families: frozenset[Family], word: Word) -> None:
        """Keep only these families, which the word means. Raises LineFault where none remains."""
        remaining = narrowed(self.families, families)
        if not remaining:
            raise _contradiction(self, families, word)
        self.families = remaining


def read_command(line: TokenizedLine, families: frozenset[Family], table: str | None) -> Statement:
    """The statement of a line. ``families`` are those that the file is for; ``table`` is the current table, and None
    after a COMMIT. Raises LineFault."""
    command = _Command(line, list(line.words), families, table)
    _take_prefix(command)
    verb = _take_verb(command)
    chain = _take_chain(command.words, verb)
    table = in_table(command.table)
    refuse_chain_name(chain)
    if verb == "-N":
        _refuse_second_word(command.words, chain)
        refuse_rest(command.words, f"-N {chain}")
        return Declaration(table, chain, None, command.families, line.origin)
    if verb == "-P":
        return _read_policy(command, table, chain)
    return _read_addition(command, verb, table, chain)


def _refuse_second_word(words: Sequence[Word], chain: str) -> None:
    """A chain that is declared under a name of several words. Raises LineFault."""
    values = values_of(words)
    if values and all(_PLAIN_NAME.fullmatch(value) for value in values):
        message = f'"{values[0]}" has no meaning after -N {chain}: the name of a chain is one word'
        hint = f"leave it out, or write -N {'_'.join((chain, *values))}"
        raise LineFault("trailing-words", message, hint, words[0].start + 1)


def in_table(table: str | None) -> str:
    """The table. Raises LineFault where it is None: a line after COMMIT is in no table."""
    if table is None:
        message = "this line and those that follow it come after COMMIT, and are in no table"
        hint = "move them above COMMIT, or write *filter, or the table that you mean, above them"
        raise LineFault("no-table", message, hint)
    return table


def _take_prefix(command: _Command) -> None:
    """Take what stands before the verb. Raises LineFault where nothing follows."""
    words = command.words
    _take_counters(command)
    _take_program(command)
    while words and _take_option(command):
        pass
    if not words:
        message = f'nothing follows "{command.line.words[-1].value}"'
        raise LineFault("no-command", message, "write -A, a chain and a rule after it")


def _take_counters(command: _Command) -> None:
    counters = parse_counters(command.words[0].value)
    if counters is not None:
        command.counters = counters
        del command.words[0]


def _take_program(command: _Command) -> None:
    """Take the name of a program, if it is the next word. Raises LineFault."""
    words = command.words
    if words and (program := _PROGRAM.fullmatch(words[0].value)):
        command.narrow(_FAMILIES_OF_PROGRAM[program[1]], words.pop(0))


def _take_option(command: _Command) -> bool:
    """Take a family or a table, if the next word is one. Raises LineFault."""
    first = command.words[0]
    if first.value in _FAMILY_OPTIONS:
        command.narrow(_FAMILY_OPTIONS[first.value], command.words.pop(0))
        return True
    match = _TABLE_OPTION.fullmatch(first.value)
    if match is None:
        return False
    del command.words[0]
    _take_table(command, match[1] or "", column=first.start + 1)
    return True


def _take_table(command: _Command, attached: str, column: int) -> None:
    """Take the name of a table: the value that is attached to the option, or the next word. Raises LineFault."""
    name = attached
    if not name and command.words:
        name = command.words.pop(0).value
    refuse_unknown_table(name, column=column)
    command.table = name


def _verb_and_value(word: str) -> tuple[str, str]:
    """A verb, and the value that is attached to it."""
    name, equals, value = word.partition("=")
    if equals and name in _VERBS:
        return name, value
    return word[:2], word[2:]


def _take_verb(command: _Command) -> str:
    """Take the verb. ``-AINPUT`` and ``--append=INPUT`` are two words, as for getopt(3). Raises LineFault."""
    first = command.words[0]
    if first.value in _VERBS:
        del command.words[0]
        return _VERBS[first.value]
    name, value = _verb_and_value(first.value)
    if name in _VERBS:
        command.words[0] = Word(value, first.start, first.end)
        return _VERBS[name]
    refuse_imperative(first)
    refuse_forbidden_options([first])
    raise foreign_line(command.words)


def _take_chain(words: list[Word], verb: str) -> str:
    """Take the name of the chain. Raises LineFault where there is none."""
    column = 0
    if words:
        if verb not in ("-A", "-I") or words[0].value[:1] != "-":
            return words.pop(0).value
        column = words[0].start + 1
    raise LineFault("no-chain", "the chain is missing", f"write it after {verb}", column)


def _read_policy(command: _Command, table: str, chain: str) -> Declaration:
    policy = ""
    if command.words:
        policy = command.words[0].value
    refuse_rest(command.words[1:], f"-P {chain} {policy}")
    refuse_policy(table, chain, policy)
    return Declaration(table, chain, policy, command.families, command.line.origin)


def _read_addition(command: _Command, verb: str, table: str, chain: str) -> Addition:
    position = None
    if verb == "-I":
        position = _take_position(command.words)
    text = _read_rule(command)
    return Addition(table, chain, position, text, command.families, command.line.origin, command.counters)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _take_position(words: list[Word]) -> int:
    """The number that stands after the chain of -I; 1 where there is none."""
    if not words or not _is_number(words[0].value):
        return 1
    position = int(words.pop(0).value[:18])
    if position == 0:
        raise LineFault("bad-position", "rules are counted from 1", "leave the number out to insert at the head")
    return position


def _read_rule(command: _Command) -> str:
    """The text of a rule, without family options and trailing comment; narrows the families to those it can mean."""
    kept = _take_family_options(command)
    text = command.line.text
    refuse_continuation(text, kept)
    refuse_shell_words(text, kept)
    refuse_forbidden_options(kept)
    _narrow_to_meaning(command, kept)
    if kept and len(kept) == len(command.words):
        return text[kept[0].start : kept[-1].end]
    return " ".join(text[word.start : word.end] for word in kept)


def _narrow_to_meaning(command: _Command, words: Sequence[Word]) -> None:
    """Narrow the families to those that the words of a rule can mean. Raises LineFault where none remains."""
    families = infer_families(values_of(words))
    if isinstance(families, MixedFamilies):
        raise _mixed_families(families, words)
    if narrowed(command.families, families):
        command.families = narrowed(command.families, families)
    else:
        command.narrow(families, _first_word_that_means(families, words))


def _take_family_options(command: _Command) -> list[Word]:
    """Narrow the families by the options -4 and -6 inside a rule, and return the other words."""
    values = values_of(command.words)
    kept: list[Word] = []
    for place, word in enumerate(command.words):
        if word.value in _FAMILY_OPTIONS and not is_free_text(values, place):
            command.narrow(_FAMILY_OPTIONS[word.value], word)
        else:
            kept.append(word)
    return kept


def _first_word_that_means(families: frozenset[Family], words: Sequence[Word]) -> Word:
    """The word with which a rule begins to mean only these families."""
    values = values_of(words)
    end = 1
    while infer_families(values[:end]) != families:
        end += 1
    return words[end - 1]


def _mixed_families(mixed: MixedFamilies, words: Sequence[Word]) -> LineFault:
    message = f"{mixed.ipv4_word} is IPv4 and {mixed.ipv6_word} is IPv6, and no packet is both"
    if mixed.ipv4_word == mixed.ipv6_word:
        message = f"{mixed.ipv4_word} has addresses of both families, and no packet is both"
    values = values_of(words)
    column = words[values.index(mixed.ipv6_word)].start + 1
    return LineFault("mixed-families", message, "write one rule for each family", column)


_PLAIN_NAME = pattern(r"[A-Za-z0-9_]+")
_WORDS_OF_OTHER_FAMILY = {
    "icmp": "ipv6-icmp",
    **dict.fromkeys(("ipv6-icmp", "icmpv6"), "icmp"),
    "--icmp-type": "--icmpv6-type",
    "--icmpv6-type": "--icmp-type",
    "ttl": "hl",
    "hl": "ttl",
    "TTL": "HL",
    "HL": "TTL",
    "icmp-port-unreachable": "icmp6-port-unreachable",
    "icmp6-port-unreachable": "icmp-port-unreachable",
    "icmp-admin-prohibited": "icmp6-adm-prohibited",
    "icmp6-adm-prohibited": "icmp-admin-prohibited",
    "icmp-host-prohibited": "icmp6-adm-prohibited",
    "icmp-net-unreachable": "icmp6-no-route",
    "icmp-host-unreachable": "icmp6-addr-unreachable",
}
"""What to write in the other family, for the words of one family that are used most."""


def _contradiction(command: _Command, families: frozenset[Family], word: Word) -> LineFault:
    """The line is for one family and the word means the other."""
    allowed, meant = next(iter(command.families)).number, next(iter(families)).number
    stated = _other_family_word(command.line, word)
    if stated:
        message = f"{word.value} means IPv{meant}, and {stated} means IPv{allowed}"
        hint = f"if the rule is for IPv{meant}, leave out {stated}"
    else:
        message = f"{word.value} means IPv{meant}, and the file's name ends in .v{allowed}.rules"
        hint = f"write it in a file whose name ends in .v{meant}.rules, or in .rules alone"
        if instead := _WORDS_OF_OTHER_FAMILY.get(word.value.lower()):
            hint = f'write "{instead}" if it is for IPv{allowed}; else {hint}'
    return LineFault("mixed-families", message, hint, word.start + 1)


def _other_family_word(line: TokenizedLine, other: Word) -> str:
    """The first other word that states the family of a line (-4, -6, ip6tables); empty where there is none."""
    values = values_of(line.words)
    for place, word in enumerate(line.words):
        if word != other and _states_family(word.value) and not is_free_text(values, place):
            return word.value
    return ""


def _states_family(word: str) -> bool:
    program = _PROGRAM.fullmatch(word)
    return word in _FAMILY_OPTIONS or (program is not None and program[1] == "ip6tables")
