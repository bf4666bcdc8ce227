"""Problems of a host: facts in, findings out.

Each finding has the fact, what follows from it, and, as its hint, what to do. A note is a fact that needs no action.

This module is pure.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from fwguardd.ruleset.diff import compare
from fwguardd.ruleset.known_programs import KNOWN_PROGRAMS
from fwguardd.ruleset.model import BUILTIN_CHAINS, Finding, Origin, Severity
from fwguardd.ruleset.others import additions
from fwguardd.ruleset.preserve import Preserve, own_part
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.kernel.host import Conntrack, PostUp
    from fwguardd.ruleset.known_programs import KnownProgram
    from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset
    from fwguardd.ruleset.other_tables import OtherTable
    from fwguardd.ruleset.others import RuleOrChain

NEARLY_FULL = 0.8
"""The part of the connection tracking table from which on its use is a problem."""

KEEPALIVE_SECONDS = 7200
"""The time after which TCP sends a keepalive probe on an idle connection (tcp(7), tcp_keepalive_time): a shorter
timeout of connection tracking cuts off idle connections."""

_LOADS_RULES = "loads its own rules at boot, and again whenever it is started"
_OWNS_TABLES = f"{_LOADS_RULES}, and replaces whole tables as fwguardd does"
SERVICES: Mapping[str, tuple[str, str]] = {
    "ufw": ("keeps its own rules in the same tables, and each program undoes the changes of the other", "ufw disable"),
    "firewalld": (
        "has tables of its own that every packet passes too, and a reload of it removes the rules of other programs",
        "systemctl disable --now firewalld",
    ),
    "nftables": (_LOADS_RULES, "systemctl disable nftables"),
    "netfilter-persistent": (
        f"{_LOADS_RULES}: /etc/iptables/rules.v4 replaces what fwguardd loaded",
        "systemctl disable netfilter-persistent",
    ),
    "iptables": (_LOADS_RULES, "systemctl disable iptables"),
    "ferm": (_OWNS_TABLES, "systemctl disable --now ferm"),
    "shorewall": (_OWNS_TABLES, "systemctl disable --now shorewall"),
    "shorewall6": (_OWNS_TABLES, "systemctl disable --now shorewall6"),
}


@dataclass(frozen=True, slots=True)
class FoundProgram:
    """A known program with chains or rules in the kernel.

    ``chains`` is the number of its own chains, ``places`` says where its rules are in built-in chains, and ``kept``
    whether `preserve:` names all of them.
    """

    program: KnownProgram
    chains: int
    places: tuple[str, ...]
    kept: bool

    def __str__(self) -> str:
        return f"{self.program.title}: {', '.join((counted(self.chains, 'chain'), *self.places))}"


def found_programs(live: Mapping[Family, Ruleset], preserve: Preserve) -> tuple[FoundProgram, ...]:
    """The known programs that have chains or rules in the kernel."""
    found: list[FoundProgram] = []
    for program in KNOWN_PROGRAMS:
        one = _find_program(program, live, preserve)
        if one.chains or one.places:
            found.append(one)
    return tuple(found)


def _find_program(program: KnownProgram, live: Mapping[Family, Ruleset], preserve: Preserve) -> FoundProgram:
    known = Preserve.from_patterns(program.patterns)
    chains = list(_chains_of_program(live, known))
    places: list[str] = []
    kept = all(map(preserve.keeps_name, chains))
    for family, table, chain in _all_chains(live):
        if chain.policy is None:
            continue
        owners = [_owner(rule, known, preserve, table, chain) for rule in chain.rules]
        if "unpreserved" in owners:
            kept = False
        if not _OWNERS_OF_PROGRAM.isdisjoint(owners):
            places.append(f"{_position(owners)} {family.value} {table} {chain.name}")
    return FoundProgram(program, len(chains), tuple(places), kept)


def _chains_of_program(live: Mapping[Family, Ruleset], known: Preserve) -> Iterator[str]:
    """The names of the user-defined chains that the program makes."""
    for _, _, chain in _all_chains(live):
        if chain.policy is None and known.keeps_name(chain.name):
            yield chain.name


def _all_chains(live: Mapping[Family, Ruleset]) -> Iterator[tuple[Family, str, Chain]]:
    for family, ruleset in live.items():
        for table, chain in ruleset.chains():
            yield family, table.name, chain


_OWNERS_OF_PROGRAM = frozenset({"theirs", "unpreserved"})


_OWNERS = {
    (True, True): "theirs",
    (True, False): "unpreserved",
    (False, True): "others",
    (False, False): "ours",
}
"""By whether the program makes such a rule, and whether `preserve:` names it."""


def _owner(rule: Rule, known: Preserve, preserve: Preserve, table: str, chain: Chain) -> str:
    """The owner of a rule in a built-in chain: "theirs", the program's, "unpreserved" if `preserve:` does not name it;
    "others" for a preserved rule of another program; "ours" for all other rules."""
    is_of_program = known.keeps_rule(rule, table, chain.name)
    return _OWNERS[is_of_program, preserve.keeps_rule(rule, table, chain.name)]


_POSITIONS = {
    ("theirs",): "in",
    ("theirs", "ours"): "before our rules in",
    ("ours", "theirs"): "after our rules in",
}


def _position(owners: Iterable[str]) -> str:
    """The position of a program's rules in a built-in chain, relative to fwguardd's."""
    names = {"theirs": "theirs", "unpreserved": "theirs", "ours": "ours"}
    blocks = [owner for owner, _ in groupby(names[owner] for owner in owners if owner in names)]
    return _POSITIONS.get(tuple(blocks), "between our rules in")


def check_programs(found: Iterable[FoundProgram]) -> Iterator[Finding]:
    """Known programs whose rules are not preserved."""
    for one in found:
        if not one.kept:
            message = f"{one.program.title} has rules that preserve: does not name, so fwguardd takes them for drift"
            yield _warning("not-preserved", message, f"add {one.program.name!r} to preserve: in fwguardd.yaml")


MOST_LISTED = 20
"""Rules of other programs that one finding names."""


def check_unknown_rules(
    live: Mapping[Family, Ruleset], wanted: Mapping[Family, Ruleset], preserve: Preserve
) -> Iterator[Finding]:
    """Before the first load: rules of other programs in the tables that the rule files name."""
    places: list[RuleOrChain] = []
    for family, ruleset in wanted.items():
        places += additions(compare(ruleset, own_part(live[family], preserve, ruleset)))
    if places:
        listed = "; ".join(map(str, places[:MOST_LISTED]))
        message = f"the tables of the rule files hold {counted(len(places), 'rule')} of other programs: {listed}"
        hint = "nothing is loaded before you decide: after the start run fwguardctl adopt, or add them to preserve:"
        yield _warning("unknown-rules", message, hint)


def check_hidden(
    hidden: Mapping[Family, frozenset[str]], wanted: Mapping[Family, Ruleset]
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Tables that iptables cannot show: findings about those that the rule files name, notes about all others."""
    findings: list[Finding] = []
    notes: list[str] = []
    for family, name in _hidden_tables(hidden):
        place = f"{family.nft_name} {name}"
        fact = f"table {place} holds what iptables cannot show"
        if _names_table(wanted.get(family), name):
            message = f"{fact}, and the rule files name it: fwguardd loads nothing until that is solved"
            hint = f"see it with: nft list table {place}; move it to another table"
            findings.append(Finding("unknown-content", message, hint=hint))
        else:
            notes.append(f"{fact}; no rule file names it, and fwguardd does not change it")
    return tuple(findings), tuple(notes)


