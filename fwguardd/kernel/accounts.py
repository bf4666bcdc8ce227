"""The users and groups of this host, by name (getpwnam(3), getgrnam(3))."""

from __future__ import annotations

import grp
import pwd

from fwguardd.packets.keys import Accounts


def user_id(name: str) -> int | None:
    """The number of a user; None if there is none of this name."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def group_id(name: str) -> int | None:
    """The number of a group; None if there is none of this name."""
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
