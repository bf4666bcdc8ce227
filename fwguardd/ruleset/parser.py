"""Rule files -> statements: the language of iptables-restore(8), and the commands of iptables(8) that people write.

`read_rules` turns the bytes of one file into statements with origins, and into findings for the lines that it refuses.
It never raises. It refuses whatever iptables-restore 1.8.9 accepts but misreads (measured).

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fwguardd.ruleset.families import (
    IPV4_ONLY,
    IPV6_ONLY,
    MixedFamilies,
    infer_families,
    is_free_text,
    may_tell_family,
    narrowed,
)
from fwguardd.ruleset.model import BOTH, BUILTIN_CHAINS, VERDICTS, ZERO, Counters, Family, Finding, Origin
from fwguardd.ruleset.statements import (
    Addition,
    Declaration,
    Reading,
    Statement,
    TableStart,
    parse_counters,
    suppressions,
)
from fwguardd.ruleset.suggestions import nearest_name
from fwguardd.ruleset.syntax_errors import (
    FOREIGN_SYNTAX,
    IMPERATIVES,
    foreign_line,
    may_hold_forbidden_option,
    refuse_chain_name,
    refuse_forbidden_options,
    refuse_policy,
    refuse_shell_words,
)
from fwguardd.ruleset.tokenizer import (
    LONGEST_LINE,
    LineFault,
    TokenizedLine,
    Word,
    bare_words,
    before_comment,
    cut_words,
    refuse_continuation,
    refuse_rest,
    unusable_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_FINDINGS = 20
"""Findings told for one file; a file with more mistakes than this is another kind of file."""

_ONCE = {"no-table": frozenset({"no-table"}), FOREIGN_SYNTAX: frozenset({FOREIGN_SYNTAX, "not-a-rule"})}
"""What is told once although it may hold for many lines, and what need not be told when that is: rules behind the
COMMIT (until the next table), and the lines of a script."""

# What nearly all lines are: one append, or insertion at the head, in plain ASCII, without backslash and comment.
# No possessive quantifiers: those of Python 3.11.2, which Debian 12 has, take what they must not (cpython#106052).
_SIMPLE_LINE = re.compile(
    r'-([AI]) ([A-Za-z0-9_.][A-Za-z0-9_.-]{0,27}) (-[ !$-\[\]-~]*(?:"[ !#-\[\]-~]*"[ !$-\[\]-~]*)*)'
)
_SIMPLE_LENGTH = 1_000
_QUOTED_PROSE = re.compile(
    r' "(?:(?<= -m comment --comment ")|(?<= -j LOG --log-prefix ")|(?<= -j NFLOG --nflog-prefix "))[^"]*"(?![^ ])'
)
_COMMAND = re.compile(r"(?:/[^=]*/)?(ip6?tables)")
_COMMANDS = {"iptables": BOTH, "ip6tables": IPV6_ONLY}

_VERBS = {
    **dict.fromkeys(("-A", "--append"), "append"),
    **dict.fromkeys(("-I", "--insert"), "insert"),
    **dict.fromkeys(("-N", "--new-chain", "--new"), "new"),
    **dict.fromkeys(("-P", "--policy"), "policy"),
}
_FAMILY_OPTIONS = {"-4": IPV4_ONLY, "--ipv4": IPV4_ONLY, "-6": IPV6_ONLY, "--ipv6": IPV6_ONLY}
_TABLE_OPTION = re.compile(r"(?:-t|--table=)(.+)|(?:-t|--table)")


@dataclass(slots=True)
class _Reader:
    """The state between two lines: the table that the next one belongs to, and what has been found."""

    families: frozenset[Family]
    table: str | None = "filter"
    implied: bool = True
    in_unknown_table: bool = False
    told_once: frozenset[str] = frozenset()
    chains: dict[str, str] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)


def read_rules(path: str, data: bytes, families: frozenset[Family] = BOTH) -> Reading:
    """The statements of one rule file.

    ``path`` is used for origins only. ``families`` is what the file's name allows. Never raises.
    """
    unusable = unusable_file(path, data)
    if unusable is not None:
        return Reading(path, (), (unusable,), (), {})
    lines = tuple(data.decode("utf-8").split("\n"))
    if lines[-1] == "":
        lines = lines[:-1]
    reader = _Reader(families)
    findings = list(_read_lines(path, lines, reader))
    allowed = suppressions(lines) if b"fwguard" in data else {}
    return Reading(path, tuple(reader.statements), tuple(findings), lines, allowed)


def _read_lines(path: str, lines: Sequence[str], reader: _Reader) -> Iterable[Finding]:
    """Fill the reader with the statements of all lines, and yield what is wrong with the others."""
    told = 0
    continued = False
    for number, line in enumerate(lines, 1):
        if continued:
            continued = line.endswith("\\")
            continue
        if not line:
            continue
        origin = Origin(path, number)
        if reader.table is not None and len(line) < _SIMPLE_LENGTH and _read_simple(reader, line, origin):
            continue
        try:
            _read_line(reader, line, origin)
        except LineFault as fault:
            continued = fault.code == "line-continuation"
            if fault.code in reader.told_once:
                continue
            reader.told_once |= _ONCE.get(fault.code, frozenset())
            told += 1
            if told > MOST_FINDINGS:
                yield Finding("too-many-errors", "more lines are wrong; the rest is not told", origin)
                return
            yield Finding(fault.code, fault.message, origin, hint=fault.hint, column=fault.column, line_text=line)


def _read_simple(reader: _Reader, line: str, origin: Origin) -> bool:
    """The fast way for what nearly all lines are: a plain append or insertion with nothing odd in it. Whatever it
    takes, `_read_line` would take to the same effect; whatever is in doubt, it leaves to that."""
    match = _SIMPLE_LINE.fullmatch(line)
    if match is None:
        return False
    verb, chain, text = match.groups()
    telling = text
    if '"' in text:
        telling = _QUOTED_PROSE.sub(" prose", text)
        if '"' in telling:
            return False
    if may_hold_forbidden_option(telling):
        return False
    families = reader.families
    if may_tell_family(telling):
        told = infer_families(telling.split())
        if isinstance(told, MixedFamilies) or not narrowed(families, told):
            return False
        families = narrowed(families, told)
    if chain in VERDICTS:
        return False
    assert reader.table is not None
    # One string for all rules of a chain, not one each.
    chain = reader.chains.setdefault(chain, chain)
    position = None if verb == "A" else 1
    addition = Addition(reader.table, chain, position, text.rstrip(" "), families, origin)
    reader.statements.append(addition)
    return True


def _read_line(reader: _Reader, raw: str, origin: Origin) -> None:
    """One line of any kind. Raises LineFault."""
    text = raw.strip(" \t")
    if not text or text[0] == "#":
        return
    if text[0] == "*":
        _read_table(reader, raw, origin)
    elif before_comment(text).rstrip(" \t") == "COMMIT":
        reader.table = "filter" if reader.implied else None
        reader.in_unknown_table = False
    elif reader.in_unknown_table:
        return
    elif len(raw) > LONGEST_LINE or len(raw.encode()) > LONGEST_LINE:
        message = f"the line has {len(raw.encode()):,} bytes, and may have {LONGEST_LINE:,}: iptables cuts longer ones"
        raise LineFault("line-too-long", message, "split the rule")
    elif text[0] == ":":
        _read_declaration(reader, raw, origin)
    else:
        _read_command(reader, cut_words(raw, origin))


def _read_table(reader: _Reader, raw: str, origin: Origin) -> None:
    reader.table, reader.implied, reader.in_unknown_table = None, False, True
    words = bare_words(raw)
    name = words[0].value if words else ""
    if name not in BUILTIN_CHAINS:
        message = f"{_no_table(name)}; all up to its COMMIT is passed over"
        raise LineFault("unknown-table", message, _which_table(name))
    reader.table, reader.in_unknown_table = name, False
    reader.told_once -= {"no-table"}
    refuse_rest(words[1:], f"*{name}")
    reader.statements.append(TableStart(name, reader.families, origin))


def _no_table(name: str) -> str:
    return f'there is no table "{name}"' if name else "the name of the table is missing"


def _which_table(name: str) -> str:
    meant = nearest_name(name, BUILTIN_CHAINS)
    return f"write {meant}" if meant else f"the tables are {', '.join(BUILTIN_CHAINS)}"


def _read_declaration(reader: _Reader, raw: str, origin: Origin) -> None:
    """``:CHAIN POLICY [packets:bytes]``."""
    words = bare_words(raw)
    if not words:
        raise LineFault("bad-declaration", "a colon without a chain", 'write ":CHAIN - [0:0]"')
    chain, policy, counters = words[0].value, "-", ZERO
    if len(words) > 1:
        policy = words[1].value
    if len(words) > 2:
        pair = parse_counters(words[2].value)
        if pair is None:
            hint = 'write ":CHAIN POLICY [0:0]"'
            raise LineFault("bad-declaration", f'"{words[2].value}" is no counter pair', hint, words[2].start + 1)
        counters = pair
        refuse_rest(words[3:], f":{chain} {policy} {counters}")
    table = _current_table(reader)
    refuse_chain_name(chain)
    if policy != "-":
        refuse_policy(table, chain, policy)
    said = None if policy == "-" else policy
    reader.statements.append(Declaration(table, chain, said, reader.families, origin, counters))


def _read_command(reader: _Reader, line: TokenizedLine) -> None:
    """``[counters] [iptables] [-4|-6] [-t table] -A|-I|-N|-P …``."""
    words = list(line.words)
    counters, families, table = ZERO, reader.families, reader.table
    if words and (pair := parse_counters(words[0].value)) is not None:
        counters = pair
        del words[0]
    if words and (command := _COMMAND.fullmatch(words[0].value)):
        families = _narrow(line, families, _COMMANDS[command[1]], words[0])
        del words[0]
    while words:
        if words[0].value in _FAMILY_OPTIONS:
            option = words.pop(0)
            families = _narrow(line, families, _FAMILY_OPTIONS[option.value], option)
        elif match := _TABLE_OPTION.fullmatch(words[0].value):
            option = words.pop(0)
            table = _table_option(match[1] or (words.pop(0).value if words else ""), option)
        else:
            break
    if not words:
        message = f'nothing follows "{line.words[-1].value}"'
        raise LineFault("no-command", message, "write -A, a chain and a rule behind it")
    _read_verb(reader, line, words, families, counters, table)


def _table_option(name: str, option: Word) -> str:
    if name not in BUILTIN_CHAINS:
        raise LineFault("unknown-table", _no_table(name), _which_table(name), option.start + 1)
    return name


def _read_verb(
    reader: _Reader,
    line: TokenizedLine,
    words: list[Word],
    families: frozenset[Family],
    counters: Counters,
    table: str | None,
) -> None:
    verb, words = _take_verb(words)
    if not words or (verb in ("append", "insert") and words[0].value[:1] == "-"):
        shown = {"append": "-A", "insert": "-I", "new": "-N", "policy": "-P"}[verb]
        column = words[0].start + 1 if words else 0
        raise LineFault("no-chain", "the chain is missing", f"write it behind {shown}", column)
    if table is None:
        table = _current_table(reader)
    chain = words[0].value
    refuse_chain_name(chain)
    rest = words[1:]
    if verb == "new":
        refuse_rest(rest, f"-N {chain}")
        reader.statements.append(Declaration(table, chain, None, families, line.origin))
    elif verb == "policy":
        target = rest[0].value if rest else ""
        refuse_rest(rest[1:], f"-P {chain} {target}")
        refuse_policy(table, chain, target)
        reader.statements.append(Declaration(table, chain, target, families, line.origin))
    else:
        position = _take_position(rest) if verb == "insert" else None
        text, families = _read_rule(line, rest, families)
        reader.statements.append(Addition(table, chain, position, text, families, line.origin, counters))


def _take_verb(words: list[Word]) -> tuple[str, list[Word]]:
    """The verb, and the words from the chain on. ``-AINPUT`` and ``--append=INPUT`` are two words, as for getopt(3)."""
    first = words[0]
    if first.value in _VERBS:
        return _VERBS[first.value], words[1:]
    name, equals, value = first.value.partition("=")
    if equals and name in _VERBS:
        return _VERBS[name], [Word(value, first.start, first.end), *words[1:]]
    if first.value[:2] in _VERBS and first.value[:2] != "--" and len(first.value) > 2:
        return _VERBS[first.value[:2]], [Word(first.value[2:], first.start, first.end), *words[1:]]
    for imperative, hint in IMPERATIVES.items():
        if first.value == imperative or (len(imperative) == 2 and first.value.startswith(imperative)):
            raise LineFault("imperative", f"{first.value} has no place in a rule file", hint, first.start + 1)
    refuse_forbidden_options([first])
    raise foreign_line(words)


def _take_position(rest: list[Word]) -> int:
    if rest and rest[0].value.isascii() and rest[0].value.isdigit():
        position = int(rest.pop(0).value[:18])
        if position == 0:
            raise LineFault("bad-position", "rules are counted from 1", "leave the number out to insert at the head")
        return position
    return 1


def _read_rule(line: TokenizedLine, rest: list[Word], families: frozenset[Family]) -> tuple[str, frozenset[Family]]:
    """The text of a rule, without family options and trailing comment, and the families that it means."""
    values = [word.value for word in rest]
    kept: list[Word] = []
    for place, word in enumerate(rest):
        if word.value in _FAMILY_OPTIONS and not is_free_text(values, place):
            families = _narrow(line, families, _FAMILY_OPTIONS[word.value], word)
        else:
            kept.append(word)
    refuse_continuation(line.text, kept)
    refuse_shell_words(line.text, kept)
    refuse_forbidden_options(kept)
    told = infer_families([word.value for word in kept])
    if isinstance(told, MixedFamilies):
        raise _mixed(told, kept)
    if told != BOTH and not narrowed(families, told):
        _narrow(line, families, told, _telling_word(kept, told))
    families = narrowed(families, told)
    if len(kept) == len(rest):
        return (line.text[kept[0].start : kept[-1].end] if kept else ""), families
    return " ".join(line.text[word.start : word.end] for word in kept), families


def _telling_word(words: Sequence[Word], told: frozenset[Family]) -> Word:
    """The word with which a rule begins to mean the families that it means."""
    values = [word.value for word in words]
    return next(word for end, word in enumerate(words, 1) if infer_families(values[:end]) == told)


def _mixed(told: MixedFamilies, words: Sequence[Word]) -> LineFault:
    message = f"{told.ipv4_word} is IPv4 and {told.ipv6_word} is IPv6: no packet is both"
    if told.ipv4_word == told.ipv6_word:
        message = f"{told.ipv4_word} has addresses of both families, and no packet is both"
    column = next(word.start + 1 for word in words if word.value == told.ipv6_word)
    return LineFault("mixed-families", message, "write one rule for each family", column)


def _narrow(line: TokenizedLine, families: frozenset[Family], told: frozenset[Family], word: Word) -> frozenset[Family]:
    """Both conditions at once. Raises LineFault when the line allows one family and this word means the other."""
    remaining = narrowed(families, told)
    if remaining:
        return remaining
    allowed, meant = next(iter(families)).number, next(iter(told)).number
    said = _family_words(line, word)
    if said:
        message = f"{word.value} means IPv{meant}, and {said} means IPv{allowed}"
        raise LineFault("mixed-families", message, f"if the rule is for IPv{meant}, leave out {said}", word.start + 1)
    message = f"{word.value} means IPv{meant}, and the file's name ends in .v{allowed}.rules"
    hint = f"write it in a file whose name ends in .v{meant}.rules, or in .rules alone"
    raise LineFault("mixed-families", message, hint, word.start + 1)


def _family_words(line: TokenizedLine, other: Word) -> str:
    """The word with which a line says its family outright, other than this one; empty where it has none."""
    values = [word.value for word in line.words]
    for place, word in enumerate(line.words):
        command = _COMMAND.fullmatch(word.value)
        outright = word.value in _FAMILY_OPTIONS or (command is not None and command[1] == "ip6tables")
        if outright and word != other and not is_free_text(values, place):
            return word.value
    return ""


def _current_table(reader: _Reader) -> str:
    if reader.table is None:
        message = "the line comes after COMMIT, and so do those that follow it: they belong to no table"
        raise LineFault("no-table", message, "move them up, or write *filter, or the table that you mean, above them")
    return reader.table
