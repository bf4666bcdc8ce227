"""The language of rule files: iptables-restore's, with the freedoms that people take.

`read_rules` turns the bytes of one file into statements with origins, and into findings for what it refuses. It never
raises, whatever the bytes are. It refuses what iptables-restore would misread without a word (measured with 1.8.9):
NUL bytes, carriage returns, unclosed quotes, lines over 10,239 bytes, options that run a program or print a text
instead of adding a rule, and characters that look like a dash, a quote or a space and are none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fwguardd.ruleset.allowances import allowances
from fwguardd.ruleset.bytes import unusable_file
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
from fwguardd.ruleset.statements import Addition, Declaration, Reading, Statement, TableStart
from fwguardd.ruleset.traps import (
    IMPERATIVES,
    LineFault,
    may_hold_trap,
    refuse_chain_name,
    refuse_odd_characters,
    refuse_policy,
    refuse_traps,
)
from fwguardd.ruleset.words import UnterminatedQuoteError, Word, iterate_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONGEST_LINE = 10_000
"""Bytes of a line. iptables-restore cuts lines after 10,239; the rest is room for the counters that go before a rule,
and for what the canonical text adds to it."""

MOST_FINDINGS = 20
"""Findings told for one file; a file with more mistakes than this is another kind of file."""

# What nearly all lines are: one append, or insertion at the head, in plain ASCII, without backslash and comment.
# No possessive quantifiers: those of Python 3.11.2, which Debian 12 has, take what they must not (cpython#106052).
_SIMPLE_LINE = re.compile(
    r'-([AI]) ([A-Za-z0-9_.][A-Za-z0-9_.-]{0,27}) (-[ !$-\[\]-~]*(?:"[ !#-\[\]-~]*"[ !$-\[\]-~]*)*)'
)
_SIMPLE_LENGTH = 1_000
_QUOTED_PROSE = re.compile(
    r' "(?:(?<= -m comment --comment ")|(?<= -j LOG --log-prefix ")|(?<= -j NFLOG --nflog-prefix "))[^"]*"(?![^ ])'
)
_COMMENT = re.compile(r"[ \t]#")
_BARE_WORD = re.compile(r"[^ \t]+")
_COUNTERS = re.compile(r"\[([0-9]+):([0-9]+)\]$")
_COMMANDS = {"iptables": BOTH, "ip6tables": IPV6_ONLY}

_VERBS = {
    **dict.fromkeys(("-A", "--append"), "append"),
    **dict.fromkeys(("-I", "--insert"), "insert"),
    **dict.fromkeys(("-N", "--new-chain", "--new"), "new"),
    **dict.fromkeys(("-P", "--policy"), "policy"),
}
_FAMILY_OPTIONS = {"-4": IPV4_ONLY, "--ipv4": IPV4_ONLY, "-6": IPV6_ONLY, "--ipv6": IPV6_ONLY}
_TABLE_OPTION = re.compile(r"(?:-t|--table=)(.+)|(?:-t|--table)")


class _Line(NamedTuple):
    """A line on its way from bytes to a statement."""

    text: str
    words: tuple[Word, ...]
    origin: Origin


@dataclass(slots=True)
class _Reader:
    """The state between two lines: the table that the next one belongs to, and what has been found."""

    families: frozenset[Family]
    table: str | None = "filter"
    implied: bool = True
    in_unknown_table: bool = False
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
    allowed = allowances(lines) if b"fwguard:" in data else {}
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
            told += 1
            continued = fault.code == "line-continuation"
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
    if may_hold_trap(telling):
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
    elif _COMMENT.split(text, maxsplit=1)[0].rstrip(" \t") == "COMMIT":
        reader.table = "filter" if reader.implied else None
        reader.in_unknown_table = False
    elif reader.in_unknown_table:
        return
    elif len(raw) > LONGEST_LINE or len(raw.encode()) > LONGEST_LINE:
        message = f"the line has {len(raw.encode()):,} bytes; iptables cuts what is over {LONGEST_LINE:,}"
        raise LineFault("line-too-long", message, "split the rule")
    elif text[0] == ":":
        _read_declaration(reader, raw, origin)
    else:
        _read_command(reader, _cut_words(raw, origin))


def _cut_words(raw: str, origin: Origin) -> _Line:
    """The words up to a trailing comment, in which quotes and odd characters mean nothing."""
    words: list[Word] = []
    values: list[str] = []
    end = len(raw)
    try:
        for word in iterate_words(raw):
            if raw[word.start] == "#" and not is_free_text(values, len(values)):
                end = word.start
                break
            words.append(word)
            values.append(word.value)
    except UnterminatedQuoteError as error:
        hint = (
            "close it; iptables would swallow the rest of the line and the next one, and load a rule without a target"
        )
        raise LineFault("unterminated-quote", str(error), hint, error.column) from None
    refuse_odd_characters(raw[:end], words)
    _refuse_continuation(raw, words)
    return _Line(raw, tuple(words), origin)


def _refuse_continuation(raw: str, words: Sequence[Word]) -> None:
    if words and raw[words[-1].start : words[-1].end] == "\\":
        message = "a line cannot be continued on the next one"
        raise LineFault("line-continuation", message, "write the whole rule in one line", words[-1].start + 1)


def _bare_words(raw: str) -> list[Word]:
    """The words of a line that starts with * or : and knows no quotes, without that sign and a trailing comment."""
    said = _COMMENT.split(raw, maxsplit=1)[0]
    refuse_odd_characters(said, ())
    first = len(said) - len(said.lstrip(" \t")) + 1
    return [Word(match.group(), match.start(), match.end()) for match in _BARE_WORD.finditer(said, first)]


def _read_table(reader: _Reader, raw: str, origin: Origin) -> None:
    reader.table, reader.implied, reader.in_unknown_table = None, False, True
    words = _bare_words(raw)
    name = words[0].value if words else ""
    if name not in BUILTIN_CHAINS:
        known = ", ".join(BUILTIN_CHAINS)
        message = f"there is no table {name!r}, so all up to its COMMIT is passed over"
        raise LineFault("unknown-table", message, f"the tables are {known}")
    _refuse_rest(words[1:], f"*{name}")
    reader.table, reader.in_unknown_table = name, False
    reader.statements.append(TableStart(name, reader.families, origin))


def _read_declaration(reader: _Reader, raw: str, origin: Origin) -> None:
    """``:CHAIN POLICY [packets:bytes]``."""
    words = _bare_words(raw)
    if not words:
        raise LineFault("bad-declaration", "a colon without a chain", 'write ":CHAIN - [0:0]"')
    chain, policy, counters = words[0].value, "-", ZERO
    if len(words) > 1:
        policy = words[1].value
    if len(words) > 2:
        pair = _parse_counters(words[2].value)
        if pair is None:
            hint = 'write ":CHAIN POLICY [0:0]"'
            raise LineFault("bad-declaration", f"{words[2].value!r} is no counter pair", hint, words[2].start + 1)
        counters = pair
        _refuse_rest(words[3:], f":{chain} {policy} {counters}")
    table = _current_table(reader)
    refuse_chain_name(chain)
    if policy != "-":
        refuse_policy(table, chain, policy)
    said = None if policy == "-" else policy
    reader.statements.append(Declaration(table, chain, said, reader.families, origin, counters))


def _read_command(reader: _Reader, line: _Line) -> None:
    """``[counters] [iptables] [-4|-6] [-t table] -A|-I|-N|-P …``."""
    words = list(line.words)
    counters, families, table = ZERO, reader.families, reader.table
    if words and (pair := _parse_counters(words[0].value)) is not None:
        counters = pair
        del words[0]
    if words and (command := words[0].value.rpartition("/")[2]) in _COMMANDS:
        families = _narrow(families, _COMMANDS[command], words[0])
        del words[0]
    while words:
        if words[0].value in _FAMILY_OPTIONS:
            option = words.pop(0)
            families = _narrow(families, _FAMILY_OPTIONS[option.value], option)
        elif match := _TABLE_OPTION.fullmatch(words[0].value):
            option = words.pop(0)
            table = _table_option(match[1] or (words.pop(0).value if words else ""), option)
        else:
            break
    if not words:
        raise LineFault("no-command", "the line names no chain", "start a rule with -A CHAIN")
    _read_verb(reader, line, words, families, counters, table)


def _table_option(name: str, option: Word) -> str:
    if name not in BUILTIN_CHAINS:
        hint = f"the tables are {', '.join(BUILTIN_CHAINS)}"
        raise LineFault("unknown-table", f"there is no table {name!r}", hint, option.start + 1)
    return name


def _read_verb(
    reader: _Reader, line: _Line, words: list[Word], families: frozenset[Family], counters: Counters, table: str | None
) -> None:
    verb, words = _take_verb(words)
    if not words:
        raise LineFault("no-chain", "the chain is missing", f"write it after {line.words[0].value}")
    if table is None:
        table = _current_table(reader)
    chain = words[0].value
    refuse_chain_name(chain)
    rest = words[1:]
    if verb == "new":
        _refuse_rest(rest, f"-N {chain}")
        reader.statements.append(Declaration(table, chain, None, families, line.origin))
    elif verb == "policy":
        target = rest[0].value if rest else ""
        _refuse_rest(rest[1:], f"-P {chain} {target}")
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
            raise LineFault(
                "imperative", f"{imperative} has no meaning in a declaration of rules", hint, first.start + 1
            )
    refuse_traps([first])
    hint = "a line starts with -A, -I, -N, -P, *TABLE, :CHAIN, COMMIT or #"
    raise LineFault("not-a-rule", f"{first.value[:40]!r} starts no statement", hint, first.start + 1)


def _take_position(rest: list[Word]) -> int:
    if rest and rest[0].value.isascii() and rest[0].value.isdigit():
        position = int(rest.pop(0).value[:18])
        if position == 0:
            raise LineFault("bad-position", "rules are counted from 1", "leave the number out to insert at the head")
        return position
    return 1


def _read_rule(line: _Line, rest: list[Word], families: frozenset[Family]) -> tuple[str, frozenset[Family]]:
    """The text of a rule, without family options and trailing comment, and the families that it means."""
    values = [word.value for word in rest]
    kept: list[Word] = []
    for place, word in enumerate(rest):
        if word.value in _FAMILY_OPTIONS and not is_free_text(values, place):
            families = _narrow(families, _FAMILY_OPTIONS[word.value], word)
        else:
            kept.append(word)
    _refuse_continuation(line.text, kept)
    refuse_traps(kept)
    told = infer_families([word.value for word in kept])
    if isinstance(told, MixedFamilies):
        raise _mixed(told, kept)
    if told != BOTH:
        families = _narrow(families, told, kept[0])
    if len(kept) == len(rest):
        return (line.text[kept[0].start : kept[-1].end] if kept else ""), families
    return " ".join(line.text[word.start : word.end] for word in kept), families


def _mixed(told: MixedFamilies, words: Sequence[Word]) -> LineFault:
    both = told.ipv4_word if told.ipv4_word == told.ipv6_word else f"{told.ipv4_word} and {told.ipv6_word}"
    message = f"{both} cannot hold for one packet: one is IPv4, the other IPv6"
    column = next(word.start + 1 for word in words if word.value == told.ipv6_word)
    return LineFault("mixed-families", message, "write one rule for each family", column)


def _narrow(families: frozenset[Family], told: frozenset[Family], word: Word) -> frozenset[Family]:
    """Both conditions at once. Raises LineFault when the line allows one family and this word means the other."""
    remaining = narrowed(families, told)
    if not remaining:
        allowed, meant = next(iter(families)).value, next(iter(told)).value
        message = f"the rule is {meant}, and the file's name or an option before it says {allowed}"
        raise LineFault("mixed-families", message, "write it in a file for the other family", word.start + 1)
    return remaining


def _current_table(reader: _Reader) -> str:
    if reader.table is None:
        raise LineFault(
            "no-table", "the line belongs to no table", "write *filter, or the table that you mean, above it"
        )
    return reader.table


def _refuse_rest(rest: Sequence[Word], after: str) -> None:
    if rest:
        message = f"{rest[0].value!r} has no meaning after {after}"
        raise LineFault("trailing-words", message, "leave it out", rest[0].start + 1)


def _parse_counters(text: str) -> Counters | None:
    match = _COUNTERS.match(text)
    return Counters(int(match[1]), int(match[2])) if match and len(text) < 50 else None
