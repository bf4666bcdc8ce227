"""Asks the daemon, the journal and the kernel for what a report says.

What cannot be had is `MissingPart`, with the reason.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fwguardd import __version__
from fwguardd.control.client import ask
from fwguardd.ctl.beds import beds_of
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.exposure import examine
from fwguardd.ctl.journal_query import Query, entries_in_journal, oldest_time
from fwguardd.ctl.offline_verbs import input_of
from fwguardd.ctl.report.account import FIELDS, NAMES, Account
from fwguardd.ctl.report.facts import Facts, MissingPart, SetFact
from fwguardd.ctl.ruleset_sources import may_read_kernel, rules_in_force
from fwguardd.errors import ReportedError
from fwguardd.kernel.accounts import user_name
from fwguardd.metrics.counts import LIST_INTERVAL, SET_ENTRIES, SET_WRITTEN

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fwguardd.control.documents import MetricFamilyDocument, StatusDocument
    from fwguardd.ctl.exposure import Exposure

MOST_USERS = 10
"""User ids whose names are looked up."""

_Part = TypeVar("_Part")


def gather(options: argparse.Namespace, since: float) -> Facts:
    """All facts of the period from ``since`` on, which is in seconds since 1970. Raises SettingsError."""
    socket, now = socket_path_of(options), time.time()
    status: StatusDocument | MissingPart = _part(lambda: _status(socket))
    account, begins = _journal(options.journal_dir, since)
    return Facts(
        os.uname().nodename,
        __version__,
        since,
        now,
        status,
        _answer(status, lambda: ask(socket, "history")),
        _answer(status, lambda: ask(socket, "counters")["rules"]),
        _answer(status, lambda: sets_of(ask(socket, "metrics")["families"])),
        account,
        _exposure(options, socket),
        begins,
        _users(account),
    )


def _users(account: Account | MissingPart) -> dict[str, str]:
    """The names of the user ids in the account."""
    found: dict[str, str] = {}
    if isinstance(account, MissingPart):
        return found
    for group in account.outgoing.highest("uid", MOST_USERS)["groups"]:
        name = user_name(int(group["uid"])) if group["uid"].isdecimal() else None
        if name is not None:
            found[group["uid"]] = name
    return found


def _status(socket: Path) -> StatusDocument:
    return cast("StatusDocument", ask(socket, "status"))


def _part(get: Callable[[], _Part]) -> _Part | MissingPart:
    try:
        return get()
    except ReportedError as error:
        return MissingPart(str(error))


def _answer(status: object, get: Callable[[], Any]) -> Any:
    """Another answer of the daemon, if it has answered before."""
    if isinstance(status, MissingPart):
        return status
    return _part(get)


def sets_of(families: Sequence[MetricFamilyDocument]) -> tuple[SetFact, ...]:
    """The sets, of the metrics about them."""
    values: dict[str, dict[str, float]] = {SET_ENTRIES: {}, SET_WRITTEN: {}, LIST_INTERVAL: {}}
    for family in families:
        if family["name"] in values:
            for sample in family["samples"]:
                values[family["name"]][sample["labels"]["set"]] = sample["value"]
    found: list[SetFact] = []
    for name, entries in sorted(values[SET_ENTRIES].items()):
        found.append(_set(name, int(entries), values))
    return tuple(found)


def _set(name: str, entries: int, values: Mapping[str, Mapping[str, float]]) -> SetFact:
    return SetFact(name, entries, values[SET_WRITTEN].get(name), values[LIST_INTERVAL].get(name))


def _journal(directory: Path | None, since: float) -> tuple[Account | MissingPart, float | None]:
    """What the journal says of the period, and when it begins if that is later."""
    account = Account()
    try:
        entries = entries_in_journal(Query(NAMES, directory, f"@{since:.0f}", fields=FIELDS))
    except ReportedError as error:
        return MissingPart(str(error)), None
    try:
        account.add(entries)
    except ReportedError as error:
        account.incomplete = str(error)
    begins = oldest_time(directory)
    if begins is None or begins <= since:
        return account, None
    return account, begins


def _exposure(options: argparse.Namespace, socket: Path) -> Exposure | MissingPart:
    """What packets show, if this process may read the rules in the kernel."""
    if not may_read_kernel():
        return MissingPart("only root may read the rules in force and send packets through them")
    return _part(lambda: _examined(options, socket))


def _examined(options: argparse.Namespace, socket: Path) -> Exposure:
    rules = rules_in_force(input_of(options), socket)
    with beds_of(options) as beds:
        return examine(rules, beds, all_ports=False)
