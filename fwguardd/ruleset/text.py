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
    FREE_TEXT_OPTIONS,
    IPV4_ONLY,
    IPV6_ONLY,
    MixedFamilies,
    infer_families,
    may_tell_family,
)
from fwguardd.ruleset.model import BOTH, BUILTIN_CHAINS, POLICIES, ZERO, Counters, Family, Finding, Origin
from fwguardd.ruleset.statements import Addition, Declaration, Reading, Statement, TableStart
from fwguardd.ruleset.traps import IMPERATIVES, TRAP, LineFault, refuse_forbidden, refuse_odd_characters
from fwguardd.ruleset.words import UnterminatedQuoteError, Word, split_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONGEST_LINE = 10_239
"""Bytes of a line that iptables-restore reads whole (its buffer, less the final NUL)."""

LONGEST_CHAIN_NAME = 28
"""Characters of a chain name (XT_EXTENSION_MAXNAMELEN less the final NUL, linux/netfilter/x_tables.h)."""

MOST_FINDINGS = 20
"""Findings told for one file; a file with more mistakes than this is another kind of file."""

_SIMPLE_APPEND = re.compile(r"-A ([A-Za-z0-9_.-]+) (-[^\"#\\]*[^\"#\\ \t])$")
_COUNTERS = re.compile(r"\[([0-9]+):([0-9]+)\]$")
_COMMANDS = {"iptables": BOTH, "ip6tables": IPV6_ONLY}

_VERBS = {
    **dict.fromkeys(("-A", "--append"), "append"),
    **dict.fromkeys(("-I", "--insert"), "insert"),
    **dict.fromkeys(("-N", "--new-chain", "--new"), "new"),
    **dict.fromkeys(("-P", "--policy"), "policy"),
}
_FAMILY_OPTIONS = {"-4": IPV4_ONLY, "--ipv4": IPV4_ONLY, "-6": IPV6_ONLY, "--ipv6": IPV6_ONLY}


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


def families_of_name(name: str) -> frozenset[Family]:
    """The families that a rule file's name allows: ``x.v4.rules``, ``x.v6.rules``, or both."""
    if name.endswith(".v4.rules"):
        return IPV4_ONLY
    return IPV6_ONLY if name.endswith(".v6.rules") else BOTH


def _read_lines(path: str, lines: Sequence[str], reader: _Reader) -> Iterable[Finding]:
    """Fill the reader with the statements of all lines, and yield what is wrong with the others."""
    told = 0
    for number, line in enumerate(lines, 1):
        simple = _SIMPLE_APPEND.match(line)
        if simple and reader.table and len(line) < 1024 and line.isascii() and not TRAP.search(line, 2):  # noqa: SIM102
            if _read_simple(reader, simple, Origin(path, number)):
                continue
        try:
            _read_line(reader, line, Origin(path, number))
        except LineFault as fault:
            told += 1
            if told > MOST_FINDINGS:
                yield Finding("too-many-errors", "more lines are wrong; the rest is not told", Origin(path, number))
                return
            yield Finding(
                fault.code, fault.message, Origin(path, number), hint=fault.hint, column=fault.column, line_text=line
            )


def _read_simple(reader: _Reader, match: re.Match[str], origin: Origin) -> bool:
    """The fast way for the line that nearly all lines are: a plain append with nothing odd in it."""
    chain, text = match.groups()
    if len(chain) > LONGEST_CHAIN_NAME or may_tell_family(text):
        return False
    assert reader.table is not None
    reader.statements.append(Addition(reader.table, chain, None, text, reader.families, origin))
    return True


def _read_line(reader: _Reader, raw: str, origin: Origin) -> None:
    """One line of any kind. Raises LineFault."""
    text = raw.strip(" \t")
    if not text or text.startswith("#"):
        return
    if len(raw.encode()) > LONGEST_LINE:
        raise LineFault(
            "line-too-long",
            f"the line has {len(raw.encode()):,} bytes; iptables cuts it after {LONGEST_LINE:,}",
            "split the rule",
        )
    if text.startswith("*"):
        _read_table(reader, text, origin)
    elif text.startswith(":"):
        _read_declaration(reader, text, origin)
    elif text.split("#", 1)[0].rstrip(" \t") == "COMMIT":
        reader.table = "filter" if reader.implied else None
    else:
        _read_command(reader, _cut_words(raw, origin))


def _cut_words(raw: str, origin: Origin) -> _Line:
    try:
        words = split_words(raw)
    except UnterminatedQuoteError as error:
        hint = (
            "close it; iptables would swallow the rest of the line and the next one, and load a rule without a target"
        )
        raise LineFault("unterminated-quote", str(error), hint, error.column) from None
    refuse_odd_characters(raw, words)
    for index, word in enumerate(words):
        if raw[word.start] == "#" and (index == 0 or words[index - 1].value not in FREE_TEXT_OPTIONS):
            return _Line(raw, words[:index], origin)
    return _Line(raw, words, origin)


def _read_table(reader: _Reader, text: str, origin: Origin) -> None:
    name = text[1:].split("#", 1)[0].strip(" \t")
    if name not in BUILTIN_CHAINS:
        known = ", ".join(BUILTIN_CHAINS)
        reader.table = None
        raise LineFault("unknown-table", f"there is no table {name!r}", f"the tables are {known}")
    reader.table, reader.implied = name, False
    reader.statements.append(TableStart(name, reader.families, origin))


