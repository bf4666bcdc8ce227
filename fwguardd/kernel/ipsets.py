"""The kernel's ipsets, by netlink: of which family are those of this network namespace, and making empty ones.

A rule that names a set loads only where there is one of that name and of the rule's family, or of none; neither
iptables nor the kernel looks at its type then, or at what is in it (libxt_set.h of iptables; set_match_v1_checkentry()
in net/netfilter/xt_set.c). So an empty set of the same name and family, a twin, is all that a rehearsal needs.

The rehearsal worker imports this module, so it stays light.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    attribute,
    error_number,
    messages,
    open_socket,
    read_attributes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY_FAMILY: Final = 0
"""NFPROTO_UNSPEC: the family of a set whose type has none, as list:set. Rules of both families may name it."""

_SUBSYSTEM: Final = 6
"""NFNL_SUBSYS_IPSET of linux/netfilter/nfnetlink.h: the upper byte of a message type."""
_PROTOCOL: Final = 6
"""The oldest protocol that today's kernels speak; it has both commands (linux/netfilter/ipset/ip_set.h)."""
_CMD_CREATE: Final = 2
_CMD_HEADER: Final = 12
_ATTR_PROTOCOL, _ATTR_SETNAME, _ATTR_TYPENAME, _ATTR_REVISION, _ATTR_FAMILY = range(1, 6)

_ANSWER_SECONDS: Final = 5.0
_LARGEST_ANSWER: Final = 1 << 16


class SetsUnreadableError(Exception):
    """The sets of this network namespace cannot be looked at: that takes CAP_NET_ADMIN over it, and netlink."""


class SetCopyError(Exception):
    """The kernel makes no empty set of this name."""


def families_of_sets(names: Iterable[str]) -> dict[str, int]:
    """The family (AF_INET, AF_INET6, `ANY_FAMILY`) of each set of that name; a name that no set has is left out.

    Raises SetsUnseenError.
    """
    found: dict[str, int] = {}
    try:
        with open_socket(NETLINK_NETFILTER) as kernel:
            for name in names:
                answer = _ask(kernel, _CMD_HEADER, _name(name))
                if answer == errno.EPERM:
                    raise SetsUnreadableError(os.strerror(errno.EPERM))
                if isinstance(answer, bytes):
                    values = read_attributes(answer, FAMILY_HEADER.size) or {}
                    found[name] = int.from_bytes(values.get(_ATTR_FAMILY, b""), "big")
    except OSError as error:
        raise SetsUnreadableError(error.strerror) from error
    return found


def make_empty_copies(families: Mapping[str, int]) -> None:
    """Make an empty set of each name and family, where there is none like it yet. Raises TwinError."""
    try:
        with open_socket(NETLINK_NETFILTER) as kernel:
            for name, family in families.items():
                answer = _ask(kernel, _CMD_CREATE, _name(name) + _kind(family))
                if answer != 0:
                    reason = os.strerror(answer) if isinstance(answer, int) else "an answer that cannot be read"
                    raise SetCopyError(f"no twin of the ipset {name} could be made: {reason}")
    except OSError as error:
        raise SetCopyError(f"no twins of ipsets could be made: {error.strerror}") from error


def _name(name: str) -> bytes:
    """The name in the bytes that iptables-restore is given."""
    return attribute(_ATTR_SETNAME, name.encode("utf-8", "surrogateescape") + b"\0")


def _kind(family: int) -> bytes:
    """A type that demands no data, in its first revision, which every kernel has."""
    type_name = b"list:set\0" if family == ANY_FAMILY else b"hash:ip\0"
    return (
        attribute(_ATTR_TYPENAME, type_name)
        + attribute(_ATTR_REVISION, b"\0")
        + attribute(_ATTR_FAMILY, bytes([family]))
    )


def _ask(kernel: socket.socket, command: int, attributes: bytes) -> int | bytes:
    """The kernel's answer to a command: the body of a message, or the errno value of a refusal, 0 for done.

    The kernel answers before the sending returns (netlink_unicast_kernel() in net/netlink/af_netlink.c); the wait is
    there to be bounded. Raises OSError.
    """
    body = FAMILY_HEADER.pack(socket.AF_INET, 0, 0) + attribute(_ATTR_PROTOCOL, bytes([_PROTOCOL])) + attributes
    flags = NLM_F_REQUEST | (NLM_F_ACK if command == _CMD_CREATE else 0)
    kernel.sendto(HEADER.pack(HEADER.size + len(body), _SUBSYSTEM << 8 | command, flags, 0, 0) + body, (0, 0))
    end = select.poll()
    end.register(kernel, select.POLLIN)
    if not end.poll(_ANSWER_SECONDS * 1000):
        raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer")
    for kind, content in messages(kernel.recv(_LARGEST_ANSWER)):
        number = error_number(content) if kind == NLMSG_ERROR else None
        return content if number is None else number
    raise OSError(errno.EBADMSG, "the kernel's answer cannot be read")
