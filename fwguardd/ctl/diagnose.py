"""What on this host will bite: facts in, findings out.

Each finding says what there is, why it bites, and, as its hint, what to do. A note is a fact that bites nobody.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from fwguardd.ruleset.known_programs import KNOWN_PROGRAMS
from fwguardd.ruleset.model import BUILTIN_CHAINS, Finding, Origin, Severity
from fwguardd.ruleset.preserve import Preserve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.kernel.host import Conntrack, PostUp
    from fwguardd.ruleset.known_programs import KnownProgram
    from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset
    from fwguardd.ruleset.other_tables import OtherTable

FULL = 0.8
"""The part of the connection table that may be in use before it is told."""

IDLE = 7200
"""Seconds after which TCP asks whether the other end is still there (tcp(7), tcp_keepalive_time): a firewall that
forgets a connection sooner cuts off those that are only silent."""

_BOOT = "loads rules of its own at boot, and again whenever it is started"
SERVICES: Mapping[str, tuple[str, str]] = {
    "ufw": ("keeps its own rules in the same tables: each of the two undoes what the other does", "ufw disable"),
    "firewalld": (
        "has tables of its own that see every packet too, and takes the rules of others away on a reload",
        "systemctl disable --now firewalld",
    ),
    "nftables": (_BOOT, "systemctl disable nftables"),
    "netfilter-persistent": (
        f"{_BOOT}: /etc/iptables/rules.v4 comes over what fwguardd loaded",
        "systemctl disable netfilter-persistent",
    ),
    "iptables": (_BOOT, "systemctl disable iptables"),
    "ferm": (f"{_BOOT}, and owns whole tables as fwguardd does", "systemctl disable --now ferm"),
    "shorewall": (f"{_BOOT}, and owns whole tables as fwguardd does", "systemctl disable --now shorewall"),
    "shorewall6": (f"{_BOOT}, and owns whole tables as fwguardd does", "systemctl disable --now shorewall6"),
}


@dataclass(frozen=True, slots=True)
class FoundProgram:
    """A citizen whose chains or rules are in the kernel, and where they stand."""

    citizen: KnownProgram
    chains: int
    places: tuple[str, ...]
    kept: bool

    def __str__(self) -> str:
        chains = f"{self.chains} chain{'s' * (self.chains != 1)}"
        return f"{self.citizen.title}: {', '.join((chains, *self.places))}"


def found_programs(live: Mapping[Family, Ruleset], preserve: Preserve) -> tuple[FoundProgram, ...]:
    """The citizens that are found in the kernel's rules."""
    found = (_resident(citizen, live, preserve) for citizen in KNOWN_PROGRAMS)
    return tuple(resident for resident in found if resident is not None)


def _resident(citizen: KnownProgram, live: Mapping[Family, Ruleset], preserve: Preserve) -> FoundProgram | None:
    known = Preserve.from_patterns(citizen.patterns)
    chains, places, kept = 0, [], True
    for family, ruleset in live.items():
        for table, chain in ruleset.chains():
            if chain.policy is None and known.keeps_name(chain.name):
                chains += 1
                kept = kept and preserve.keeps_name(chain.name)
            elif chain.policy is not None and (place := _place(known, preserve, table.name, chain)):
                places.append(f"{place} {family.value} {table.name} {chain.name}")
                kept = kept and all(
                    preserve.keeps_rule(rule, table.name, chain.name)
                    for rule in chain.rules
                    if known.keeps_rule(rule, table.name, chain.name)
                )
    return FoundProgram(citizen, chains, tuple(places), kept) if chains or places else None


def _place(known: Preserve, preserve: Preserve, table: str, chain: Chain) -> str:
    """Where in a built-in chain a citizen's rules stand; "" for nowhere."""

    def whose(rule: Rule) -> str:
        if known.keeps_rule(rule, table, chain.name):
            return "theirs"
        return "others" if preserve.keeps_rule(rule, table, chain.name) else "ours"

    owners = [whose(rule) for rule in chain.rules]
    if "theirs" not in owners:
        return ""
    blocks = [owner for owner, _ in groupby(owner for owner in owners if owner != "others")]
    words = {("theirs",): "in", ("theirs", "ours"): "before our rules in", ("ours", "theirs"): "behind our rules in"}
    return words.get(tuple(blocks), "among our rules in")


def about_citizens(found: Iterable[FoundProgram]) -> Iterator[Finding]:
    """Citizens whose rules would be taken for drift."""
    for resident in found:
        if not resident.kept:
            name = resident.citizen.name
            message = f"{resident.citizen.title} has rules here that preserve: does not name; they are taken for drift"
            yield _warning("not-preserved", message, f"add {name!r} to preserve: in fwguardd.yaml")


