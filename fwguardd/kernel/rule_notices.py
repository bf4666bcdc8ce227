"""Rule by rule, what each commit to nf_tables has changed in the tables of iptables.

nf_tables sends a message for each rule, chain or other object that a commit adds, changes or removes, and then one with
the number of the generation that the commit began (nf_tables_commit() in net/netfilter/nf_tables_api.c). `parse` is
pure; `RuleNotices` is the thin socket around it, which nothing waits at: it is read when somebody wants to know what
has changed. A large load fills its buffer, and then what has changed is not known.
"""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.kernel.generations import (
    NFNLGRP_NFTABLES,
    NFT_MSG_NEWGEN,
    NFTA_GEN_ID,
    current_generation,
)
from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    SOL_NETLINK,
    OverrunError,
    enlarge,
    messages,
    open_socket,
    read_attributes,
    receive,
    text_of,
)
from fwguardd.kernel.nft_tables import NFT_MSG_DELCHAIN, NFT_MSG_NEWCHAIN, NFTA_CHAIN_NAME
from fwguardd.kernel.rule_bytes import RULE_ATTRIBUTES
from fwguardd.kernel.rule_dumps import (
    NFT_MSG_DELRULE,
    NFT_MSG_NEWRULE,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_HANDLE,
)
from fwguardd.ruleset.model import BUILTIN_CHAINS, Family
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NFPROTOS: Final = {2: Family.IPV4, 10: Family.IPV6}
"""linux/netfilter.h."""
_NFTA_CHAIN_POLICY: Final = 5
_NFTA_TABLE: Final = 1
"""linux/netfilter/nf_tables.h. The name of its table is attribute 1 of every kind of object."""
_POLICIES: Final = {bytes(4): "DROP", b"\0\0\0\1": "ACCEPT"}
"""NF_DROP and NF_ACCEPT, as the kernel sends them."""

_BUFFER: Final = 65536
_ROOM: Final = 1 << 20
"""Bytes of messages that wait to be read: a commit of some hundred rules has more than a socket holds by default."""
_LATE: Final = 20.0
"""Milliseconds to wait for the messages of a commit that has begun: the kernel counts it before it sends them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A chain of a table of iptables."""

    family: Family
    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class RuleGone:
    """The rule with this handle was removed. ``made_of`` are its expressions, where the message says nothing else of
    it: b"" otherwise."""

    place: Place
    handle: int
    made_of: bytes = b""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A built-in chain has this policy; it may be the one from before."""

    place: Place
    policy: str


@dataclass(frozen=True, slots=True)
class ChainChanged:
    """A chain was added or removed, or has a new rule."""

    place: Place


@dataclass(frozen=True, slots=True)
class TableChanged:
    """A table of this family was changed in another way."""

    family: Family


Change: TypeAlias = RuleGone | PolicySet | ChainChanged | TableChanged


def concerns(family: Family, change: Change) -> bool:
    """Whether this family was changed."""
    if isinstance(change, TableChanged):
        return change.family is family
    return change.place.family is family


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a commit, and the number of the generation that it began."""

    number: int


class UnreadableNoticeError(Exception):
    """A message of nf_tables has not the form that is known."""


def parse(data: bytes) -> Iterator[Change | Commit]:
    """What the messages in a datagram say of the tables of iptables, in order. Raises UnreadableNoticeError."""
    for kind, body in messages(data):
        attributes = _attributes_of(body)
        if kind == NFT_MSG_NEWGEN:
            yield Commit(_number(attributes, NFTA_GEN_ID))
        elif body[0] in NFPROTOS and text_of(attributes, _NFTA_TABLE) in BUILTIN_CHAINS:
            yield _READERS.get(kind, _table_changed)(NFPROTOS[body[0]], attributes)


def _attributes_of(body: bytes) -> Mapping[int, bytes]:
    attributes = read_attributes(body, FAMILY_HEADER.size)
    if len(body) < FAMILY_HEADER.size or attributes is None:
        raise UnreadableNoticeError
    return attributes


def _table_changed(family: Family, _: Mapping[int, bytes]) -> Change:
    return TableChanged(family)


def _rule_came(family: Family, attributes: Mapping[int, bytes]) -> Change:
    return ChainChanged(_place(family, attributes, NFTA_RULE_CHAIN))


