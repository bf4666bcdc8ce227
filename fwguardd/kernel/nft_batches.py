"""Changes of chains as messages to nf_tables, and what the kernel answers to them.

The kernel's answer says what it has done (NLM_F_ECHO): each rule that was removed and each new one, with its
expressions, its handle and the rule that stands before it, and the number of the generation that this began.
"""

from __future__ import annotations

import errno
import socket
from array import array
from enum import Enum
from itertools import chain, starmap
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.generations import parse_notice
from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    attribute,
    error_number,
    messages,
)
from fwguardd.kernel.nft_tables import NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES
from fwguardd.kernel.rule_bytes import RuleBytes, counted_rule_in, uncounted, without_none
from fwguardd.kernel.rule_dumps import (
    NFT_MSG_DELRULE,
    NFT_MSG_NEWRULE,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_HANDLE,
    NFTA_RULE_POSITION,
    PROTOCOLS,
    place_of,
)
from fwguardd.ruleset.model import Rule
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.kernel.rule_handles import Handles
    from fwguardd.kernel.rule_notices import Place
    from fwguardd.ruleset.chain_edits import ChainEdit

_NLM_F_ECHO: Final = 8
_NLM_F_CREATE, _NLM_F_APPEND = 0x400, 0x800
"""linux/netlink.h."""
_NLA_F_NESTED: Final = 0x8000
_ABOUT_RULES: Final = (NFT_MSG_NEWRULE, NFT_MSG_DELRULE)
_BUFFER: Final = 1 << 16
_NFNL_BATCH_GENID: Final = 1
"""linux/netfilter/nfnetlink.h, enum nfnl_batch_attributes."""