def _read_declaration(reader: _Reader, text: str, origin: Origin) -> None:
    """``:CHAIN POLICY [packets:bytes]``."""
    words = text[1:].split("#", 1)[0].split()
    if not words:
        raise LineFault("bad-declaration", "a colon without a chain", 'write ":CHAIN - [0:0]"')
    policy = words[1] if len(words) > 1 else "-"
    counters = _parse_counters(words[2]) if len(words) > 2 else ZERO
    if len(words) > 3 or counters is None:
        raise LineFault("bad-declaration", f"{' '.join(words[2:])!r} is no counter pair", 'write ":CHAIN POLICY [0:0]"')
    table = _current_table(reader)
    _check_chain_name(words[0])
    checked = None if policy == "-" else _check_policy(table, words[0], policy)
    reader.statements.append(Declaration(table, words[0], checked, reader.families, origin, counters))


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
    while words and (words[0].value in _FAMILY_OPTIONS or words[0].value in ("-t", "--table")):
        option = words.pop(0)
        if option.value in _FAMILY_OPTIONS:
            families = _narrow(families, _FAMILY_OPTIONS[option.value], option)
        else:
            table = _table_option(words)
    if not words:
        raise LineFault("no-command", "the line names no chain", "start a rule with -A CHAIN")
    _read_verb(reader, line, words, families, counters, table)


def _table_option(words: list[Word]) -> str:
    name = words.pop(0).value if words else ""
    if name not in BUILTIN_CHAINS:
        raise LineFault("unknown-table", f"there is no table {name!r}", f"the tables are {', '.join(BUILTIN_CHAINS)}")
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
    _check_chain_name(chain)
    rest = words[1:]
    if verb == "new":
        _refuse_rest(rest, f"-N {chain}")
        reader.statements.append(Declaration(table, chain, None, families, line.origin))
    elif verb == "policy":
        target = rest[0].value if rest else ""
        _refuse_rest(rest[1:], f"-P {chain} {target}")
        reader.statements.append(Declaration(table, chain, _check_policy(table, chain, target), families, line.origin))
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
    hint = "a line starts with -A, -I, -N, -P, *TABLE, :CHAIN, COMMIT or #"
    raise LineFault("not-a-rule", f"{first.value[:40]!r} starts no statement", hint, first.start + 1)


def _take_position(rest: list[Word]) -> int:
    if rest and rest[0].value.isascii() and rest[0].value.isdigit():
        position = int(rest.pop(0).value[:9])
        if position == 0:
            raise LineFault("bad-position", "rules are counted from 1", "leave the number out to insert at the head")
        return position
    return 1


def _read_rule(line: _Line, rest: list[Word], families: frozenset[Family]) -> tuple[str, frozenset[Family]]:
    """The text of a rule, without family options and trailing comment, and the families that it means."""
    kept: list[Word] = []
    previous = ""
    for word in rest:
        if previous not in FREE_TEXT_OPTIONS:
            if word.value in _FAMILY_OPTIONS:
                families = _narrow(families, _FAMILY_OPTIONS[word.value], word)
                continue
            refuse_forbidden(word)
        kept.append(word)
        previous = word.value
    told = infer_families([word.value for word in kept])
    if isinstance(told, MixedFamilies):
        both = told.ipv4_word if told.ipv4_word == told.ipv6_word else f"{told.ipv4_word} and {told.ipv6_word}"
        raise LineFault(
            "mixed-families",
            f"{both} cannot hold for one packet: one is IPv4, the other IPv6",
            "write one rule for each family",
        )
    if told != BOTH:
        families = _narrow(families, told, kept[0])
    if len(kept) == len(rest):
        return (line.text[kept[0].start : kept[-1].end] if kept else ""), families
    return " ".join(line.text[word.start : word.end] for word in kept), families


def _narrow(families: frozenset[Family], told: frozenset[Family], word: Word) -> frozenset[Family]:
    """Both conditions at once. Raises LineFault when the line allows one family and this word means the other."""
    narrowed = families & told
    if not narrowed:
        allowed, meant = next(iter(families)).value, next(iter(told)).value
        message = f"the rule is {meant}, and the file's name or an option before it says {allowed}"
        raise LineFault("mixed-families", message, "write it in a file for the other family", word.start + 1)
    return narrowed


def _current_table(reader: _Reader) -> str:
    if reader.table is None:
        raise LineFault(
            "no-table", "the line belongs to no table", "write *filter, or the table that you mean, above it"
        )
    return reader.table


def _check_chain_name(name: str) -> None:
    if len(name.encode()) > LONGEST_CHAIN_NAME:
        raise LineFault(
            "chain-name", f"the chain name {name[:40]!r} is over {LONGEST_CHAIN_NAME} characters", "shorten it"
        )
    if not name or name[0] in "-!" or not name.isprintable() or " " in name:
        raise LineFault("chain-name", f"{name!r} cannot be the name of a chain", "use letters, digits, _ and -")


def _check_policy(table: str, chain: str, policy: str) -> str:
    if policy not in POLICIES:
        raise LineFault("bad-policy", f"{policy!r} is no policy", "a policy is ACCEPT or DROP")
    if chain not in BUILTIN_CHAINS[table]:
        known = ", ".join(BUILTIN_CHAINS[table])
        raise LineFault(
            "policy-on-user-chain",
            f"only a built-in chain has a policy, and {chain} is none in {table}",
            f"the built-in chains are {known}",
        )
    return policy


def _refuse_rest(rest: Sequence[Word], after: str) -> None:
    if rest:
        raise LineFault(
            "trailing-words", f"{rest[0].value!r} has no meaning after {after}", "leave it out", rest[0].start + 1
        )


def _parse_counters(text: str) -> Counters | None:
    match = _COUNTERS.match(text)
    return Counters(int(match[1]), int(match[2])) if match and len(text) < 50 else None
