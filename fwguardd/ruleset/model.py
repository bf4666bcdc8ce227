"""The nouns of a firewall: family, table, chain, rule and ruleset; and findings, the mistakes in rule files.

Everything here is a frozen value. One set of types serves the ruleset that people wrote, the one that the kernel
made of it in a rehearsal, and the one that is live: they differ in whether a rule knows its origin and its
counters, and neither takes part in a comparison. Two chains are equal when they do the same thing to a packet.

Rule text is opaque. Only the kernel and iptables know what an option means and how it is spelled in the end.

This module is pure.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import field, replace
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Self

from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


class Family(Enum):
    """An address family that iptables or ip6tables rules. The value is the name used in events."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def number(self) -> int:
        """4 or 6, as in the options -4 and -6 of iptables(8)."""
        return 4 if self is Family.IPV4 else 6

    @property
    def nft_name(self) -> str:
        """The name of the family in nft(8), "ADDRESS FAMILIES"."""
        return "ip" if self is Family.IPV4 else "ip6"


FAMILIES = (Family.IPV4, Family.IPV6)
BOTH = frozenset(FAMILIES)

BUILTIN_CHAINS: Mapping[str, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
"""The tables that the kernel knows and their built-in chains (iptables(8), "TABLES"), in the order of rendering."""

POLICIES = ("ACCEPT", "DROP")
"""The policies that a built-in chain can have (iptables(8), "-P")."""

NOT_STATED = "not stated"
"""The policy of a built-in chain in rulesets for which no file states one: the policy that the kernel has stays. Where
the kernel has none yet, in a rehearsal and at boot, it is ACCEPT, as in a fresh kernel."""

VERDICTS = frozenset({"ACCEPT", "DROP", "RETURN", "QUEUE"})
"""The targets that are neither a chain nor an extension (iptables(8), "TARGETS")."""


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A rule file as it was at one instant: its path as it is printed, and its bytes."""

    path: str
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The path of a rule file, and a line of it, counted from 1. Line 0 stands for the whole file."""

    path: str
    line: int

    def __str__(self) -> str:
        if self.line:
            return f"{self.path}:{self.line}"
        return self.path


@dataclass(frozen=True, slots=True)
class Counters:
    """Packets and bytes that a rule or a policy has counted."""

    packets: int
    bytes: int

    def __str__(self) -> str:
        return f"[{self.packets}:{self.bytes}]"


ZERO = Counters(0, 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: everything after ``-A CHAIN``. Equal rules have equal text."""

    text: str
    origin: Origin | None = field(default=None, compare=False)
    counters: Counters = field(default=ZERO, compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. ``policy`` is None for a user-defined chain, and may be `NOT_STATED` for a built-in one. Equal chains
    have equal policy and rules."""

    name: str
    policy: str | None
    rules: tuple[Rule, ...] = ()
    origin: Origin | None = field(default=None, compare=False)
    counters: Counters = field(default=ZERO, compare=False)

    def __eq__(self, other: object) -> bool:
        """As a dataclass has it, but much faster: chains of thousands of rules are compared in each pass."""
        if not isinstance(other, Chain):
            return NotImplemented
        same_head = (self.name, self.policy) == (other.name, other.policy)
        return same_head and texts_of(self.rules) == texts_of(other.rules)

    def __hash__(self) -> int:
        return hash((self.name, self.policy, self.rules))

    def policy_after(self, live: str) -> str | None:
        """The policy that the chain has once it is loaded, where the kernel's is ``live``."""
        if self.policy == NOT_STATED:
            return live
        return self.policy


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its chains by name. The order of chains means nothing to a packet, nor to a comparison."""

    name: str
    chains: Mapping[str, Chain]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The tables of one family, by name."""

    family: Family
    tables: Mapping[str, Table]

    @property
    def rule_count(self) -> int:
        """The number of rules in all chains of all tables."""
        return sum(len(chain.rules) for _, chain in self.chains())

    def chains(self) -> Iterator[tuple[Table, Chain]]:
        """Every chain with the table that it is in."""
        for table in self.tables.values():
            for chain in table.chains.values():
                yield table, chain


class Severity(Enum):
    """Whether a finding stops the ruleset from being loaded."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake in the rule files, or a warning about them, for their author.

    ``code`` is stable and names the kind; ``column`` counts characters from 1 and is 0 where it would not help;
    ``line_text`` is the line as written; ``hint`` says what to do, as an imperative without a full stop. ``family`` is
    None where the finding holds for both families, or where the family does not matter.
    """

    code: str
    message: str
    origin: Origin | None = None
    severity: Severity = Severity.ERROR
    hint: str = ""
    column: int = 0
    line_text: str = ""
    family: Family | None = None

    @property
    def place(self) -> Origin:
        """The origin, by which findings are sorted: one without an origin comes before all others."""
        return self.origin or Origin("", 0)

    def document(self) -> dict[str, str | int | None]:
        """The finding as JSON values; the keys are a contract. What is not known is None."""
        document: dict[str, str | int | None] = {
            "file": None,
            "line": None,
            "column": self.column or None,
            "severity": self.severity.value,
            "code": self.code,
            "message": self.message,
            "hint": self.hint or None,
            "text": self.line_text or None,
            "family": None,
        }
        if self.origin is not None:
            document |= {"file": self.origin.path, "line": self.origin.line}
        if self.family is not None:
            document["family"] = self.family.value
        return document

    def __str__(self) -> str:
        text = f"{self.severity.value}: {self.message}"
        if self.family is not None:
            text = f"{text} ({self.family.value})"
        text = f"{text} [{self.code}]"
        if self.origin is not None:
            text = f"{self.origin}: {text}"
        if self.hint:
            text = f"{text}; {self.hint}"
        return text


MOST_FINDINGS = 20
"""Errors that one step reports: the parser for a file, composing and the rehearsal for a family. Where there are more,
a last finding ``too-many-errors`` says so."""


MOST_WARNINGS = 10
"""Warnings of one code in one file that are listed; a last one says how many more there are."""


def _what_it_reports(finding: Finding) -> tuple[object, ...]:
    """What is the same in two findings that are merged: of warnings also the column."""
    key = (finding.origin or finding.message, finding.code, finding.severity)
    if finding.severity is Severity.WARNING:
        return (*key, finding.column)
    return key


class Findings(tuple[Finding, ...]):
    """Findings in order of place, those without a place first.

    One place, code and severity is one finding, however many steps found it: the first stays, and names no family where
    it holds for both. Warnings about two words of a line are two. Of findings without a place, each message is one.
    """

    __slots__ = ()

    def __new__(cls, findings: Iterable[Finding] = ()) -> Self:
        """The findings, merged and sorted."""
        merged: dict[tuple[object, ...], Finding] = {}
        for finding in findings:
            key = _what_it_reports(finding)
            first = merged.setdefault(key, finding)
            if first.family is not finding.family:
                merged[key] = replace(first, family=None)
        return super().__new__(cls, sorted(merged.values(), key=attrgetter("place")))

    @property
    def errors(self) -> Findings:
        """The findings that stop a ruleset from being loaded."""
        return self._of(Severity.ERROR)

    @property
    def warnings(self) -> Findings:
        """The findings that stop nothing."""
        return self._of(Severity.WARNING)

    def _of(self, severity: Severity) -> Findings:
        return Findings([finding for finding in self if finding.severity is severity])

    def placed_at(self, origin: Origin) -> Findings:
        """The same findings; those without a place get this one."""
        return Findings([replace(finding, origin=finding.origin or origin) for finding in self])

    def with_lines(self, files: Mapping[str, Sequence[str]]) -> Findings:
        """The same findings, those in one of these files (path to lines) with the line as its author wrote it."""
        return Findings([_with_line(finding, files) for finding in self])

    def bounded(self) -> Findings:
        """The first `MOST_WARNINGS` warnings of each code in each file, with a last one that counts those left out."""
        kept: list[Finding] = []
        seen: Counter[tuple[str, str]] = Counter()
        first_left_out: dict[tuple[str, str], Finding] = {}
        for finding in self:
            key = (finding.code, finding.place.path)
            seen[key] += finding.severity is Severity.WARNING
            if seen[key] <= MOST_WARNINGS or finding.severity is Severity.ERROR:
                kept.append(finding)
            else:
                first_left_out.setdefault(key, finding)
        kept += [_left_out(finding, seen[key] - MOST_WARNINGS) for key, finding in first_left_out.items()]
        return Findings(kept)

    def once_per_file(self, codes: Collection[str]) -> Findings:
        """Of each of these codes the first finding of each file, which then says for how many more lines it holds."""
        kept: list[Finding] = []
        first: dict[tuple[str, str], int] = {}
        more: Counter[int] = Counter()
        for finding in self:
            key = (finding.code, finding.place.path)
            if finding.code in codes and key in first:
                more[first[key]] += 1
            else:
                first.setdefault(key, len(kept))
                kept.append(finding)
        for place, count in more.items():
            kept[place] = replace(kept[place], message=f"{kept[place].message}; {_the_same_for(count)}")
        return Findings(kept)


NO_FINDINGS = Findings()


def _with_line(finding: Finding, files: Mapping[str, Sequence[str]]) -> Finding:
    origin = finding.origin
    if origin is None or origin.path not in files:
        return finding
    lines = files[origin.path][max(origin.line - 1, 0) : origin.line]
    return replace(finding, line_text="".join(lines))


def _left_out(finding: Finding, count: int) -> Finding:
    hint = f'to silence all of them, write "# fwguard: allow-file {finding.code}" in the file'
    return replace(finding, message=f"… and {count:,} more of this kind", hint=hint, line_text="", family=None)


def _the_same_for(count: int) -> str:
    return f"the same holds for {counted(count, 'more line')} of this file"


def texts_of(rules: Iterable[Rule]) -> list[str]:
    """The texts of rules."""
    return [rule.text for rule in rules]


@dataclass(frozen=True, slots=True)
class Candidate:
    """The rulesets that the rule files declare, before a kernel has loaded them.

    ``accepted_before``: they were in force, so that all rules that are refused now have to be known, to load the rest.
    ``sets`` are sets of the kernel that will exist by then, with their families.
    """

    rulesets: Mapping[Family, Ruleset]
    accepted_before: bool = False
    sets: Mapping[str, Family] = field(default_factory=dict)
