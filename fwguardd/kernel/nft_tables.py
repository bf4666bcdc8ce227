"""The tables that the kernel has, by name, from the kernel itself: no program runs, and nothing is taken for absent.

nf_tables lists its tables over netlink (nf_tables_dump_tables() in net/netfilter/nf_tables_api.c), legacy iptables in
/proc/net/ip_tables_names and ip6_tables_names (xt_table_seq_show() in net/netfilter/x_tables.c), which has a table once
something has used it. What iptables-save prints is held against these names, because it exits with 0 where its output
could not be written.

A table of nf_tables can be dormant (`flags dormant` of nft): it keeps its chains and rules, and no packet traverses it.
iptables-save prints it as if it were active, and iptables-restore leaves it dormant. A chain can have the name of a
built-in one, and no hook (``nft add chain ip filter INPUT``): no packet traverses it, and iptables-restore can write
nothing to its table.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    error_number,
    interrupted,
    messages,
    open_socket,
    read_attributes,
)
from fwguardd.ruleset.model import BUILTIN_CHAINS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fwguardd.ruleset.model import Family

NFT_MSG_NEWTABLE: Final = 0x0A00
NFT_MSG_GETTABLE: Final = 0x0A01
NFT_MSG_NEWCHAIN: Final = 0x0A03
NFT_MSG_GETCHAIN: Final = 0x0A04
NFT_MSG_DELCHAIN: Final = 0x0A05
"""linux/netfilter/nf_tables.h, with NFNL_SUBSYS_NFTABLES in the upper byte."""
NFTA_TABLE_NAME, NFTA_TABLE_FLAGS = 1, 2
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK = 1, 3, 4
NFT_TABLE_F_DORMANT = 1
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFNL_SUBSYS_NFTABLES: Final = 10
"""linux/netfilter/nfnetlink.h."""

_FAMILIES: Final = {4: 2, 6: 10}
"""NFPROTO_IPV4 and _IPV6 of linux/netfilter.h."""
_LEGACY_NAMES: Final = {4: "ip_tables_names", 6: "ip6_tables_names"}
_NO_NF_TABLES: Final = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""The kernel has no netlink, or no netlink for netfilter (netlink_create() in net/netlink/af_netlink.c)."""

_SECONDS: Final = 1.0
"""The timeout for one answer; the kernel answers at once."""
_BUFFER: Final = 65536
_TRIES: Final = 3
"""How often a dump is started that was interrupted by a change."""

_Objects = list[tuple[int, dict[int, bytes]]]
"""Family and attributes of each object in a dump."""


class NftTable(NamedTuple):
    """A table of nf_tables: the number of its family, its name, and whether packets traverse it."""

    family: int
    name: str
    dormant: bool


class NftChain(NamedTuple):
    """A chain of nf_tables: its table, its name, and whether packets come to it from a hook."""

    table: str
    name: str
    hooked: bool

    @property
    def lacks_hook(self) -> bool:
        """Whether it has the name of a built-in chain of iptables and no hook."""
        return not self.hooked and self.name in BUILTIN_CHAINS.get(self.table, ())


def open_requester() -> socket.socket | None:
    """A socket for dumps of nf_tables; None where the kernel has no nf_tables. Raises OSError for all else."""
    try:
        requester = open_socket(NETLINK_NETFILTER)
    except OSError as error:
        if error.errno in _NO_NF_TABLES:
            return None
        raise
    requester.settimeout(_SECONDS)
    return requester


def nft_table_names(family: Family) -> frozenset[str]:
    """The tables of iptables that nf_tables has of this family. Raises OSError."""
    return frozenset(table.name for table in _tables_of_iptables(family))


def dormant_table_names(family: Family) -> frozenset[str]:
    """Those of them that no packet traverses. Raises OSError."""
    return frozenset(table.name for table in _tables_of_iptables(family) if table.dormant)


def activate_tables(family: Family, names: Collection[str]) -> None:
    """Let packets traverse those of these tables that are dormant. Raises OSError."""
    for name in sorted(dormant_table_names(family).intersection(names)):
        _activate(_FAMILIES[family.number], name)


def _tables_of_iptables(family: Family) -> list[NftTable]:
    requester = open_requester()
    if requester is None:
        return []
    with requester:
        number = _FAMILIES[family.number]
        tables = list_tables(requester, number)
    return [table for table in tables if table.family == number and table.name in BUILTIN_CHAINS]


def remove_hookless_chains(family: Family, tables: Collection[str]) -> None:
    """Remove the chains of these tables that have the name of a built-in one and no hook, with their rules.

    Raises OSError, whose text is a message with advice where a rule jumps to such a chain.
    """
    for table, chain, _ in _hookless_chains(family, tables):
        content = attribute(NFTA_CHAIN_TABLE, table.encode() + b"\0")
        content += attribute(NFTA_CHAIN_NAME, chain.encode() + b"\0")
        try:
            _commit(NFT_MSG_DELCHAIN, _FAMILIES[family.number], content)
        except OSError as error:
            name = f"{family.nft_name} {table}"
            what = f"the chain {chain} of the table {name} has no hook and cannot be replaced: {error.strerror}"
            advice = f'remove the table with "nft delete table {name}", and fwguardd loads it again'
            raise OSError(error.errno, f"{what}; {advice}") from error