@dataclass(frozen=True, slots=True)
class ChainChange:
    """The change of one chain: the handles of its rules before it, and the expressions of the new rules, in order."""

    place: Place
    edit: ChainEdit
    handles: Sequence[int]
    expressions: Sequence[bytes]

    def messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and content of the messages to nf_tables."""
        place = FAMILY_HEADER.pack(PROTOCOLS[self.place.family.number], 0, 0) + place_of(
            self.edit.table, self.edit.chain
        )
        for number in self.edit.removed:
            yield NFT_MSG_DELRULE, 0, place + _handle(NFTA_RULE_HANDLE, self.handles[number])
        for following, expressions in zip(self._following(), self.expressions, strict=True):
            content = place + attribute(NFTA_RULE_EXPRESSIONS | _NLA_F_NESTED, expressions)
            if following is None:
                yield NFT_MSG_NEWRULE, _NLM_F_CREATE | _NLM_F_APPEND, content
            else:
                yield NFT_MSG_NEWRULE, _NLM_F_CREATE, content + _handle(NFTA_RULE_POSITION, following)

    def _following(self) -> list[int | None]:
        """For each new rule the handle of the next rule that was there before; None at the end of the chain."""
        found: list[int | None] = []
        following: int | None = None
        for each in reversed(self.edit.final):
            if isinstance(each, Rule):
                found.append(following)
            else:
                following = self.handles[each]
        return found[::-1]

    def handles_after(self, answers: Iterator[RuleBytes]) -> array[int] | None:
        """The handles after it; None where the answers about its rules are others than they should be."""
        if not all(map(self._is_removed, self.edit.removed, answers)):
            return None
        new = zip(answers, self._following(), self.expressions, strict=False)
        handles = [0]
        for each in self.edit.final:
            if isinstance(each, Rule):
                handles.append(self._handle_of_new(*next(new), before=handles[-1]))
            else:
                handles.append(self.handles[each])
        del handles[0]
        return array("Q", handles) if all(handles) else None

    def _is_removed(self, number: int, answer: RuleBytes) -> bool:
        return answer.handle == self.handles[number]

    def _handle_of_new(self, answer: RuleBytes, following: int | None, expressions: bytes, before: int) -> int:
        """The handle of a new rule; 0 where it is not the one that was wanted."""
        if following is None and answer.position == 0:
            before = 0  # The kernel names no rule before the last one of a chain.
        wanted = RuleBytes(self.edit.table, self.edit.chain, answer.handle, expressions, before)
        # A packet may have met the rule before the kernel has answered.
        if answer == wanted or answer._replace(expressions=uncounted(answer.expressions)) == wanted:
            return answer.handle
        return 0


def _handle(kind: int, handle: int) -> bytes:
    return attribute(kind, handle.to_bytes(8, "big"))


def transaction(generation: int, changes: Sequence[ChainChange]) -> bytes:
    """The messages of a transaction that fails unless this is still the generation."""
    subsystem = FAMILY_HEADER.pack(socket.AF_UNSPEC, 0, socket.htons(NFNL_SUBSYS_NFTABLES))
    begin = subsystem + attribute(_NFNL_BATCH_GENID, generation.to_bytes(4, "big"))
    *inside, (kind, flags, content) = _messages_of(changes)
    batch = ((NFNL_MSG_BATCH_BEGIN, 0, begin), *inside, (kind, flags | NLM_F_ACK, content))
    echoed = b"".join(starmap(_echoed, enumerate(batch, 1)))
    return echoed + _message(len(batch) + 1, NFNL_MSG_BATCH_END, 0, subsystem)


def _echoed(number: int, message: tuple[int, int, bytes]) -> bytes:
    kind, flags, content = message
    return _message(number, kind, flags | _NLM_F_ECHO, content)


def _message(number: int, kind: int, flags: int, content: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(content), kind, NLM_F_REQUEST | flags, number, 0) + content


def answers_to(requester: socket.socket, transaction: bytes) -> list[bytes]:
    """What the kernel answers on a socket that never waits: it has sent all before sendto() returns. Raises OSError."""
    answers: list[bytes] = []
    requester.sendto(transaction, (0, 0))
    while True:
        try:
            answers.append(requester.recv(_BUFFER))
        except BlockingIOError:
            return answers


class BatchOutcome(Enum):
    """What became of a transaction."""

    DONE = "done"
    REFUSED = "refused"
    """Nothing was changed."""

    STALE = "stale"
    """Nothing was changed, because somebody had changed nf_tables before; or the kernel has not said what became of it.
    It has to be looked at."""


def outcome_of(answers: Iterable[bytes]) -> BatchOutcome:
    """What became of a transaction, from all that the kernel has answered."""
    errors = [error_number(body) for kind, body in _all_messages(answers) if kind == NLMSG_ERROR]
    if not errors or errno.ERESTART in errors:
        return BatchOutcome.STALE
    if any(errors):
        return BatchOutcome.REFUSED
    return BatchOutcome.DONE


def handles_after(answers: Sequence[bytes], changes: Sequence[ChainChange], generation: int) -> Handles | None:
    """The handles of the changed chains; None unless the kernel says that it did just what was wanted, and that this
    began ``generation``."""
    said = [each for each in _all_messages(answers) if each[0] in _ABOUT_RULES]
    kinds = [kind for kind, _ in said]
    if (_generations(answers), kinds) != ([generation], _kinds(changes)):
        return None
    return _handles_of(changes, without_none(map(counted_rule_in, map(itemgetter(1), said))))


def _handles_of(changes: Sequence[ChainChange], answers: Iterable[RuleBytes] | None) -> Handles | None:
    if answers is None:
        return None
    left = iter(answers)
    found = without_none(change.handles_after(left) for change in changes)
    if found is None:
        return None
    return dict(zip(map(attrgetter("place"), changes), found, strict=True))


def _kinds(changes: Iterable[ChainChange]) -> list[int]:
    """The types of the messages about rules that changes consist of."""
    return [kind for kind, _, _ in _messages_of(changes)]


def _messages_of(changes: Iterable[ChainChange]) -> Iterator[tuple[int, int, bytes]]:
    return chain.from_iterable(map(ChainChange.messages, changes))


def _generations(answers: Iterable[bytes]) -> list[int]:
    """The numbers of the generations that began."""
    return [each.number for each in chain.from_iterable(map(parse_notice, answers))]


def _all_messages(answers: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    return chain.from_iterable(map(messages, answers))
