"""The kernel's accounting objects (nfacct(8)) and timeout policies (nfct(8)) that rules name, and copies of them.

A rule with ``-m nfacct`` or ``-j CT --timeout`` loads only where the object exists, and a timeout policy also has to be
for the family and the protocol of the rule (net/netfilter/xt_nfacct.c, xt_CT.c). A rehearsal needs an object of the
same name, family and protocol; its counters and timeouts do not matter.

The rehearsal worker imports this module, so it imports little itself.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from fwguardd.kernel.ipsets import SetCopyError, SetsUnreadableError
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
    from collections.abc import Iterable

ACCOUNTING: Final = "nfacct"
TIMEOUT: Final = "timeout"
_SUBSYSTEMS: Final = {ACCOUNTING: 7, TIMEOUT: 8}
"""NFNL_SUBSYS_ACCT and NFNL_SUBSYS_CTNETLINK_TIMEOUT of linux/netfilter/nfnetlink.h."""
_NEW: Final = 0
_GET: Final = 1
"""NFNL_MSG_ACCT_* and IPCTNL_MSG_TIMEOUT_*, which have the same numbers."""
_NAME: Final = 1
"""NFACCT_NAME and CTA_TIMEOUT_NAME."""
_L3PROTO, _L4PROTO, _DATA = 2, 3, 4
"""CTA_TIMEOUT_* of linux/netfilter/nfnetlink_cttimeout.h."""
_NESTED: Final = 0x8000
"""NLA_F_NESTED."""


class NamedObject(NamedTuple):
    """An object that rules name. ``family`` (AF_INET, AF_INET6) and ``protocol`` are those of a timeout policy."""

    kind: str
    name: str
    family: int = 0
    protocol: int = 0


def existing_objects(named: Iterable[tuple[str, str]]) -> list[NamedObject]:
    """Those of the objects, by kind and name, that exist in this network namespace. Raises SetsUnreadableError."""
    found: list[NamedObject] = []
    try:
        with open_socket(NETLINK_NETFILTER) as kernel:
            for kind, name in named:
                answer = ask(kernel, _SUBSYSTEMS[kind], _GET, _header() + _name(name))
                if answer == errno.EPERM:
                    raise SetsUnreadableError(os.strerror(errno.EPERM))
                if isinstance(answer, bytes):
                    found.append(_read(kind, name, answer))
    except OSError as error:
        raise SetsUnreadableError(error.strerror) from error
    return found


def make_copies(objects: Iterable[NamedObject]) -> None:
    """Make an object of each kind and name, unless there is one already. Raises SetCopyError."""
    try:
        with open_socket(NETLINK_NETFILTER) as kernel:
            for one in objects:
                body = _header() + _name(one.name) + _properties(one)
                answer = ask(kernel, _SUBSYSTEMS[one.kind], _NEW, body, NLM_F_ACK)
                if answer not in (0, errno.EEXIST, errno.EBUSY):
                    raise SetCopyError(f"cannot make a copy of the {one.kind} object {one.name}: {reason_of(answer)}")
    except OSError as error:
        raise SetCopyError(f"cannot make copies of nfacct and timeout objects: {error.strerror}") from error


def _read(kind: str, name: str, answer: bytes) -> NamedObject:
    values = read_attributes(answer, FAMILY_HEADER.size) or {}
    if kind == ACCOUNTING:
        return NamedObject(kind, name)
    family, protocol = values.get(_L3PROTO, b""), values.get(_L4PROTO, b"")
    return NamedObject(kind, name, int.from_bytes(family, "big"), int.from_bytes(protocol, "big"))


def _header() -> bytes:
    return FAMILY_HEADER.pack(socket.AF_UNSPEC, 0, 0)


def _name(name: str) -> bytes:
    """The name, in the same bytes that iptables-restore gets."""
    return attribute(_NAME, name.encode("utf-8", "surrogateescape") + b"\0")


def _properties(one: NamedObject) -> bytes:
    """What a timeout policy must have: a family, a protocol, and timeouts, of which none is given."""
    if one.kind == ACCOUNTING:
        return b""
    return (
        attribute(_L3PROTO, one.family.to_bytes(2, "big"))
        + attribute(_L4PROTO, bytes([one.protocol]))
        + attribute(_DATA | _NESTED, b"")
    )