def list_chains(family: Family) -> list[NftChain]:
    """The chains of all tables of a family. Raises OSError."""
    requester = open_requester()
    if requester is None:
        return []
    with requester:
        objects = dump(requester, NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, _FAMILIES[family.number])
    return [_chain_of(attributes) for _, attributes in objects]


def _chain_of(attributes: Mapping[int, bytes]) -> NftChain:
    table, name = text_attribute(attributes, NFTA_CHAIN_TABLE), text_attribute(attributes, NFTA_CHAIN_NAME)
    return NftChain(table, name, NFTA_CHAIN_HOOK in attributes)


def _hookless_chains(family: Family, tables: Collection[str]) -> list[NftChain]:
    """Raises OSError."""
    return [chain for chain in list_chains(family) if chain.lacks_hook and chain.table in tables]


def _activate(family: int, name: str) -> None:
    """Write the flags of a table without "dormant" (nf_tables_updtable()). Raises OSError."""
    content = attribute(NFTA_TABLE_NAME, name.encode() + b"\0") + attribute(NFTA_TABLE_FLAGS, bytes(4))
    _commit(NFT_MSG_NEWTABLE, family, content)


def _commit(kind: int, family: int, content: bytes) -> None:
    """One message to nf_tables, in a transaction of its own. Raises OSError."""
    with open_socket(NETLINK_NETFILTER) as requester:
        requester.settimeout(_SECONDS)
        requester.sendto(_transaction(kind, family, content), (0, 0))
        for answer, body in messages(requester.recv(_BUFFER)):
            number = error_number(body)
            if answer == NLMSG_ERROR and number:
                raise OSError(number, os.strerror(number))


def _transaction(message: int, family: int, message_content: bytes) -> bytes:
    """The messages of the transaction."""
    batch = b""
    for kind, flags, subject, resource, content in (
        (NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES, b""),
        (message, NLM_F_REQUEST | NLM_F_ACK, family, 0, message_content),
        (NFNL_MSG_BATCH_END, NLM_F_REQUEST, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES, b""),
    ):
        body = FAMILY_HEADER.pack(subject, 0, socket.htons(resource)) + content
        batch += HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body
    return batch


def legacy_table_names(family: Family) -> frozenset[str]:
    """The tables of legacy iptables that are in use. Raises OSError.

    There is no such file where the kernel lacks the family or the module, or nothing has used it since boot.
    """
    try:
        text = Path(f"/proc/thread-self/net/{_LEGACY_NAMES[family.number]}").read_text(encoding="ascii")
    except FileNotFoundError:
        return frozenset()
    return frozenset(text.split()).intersection(BUILTIN_CHAINS)


def list_tables(requester: socket.socket, family: int = socket.AF_UNSPEC) -> list[NftTable]:
    """The tables of a family, or of all. Raises OSError."""
    found: list[NftTable] = []
    for number, attributes in dump(requester, NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, family):
        flags = number_attribute(attributes, NFTA_TABLE_FLAGS)
        found.append(NftTable(number, text_attribute(attributes, NFTA_TABLE_NAME), bool(flags & NFT_TABLE_F_DORMANT)))
    return found


def dump(requester: socket.socket, kind: int, answers: int, family: int) -> _Objects:
    """Family and attributes of each object in a dump, which is repeated if a change interrupted it.

    Raises OSError, with EAGAIN where each try was interrupted: such a dump may lack objects.
    """
    for _ in range(_TRIES):
        header = HEADER.pack(HEADER.size + FAMILY_HEADER.size, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        requester.sendto(header + FAMILY_HEADER.pack(family, 0, 0), (0, 0))
        found, whole = _read_dump(requester, answers)
        if whole:
            return found
    raise OSError(errno.EAGAIN, "another program changed nf_tables each time that they were listed")


def _read_dump(requester: socket.socket, answers: int) -> tuple[_Objects, bool]:
    found: _Objects = []
    whole = True
    while True:
        data = requester.recv(_BUFFER)
        whole = whole and not interrupted(data)
        for kind, body in messages(data):
            if kind == NLMSG_DONE:
                return found, whole
            if kind == NLMSG_ERROR:
                raise OSError(error_number(body), "cannot list the tables of nf_tables")
            if kind == answers:
                found.append(_object_in(body))


def _object_in(body: bytes) -> tuple[int, dict[int, bytes]]:
    """The family and the attributes in a message. Raises OSError if they cannot be read."""
    attributes = read_attributes(body[FAMILY_HEADER.size :])
    if attributes is None:
        raise OSError(errno.EBADMSG, "nf_tables listed what cannot be read")
    return body[0], attributes


def text_attribute(attributes: Mapping[int, bytes], kind: int) -> str:
    """The value of a text attribute; "" without it."""
    return attributes.get(kind, b"").partition(b"\0")[0].decode("utf-8", "replace")


def number_attribute(attributes: Mapping[int, bytes], kind: int, default: int = 0) -> int:
    """The value of a number attribute, which is big endian."""
    if kind not in attributes:
        return default
    return int.from_bytes(attributes[kind], "big")
