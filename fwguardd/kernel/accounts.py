"""The users and groups of this host, by name (getpwnam(3), getgrnam(3)).

The host may ask a directory server over the network (nsswitch.conf(5)), which waits while the firewall blocks it. So a
name is looked up in a thread, for a few seconds; one that gets no answer is not waited for again until it has one.
"""

from __future__ import annotations

import grp
import pwd
from functools import partial
from typing import TYPE_CHECKING, Final

from fwguardd.packets.keys import Accounts
from fwguardd.threads import ThreadNotStartedError, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

SECONDS: Final = 2.0
"""How long the number of one name is waited for."""


class Lookups:
    """Looks names up, one at a time."""

    def __init__(self) -> None:
        self._last: Future[int | None] | None = None

    def answer(self, find: Callable[[str], int | None], name: str) -> int | None:
        """What a function finds. Raises ValueError if that is not known in time."""
        try:
            if self._last is None or self._last.done():
                self._last = in_thread(partial(find, name))
                return self._last.result(SECONDS)
        except (OSError, ThreadNotStartedError):
            pass
        raise ValueError(f"this host did not say within {SECONDS:g} s what number {name} has; write the number")


LOOKUPS = Lookups()


def user_id(name: str) -> int | None:
    """The number of a user; None if there is none of this name. Raises ValueError if that is not known in time."""
    return LOOKUPS.answer(_user_id, name)


def group_id(name: str) -> int | None:
    """The number of a group; None if there is none of this name. Raises ValueError if that is not known in time."""
    return LOOKUPS.answer(_group_id, name)


def _user_id(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def user_name(number: int) -> str | None:
    """The name of a user; None if there is none of this number."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return None


ACCOUNTS = Accounts(user_id, group_id)
