"""Lists the tables outside of fwguardd's that filter or rewrite this host's packets, without running a program.

nf_tables lists its tables and chains over netlink (nf_tables_dump_tables(), nf_tables_dump_chains() in
net/netfilter/nf_tables_api.c). Legacy iptables lists the tables that are in use in /proc/net/ip_tables_names, and the
content of each through a socket option (linux/netfilter_ipv4/ip_tables.h), which iptables-legacy uses too. Tables of
the families arp and bridge are left out: IP packets do not traverse them.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.iptables import Backend
from fwguardd.kernel.netlink import read_attributes
from fwguardd.kernel.nft_tables import (
    NFT_MSG_GETCHAIN,
    NFT_MSG_NEWCHAIN,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_TABLE,
    NftTable,
    dump,
    list_tables,
    number_attribute,
    open_requester,
    text_attribute,
)
from fwguardd.ruleset.model import BUILTIN_CHAINS
from fwguardd.ruleset.other_tables import BaseChain, OtherTable, is_made_by_iptables, restricting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fwguardd.ruleset.model import Family

NFTA_CHAIN_POLICY, NFTA_CHAIN_USE, NFTA_CHAIN_TYPE = range(5, 8)
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2

FAMILIES: Final = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
"""NFPROTO_INET, _IPV4, _NETDEV and _IPV6 of linux/netfilter.h."""
_HOOKS: Final[tuple[str, ...]] = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_DEVICE_HOOKS: Final = ("ingress", "egress")
_POLICIES: Final = ("drop", "accept")

SO_GET_INFO: Final = 64
SO_GET_ENTRIES: Final = 65
"""IPT_BASE_CTL and IPT_BASE_CTL + 1, the same for IPv6."""
_INFO: Final = struct.Struct("=32sI5I5III")
"""struct ipt_getinfo: name, valid_hooks, hook_entry, underflow, num_entries, size."""
_ENTRIES_HEADER: Final = 40
"""struct ipt_get_entries up to its entries, which are aligned to 8 bytes: name, size."""
_TARGET_OFFSET: Final = {4: 88, 6: 140}
"""Where struct ipt_entry and struct ip6t_entry hold the offset of their target."""
_VERDICT: Final = 32
"""Where struct xt_standard_target holds its verdict."""
_LEGACY_POLICIES: Final = {-1: "drop", -2: "accept"}
_NAMES: Final = {4: "ip_tables_names", 6: "ip6_tables_names"}
_SOCKETS: Final = {4: (socket.AF_INET, socket.IPPROTO_IP), 6: (socket.AF_INET6, socket.IPPROTO_IPV6)}
_LEGACY_HOOKS: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")

_libc = ctypes.CDLL(None, use_errno=True)


def other_tables(backend: Backend, hidden: Iterable[tuple[Family, str]] = ()) -> tuple[OtherTable, ...]:
    """The tables outside of fwguardd's that can drop or rewrite a packet. Raises OSError if they cannot be read.

    ``hidden`` ones are included: tables with the names of iptables-nft's, with content that iptables cannot show.
    """
    places = frozenset((family.nft_name, name) for family, name in hidden)
    tables = nft_tables(of_iptables=backend is Backend.LEGACY, hidden=places)
    if backend is Backend.NFT:
        tables += legacy_tables()
    return restricting(tables)


def nft_tables(*, of_iptables: bool, hidden: frozenset[tuple[str, str]] = frozenset()) -> tuple[OtherTable, ...]:
    """The tables of nf_tables with their base chains; empty where the kernel has no nf_tables. Raises OSError.

    Chains that iptables-nft makes are left out unless ``of_iptables``, or in a ``hidden`` table. Other chains in the
    tables of iptables-nft are included: iptables does not show them.
    """
    tables: list[OtherTable] = []
    for (number, name), found in _all_chains().items():
        family = FAMILIES[number]
        shown = [chain for chain in found if of_iptables or _is_other(family, name, chain, hidden)]
        tables.append(OtherTable("nft", family, name, tuple(shown)))
    return tuple(tables)


def _all_chains() -> dict[tuple[int, str], list[BaseChain]]:
    requester = open_requester()
    if requester is None:
        return {}
    with requester:
        return _chains_of_tables(requester)


def _chains_of_tables(requester: socket.socket) -> dict[tuple[int, str], list[BaseChain]]:
    """The base chains of each active table, by the table's family and name."""
    chains: dict[tuple[int, str], list[BaseChain]] = {table: [] for table in _active_tables(requester)}
    for family in {family for family, _ in chains}:
        for name, chain in _base_chains(requester, family):
            if (family, name) in chains:
                chains[family, name].append(chain)
    return chains


def _active_tables(requester: socket.socket) -> list[tuple[int, str]]:
    """Family and name of each table that packets traverse."""
    return [(table.family, table.name) for table in list_tables(requester) if _is_traversed(table)]


def _is_traversed(table: NftTable) -> bool:
    return bool(table.name) and not table.dormant and table.family in FAMILIES


