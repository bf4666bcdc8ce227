"""Finding rules that see this host's packets outside of our tables, without running a program.

nf_tables lists its tables and chains over netlink (nf_tables_dump_tables(), nf_tables_dump_chains() in
net/netfilter/nf_tables_api.c). Legacy iptables names the tables that are in use in /proc/net/ip_tables_names, and tells
of each through a socket option (linux/netfilter_ipv4/ip_tables.h), as iptables-legacy itself asks. Tables of the
families arp and bridge are left out: what passes them is no packet of ours yet.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.iptables import Backend
from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    error_number,
    interrupted,
    messages,
    open_socket,
    read_attributes,
)
from fwguardd.ruleset.model import BUILTIN_CHAINS
from fwguardd.ruleset.other_tables import BaseChain, OtherTable, is_made_by_iptables, restricting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwguardd.ruleset.model import Family

NFT_MSG_NEWTABLE: Final = 0x0A00
NFT_MSG_GETTABLE: Final = 0x0A01
NFT_MSG_NEWCHAIN: Final = 0x0A03
NFT_MSG_GETCHAIN: Final = 0x0A04
"""linux/netfilter/nf_tables.h, with NFNL_SUBSYS_NFTABLES in the upper byte."""
NFTA_TABLE_NAME, NFTA_TABLE_FLAGS = 1, 2
NFT_TABLE_F_DORMANT = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_USE, NFTA_CHAIN_TYPE = (
    1,
    3,
    4,
    5,
    6,
    7,
)
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2

FAMILIES: Final = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
"""NFPROTO_INET, _IPV4, _NETDEV and _IPV6 of linux/netfilter.h."""
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_DEVICE_HOOKS: Final = ("ingress", "egress")
_POLICIES: Final = ("drop", "accept")

_SECONDS: Final = 1.0
"""How long one answer may take; the kernel gives it at once."""
_BUFFER: Final = 65536
_TRIES: Final = 3

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
"""Where struct xt_standard_target holds its verdict; -1 is a drop, -2 an accept."""
_NAMES: Final = {4: "ip_tables_names", 6: "ip6_tables_names"}
_SOCKETS: Final = {4: (socket.AF_INET, socket.IPPROTO_IP), 6: (socket.AF_INET6, socket.IPPROTO_IPV6)}
_LEGACY_HOOKS: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")

_libc = ctypes.CDLL(None, use_errno=True)


def other_tables(backend: Backend, hidden: Iterable[tuple[Family, str]] = ()) -> tuple[OtherTable, ...]:
    """The tables outside of ours that can do anything to a packet, ``hidden`` ones included: they look like tables of
    iptables-nft and hold what iptables cannot show. Raises OSError where they cannot be seen."""
    places = frozenset((family.nft_name, name) for family, name in hidden)
    tables = nft_tables(of_iptables=backend is Backend.LEGACY, hidden=places)
    if backend is Backend.NFT:
        tables += legacy_tables()
    return restricting(tables)


def nft_tables(*, of_iptables: bool, hidden: frozenset[tuple[str, str]] = frozenset()) -> tuple[OtherTable, ...]:
    """The tables of nf_tables with their base chains; those that iptables-nft makes only if they are asked for or in a
    ``hidden`` table: else the chains that somebody else has put into its tables, which iptables does not show.

    None where the kernel has no nf_tables. Raises OSError.
    """
    try:
        asker = open_socket(NETLINK_NETFILTER)
    except OSError:
        return ()
    with asker:
        asker.settimeout(_SECONDS)
        found = [
            (family, name)
            for family, attributes in _dump(asker, NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, socket.AF_UNSPEC)
            if (name := _text(attributes, NFTA_TABLE_NAME)) and not _number(attributes, NFTA_TABLE_FLAGS) & 1
            if family in FAMILIES
        ]
        chains: dict[tuple[int, str], list[BaseChain]] = {table: [] for table in found}
        for family in {family for family, _ in found}:
            for _, attributes in _dump(asker, NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, family):
                table = family, _text(attributes, NFTA_CHAIN_TABLE)
                chain = _base_chain(family, attributes)
                place = FAMILIES[family], table[1]
                if (
                    chain is not None
                    and table in chains
                    and (of_iptables or place in hidden or not is_made_by_iptables(*place, chain))
                ):
                    chains[table].append(chain)
    return tuple(OtherTable("nft", FAMILIES[table[0]], table[1], tuple(chains[table])) for table in found)


def legacy_tables() -> tuple[OtherTable, ...]:
    """The tables of legacy iptables that are in use, both families. Raises OSError."""
    found = []
    for family, file in _NAMES.items():
        try:
            names = Path(f"/proc/thread-self/net/{file}").read_text(encoding="ascii").split()
        except FileNotFoundError:
            continue  # The kernel has no legacy iptables, or nobody has used it since it started.
        found += [_legacy_table(family, name) for name in names if name in BUILTIN_CHAINS]
    return tuple(found)


def _dump(asker: socket.socket, kind: int, answers: int, family: int) -> list[tuple[int, dict[int, bytes]]]:
    """Family and attributes of each thing that the kernel lists. Once more if it changed meanwhile. Raises OSError."""
    found: list[tuple[int, dict[int, bytes]]] = []
    for _ in range(_TRIES):
        header = HEADER.pack(HEADER.size + FAMILY_HEADER.size, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        asker.sendto(header + FAMILY_HEADER.pack(family, 0, 0), (0, 0))
        found, whole = _read_dump(asker, answers)
        if whole:
            break
    return found


def _read_dump(asker: socket.socket, answers: int) -> tuple[list[tuple[int, dict[int, bytes]]], bool]:
    found: list[tuple[int, dict[int, bytes]]] = []
    whole = True
    while True:
        data = asker.recv(_BUFFER)
        whole = whole and not interrupted(data)
        for kind, body in messages(data):
            if kind == NLMSG_DONE:
                return found, whole
            if kind == NLMSG_ERROR:
                raise OSError(error_number(body), "the tables of nf_tables cannot be listed")
            attributes = read_attributes(body[FAMILY_HEADER.size :])
            if kind == answers and attributes is not None:
                found.append((body[0], attributes))


def _base_chain(family: int, attributes: dict[int, bytes]) -> BaseChain | None:
    """A chain that the kernel calls at a hook; None for one that only other chains lead to."""
    hook = read_attributes(attributes.get(NFTA_CHAIN_HOOK, b""))
    if not hook:
        return None
    hooks = _DEVICE_HOOKS if FAMILIES[family] == "netdev" else _HOOKS
    number = _number(hook, NFTA_HOOK_HOOKNUM)
    return BaseChain(
        name=_text(attributes, NFTA_CHAIN_NAME),
        kind=_text(attributes, NFTA_CHAIN_TYPE),
        hook=hooks[number] if number < len(hooks) else f"hook {number}",
        priority=int.from_bytes(hook.get(NFTA_HOOK_PRIORITY, bytes(4)), "big", signed=True),
        policy=_POLICIES[_number(attributes, NFTA_CHAIN_POLICY, 1) & 1],
        rules=_number(attributes, NFTA_CHAIN_USE),  # No jump can lead to a base chain: its users are its rules.
    )


def _text(attributes: dict[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").partition(b"\0")[0].decode("utf-8", "replace")


def _number(attributes: dict[int, bytes], kind: int, otherwise: int = 0) -> int:
    return int.from_bytes(attributes[kind], "big") if kind in attributes else otherwise


def _legacy_table(family: int, name: str) -> OtherTable:
    level_family, level = _SOCKETS[family]
    with socket.socket(level_family, socket.SOCK_DGRAM) as asker:
        info = _INFO.unpack(_ask(asker, level, SO_GET_INFO, name, _INFO.size))
        underflow, entries, size = info[7:12], info[12], info[13]
        # A table that nobody touched has one entry for each policy and one that ends it.
        rules = entries - len(BUILTIN_CHAINS[name]) - 1
        whole = _ask(asker, level, SO_GET_ENTRIES, name, _ENTRIES_HEADER + size, size) if rules <= 0 else b""
    chains = [
        BaseChain(chain, "nat" if name == "nat" else "filter", chain.lower(), 0, policy, max(0, rules))
        for number, chain in enumerate(_LEGACY_HOOKS)
        if chain in BUILTIN_CHAINS[name]
        for policy in (_policy(family, whole, underflow[number]),)
    ]
    return OtherTable("legacy", "ip" if family == 4 else "ip6", name, tuple(_is_relevant(chains, rules)))


def _is_relevant(chains: list[BaseChain], rules: int) -> Iterator[BaseChain]:
    """The kernel tells how many rules a legacy table has, not in which chains: one line stands for all of them."""
    if rules > 0:
        yield BaseChain("", chains[0].kind, "all its hooks", 0, "accept", rules)
    else:
        yield from chains


def _policy(family: int, entries: bytes, offset: int) -> str:
    """The policy of a chain: the verdict of the entry that its hook falls through to."""
    if not entries:
        return "accept"
    entry = _ENTRIES_HEADER + offset
    (target,) = struct.unpack_from("=H", entries, entry + _TARGET_OFFSET[family])
    (verdict,) = struct.unpack_from("=i", entries, entry + target + _VERDICT)
    return "drop" if verdict == -1 else "accept"


def _ask(asker: socket.socket, level: int, option: int, name: str, length: int, size: int = 0) -> bytes:
    """A socket option whose value holds the question. Raises OSError."""
    buffer = ctypes.create_string_buffer(struct.pack("=32sI", name.encode("ascii"), size).ljust(length, b"\0"), length)
    got = ctypes.c_uint32(length)
    if _libc.getsockopt(asker.fileno(), level, option, buffer, ctypes.byref(got)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"legacy table {name} cannot be read")
    return buffer.raw
