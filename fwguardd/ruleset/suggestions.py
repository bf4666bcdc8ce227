"""Suggestions for hints: the known name that is nearest to a misspelled word, and the line that declares a chain.

They are only printed. No word is ever read as the name that it resembles.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.model import BUILTIN_CHAINS, VERDICTS, Family

if TYPE_CHECKING:
    from collections.abc import Iterable

TARGETS = (
    *sorted(VERDICTS),
    *("REJECT", "LOG", "MASQUERADE", "SNAT", "DNAT", "REDIRECT", "MARK", "CONNMARK", "CT", "NFLOG", "NFQUEUE"),
    *("TCPMSS", "TPROXY", "SET", "NETMAP", "NOTRACK", "DSCP", "TTL", "HL"),
)
"""The targets that are used most; iptables-extensions(8) lists the others."""

OWNERS = {
    **dict.fromkeys(("--source", "--destination", "--protocol", "--in-interface", "--out-interface"), ""),
    **dict.fromkeys(("--match", "--jump", "--goto"), ""),
    **dict.fromkeys(("--dport", "--sport"), "-p tcp"),
    **dict.fromkeys(("--syn", "--tcp-flags"), "-p tcp"),
    **dict.fromkeys(("--dports", "--sports"), "-m multiport"),
    "--icmp-type": "-p icmp",
    "--icmpv6-type": "-p ipv6-icmp",
    "--ctstate": "-m conntrack",
    "--state": "-m state",
    **dict.fromkeys(("--limit", "--limit-burst"), "-m limit"),
    "--comment": "-m comment",
    **dict.fromkeys(("--seconds", "--hitcount", "--update"), "-m recent"),
    "--mac-source": "-m mac",
    **dict.fromkeys(("--uid-owner", "--gid-owner", "--socket-exists"), "-m owner"),
    "--match-set": "-m set",
    **dict.fromkeys(("--src-range", "--dst-range"), "-m iprange"),
    **dict.fromkeys(("--log-prefix", "--log-level"), "-j LOG"),
    "--reject-with": "-j REJECT",
    "--to-destination": "-j DNAT",
    "--to-source": "-j SNAT",
    "--to-ports": "-j REDIRECT",
    "--set-mark": "-j MARK",
}
"""The options that are used most, each with what has to stand before it; nothing for those of iptables itself."""

OPTIONS = tuple(OWNERS)

MATCHES = (
    *("conntrack", "state", "multiport", "limit", "hashlimit", "comment", "recent", "icmp", "icmp6", "tcp", "udp"),
    *("addrtype", "iprange", "mac", "mark", "owner", "set", "string", "connlimit", "pkttype", "physdev", "time"),
)
"""The matches that are used most."""

PROTOCOLS = ("tcp", "udp", "icmp", "ipv6-icmp", "icmpv6", "sctp", "gre", "esp", "ah", "igmp", "all")
"""The protocols that are used most."""

XTABLES_ADDONS = frozenset(
    {"account", "asn", "condition", "fuzzy", "geoip", "gradm", "iface", "ipp2p", "ipv4options", "length2", "lscan"}
    | {"pknock", "psd", "quota2", "ACCOUNT", "CHAOS", "DELUDE", "DHCPMAC", "DNETMAP", "ECHO", "IPMARK", "LOGMARK"}
    | {"PROTO", "SYSRQ", "TARPIT"}
)
"""The matches and targets of xtables-addons (xtables-addons(8), 3.23), which neither iptables nor the kernel has."""

_OTHER_FIREWALLS = {
    **dict.fromkeys(("allow", "permit", "pass"), "ACCEPT"),
    **dict.fromkeys(("deny", "block", "discard"), "DROP"),
}


def nearest_name(word: str, names: Iterable[str]) -> str:
    """The name that differs from the word in case, or by a slip of the finger; empty where none does."""
    by_case = {name.upper(): name for name in sorted(names)}
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for this import.

    close = get_close_matches(word.upper(), by_case, n=1, cutoff=0.66)
    if not close:
        return ""
    return by_case[close[0]]


def nearest_target(word: str, chains: Iterable[str] = ()) -> str:
    """The target or chain that was probably meant, also by the words of other firewalls; empty where there is none."""
    return _OTHER_FIREWALLS.get(word.lower(), "") or nearest_name(word.rstrip(";,\\"), (*TARGETS, *chains))


def how_to_declare(chain: str, table: str, family: Family | None = None) -> str:
    """A line that declares a chain anywhere in a file, for one family or for both."""
    command = f"-N {chain}"
    if table != "filter":
        command = f"-t {table} {command}"
    if family is not None:
        command = f"-{family.number} {command}"
    return command


def tables_with(chain: str) -> tuple[str, ...]:
    """The tables in which a chain of this name is built in."""
    return tuple(table for table, chains in BUILTIN_CHAINS.items() if chain in chains)


def how_to_get_addon(name: str) -> str:
    """What to do where a match or target of xtables-addons is missing."""
    return f"install xtables-addons-common and xtables-addons-dkms, or remove {name} from the rule"
