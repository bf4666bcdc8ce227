"""A change of few rules among many, written to nf_tables over netlink in one transaction for both families.

iptables-nft-restore reads a chain whole before it puts a rule into the middle of it: 0.2 s of 10,000 rules. Here a rule
is removed by its handle, and a new one is put before the rule with a handle, made of the expressions that iptables made
of it in the rehearsal (`fwguardd.kernel.rule_bytes`). One that another program has removed is made of what the kernel's
notice of that says it was.

The transaction names the generation that the plan was made for, and the kernel refuses it if anybody has written since
(nf_tables_valid_genid() in net/netfilter/nf_tables_api.c). Only if its answer is exactly what was wanted, and the next
generation, are the rules known without another look.
"""

from __future__ import annotations

import socket
import threading
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import NETLINK_NETFILTER, SO_RCVBUFFORCE, SO_SNDBUFFORCE, open_socket
from fwguardd.kernel.nft_batches import (
    BatchOutcome,
    ChainChange,
    answers_to,
    handles_after,
    outcome_of,
    transaction,
)
from fwguardd.kernel.rehearsed_rules import RehearsedRules
from fwguardd.kernel.rule_notices import Place
from fwguardd.ruleset.chain_edits import NoEditError, chain_edits
from fwguardd.threads import ThreadNotStartedError, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fwguardd.kernel.last_looks import LastLooks, Moment
    from fwguardd.ruleset.chain_edits import ChainEdit
    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.operations import Plan
    from fwguardd.ruleset.save_format import Saved

MANY = 20
"""From so many rules on, in the families that change, an edit over netlink takes less time than iptables: of 50 rules,
15 ms of processor time in place of 26 (measured)."""

MOST_CHANGES = 320
"""Rules that come or go in an edit; more take iptables as long."""

_ROOM: Final = 1 << 20
"""Bytes of the buffers of a socket. A rule takes about 400 in the transaction, and in the answer to it."""

_USUAL_ROOM: Final = 128 * 400
"""Bytes of a transaction whose answers a socket holds by default."""


class ChangedMeanwhileError(Exception):
    """Somebody has written to nf_tables since the plan was made, or it is not clear whether it was carried out."""


class LiveEdits:
    """Edits of the live rules.

    ``rehearsed`` has the expressions of new rules; without it all is left to iptables. ``writes`` is called with the id
    of the thread that is about to write, as the notice of the kernel will name it. After a look has shown something
    else than was known without one, and after an error of the socket, all is left to iptables too.
    """

    def __init__(self, rehearsed: RehearsedRules | None, writes: Callable[[int], None]) -> None:
        self._rehearsed, self._writes = rehearsed or RehearsedRules(), writes
        self._usable = rehearsed is not None

    def carry_out(self, plans: Sequence[Plan], last: LastLooks, now: Moment | None) -> bool:
        """Carry out plans together, and remember what the kernel then holds; False if this is left to iptables.

        Raises ChangedMeanwhileError where other plans have to be made.
        """
        self._usable = self._usable and not last.wrong
        if now is None or not self._usable:
            return False
        families = list(map(attrgetter("family"), plans))
        if last.moved_on(families, now):
            raise ChangedMeanwhileError("another program has changed nf_tables since the plan was made")
        try:
            _check_that_rules_are_many(last.at(families, now))
            return self._write(self._changes(plans, last, now), last, now)
        except NoEditError:
            return False
        except OSError as error:
            self._usable = False
            raise ChangedMeanwhileError(f"nf_tables cannot be changed over netlink: {error.strerror}") from error

    def _changes(self, plans: Sequence[Plan], last: LastLooks, now: Moment) -> list[ChainChange]:
        """The changes of all chains. Raises NoEditError where they are left to iptables, and OSError."""
        edits: dict[Place, ChainEdit] = {}
        _check_that_changes_are_few(plans)
        for plan in plans:
            for edit in chain_edits(plan, last.looks[plan.family].shown):
                edits[Place(plan.family, edit.table, edit.chain)] = edit
        if not edits.keys() <= last.handles.keys():
            last.learn(now)
        return [self._change(place, edit, last) for place, edit in edits.items()]

    def _change(self, place: Place, edit: ChainEdit, last: LastLooks) -> ChainChange:
        """An edit with what the kernel needs for it. Raises NoEditError where that is not known."""
        expressions = [self._expressions(place.family, rule.text, last) for rule in edit.added]
        rules = last.looks[place.family].shown.tables[edit.table].chains[edit.chain].rules
        handles = last.handles.get(place, ())
        if not all(expressions) or len(handles) != len(rules):
            raise NoEditError
        return ChainChange(place, edit, handles, expressions)

    def _expressions(self, family: Family, text: str, last: LastLooks) -> bytes:
        """What a rule is made of: as it was made in the rehearsal, or as it was before another program removed it."""
        return self._rehearsed.expressions(family, text) or last.expressions(family, text)

    def _write(self, changes: Sequence[ChainChange], last: LastLooks, now: Moment) -> bool:
        """Write changes of what the kernel holds at this moment; whether it took them. Raises OSError."""
        self._writes(threading.get_native_id())
        answers = _answers_to(transaction(now.generation, changes))
        became = outcome_of(answers)
        if became is BatchOutcome.STALE:
            raise ChangedMeanwhileError("another program has changed nf_tables since the tables were read")
        handles = handles_after(answers, changes, now.next_generation)
        # Without them a look will show what the kernel holds.
        if became is BatchOutcome.DONE and handles is not None:
            last.edited({change.place: change.edit for change in changes}, handles, now)
        return became is BatchOutcome.DONE


def _check_that_rules_are_many(saved: Mapping[Family, Saved] | None) -> None:
    """Raises NoEditError where what the kernel holds is not known, or is little."""
    if saved is None or sum(each.shown.rule_count for each in saved.values()) < MANY:
        raise NoEditError


def _check_that_changes_are_few(plans: Iterable[Plan]) -> None:
    """Raises NoEditError where they are many."""
    if sum(len(plan.operations) for plan in plans) > MOST_CHANGES:
        raise NoEditError


def _answers_to(transaction: bytes) -> list[bytes]:
    """What the kernel answers, on a socket of its own. Raises OSError, and NoEditError where it would not hold that."""
    requester = open_socket(NETLINK_NETFILTER)
    try:
        _make_room(requester, len(transaction))
        return answers_to(requester, transaction)
    finally:
        _close(requester)


def _make_room(requester: socket.socket, size: int) -> None:
    """Let a socket hold a large transaction and the answers. In a user namespace it cannot be made larger than usual
    (socket(7), SO_RCVBUFFORCE): raises NoEditError where that is not enough."""
    try:
        for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
            requester.setsockopt(socket.SOL_SOCKET, option, _ROOM)
    except PermissionError:
        if size > _USUAL_ROOM:
            raise NoEditError from None


def _close(requester: socket.socket) -> None:
    """Close a socket after a transaction. The kernel lets that wait for milliseconds, until it has freed what the
    transaction removed (nft_rcv_nl_event() in net/netfilter/nf_tables_api.c), so a thread of its own waits."""
    try:
        in_thread(requester.close)
    except ThreadNotStartedError:
        requester.close()
