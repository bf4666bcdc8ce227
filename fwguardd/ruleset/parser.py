"""Rule files -> statements: the language of iptables-restore(8), and the commands of iptables(8) that people write.

`read_rules` turns the bytes of one file into statements with origins, and into findings for the lines that it refuses.
It never raises. It refuses whatever iptables-restore 1.8.9 accepts but misreads (measured).

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.commands import in_table, read_command
from fwguardd.ruleset.families import MixedFamilies, infer_families, may_imply_family, narrowed
from fwguardd.ruleset.model import (
    BOTH,
    BUILTIN_CHAINS,
    MOST_FINDINGS,
    VERDICTS,
    ZERO,
    Counters,
    Family,
    Finding,
    Findings,
    Origin,
    Rule,
)
from fwguardd.ruleset.statements import (
    Addition,
    Appended,
    Declaration,
    Reading,
    Statement,
    TableStart,
    UnreadInput,
    parse_counters,
    suppressions,
)
from fwguardd.ruleset.syntax_errors import (
    FOREIGN_SYNTAX,
    may_hold_forbidden_option,
    refuse_chain_name,
    refuse_policy,
    refuse_unknown_table,
)
from fwguardd.ruleset.tokenizer import (
    LineFault,
    Word,
    bare_words,
    before_comment,
    cut_words,
    refuse_long_line,
    refuse_rest,
    unusable_file,
)
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPORTED_ONCE = {"no-table": frozenset({"no-table"}), FOREIGN_SYNTAX: frozenset({FOREIGN_SYNTAX, "not-a-rule"})}
"""Faults of lines that mostly come in numbers, after a COMMIT (until the next table) and in scripts: the code -> the
codes that are not reported again in this file once it was."""

# What nearly all lines are: one append, or insertion at the head, in plain ASCII, without backslash and comment.
# No possessive quantifiers: those of Python 3.11.2, which Debian 12 has, take what they must not (cpython#106052).
_SIMPLE_LINE = pattern(r'-([AI]) ([A-Za-z0-9_.][A-Za-z0-9_.-]{0,27}) (-[ !$-\[\]-~]*(?:"[ !#-\[\]-~]*"[ !$-\[\]-~]*)*)')
_SIMPLE_LENGTH = 1_000
_QUOTED_PROSE = pattern(
    r' "(?:(?<= -m comment --comment ")|(?<= -j LOG --log-prefix ")|(?<= -j NFLOG --nflog-prefix "))[^"]*"(?![^ ])'
)

# IPv4 addresses and single ports: which ones makes no difference to the check of options, nor to the families.
_NUMBERS = pattern(r"(?<=-[sd] )[0-9]+(?:\.[0-9]+){3}(?:/[0-9]+)?(?![^ ])|(?<=port )[0-9]+(?![^ ])")


@dataclass(slots=True)
class _Run:
    """Rules that are appended to one chain, one after the other, while they are read."""

    table: str
    chain: str
    families: frozenset[Family]
    rules: list[Rule] = field(default_factory=list)

    def is_of(self, table: str, chain: str, families: frozenset[Family]) -> bool:
        """Whether a rule with these families is appended to this chain too."""
        return self.chain == chain and self.table == table and self.families == families

    @property
    def appended(self) -> Appended:
        """All of them."""
        return Appended(self.table, self.chain, self.families, tuple(self.rules))


@dataclass(slots=True)
class _Reader:
    """The state between two lines. ``table`` is that of the next line: None after a COMMIT that ends a ``*table``, and
    ``open_table`` is the place of the ``*table`` that no COMMIT has ended yet."""

    families: frozenset[Family]
    table: str | None = "filter"
    has_table_line: bool = False
    open_table: Origin | None = None
    in_unknown_table: bool = False
    reported: frozenset[str] = frozenset()
    chains: dict[str, str] = field(default_factory=dict)
    families_by_form: dict[str, frozenset[Family]] = field(default_factory=dict)
    said: list[Statement | _Run] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def append(self, table: str, chain: str, families: frozenset[Family], rule: Rule) -> None:
        """A rule that is appended to a chain."""
        run: Statement | _Run | None = None
        if self.said:
            run = self.said[-1]
        if not isinstance(run, _Run) or not run.is_of(table, chain, families):
            run = _Run(table, chain, families)
            self.said.append(run)
        run.rules.append(rule)

    @property
    def parts(self) -> tuple[Statement | Appended, ...]:
        """What was read, in order."""
        parts: list[Statement | Appended] = []
        for part in self.said:
            if isinstance(part, _Run):
                parts.append(part.appended)
            else:
                parts.append(part)
        return tuple(parts)


def read_rules(path: str, data: bytes, families: frozenset[Family] = BOTH) -> Reading:
    """The statements of one rule file.

    ``path`` is used for origins only. ``families`` is what the file's name allows. Never raises.
    """
    unusable = unusable_file(path, data)
    if unusable is not None:
        return Reading(path, (), Findings([unusable]), b"", {}, UnreadInput(anything=True))
    lines = tuple(data.decode("utf-8").split("\n"))
    if lines[-1] == "":
        lines = lines[:-1]
    reader = _Reader(families)
    is_whole = _read_lines(path, lines, reader)
    allowed: dict[int, frozenset[str]] = {}
    if b"fwguard" in data:
        allowed = suppressions(lines)
    unread = UnreadInput(anything=True)
    if is_whole:
        unread = UnreadInput.of_lines(reader.unread)
    findings = Findings(reader.findings)
    ends_inside_line = not data.endswith(b"\n")
    return Reading(path, reader.parts, findings, data, allowed, unread, reader.open_table, ends_inside_line)


def _read_lines(path: str, lines: Sequence[str], reader: _Reader) -> bool:
    """Fill the reader with the statements of all lines, and findings for the others. Whether it read to the end."""
    continued = False
    for number, line in enumerate(lines, 1):
        if continued:
            continued = line.endswith("\\")
            reader.unread.append(line)
            continue
        if not line:
            continue
        origin = Origin(path, number)
        if reader.table is not None and len(line) < _SIMPLE_LENGTH and _read_simple(reader, reader.table, line, origin):
            continue
        fault = _fault_of(reader, line, origin)
        if fault is not None:
            continued = fault.code == "line-continuation"
            reader.unread.append(line)
            if not _report(reader, fault, line, origin):
                return False
    return True


def _fault_of(reader: _Reader, line: str, origin: Origin) -> LineFault | None:
    """Read one line; why it is refused, if it is."""
    try:
        _read_line(reader, line, origin)
    except LineFault as fault:
        return fault
    return None


def _report(reader: _Reader, fault: LineFault, line: str, origin: Origin) -> bool:
    """Add the finding for a refused line. False where there are so many that the rest of the file is not read."""
    if fault.code in reader.reported:
        return True
    if len(reader.findings) >= MOST_FINDINGS:
        message = f"more than {MOST_FINDINGS} lines have errors; the rest of the file is not read"
        reader.findings.append(Finding("too-many-errors", message, origin))
        return False
    reader.reported |= _REPORTED_ONCE.get(fault.code, frozenset())
    finding = Finding(fault.code, fault.message, origin, hint=fault.hint, column=fault.column, line_text=line)
    reader.findings.append(finding)
    return True


def _read_simple(reader: _Reader, table: str, line: str, origin: Origin) -> bool:
    """The fast path for what nearly all lines are: a plain append or insertion with nothing odd in it. Whatever it
    accepts, `_read_line` would read to the same effect; whatever is in doubt, it leaves to that."""
    match = _SIMPLE_LINE.fullmatch(line)
    if match is None:
        return False
    verb, chain, text = match.groups()
    options = text
    if '"' in text:
        options = _QUOTED_PROSE.sub(" prose", text)
        if '"' in options:
            return False
    families = _families_of(reader, options)
    if not families or chain in VERDICTS:
        return False
    # One string for all rules of a chain, not one each.
    chain = reader.chains.setdefault(chain, chain)
    if verb == "A":
        reader.append(table, chain, families, Rule(text.rstrip(" "), origin))
    else:
        reader.said.append(Addition(table, chain, 1, text.rstrip(" "), families, origin))
    return True


def _families_of(reader: _Reader, options: str) -> frozenset[Family]:
    """The families of a rule with these options; none where they are in doubt. Options of one form, which differ only
    in addresses and ports, are looked at once."""
    form = _NUMBERS.sub("#", options)
    families = reader.families_by_form.get(form)
    if families is None:
        families = reader.families_by_form[form] = _families_of_options(reader.families, options)
    return families


def _families_of_options(families: frozenset[Family], options: str) -> frozenset[Family]:
    if may_hold_forbidden_option(options):
        return frozenset()
    if not may_imply_family(options):
        return families
    inferred = infer_families(options.split())
    if isinstance(inferred, MixedFamilies):
        return frozenset()
    return narrowed(families, inferred)


def _read_line(reader: _Reader, raw: str, origin: Origin) -> None:
    """One line of any kind. Raises LineFault."""
    text = raw.strip(" \t")
    if not text or text[0] == "#":
        return
    if text[0] == "*":
        _read_table(reader, raw, origin)
    elif before_comment(text).rstrip(" \t") == "COMMIT":
        _read_commit(reader)
    elif reader.in_unknown_table:
        reader.unread.append(raw)
    else:
        refuse_long_line(raw)
        reader.said.append(_read_statement(reader, raw, origin))


def _read_commit(reader: _Reader) -> None:
    reader.in_unknown_table, reader.open_table = False, None
    reader.table = "filter"
    if reader.has_table_line:
        reader.table = None


def _read_statement(reader: _Reader, raw: str, origin: Origin) -> Statement:
    if raw.lstrip(" \t")[0] == ":":
        return _read_declaration(reader, raw, origin)
    return read_command(cut_words(raw, origin), reader.families, reader.table)


def _read_table(reader: _Reader, raw: str, origin: Origin) -> None:
    reader.table, reader.has_table_line, reader.in_unknown_table = None, True, True
    reader.open_table = None
    words = bare_words(raw)
    name = words[0].value if words else ""
    refuse_unknown_table(name, "; all lines up to its COMMIT are skipped")
    reader.table, reader.in_unknown_table = name, False
    reader.open_table = origin
    reader.reported -= {"no-table"}
    refuse_rest(words[1:], f"*{name}")
    reader.said.append(TableStart(name, reader.families, origin))


def _refuse_declared_policy(table: str, chain: str, policy: str | None, *, is_alone: bool) -> None:
    """A policy that the chain cannot have, or none at all for a built-in chain. Raises LineFault."""
    if policy is not None:
        refuse_policy(table, chain, policy)
    elif is_alone and chain in BUILTIN_CHAINS[table]:
        refuse_policy(table, chain, "")


def _read_declaration(reader: _Reader, raw: str, origin: Origin) -> Declaration:
    """``:CHAIN POLICY [packets:bytes]``."""
    words = bare_words(raw)
    if not words:
        raise LineFault("bad-declaration", "the chain is missing after the colon", 'write ":CHAIN - [0:0]"')
    chain, policy, counters = words[0].value, _declared_policy(words), ZERO
    if len(words) > 2:
        counters = _read_counters(words[2])
        refuse_rest(words[3:], f":{chain} {policy or '-'} {counters}")
    table = in_table(reader.table)
    refuse_chain_name(chain)
    _refuse_declared_policy(table, chain, policy, is_alone=len(words) == 1)
    return Declaration(table, chain, policy, reader.families, origin, counters)


def _declared_policy(words: Sequence[Word]) -> str | None:
    """The policy, where one is written; a dash stands for none."""
    if len(words) == 1 or words[1].value == "-":
        return None
    return words[1].value


def _read_counters(word: Word) -> Counters:
    counters = parse_counters(word.value)
    if counters is None:
        message = f'"{word.value}" is not a pair of counters'
        raise LineFault("bad-declaration", message, 'write ":CHAIN POLICY [0:0]"', word.start + 1)
    return counters
