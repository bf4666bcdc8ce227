"""Names of network devices by their index, as they are now.

The kernel tells of each change of a device on a netlink group (rtnetlink(7)). The socket for it is never waited for:
it is looked at before names are asked for, so that devices that come and go wake nobody, and no name is older than the
look.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, open_socket

if TYPE_CHECKING:
    from collections.abc import Callable

NETLINK_ROUTE: Final = 0
RTNLGRP_LINK: Final = 1
"""linux/rtnetlink.h: devices that come, go or change."""

_ENOUGH: Final = 1
"""Bytes of a notice that are read: that there is one says it all."""


class DeviceNames:
    """The devices of the network namespace that the calling thread is in. Raises OSError where there is no netlink."""

    def __init__(self, name_of: Callable[[int], str] = socket.if_indextoname) -> None:
        self._name_of = name_of
        self._names: dict[int, bytes | None] = {}
        self._socket = open_socket(NETLINK_ROUTE)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK)
        except OSError:
            self.close()
            raise

    def refresh(self) -> bool:
        """Whether any device has changed since the last look; then all names are forgotten."""
        changed = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self._socket.recv(_ENOUGH)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                changed = True
        if changed:
            self._names.clear()
        return changed

    def name(self, index: int) -> bytes | None:
        """A device's name; None when there is none with this index, any more or at all."""
        if index not in self._names:
            name = None
            with contextlib.suppress(OSError):
                name = os.fsencode(self._name_of(index))
            self._names[index] = name
        return self._names[index]

    def close(self) -> None:
        """Stop looking; a second time does nothing."""
        self._socket.close()
