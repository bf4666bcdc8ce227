"""The nouns of a firewall: family, table, chain, rule, ruleset, and what is to be told about them.

Everything here is a frozen value. One set of types serves the ruleset that people wrote, the one that the kernel
made of it in a rehearsal, and the one that is live: they differ in whether a rule knows its origin and its
counters, and neither takes part in a comparison. Two chains are equal when they do the same thing to a packet.

Rule text is opaque. Only the kernel and iptables know what an option means and how it is spelled in the end.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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

VERDICTS = frozenset({"ACCEPT", "DROP", "RETURN", "QUEUE"})
"""The targets that are neither a chain nor an extension (iptables(8), "TARGETS")."""


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A rule file as it was at one instant: its path as it is told to people, and its bytes."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where something was written: the path of a rule file, and the line, counted from 1. Line 0 is the whole file."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}" if self.line else self.path


@dataclass(frozen=True, slots=True)
class Counters:
    """Packets and bytes that a rule or a policy has seen."""

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
    """A chain. ``policy`` is None for a user-defined chain. Equal chains have equal policy and rules."""

    name: str
    policy: str | None
    rules: tuple[Rule, ...] = ()
    origin: Origin | None = field(default=None, compare=False)
    counters: Counters = field(default=ZERO, compare=False)


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
        return sum(len(chain.rules) for table in self.tables.values() for chain in table.chains.values())

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
    """Something to tell the author of a rule file.

    ``code`` is stable and names the kind; ``column`` counts characters from 1 and is 0 where it would not help;
    ``line_text`` is the line as written; ``hint`` says what to do, as an imperative without a full stop.
    """

    code: str
    message: str
    origin: Origin | None = None
    severity: Severity = Severity.ERROR
    hint: str = ""
    column: int = 0
    line_text: str = ""
    family: Family | None = None

    def with_line(self, line: str) -> Finding:
        """The same finding with the line as its author wrote it."""
        return replace(self, line_text=line)

    def document(self) -> dict[str, str | int | None]:
        """The same for programs; the keys are a contract. What is not known is None."""
        return {
            "file": self.origin.path if self.origin else None,
            "line": self.origin.line if self.origin else None,
            "column": self.column or None,
            "severity": self.severity.value,
            "code": self.code,
            "message": self.message,
            "hint": self.hint or None,
            "text": self.line_text or None,
            "family": self.family.value if self.family else None,
        }

    def __str__(self) -> str:
        where = f"{self.origin}: " if self.origin else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{where}{self.severity.value}: {self.message} [{self.code}]{hint}"


def errors_in(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The findings that stop a ruleset from being loaded."""
    return tuple(finding for finding in findings if finding.severity is Severity.ERROR)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the rule files say, composed and free of errors that can be seen without a kernel."""

    rulesets: Mapping[Family, Ruleset]
