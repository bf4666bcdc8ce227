"""Warnings about single rules and files: what iptables accepts and the author probably does not mean.

Each warning has a code and a hint. ``# fwguard: allow CODE`` silences it, on the line or on a comment line right above
it. `fwguardd.ruleset.lint_values` has the warnings about values, `fwguardd.ruleset.lint_chains` those about chains.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import field, replace
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Self

from fwguardd.patterns import pattern
from fwguardd.ruleset.lint_chains import lint_chains
from fwguardd.ruleset.lint_values import DATES, lint_values, may_have_odd_values
from fwguardd.ruleset.model import BUILTIN_CHAINS, Finding, Findings, Origin, Severity
from fwguardd.ruleset.read_rules import RuleReader
from fwguardd.ruleset.rule_forms import CommonForm, FormReader
from fwguardd.ruleset.rule_view import RuleView, jump_target
from fwguardd.ruleset.statements import Addition, lines_by_path
from fwguardd.ruleset.suggestions import nearest_name
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from fwguardd.ruleset.model import Candidate
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.ruleset.statements import Reading, Statement

LONGEST_LOG_PREFIX = 29
"""Bytes of a log prefix that iptables keeps (struct xt_log_info, linux/netfilter/xt_LOG.h, less the final NUL)."""

LONGEST_NFLOG_PREFIX = 63
"""The same of an NFLOG prefix (struct xt_nflog_info, linux/netfilter/xt_NFLOG.h)."""

# Few rules match any of this: LOG, a limit, or a port without a protocol. The view of a rule is made for those only.
_MAY_WARN = pattern(r"LOG|limit|^(?!.*-p(?:roto|[ \t])).*port")
_PORT_OPTIONS = ("--dport", "--dports", "--ports", "--sport", "--sports")

WARNINGS = frozenset(
    {
        "log-without-limit",
        "log-prefix-too-long",
        "log-prefix-space",
        "log-prefix-unwatched",
        "log-prefix-overlap",
        "no-target",
    }
    | {"odd-interface", "short-address", "host-name", "limit-on-drop", "ftp-without-helper", "duplicate-file"}
    | {"unreachable-rule", "duplicate-rule", "unused-chain", "policy-twice", "preserved-chain", "preserved-rule"}
    | {"no-established", "no-loopback", "no-neighbour-discovery", "ipv6-open", "unknown-allowance", "unseen-set"}
    | {"set-directions", "dead-rule", "needless-rule", "one-family-open"}
    | {"any-address", "host-bits", "mask-with-holes", "odd-number", "v4-mapped", "chain-hides-target"}
    | {"comment-too-long", "time-passed", "nat-both-families", "nat-policy", "new-not-syn", "single-quotes"}
    | {"never-matches", "trace-everything", "notrack-everything", "missing-commit", "chain-loop"}
)
"""The codes that can be silenced in a rule file."""


@dataclass(frozen=True, slots=True)
class LintContext:
    """What lints depend on: the log prefixes that become events, the patterns of ``preserve``, and the time to which
    the dates in rules are compared; None compares none. ``lists`` are the names of the sets that are fetched."""

    watched_prefixes: tuple[str, ...]
    preserve: Preserve
    now: datetime | None = None
    lists: frozenset[str] = frozenset()

    def differs_in_time_only(self, other: LintContext) -> bool:
        """Whether all but the time is the same."""
        return replace(self, now=other.now) == other


@dataclass(frozen=True, slots=True)
class _Ways:
    """The chains, by table and name, that rules jump to with a rate limit, and those that they jump to without one."""

    limited: frozenset[tuple[str, str]] = frozenset()
    unlimited: frozenset[tuple[str, str]] = frozenset()


@dataclass(slots=True)
class _LintedFile:
    """What a lint has found out about a file: the statements that a check of single ones may be about, the places of
    rules that -I puts before others, and the ways to the chains that were asked for last."""

    reading: Reading
    doubtful: Sequence[Statement]
    inserted: frozenset[Origin]
    asked: frozenset[str] = frozenset()
    ways: _Ways = field(default_factory=_Ways)

    @classmethod
    def of(cls, reading: Reading, preserve: Preserve) -> Self:
        """A file that was read. Most of its rules are such as no check is about."""
        doubtful = tuple(filter(_Doubts().is_doubtful, _own_statements(reading, preserve)))
        return cls(reading, doubtful, frozenset(_insertions(reading)))

    def ways_to(self, chains: frozenset[str], preserve: Preserve) -> _Ways:
        """The ways to these chains."""
        if chains != self.asked:
            self.asked, self.ways = chains, _ways_to(_own_statements(self.reading, preserve), chains)
        return self.ways


@dataclass(slots=True)
class LintMemory:
    """What a lint has found out, so that the next one looks at what is new only: about files, with these patterns, and
    what rules were read as. ``has_dates`` says whether warnings may come or go with the time alone."""

    preserve: Preserve | None = None
    files: Mapping[str, _LintedFile] = field(default_factory=dict)
    reader: RuleReader = field(default_factory=RuleReader)
    has_dates: bool = False

    def look_at(self, readings: Iterable[Reading], preserve: Preserve) -> None:
        """Look at files that are not the same objects as before; only what is there now is remembered."""
        before = self.files
        if preserve != self.preserve:
            before = {}
        files: dict[str, _LintedFile] = {}
        for reading in readings:
            known = before.get(reading.path)
            if known is None or known.reading is not reading:
                known = _LintedFile.of(reading, preserve)
            files[reading.path] = known
        self.files, self.preserve = files, preserve
        self.has_dates = any(map(_has_date, self.doubtful))

    @property
    def doubtful(self) -> list[Statement]:
        """The statements that a check of single ones may be about."""
        return list(chain.from_iterable(map(attrgetter("doubtful"), self.files.values())))

    @property
    def inserted(self) -> frozenset[Origin]:
        """The places of rules that -I puts before others."""
        return frozenset(chain.from_iterable(map(attrgetter("inserted"), self.files.values())))

    def limited_chains(self, chains: frozenset[str], preserve: Preserve) -> frozenset[tuple[str, str]]:
        """The tables and names of those chains that are reached only by jumps with a rate limit."""
        limited: set[tuple[str, str]] = set()
        unlimited: set[tuple[str, str]] = set()
        for file in self.files.values():
            ways = file.ways_to(chains, preserve)
            limited |= ways.limited
            unlimited |= ways.unlimited
        return frozenset(limited - unlimited)


def _has_date(statement: Statement) -> bool:
    return isinstance(statement, Addition) and DATES in statement.text


class _Doubts:
    """Which statements a check of single ones may be about. The values of a form are such as no check is about, so one
    rule of each form is searched."""

    def __init__(self) -> None:
        self._forms, self._of_forms = FormReader(), dict[CommonForm, bool]()

    def is_doubtful(self, statement: Statement) -> bool:
        """Whether a check may be about this statement."""
        if not isinstance(statement, Addition):
            return True
        form, _ = self._forms.read(statement.text)
        if form is None:
            return _may_warn(statement.text)
        if form not in self._of_forms:
            self._of_forms[form] = _may_warn(form.example)
        return self._of_forms[form]


def _may_warn(text: str) -> bool:
    return _MAY_WARN.search(text) is not None or may_have_odd_values(text)


def lint(
    candidate: Candidate, readings: Sequence[Reading], context: LintContext, memory: LintMemory | None = None
) -> Findings:
    """All warnings about a candidate without the silenced ones. One that holds for both families is listed once.

    ``memory`` is what the lint of similar files has left.
    """
    memory = memory or LintMemory()
    memory.reader = memory.reader.for_the_next()
    memory.look_at(readings, context.preserve)
    found = (
        *_lint_rules(memory, context),
        *lint_values(memory.doubtful, lines_by_path(readings), context.now),
        *lint_chains(candidate, context.preserve, memory.inserted, memory.reader),
        *_missing_commits(readings),
        *_duplicate_files(readings),
        *_unknown_suppressions(readings),
    )
    memory.reader.forget_rules()
    return unsilenced(found, readings)


def unsilenced(findings: Iterable[Finding], readings: Sequence[Reading]) -> Findings:
    """The findings with the lines as written, without the warnings that are silenced."""
    by_path = {reading.path: reading for reading in readings}
    kept: list[Finding] = []
    for finding in findings:
        reading = by_path.get(finding.place.path)
        if reading is None or not reading.suppresses(finding):
            kept.append(finding)
    return Findings(kept).with_lines(lines_by_path(readings))


def _insertions(reading: Reading) -> Iterator[Origin]:
    for part in reading.said:
        if isinstance(part, Addition) and part.position is not None:
            yield part.origin


def _own_statements(reading: Reading, preserve: Preserve) -> Iterator[Statement]:
    """The statements without the rules of chains that belong to other programs: those are not loaded."""
    preserved: dict[tuple[str, str], bool] = {}
    for statement in reading.each_statement():
        if not isinstance(statement, Addition):
            yield statement
            continue
        place = (statement.table, statement.chain)
        if place not in preserved:
            preserved[place] = _is_preserved(*place, preserve)
        if not preserved[place]:
            yield statement


def _is_preserved(table: str, chain: str, preserve: Preserve) -> bool:
    return chain not in BUILTIN_CHAINS[table] and preserve.makes(chain)


def _lint_rules(memory: LintMemory, context: LintContext) -> Iterator[Finding]:
    rules = [one for one in memory.doubtful if isinstance(one, Addition) and _MAY_WARN.search(one.text)]
    limited = frozenset[tuple[str, str]]()
    logging = frozenset(rule.chain for rule in rules if "LOG" in rule.text)
    if logging:
        limited = memory.limited_chains(logging, context.preserve)
    for rule in rules:
        view = RuleView.of(rule.text)
        if view.target == "LOG":
            yield from _lint_log(rule, view, limited, context)
        yield from _lint_others(rule, view)


def _lint_others(rule: Addition, view: RuleView) -> Iterator[Finding]:
    yield from _lint_nflog(rule, view)
    yield from _lint_limit(rule, view)
    yield from _lint_ports(rule, view)


def _ways_to(statements: Iterable[Statement], chains: Collection[str]) -> _Ways:
    may_jump = re.compile("|".join(map(re.escape, chains))).search
    limited: set[tuple[str, str]] = set()
    unlimited: set[tuple[str, str]] = set()
    for statement in statements:
        if isinstance(statement, Addition) and may_jump(statement.text):
            place = (statement.table, jump_target(statement.text) or "")
            if "limit" in statement.text and _has_limit(RuleView.of(statement.text)):
                limited.add(place)
            else:
                unlimited.add(place)
    return _Ways(frozenset(limited), frozenset(unlimited))


def _has_limit(view: RuleView) -> bool:
    return view.uses("limit") or view.uses("hashlimit")


def _lint_log(
    rule: Addition, view: RuleView, limited: Collection[tuple[str, str]], context: LintContext
) -> Iterator[Finding]:
    if not _has_limit(view) and (rule.table, rule.chain) not in limited:
        hint = 'add "-m limit --limit 5/min": without it a flood of packets floods the kernel log'
        yield _warning("log-without-limit", "LOG without a rate limit", rule, hint)
    yield from _lint_prefix(rule, view.value("--log-prefix") or "", context)


def _lint_prefix(rule: Addition, prefix: str, context: LintContext) -> Iterator[Finding]:
    yield from _lint_length(rule, "log prefix", prefix, LONGEST_LOG_PREFIX)
    if prefix and not prefix.endswith(" "):
        message = f'the log prefix "{prefix}" does not end with a space, so log lines start with "{prefix}IN=eth0"'
        yield _warning("log-prefix-space", message, rule, f'write "{prefix} ", with a space before the closing quote')
    yield from _lint_watched_prefix(rule, prefix, context.watched_prefixes)


def _lint_watched_prefix(rule: Addition, prefix: str, watched: Sequence[str]) -> Iterator[Finding]:
    quoted = " or ".join(f'"{one}"' for one in watched)
    if prefix in watched:
        return
    if not prefix:
        message = "LOG without a prefix: no denial is reported for this rule"
        yield _warning("log-prefix-unwatched", message, rule, f"add --log-prefix {quoted}")
    elif beginning := _watched_beginning(prefix, watched):
        message = (
            f'the log prefix "{prefix}" begins with the watched prefix "{beginning}" and is not watched: its lines are '
            "taken for lines of the other, and cannot be parsed (denials.unparsed)"
        )
        yield _warning("log-prefix-overlap", message, rule, "add it to prefixes: in fwguardd.yaml, or change it")
    elif f"{prefix} " not in watched:
        message = f'the log prefix "{prefix}" is not watched: no denial is reported for this rule'
        yield _warning(
            "log-prefix-unwatched", message, rule, f"add it to prefixes: in fwguardd.yaml, or write {quoted}"
        )


def _watched_beginning(prefix: str, watched: Sequence[str]) -> str:
    """The first watched prefix that this one begins with; empty where there is none."""
    for one in watched:
        if one and prefix.startswith(one):
            return one
    return ""


def _lint_nflog(rule: Addition, view: RuleView) -> Iterator[Finding]:
    if view.target == "NFLOG":
        yield from _lint_length(rule, "NFLOG prefix", view.value("--nflog-prefix") or "", LONGEST_NFLOG_PREFIX)


def _lint_length(rule: Addition, kind: str, prefix: str, longest: int) -> Iterator[Finding]:
    length = len(prefix.encode())
    if length > longest:
        message = f"the {kind} has {length} bytes; the kernel keeps {longest}"
        yield _warning("log-prefix-too-long", message, rule, "shorten it")


def _lint_limit(rule: Addition, view: RuleView) -> Iterator[Finding]:
    if view.target == "DROP" and view.uses("limit"):
        message = "DROP with -m limit: packets above the limit are not dropped here, but go on to the next rule"
        hint = "put the limit on a rule that accepts, and drop the rest after it"
        yield _warning("limit-on-drop", message, rule, hint)


def _lint_ports(rule: Addition, view: RuleView) -> Iterator[Finding]:
    if view.has("-p"):
        return
    for option in _PORT_OPTIONS:
        if view.has(option):
            message = f"{option} without a protocol"
            yield Finding("port-without-protocol", message, rule.origin, hint="write -p tcp or -p udp before it")
            return


def _missing_commits(readings: Iterable[Reading]) -> Iterator[Finding]:
    """Files whose last table has no COMMIT. Where the last line has no line break either, the file was cut short. In a
    file with errors this may be a consequence of one."""
    for reading in readings:
        if reading.open_table is None or reading.findings:
            continue
        yield _missing_commit(reading.open_table, ends_inside_line=reading.ends_inside_line)


def _missing_commit(open_table: Origin, *, ends_inside_line: bool) -> Finding:
    hint = "write COMMIT as the last line"
    if ends_inside_line:
        message = "the file ends without COMMIT and without a line break: it is cut short"
        return Finding("missing-commit", message, open_table, hint=hint)
    message = "the file ends without COMMIT for this table: it may be cut short"
    return Finding("missing-commit", message, open_table, Severity.WARNING, hint)


def _duplicate_files(readings: Sequence[Reading]) -> Iterator[Finding]:
    first: dict[bytes, str] = {}
    for reading in readings:
        content = reading.data.removesuffix(b"\n")
        if reading.said and first.setdefault(content, reading.path) != reading.path:
            message = f"the file has the same content as {first[content]}"
            yield Finding("duplicate-file", message, Origin(reading.path, 0), Severity.WARNING, "remove one of the two")


def _unknown_suppressions(readings: Sequence[Reading]) -> Iterator[Finding]:
    """Codes in ``# fwguard: allow`` that no warning has: one finding each, at the first line that the code is for."""
    for reading in readings:
        reported: set[str] = set()
        for line, codes in sorted(reading.allowed.items()):
            for code in sorted(codes - WARNINGS - reported):
                reported.add(code)
                yield _unknown_suppression(code, Origin(reading.path, line))


def _unknown_suppression(code: str, origin: Origin) -> Finding:
    message = f'there is no warning "{code}", so this comment silences nothing; errors cannot be silenced'
    hint = "write the code that stands in brackets behind the warning"
    nearest = nearest_name(code, WARNINGS)
    if nearest:
        hint = f"write {nearest}"
    return Finding("unknown-allowance", message, origin, Severity.WARNING, hint)


def _warning(code: str, message: str, rule: Addition, hint: str) -> Finding:
    return Finding(code, message, rule.origin, Severity.WARNING, hint)
