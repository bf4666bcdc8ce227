"""What each commit changed, as bytes, and what a look is after it. What only the kernel does is in tests/netns."""

from __future__ import annotations

from array import array

import pytest

from fwguardd.kernel.rule_handles import forget, patched
from fwguardd.kernel.rule_notices import (
    ChainChanged,
    Commit,
    Place,
    PolicySet,
    RuleGone,
    TableChanged,
    UnreadableNoticeError,
    parse,
)
from fwguardd.ruleset.model import Chain, Counters, Family, Rule, Ruleset, Table
from fwguardd.ruleset.save_format import Saved
from tests.unit.test_generations import NOTICE, attribute, message

INPUT = Place(Family.IPV4, "filter", "INPUT")
RULES = tuple(Rule(f"-j R{number}", None, Counters(number, 0)) for number in range(4))
SAVED = Saved(
    Ruleset(
        Family.IPV4,
        {"filter": Table("filter", {"INPUT": Chain("INPUT", "DROP", RULES), "web": Chain("web", None, RULES[:1])})},
    ),
    dormant=frozenset({"nat"}),
)


def named(table: str, chain: str = "INPUT", *more: bytes, kind: int, family: int = 2, chain_kind: int = 2) -> bytes:
    """A message about an object of a table."""
    parts = (attribute(1, table.encode() + b"\0"), attribute(chain_kind, chain.encode() + b"\0"), *more)
    made = bytearray(message(*parts, kind=0x0A00 | kind))
    made[16] = family
    return bytes(made)


def handles() -> dict[Place, array[int]]:
    """The rules of INPUT have the handles 10, 11, 12, 13."""
    return {INPUT: array("Q", range(10, 14))}


def test_each_kind_of_message_is_read() -> None:
    """Rules that go, with their handles, policies, chains that change, and anything else of a table, in order."""
    handle, policy = attribute(3, (11).to_bytes(8, "big")), attribute(5, (0).to_bytes(4, "big"))
    data = b"".join(
        [
            named("filter", "INPUT", handle, kind=8),
            named("filter", "INPUT", handle, kind=6),
            named("filter", "INPUT", policy, kind=3, chain_kind=3),
            named("filter", "web", kind=3, chain_kind=3),
            named("nat", "web", kind=5, family=10, chain_kind=3),
            named("raw", kind=0, family=10),
            named("mangle", "a set", kind=12),
            NOTICE,
        ]
    )
    assert list(parse(data)) == [
        RuleGone(INPUT, 11),
        ChainChanged(INPUT),
        PolicySet(INPUT, "DROP"),
        ChainChanged(Place(Family.IPV4, "filter", "web")),
        ChainChanged(Place(Family.IPV6, "nat", "web")),
        TableChanged(Family.IPV6),
        TableChanged(Family.IPV4),
        Commit(7),
    ]


def test_other_tables_are_left_out() -> None:
    """Tables that iptables does not show do not change what it shows."""
    assert list(parse(named("mine", kind=6) + named("filter", kind=6, family=1))) == []


@pytest.mark.parametrize("attributes", [b"\x02\0\x03\0", b"\xff\0\x03\0", b"\0"])
def test_a_message_of_unknown_form_is_never_skipped(attributes: bytes) -> None:
    """What cannot be read may be the change that matters."""
    data = message(attributes, kind=0x0A08)
    with pytest.raises(UnreadableNoticeError):
        list(parse(data))


def test_rules_that_go_leave_the_others() -> None:
    """The rules with the removed handles are gone; the others are the same, with their counters, and so is the rest."""
    known = handles()
    found = patched(SAVED, [RuleGone(INPUT, 11), RuleGone(INPUT, 13)], known)
    assert found is not None
    assert found.shown.tables["filter"].chains["INPUT"].rules == (RULES[0], RULES[2])
    assert found.shown.tables["filter"].chains["web"] is SAVED.shown.tables["filter"].chains["web"]
    assert (found.hidden, found.dormant) == (SAVED.hidden, SAVED.dormant)
    assert list(known[INPUT]) == [10, 12]


def test_the_last_policy_counts() -> None:
    """A policy that was set twice is what it was set to last."""
    found = patched(SAVED, [PolicySet(INPUT, "DROP"), PolicySet(INPUT, "ACCEPT")], {})
    assert found is not None
    assert found.shown.tables["filter"].chains["INPUT"].policy == "ACCEPT"


WEB = Place(Family.IPV4, "filter", "web")


@pytest.mark.parametrize(
    "change",
    [
        RuleGone(INPUT, 14),
        RuleGone(WEB, 1),
        RuleGone(Place(Family.IPV4, "nat", "INPUT"), 10),
        ChainChanged(INPUT),
        TableChanged(Family.IPV4),
        PolicySet(WEB, "DROP"),
        PolicySet(Place(Family.IPV4, "nat", "INPUT"), "DROP"),
        PolicySet(Place(Family.IPV4, "filter", "none"), "DROP"),
    ],
)
def test_what_is_not_sure_is_not_known(change: RuleGone | ChainChanged | TableChanged | PolicySet) -> None:
    """A handle that is not known, a rule that came, a chain or table that changed: a look has to be taken."""
    assert patched(SAVED, [RuleGone(INPUT, 10), change], handles()) is None


def test_handles_of_another_number_of_rules_are_not_used() -> None:
    """They belong to another state of the chain."""
    assert patched(SAVED, [RuleGone(INPUT, 10)], {INPUT: array("Q", [10, 11])}) is None


def test_what_was_changed_is_forgotten() -> None:
    """The handles of a changed chain, or of all chains of a changed family."""
    six = Place(Family.IPV6, "filter", "INPUT")
    known = handles() | {WEB: array("Q"), six: array("Q")}
    forget([ChainChanged(INPUT)], known)
    assert set(known) == {WEB, six}
    forget([TableChanged(Family.IPV4)], known)
    assert set(known) == {six}