def _hidden_tables(hidden: Mapping[Family, frozenset[str]]) -> Iterator[tuple[Family, str]]:
    for family, names in hidden.items():
        for name in sorted(names):
            yield family, name


def _names_table(ruleset: Ruleset | None, table: str) -> bool:
    return ruleset is not None and table in ruleset.tables


def check_post_up_rules(rules: Iterable[PostUp], preserve: Preserve) -> Iterator[Finding]:
    """Rules that wg-quick adds and that are not preserved."""
    for rule in rules:
        if rule.table in BUILTIN_CHAINS and not preserve.keeps_text(rule.text, rule.table, rule.chain):
            line = f"-t {rule.table} -A {rule.chain} {rule.text}"
            message = f"wg-quick adds a rule with {rule.program} in PostUp, and fwguardd takes it for drift: {line}"
            hint = f'move it into a rule file, or add "{line}", as iptables-save prints it, to preserve:'
            yield Finding("post-up-rule", message, Origin(rule.file, 0), Severity.WARNING, hint)


def check_other_tables(tables: Iterable[OtherTable]) -> Iterator[Finding]:
    """Tables outside of fwguardd's that drop or rewrite packets of this host."""
    for table in tables:
        message = f"rules outside of fwguardd's tables see this host's packets too, in {table}: {table.effect}"
        hint = f"see it with: {table.command}; keep all rules in one of the two, or keep both in agreement"
        yield _warning("rules-elsewhere", message, hint)


