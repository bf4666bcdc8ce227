"""Tables beside those of fwguardd whose rules see the packets of this host, and what they do to them.

A packet passes every base chain of its hook, in the order of their priorities (nft(8), "CHAINS"; NF_HOOK in
linux/netfilter.h). A drop is final; an accept ends only the one base chain. What another table drops is dropped
whatever fwguardd's rules accept, and what it accepts still passes fwguardd's rules.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import BUILTIN_CHAINS
from fwguardd.ruleset.program_lookup import owner_of_nft_table
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

DROP_IS_FINAL = (
    "what it drops is dropped whatever fwguardd's rules accept, and what it accepts still passes fwguardd's rules"
)
REWRITES = "the first NAT rule that matches a connection sets its addresses, here or in fwguardd's nat table"

_PRIORITIES = {"raw": (-300,), "mangle": (-150,), "nat": (-100,), "filter": (0,), "security": (50, 150)}
"""Of the tables of iptables (NF_IP_PRI_* in linux/netfilter_ipv4.h). Chains of nat that rewrite sources have 100, and
iptables-nft 1.8.9 makes the table security with 150."""

_MOST_NAMED = 5
"""Tables that one sentence names."""


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that the kernel calls at a hook. ``policy`` is "accept" or "drop". The number of rules does not take part
    in a comparison, so that a table in use is not reported again at each change."""

    name: str
    kind: str
    hook: str
    priority: int
    policy: str
    rules: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return (
            f"{self.hook} ({self.kind}, priority {self.priority}, policy {self.policy}, {counted(self.rules, 'rule')})"
        )

    @property
    def affects_packets(self) -> bool:
        """Whether it has rules or the policy drop."""
        return self.rules > 0 or self.policy == "drop"


@dataclass(frozen=True, slots=True)
class OtherTable:
    """A table that fwguardd does not own, in nf_tables or of legacy iptables. ``family`` is that of nft(8)."""

    backend: str
    family: str
    name: str
    chains: tuple[BaseChain, ...]

    @property
    def place(self) -> str:
        """Its family and name, as nft(8) has it."""
        return f"{self.family} {self.name}"

    @property
    def program(self) -> str:
        """The program that shows a table of legacy iptables."""
        if self.family == "ip6":
            return "ip6tables-legacy"
        return "iptables-legacy"

    @property
    def command(self) -> str:
        """The command that shows the table."""
        if self.backend == "legacy":
            return f"{self.program} -t {self.name} -S"
        return f"nft list table {self.place}"

    @property
    def maker(self) -> str:
        """The program that makes tables of this name; empty if none is known."""
        if any(is_made_by_iptables(self.family, self.name, chain) for chain in self.chains):
            return "iptables-nft"
        if self.name == "firewalld":
            return "firewalld"
        return self._owner_title()

    def _owner_title(self) -> str:
        owner = owner_of_nft_table(self.family, self.name)
        if owner is None:
            return ""
        return owner.title

    @property
    def effect(self) -> str:
        """What its rules do beside those of fwguardd."""
        if {chain.kind for chain in self.chains} == {"nat"}:
            return REWRITES
        return DROP_IS_FINAL

    def __str__(self) -> str:
        if self.backend == "legacy":
            rules = sum(chain.rules for chain in self.chains)
            return f"table {self.name} of {self.program}, {counted(rules, 'rule')}{self._closed()}"
        maker = self.maker
        if maker:
            maker = f" of {maker}"
        return f"table {self.place}{maker}, {', '.join(map(str, self.chains))}"

    def _closed(self) -> str:
        closed = [chain.name for chain in self.chains if chain.policy == "drop"]
        if not closed:
            return ""
        return f" and policy DROP for {', '.join(closed)}"


def is_made_by_iptables(family: str, table: str, chain: BaseChain) -> bool:
    """Whether a base chain of nf_tables is one that iptables-nft makes: by its table, name, hook and priority."""
    if family not in ("ip", "ip6") or chain.name not in BUILTIN_CHAINS.get(table, ()):
        return False
    return chain.hook == chain.name.lower() and chain.priority in _priorities(table, chain.name)


def _priorities(table: str, chain: str) -> Collection[int]:
    if table == "nat" and chain in ("INPUT", "POSTROUTING"):
        return (100,)
    return _PRIORITIES[table]


def restricting(tables: Iterable[OtherTable]) -> tuple[OtherTable, ...]:
    """The tables that affect packets, each with the chains that do, in a stable order."""
    found: list[OtherTable] = []
    for table in tables:
        chains = tuple(chain for chain in table.chains if chain.affects_packets)
        if chains:
            found.append(replace(table, chains=chains))
    return tuple(sorted(found, key=lambda table: (table.backend, table.place)))


def describe(tables: Sequence[OtherTable]) -> str:
    """One sentence about tables that affect packets."""
    named = "; ".join(map(str, tables[:_MOST_NAMED]))
    if len(tables) > _MOST_NAMED:
        named += f"; and {len(tables) - _MOST_NAMED} more"
    effects = "; ".join(dict.fromkeys(table.effect for table in tables))
    subject = counted(len(tables), "other table sees", "other tables see")
    return f"{subject} this host's packets too: {named}: {effects}"
