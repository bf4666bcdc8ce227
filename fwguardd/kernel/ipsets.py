"""The kernel's ipsets, over netlink: the families of those in this network namespace, and making empty copies.

A rule that names a set loads only if there is a set of that name, of the rule's family or of no family. Its type and
its entries do not matter for the load (libxt_set.h of iptables; set_match_v1_checkentry() in net/netfilter/xt_set.c).
So a rehearsal needs only an empty copy: a set of the same name and family.

The rehearsal worker imports this module, so it imports little itself.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from fwguardd.errors import ReportedError
from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    ask,
    attribute,
    open_socket,
    read_attributes,
    reason_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY_FAMILY: Final = 0
"""NFPROTO_UNSPEC: the family of a set whose type has none, such as list:set. Rules of both families may name it."""

_SUBSYSTEM: Final = 6
"""NFNL_SUBSYS_IPSET of linux/netfilter/nfnetlink.h: the upper byte of a message type."""
_PROTOCOL: Final = 6
"""The oldest protocol that current kernels support; it has both commands (linux/netfilter/ipset/ip_set.h)."""
_CMD_CREATE: Final = 2
_CMD_HEADER: Final = 12
_ATTR_PROTOCOL, _ATTR_SETNAME, _ATTR_TYPENAME, _ATTR_REVISION, _ATTR_FAMILY = range(1, 6)


class SetsUnreadableError(Exception):
    """The sets of this network namespace cannot be read: that needs netlink, and CAP_NET_ADMIN over the namespace."""


class SetCopyError(ReportedError):
    """An empty copy of a set cannot be made; the message names the set and the reason."""


def families_of_sets(names: Iterable[str]) -> dict[str, int]:
    """The family (AF_INET, AF_INET6, `ANY_FAMILY`) of each named set. A name that no set has is left out.

    Raises SetsUnreadableError.
    """
    found: dict[str, int] = {}
    try:
        with open_socket(NETLINK_NETFILTER) as kernel:
            for name in names:
                answer = _ask(kernel, _CMD_HEADER, _name(name))
                if answer == errno.EPERM:
                    raise SetsUnreadableError(os.strerror(errno.EPERM))
                if isinstance(answer, bytes):
                    found[name] = _family(answer)
    except OSError as error:
        raise SetsUnreadableError(error.strerror) from error
    return found


def types_of_sets(names: Iterable[str]) -> dict[str, str]:
    """The type of each named set, such as hash:ip,port. A name that no set has is left out.

    Raises SetsUnreadableError.
    """
    found: dict[str, str] = {}
    try:
        with open_socket(NETLINK_NETFILTER) as kernel:
            for name in names:
                answer = _ask(kernel, _CMD_HEADER, _name(name))
                if isinstance(answer, bytes):
                    found[name] = _type(answer)
    except OSError as error:
        raise SetsUnreadableError(error.strerror) from error
    return found


def _type(answer: bytes) -> str:
    values = read_attributes(answer, FAMILY_HEADER.size) or {}
    return values.get(_ATTR_TYPENAME, b"").rstrip(b"\0").decode("ascii", "replace")


def _family(answer: bytes) -> int:
    values = read_attributes(answer, FAMILY_HEADER.size) or {}
    return int.from_bytes(values.get(_ATTR_FAMILY, b""), "big")


def make_empty_copies(families: Mapping[str, int]) -> None:
    """Make an empty set of each name and family, unless there is one already. Raises SetCopyError."""
    try:
        with open_socket(NETLINK_NETFILTER) as kernel:
            for name, family in families.items():
                answer = _ask(kernel, _CMD_CREATE, _name(name) + _kind(family))
                if answer != 0:
                    raise SetCopyError(f"cannot make an empty copy of the ipset {name}: {reason_of(answer)}")
    except OSError as error:
        raise SetCopyError(f"cannot make empty copies of ipsets: {error.strerror}") from error


def _name(name: str) -> bytes:
    """The name, in the same bytes that iptables-restore gets."""
    return attribute(_ATTR_SETNAME, name.encode("utf-8", "surrogateescape") + b"\0")


def _kind(family: int) -> bytes:
    """A type that needs no data, in its first revision, which every kernel has."""
    type_name = b"hash:ip\0"
    if family == ANY_FAMILY:
        type_name = b"list:set\0"
    return (
        attribute(_ATTR_TYPENAME, type_name)
        + attribute(_ATTR_REVISION, b"\0")
        + attribute(_ATTR_FAMILY, bytes([family]))
    )


def _ask(kernel: socket.socket, command: int, attributes: bytes) -> int | bytes:
    """The kernel's answer to a command. Raises OSError."""
    body = FAMILY_HEADER.pack(socket.AF_INET, 0, 0) + attribute(_ATTR_PROTOCOL, bytes([_PROTOCOL])) + attributes
    flags = 0
    if command == _CMD_CREATE:
        flags = NLM_F_ACK
    return ask(kernel, _SUBSYSTEM, command, body, flags)
