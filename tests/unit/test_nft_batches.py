"""Changes of chains as messages, and answers of the kernel: only the one that was wanted counts."""

from __future__ import annotations

import errno
import struct
from array import array

import pytest

from fwguardd.kernel.generations import NFT_MSG_NEWGEN
from fwguardd.kernel.netlink import FAMILY_HEADER, HEADER, NLMSG_ERROR, attribute, messages
from fwguardd.kernel.nft_batches import BatchOutcome, ChainChange, handles_after, outcome_of, transaction
from fwguardd.kernel.rule_dumps import (
    NFT_MSG_DELRULE,
    NFT_MSG_NEWRULE,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_HANDLE,
    NFTA_RULE_POSITION,
    place_of,
)
from fwguardd.kernel.rule_notices import Place
from fwguardd.ruleset.chain_edits import ChainEdit
from fwguardd.ruleset.model import Family, Rule

NEW = attribute(1, attribute(1, b"cmp\0") + attribute(2, b"1234"))
OTHER = attribute(1, attribute(1, b"cmp\0") + attribute(2, b"1235"))
FINAL = (0, Rule("-j x"), 2, Rule("-j y"))
CHANGE = ChainChange(
    Place(Family.IPV4, "filter", "INPUT"), ChainEdit("filter", "INPUT", FINAL, (1,)), (7, 8, 9), (NEW, OTHER)
)


def message(kind: int, content: bytes) -> bytes:
    """A message of the kernel."""
    return HEADER.pack(HEADER.size + len(content), kind, 0, 1, 0) + content


def rule(kind: int, handle: int, expressions: bytes = b"", position: int = 0, chain: str = "INPUT") -> bytes:
    """What the kernel says of a rule that it has added or removed."""
    content = FAMILY_HEADER.pack(2, 0, 0) + place_of("filter", chain)
    content += attribute(NFTA_RULE_HANDLE, handle.to_bytes(8, "big"))
    if position:
        content += attribute(NFTA_RULE_POSITION, position.to_bytes(8, "big"))
    return message(kind, content + attribute(NFTA_RULE_EXPRESSIONS, expressions))


def generation(number: int) -> bytes:
    """What the kernel says of a commit."""
    return message(NFT_MSG_NEWGEN, FAMILY_HEADER.pack(0, 0, 0) + attribute(1, number.to_bytes(4, "big")))


def error(number: int) -> bytes:
    """An error, or an acknowledgement."""
    return message(NLMSG_ERROR, struct.pack("=i", -number) + bytes(16))


GONE, FIRST, LAST = rule(NFT_MSG_DELRULE, 8), rule(NFT_MSG_NEWRULE, 20, NEW, 7), rule(NFT_MSG_NEWRULE, 21, OTHER)
RIGHT = (GONE, FIRST, LAST, generation(6), error(0))


def test_a_transaction_names_the_generation_and_rules_by_their_handles() -> None:
    """One rule is removed, one is put before the rule that follows, one is appended, in one batch."""
    sent = list(messages(transaction(5, [CHANGE])))
    assert [kind for kind, _ in sent] == [0x10, NFT_MSG_DELRULE, NFT_MSG_NEWRULE, NFT_MSG_NEWRULE, 0x11]
    assert sent[0][1].endswith(attribute(1, (5).to_bytes(4, "big")))
    assert sent[1][1].endswith(attribute(NFTA_RULE_HANDLE, (8).to_bytes(8, "big")))
    assert sent[2][1].endswith(attribute(NFTA_RULE_POSITION, (9).to_bytes(8, "big")))
    assert sent[3][1].endswith(OTHER)


def test_the_answer_that_was_wanted_has_the_handles() -> None:
    """Of the rules that stay and of the new ones, in order; in one datagram or in several."""
    for answers in (RIGHT, (b"".join(RIGHT),)):
        assert outcome_of(answers) is BatchOutcome.DONE
        assert handles_after(answers, [CHANGE], 6) == {CHANGE.place: array("Q", [7, 20, 9, 21])}


def test_a_new_rule_may_have_counted_before_the_answer() -> None:
    """Packets meet it as soon as it is there."""

    def with_counter(packets: int) -> bytes:
        counted = attribute(1, bytes(8)) + attribute(2, packets.to_bytes(8, "big"))
        return attribute(1, attribute(1, b"counter\0") + attribute(2, counted))

    change = ChainChange(CHANGE.place, CHANGE.edit, CHANGE.handles, (with_counter(0), OTHER))
    for packets in (0, 3):
        answers = (GONE, rule(NFT_MSG_NEWRULE, 20, with_counter(packets), 7), LAST, generation(6))
        assert handles_after(answers, [change], 6) == {CHANGE.place: array("Q", [7, 20, 9, 21])}


@pytest.mark.parametrize(
    "answers",
    [
        (GONE, FIRST, LAST),
        (GONE, FIRST, LAST, generation(7)),
        (GONE, FIRST, LAST, generation(6), generation(7)),
        (FIRST, LAST, generation(6)),
        (GONE, FIRST, generation(6)),
        (GONE, FIRST, LAST, LAST, generation(6)),
        (FIRST, GONE, LAST, generation(6)),
        (rule(NFT_MSG_DELRULE, 9), FIRST, LAST, generation(6)),
        (GONE, rule(NFT_MSG_NEWRULE, 20, OTHER, 7), LAST, generation(6)),
        (GONE, rule(NFT_MSG_NEWRULE, 20, NEW, 9), LAST, generation(6)),
        (GONE, rule(NFT_MSG_NEWRULE, 20, NEW), LAST, generation(6)),
        (GONE, rule(NFT_MSG_NEWRULE, 20, NEW, 7, "OUTPUT"), LAST, generation(6)),
        (GONE, FIRST, rule(NFT_MSG_NEWRULE, 21, OTHER, 7), generation(6)),
        (GONE, FIRST, message(NFT_MSG_NEWRULE, b"\0\0\0\0\1"), generation(6)),
    ],
)
def test_any_other_answer_has_none(answers: tuple[bytes, ...]) -> None:
    """Whatever is missing, more, or another one: what the kernel holds then has to be looked at."""
    assert handles_after(answers, [CHANGE], 6) is None


def test_an_error_says_that_nothing_was_changed() -> None:
    """Somebody else's change has an error of its own. Where nothing was answered, a look has to show what happened."""
    assert outcome_of((error(errno.ENOENT), error(0))) is BatchOutcome.REFUSED
    assert outcome_of(()) is BatchOutcome.STALE
    assert outcome_of((error(errno.ERESTART),)) is BatchOutcome.STALE