def about_hidden(
    hidden: Mapping[Family, frozenset[str]], wanted: Mapping[Family, Ruleset]
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Tables that iptables cannot show: findings about those that the rule files name, notes about all others."""
    findings, notes = [], []
    for family, names in hidden.items():
        for name in sorted(names):
            place = f"{family.nft_name} {name}"
            what = f"table {place} holds what iptables cannot show"
            if family in wanted and name in wanted[family].tables:
                message = f"{what}, and the rule files name it: fwguardd loads nothing while that is so"
                hint = f"see it with: nft list table {place}; move it to another table"
                findings.append(Finding("unknown-content", message, hint=hint))
            else:
                notes.append(f"{what}; no rule file names it, and fwguardd leaves it alone")
    return tuple(findings), tuple(notes)


def about_post_ups(rules: Iterable[PostUp], preserve: Preserve) -> Iterator[Finding]:
    """Rules that wg-quick adds, and that nothing tells from drift."""
    for rule in rules:
        if rule.table in BUILTIN_CHAINS and not preserve.keeps_text(rule.text, rule.table, rule.chain):
            line = f"-t {rule.table} -A {rule.chain} {rule.text}"
            message = f"wg-quick adds a rule of {rule.program} by PostUp, which is taken for drift: {line}"
            hint = f'move it into a rule file, or add "{line}", as iptables-save prints it, to preserve:'
            yield Finding("post-up-rule", message, Origin(rule.file, 0), Severity.WARNING, hint)


def about_elsewhere(tables: Iterable[OtherTable]) -> Iterator[Finding]:
    """Tables that see this host's packets beside ours."""
    for table in tables:
        hint = f"see it with: {table.command}; let one of the two do the whole work, or know that both have to agree"
        message = f"rules outside of fwguardd's tables see this host's packets too, in {table}: {table.effect}"
        yield _warning("rules-elsewhere", message, hint)


def about_services(enabled: Iterable[str], *, flushes: bool) -> Iterator[Finding]:
    """Other programs that load rules."""
    for name in enabled:
        why, hint = SERVICES[name]
        if name == "nftables" and flushes:
            why = "empties all of nf_tables whenever it starts (flush ruleset in /etc/nftables.conf), our rules too"
        yield _warning("other-firewall", f"{name} is enabled: it {why}", hint)


def about_conntrack(table: Conntrack | None) -> Iterator[Finding]:
    """A connection table that is nearly full, or that forgets too soon."""
    if table is None:
        return
    if table.capacity and table.count >= FULL * table.capacity:
        message = (
            f"the connection table is nearly full ({table.count} of {table.capacity}): beyond that packets are dropped"
        )
        yield _warning("conntrack-full", message, f"sysctl -w net.netfilter.nf_conntrack_max={table.capacity * 4}")
    if 0 < table.established < IDLE:
        message = (
            f"a silent connection is forgotten after {table.established} s, and what comes on it then is denied: TCP"
            f" asks only after {IDLE} s whether the other end is still there"
        )
        hint = "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=86400"
        yield _warning("conntrack-forgets", message, hint)


def about_ipv6(switched_off: str, backend: str) -> Iterator[Finding]:
    """A kernel without IPv6: ip6tables-legacy finds no door to it, while nf_tables takes the rules all the same."""
    if switched_off == "boot" and backend == "legacy":
        message = "the kernel was started without IPv6: ip6tables-legacy cannot load a rule, and every reload fails"
        hint = (
            "backend: nft; or net.ipv6.conf.all.disable_ipv6=1 instead of ipv6.disable=1 on the kernel's command line"
        )
        yield Finding("no-ipv6", message, hint=hint)


def about_tools(
    missing: Sequence[str], backend: str, plain: str | None, *, chosen: bool, legacy_kernel: bool
) -> Iterator[Finding]:
    """Programs that are missing, a backend that others do not write to, a kernel that lacks it."""
    if missing:
        yield Finding("missing-program", f"not installed: {', '.join(missing)}", hint="apt install iptables")
    if chosen and plain is not None and plain != backend:
        message = (
            f"fwguardd is set to {backend}, and plain iptables on this host writes to {plain}: what other programs and"
            " people add goes into tables that fwguardd does not guard"
        )
        hint = f"update-alternatives --set iptables /usr/sbin/iptables-{backend}, and ip6tables; or backend: auto"
        yield _warning("backend-mismatch", message, hint)
    if backend == "legacy" and not legacy_kernel:
        yield Finding("no-legacy-kernel", "this kernel has no legacy iptables (ip_tables)", hint="backend: nft")


def notes(switched_off: str, backend: str, version: str) -> Iterator[str]:
    """What is good to know, and bites nobody."""
    if switched_off == "sysctl" or (switched_off and backend == "nft"):
        yield "IPv6 is switched off on this host; its rules are loaded all the same"
    if backend == "nft" and version == "1.8.9":
        yield (
            "iptables-nft 1.8.9: -R behind -A in one input crashes it, and in a rehearsal without root it takes rules"
            " only in pieces; fwguardd avoids both"
        )


def _warning(code: str, message: str, hint: str) -> Finding:
    return Finding(code, message, None, Severity.WARNING, hint)