def check_services(enabled: Iterable[str], *, flushes: bool) -> Iterator[Finding]:
    """Services that load rules. ``flushes``: /etc/nftables.conf has "flush ruleset"."""
    for name in enabled:
        effect, hint = SERVICES[name]
        if name == "nftables" and flushes:
            effect = "removes all rules of nf_tables whenever it starts, those of fwguardd too (flush ruleset in "
            effect += "/etc/nftables.conf)"
        yield _warning("other-firewall", f"{name} is enabled: it {effect}", hint)


def _is_nearly_full(table: Conntrack) -> bool:
    """Whether there is little room left. The capacity is 0 where there is no limit."""
    return table.capacity > 0 and table.count >= NEARLY_FULL * table.capacity


def check_conntrack(table: Conntrack | None) -> Iterator[Finding]:
    """A connection tracking table that is nearly full, or that has a short timeout."""
    if table is None:
        return
    if _is_nearly_full(table):
        use = f"{table.count} of {table.capacity} entries"
        message = f"the connection tracking table is nearly full ({use}): when it is full, packets are dropped"
        yield _warning("conntrack-full", message, f"sysctl -w net.netfilter.nf_conntrack_max={table.capacity * 4}")
    if 0 < table.established < KEEPALIVE_SECONDS:
        message = (
            f"an idle TCP connection is removed from connection tracking after {table.established} s, and its later "
            f"packets are denied; TCP sends its first keepalive probe only after {KEEPALIVE_SECONDS} s"
        )
        hint = "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=86400"
        yield _warning("conntrack-forgets", message, hint)


def check_ipv6(disabled: str, backend: str) -> Iterator[Finding]:
    """A kernel without IPv6: ip6tables-legacy fails there, and nf_tables loads the rules all the same."""
    if disabled == "boot" and backend == "legacy":
        message = "IPv6 is disabled on the kernel's command line: ip6tables-legacy cannot load rules, and reloads fail"
        hint = "set backend: nft, or replace ipv6.disable=1 on that line by the sysctl net.ipv6.conf.all.disable_ipv6=1"
        yield Finding("no-ipv6", message, hint=hint)


def _backend_mismatch(backend: str, plain: str | None) -> Finding:
    message = (
        f"fwguardd uses the backend {backend}, and the plain iptables of this host uses {plain}: rules that other "
        "programs and administrators add go into tables that fwguardd does not guard"
    )
    hint = f"update-alternatives --set iptables /usr/sbin/iptables-{backend}, and ip6tables; or backend: auto"
    return _warning("backend-mismatch", message, hint)


def check_tools(
    missing: Sequence[str], backend: str, plain: str | None, *, chosen: bool, legacy_kernel: bool
) -> Iterator[Finding]:
    """Programs that are missing, a backend that other programs do not use, a kernel that lacks the backend.

    ``plain`` is the backend of the plain ``iptables``. ``chosen``: the settings or the command line set the backend.
    """
    if missing:
        yield Finding("missing-program", f"not installed: {', '.join(missing)}", hint="apt install iptables")
    if chosen and plain not in (None, backend):
        yield _backend_mismatch(backend, plain)
    if backend == "legacy" and not legacy_kernel:
        yield Finding("no-legacy-kernel", "this kernel has no legacy iptables (ip_tables)", hint="backend: nft")


def _ignores_ipv6(disabled: str, backend: str) -> bool:
    """Whether IPv6 is disabled and its rules can be loaded all the same."""
    return disabled == "sysctl" or (bool(disabled) and backend == "nft")


def notes(ipv6_disabled: str, backend: str) -> Iterator[str]:
    """Facts that need no action."""
    if _ignores_ipv6(ipv6_disabled, backend):
        yield "IPv6 is disabled on this host; its rules are loaded all the same"


def _warning(code: str, message: str, hint: str) -> Finding:
    return Finding(code, message, None, Severity.WARNING, hint)