def _is_other(family: str, table: str, chain: BaseChain, hidden: frozenset[tuple[str, str]]) -> bool:
    """Whether iptables-nft did not make this chain, or cannot show its table."""
    return (family, table) in hidden or not is_made_by_iptables(family, table, chain)


def _base_chains(requester: socket.socket, family: int) -> list[tuple[str, BaseChain]]:
    """The base chains of a family, each with the name of its table."""
    found: list[tuple[str, BaseChain]] = []
    for _, attributes in dump(requester, NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, family):
        chain = _base_chain(family, attributes)
        if chain is not None:
            found.append((text_attribute(attributes, NFTA_CHAIN_TABLE), chain))
    return found


def legacy_tables() -> tuple[OtherTable, ...]:
    """The tables of legacy iptables that are in use, both families. Raises OSError."""
    found: list[OtherTable] = []
    for family, file in _NAMES.items():
        try:
            names = Path(f"/proc/thread-self/net/{file}").read_text(encoding="ascii").split()
        except FileNotFoundError:
            continue  # The kernel has no legacy iptables, or nothing has used it since boot.
        found += [_legacy_table(family, name) for name in names if name in BUILTIN_CHAINS]
    return tuple(found)


def _base_chain(family: int, attributes: dict[int, bytes]) -> BaseChain | None:
    """A base chain, which the kernel calls at a hook; None for a chain that is only reached by jumps."""
    hook = read_attributes(attributes.get(NFTA_CHAIN_HOOK, b""))
    if not hook:
        return None
    return BaseChain(
        name=text_attribute(attributes, NFTA_CHAIN_NAME),
        kind=text_attribute(attributes, NFTA_CHAIN_TYPE),
        hook=_hook_name(family, number_attribute(hook, NFTA_HOOK_HOOKNUM)),
        priority=int.from_bytes(hook.get(NFTA_HOOK_PRIORITY, bytes(4)), "big", signed=True),
        policy=_POLICIES[number_attribute(attributes, NFTA_CHAIN_POLICY, 1) & 1],
        rules=number_attribute(
            attributes, NFTA_CHAIN_USE
        ),  # Chains cannot jump to a base chain, so its use count is its number of rules.
    )


def _hook_name(family: int, number: int) -> str:
    hooks = _HOOKS
    if FAMILIES[family] == "netdev":
        hooks = _DEVICE_HOOKS
    if number < len(hooks):
        return hooks[number]
    return f"hook {number}"


def _legacy_table(family: int, name: str) -> OtherTable:
    level_family, level = _SOCKETS[family]
    with socket.socket(level_family, socket.SOCK_DGRAM) as requester:
        info = _INFO.unpack(_read_option(requester, level, SO_GET_INFO, name, _INFO.size))
        underflow, entries, size = info[7:12], info[12], info[13]
        # A table without rules has one entry for each policy and one that ends it.
        rules = entries - len(BUILTIN_CHAINS[name]) - 1
        content = b""
        if rules <= 0:
            content = _read_option(requester, level, SO_GET_ENTRIES, name, _ENTRIES_HEADER + size, size)
    kind = "filter"
    if name == "nat":
        kind = "nat"
    # The kernel counts the rules of a legacy table, not those of each chain: one entry stands for all chains.
    chains = [BaseChain("", kind, "all its hooks", 0, "accept", rules)]
    if rules <= 0:
        chains = _chains_without_rules(family, name, kind, content, underflow)
    return OtherTable("legacy", {4: "ip", 6: "ip6"}[family], name, tuple(chains))


def _chains_without_rules(
    family: int, table: str, kind: str, content: bytes, underflow: Sequence[int]
) -> list[BaseChain]:
    chains: list[BaseChain] = []
    for number, chain in enumerate(_LEGACY_HOOKS):
        if chain in BUILTIN_CHAINS[table]:
            policy = _policy(family, content, underflow[number])
            chains.append(BaseChain(chain, kind, chain.lower(), 0, policy, 0))
    return chains


def _policy(family: int, entries: bytes, offset: int) -> str:
    """The policy of a chain: the verdict of the last entry of its hook."""
    entry = _ENTRIES_HEADER + offset
    (target,) = struct.unpack_from("=H", entries, entry + _TARGET_OFFSET[family])
    (verdict,) = struct.unpack_from("=i", entries, entry + target + _VERDICT)
    return _LEGACY_POLICIES.get(verdict, "accept")


def _read_option(requester: socket.socket, level: int, option: int, name: str, length: int, size: int = 0) -> bytes:
    """The value of a socket option, whose buffer contains the request too. Raises OSError."""
    request = struct.pack("=32sI", name.encode("ascii"), size)
    buffer = ctypes.create_string_buffer(request.ljust(length, b"\0"), length)
    got = ctypes.c_uint32(length)
    if _libc.getsockopt(requester.fileno(), level, option, buffer, ctypes.byref(got)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot read the legacy table {name}")
    return buffer.raw