def _rule_gone(family: Family, attributes: Mapping[int, bytes]) -> Change:
    made_of = b""
    if attributes.keys() <= RULE_ATTRIBUTES:
        made_of = attributes.get(NFTA_RULE_EXPRESSIONS, b"")
    return RuleGone(_place(family, attributes, NFTA_RULE_CHAIN), _number(attributes, NFTA_RULE_HANDLE), made_of)


def _chain_gone(family: Family, attributes: Mapping[int, bytes]) -> Change:
    return ChainChanged(_place(family, attributes, NFTA_CHAIN_NAME))


def _chain_set(family: Family, attributes: Mapping[int, bytes]) -> Change:
    """A chain that is new, or whose policy was set: a chain without a policy is new, or has another name."""
    policy = _POLICIES.get(attributes.get(_NFTA_CHAIN_POLICY, b""))
    if policy is None:
        return _chain_gone(family, attributes)
    return PolicySet(_place(family, attributes, NFTA_CHAIN_NAME), policy)


_READERS: Final[Mapping[int, Callable[[Family, Mapping[int, bytes]], Change]]] = {
    NFT_MSG_NEWRULE: _rule_came,
    NFT_MSG_DELRULE: _rule_gone,
    NFT_MSG_NEWCHAIN: _chain_set,
    NFT_MSG_DELCHAIN: _chain_gone,
}


def _place(family: Family, attributes: Mapping[int, bytes], name: int) -> Place:
    return Place(family, text_of(attributes, _NFTA_TABLE), text_of(attributes, name))


def _number(attributes: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), "big")


class RuleNotices:
    """What has changed since the opening, in the network namespace that the calling thread is in.

    Raises GenerationNoticesError and OSError where the kernel does not say it.
    """

    def __init__(self) -> None:
        self._socket = open_socket(NETLINK_NETFILTER)
        self._commits: dict[int, list[Change]] = {}
        self._open: list[Change] = []
        with contextlib.ExitStack() as unless_joined:
            unless_joined.callback(self.close)
            enlarge(self._socket, _ROOM)
            # The order matters, see `generations`.
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
            self._at = current_generation()
            unless_joined.pop_all()

    def close(self) -> None:
        """Leave the group; a second time does nothing."""
        self._socket.close()

    @property
    def at(self) -> int:
        """The generation until which it is known what has changed, or which was asked for last."""
        return self._at

    def changes_until(self, generation: int) -> list[Change] | None:
        """All that has changed since the generation `at`, until this one; None if that is not known: messages were
        lost, or have not come. Raises GenerationNoticesError, and OSError if the socket fails."""
        commits = range(self._at + 1, generation + 1)
        # After 2**32 - 1 the numbers start over.
        if generation < self._at or not self._has_read(generation) or not self._commits.keys() >= set(commits):
            self._begin_anew()
            return None
        self._at = generation
        changes: list[Change] = []
        for number in commits:
            changes += self._commits.pop(number)
        return changes

    def _has_read(self, generation: int) -> bool:
        """Read what has arrived; whether nothing was lost until the end of the commit that began this generation."""
        while self._read():
            if generation <= self._at or generation in self._commits or not self._arrives():
                return True
        return False

    def _arrives(self) -> bool:
        end = select.poll()
        end.register(self._socket, select.POLLIN)
        return bool(end.poll(_LATE))

    def _begin_anew(self) -> None:
        """Know nothing of what was until now. After an overrun the kernel drops messages until all that had arrived are
        read, so the number is asked for after that."""
        while not self._read():
            continue
        self._commits, self._open = {}, []
        self._at = current_generation()

    def _read(self) -> bool:
        """Read all that has arrived; whether nothing of it was lost."""
        whole = True
        while True:
            try:
                data = receive(self._socket, _BUFFER)
                if data is None:
                    return whole
                for notice in parse(data):
                    self._take(notice)
            except (OverrunError, UnreadableNoticeError):
                whole = False

    def _take(self, notice: Change | Commit) -> None:
        if not isinstance(notice, Commit):
            self._open.append(notice)
            return
        if notice.number > self._at:
            self._commits[notice.number] = self._open
        self._open = []
