"""Rules that see this host's packets and are not in fwguardd's tables, and what they do to it.

A packet has to pass every base chain of its hook, whoever made it, in the order of their priorities (nft(8), "CHAINS";
NF_HOOK in linux/netfilter.h). A drop is final, an accept is not: it ends the one base chain only. So what others drop
stays dropped whatever our rules accept, and what others accept still has to pass ours.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fwguardd.ruleset.known_programs import owner_of_nft_table
from fwguardd.ruleset.model import BUILTIN_CHAINS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DROP_IS_FINAL = (
    "what it drops stays dropped whatever fwguardd's rules accept, and what it accepts still has to pass them"
)
REWRITES = "the first NAT rule that fits a connection decides its addresses, here or in fwguardd's nat table"

_PRIORITIES = {"raw": (-300,), "mangle": (-150,), "nat": (-100,), "filter": (0,), "security": (50, 150)}
"""Of the tables of iptables (NF_IP_PRI_* in linux/netfilter_ipv4.h); nat has 100 where it rewrites sources, and
iptables-nft 1.8.9 makes the table security with 150."""

_MOST_TOLD = 5
"""Tables that one sentence names."""


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that the kernel calls at a hook. ``policy`` is "accept" or "drop". Two are equal whatever the number of
    their rules, so that a table in use is not another one at each change of it."""

    name: str
    kind: str
    hook: str
    priority: int
    policy: str
    rules: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return (
            f"{self.hook} ({self.kind}, priority {self.priority}, policy {self.policy}, {_count(self.rules, 'rule')})"
        )

    @property
    def bites(self) -> bool:
        """Whether it can do anything to a packet."""
        return self.rules > 0 or self.policy == "drop"


@dataclass(frozen=True, slots=True)
class OtherTable:
    """A table that sees packets beside ours: in nf_tables, or of legacy iptables. ``family`` is that of nft(8)."""

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
        """The program of iptables that a table of legacy iptables belongs to."""
        return f"{'ip6tables' if self.family == 'ip6' else 'iptables'}-legacy"

    @property
    def command(self) -> str:
        """The command that shows it."""
        if self.backend == "legacy":
            return f"{self.program} -t {self.name} -S"
        return f"nft list table {self.place}"

    @property
    def maker(self) -> str:
        """Who makes a table of this name; "" for nobody that is known."""
        if any(is_made_by_iptables(self.family, self.name, chain) for chain in self.chains):
            return "iptables-nft"
        owner = owner_of_nft_table(self.family, self.name)
        return owner.title if owner is not None else "firewalld" if self.name == "firewalld" else ""

    @property
    def effect(self) -> str:
        """What it does to us."""
        return REWRITES if all(chain.kind == "nat" for chain in self.chains) else DROP_IS_FINAL

    def __str__(self) -> str:
        if self.backend == "legacy":
            rules = sum(chain.rules for chain in self.chains)
            return f"table {self.name} of {self.program}, {_count(rules, 'rule')}{self._closed()}"
        maker = f" of {self.maker}" if self.maker else ""
        return f"table {self.place}{maker}, {', '.join(map(str, self.chains))}"

    def _closed(self) -> str:
        closed = [chain.name for chain in self.chains if chain.policy == "drop"]
        return f" and policy DROP for {', '.join(closed)}" if closed else ""


def is_made_by_iptables(family: str, table: str, chain: BaseChain) -> bool:
    """Whether a base chain of nf_tables is one that iptables-nft makes: by its table, name, hook and priority."""
    if family not in ("ip", "ip6") or chain.name not in BUILTIN_CHAINS.get(table, ()):
        return False
    behind = table == "nat" and chain.name in ("INPUT", "POSTROUTING")
    return chain.hook == chain.name.lower() and chain.priority in ((100,) if behind else _PRIORITIES[table])


def restricting(tables: Iterable[OtherTable]) -> tuple[OtherTable, ...]:
    """The tables that can do anything to a packet, each with the chains that can, in a lasting order."""
    found = (
        OtherTable(table.backend, table.family, table.name, tuple(chain for chain in table.chains if chain.bites))
        for table in tables
    )
    return tuple(sorted((table for table in found if table.chains), key=lambda table: (table.backend, table.place)))


def describe(tables: Sequence[OtherTable]) -> str:
    """One sentence about tables that bite."""
    count = _count(len(tables), "table")
    shown = "; ".join(map(str, tables[:_MOST_TOLD]))
    left = f"; and {len(tables) - _MOST_TOLD} more" if len(tables) > _MOST_TOLD else ""
    effects = dict.fromkeys(table.effect for table in tables)
    verb = "sees" if len(tables) == 1 else "see"
    return f"{count} beside fwguardd's {verb} this host's packets too: {shown}{left}: {'; '.join(effects)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
