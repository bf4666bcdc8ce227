"""Plans: the smallest input for iptables-restore that makes the kernel hold what it should."""

from __future__ import annotations

from dataclasses import replace

from fwguardd.ruleset.canonical import Canonical, Emptying, Owned
from fwguardd.ruleset.model import BUILTIN_CHAINS, NOT_STATED, Chain, Counters, Family, Rule, Ruleset, Table
from fwguardd.ruleset.plan import make_plan
from fwguardd.ruleset.preserve import STRICT, Preserve
from tests.counting import steps
from tests.property.restore_simulator import planned

DOCKER = Preserve.from_patterns(["DOCKER*"])


def ruleset(policy: str = "ACCEPT", **chains: str) -> Ruleset:
    """The table filter; chains by name with rules parted by semicolons. The n-th rule has n packets."""
    return Ruleset(
        Family.IPV4,
        {
            "filter": Table(
                "filter",
                {
                    name: Chain(
                        name,
                        policy if name.isupper() and "-" not in name else None,
                        tuple(
                            Rule(text, None, Counters(n, 0)) for n, text in enumerate(filter(None, rules.split(";")), 1)
                        ),
                        None,
                    )
                    for name, rules in chains.items()
                },
            )
        },
    )


def counted(plain: Ruleset) -> Ruleset:
    """The same, with 9 packets and bytes at each policy."""
    table = plain.tables["filter"]
    chains = {name: replace(chain, counters=Counters(9, 9)) for name, chain in table.chains.items()}
    return Ruleset(plain.family, {"filter": Table("filter", chains)})


def lines(live: Ruleset, wanted: Ruleset, preserve: Preserve = STRICT) -> list[list[str]]:
    """The lines of each text of the plan, without the table around them."""
    return [text.splitlines()[1:-1] for text in planned(live, wanted, preserve)]


def test_nothing_is_planned_where_nothing_differs() -> None:
    """No text, so counters stay and no other program is notified."""
    assert lines(ruleset(INPUT="a;b", web="c"), ruleset(web="c", INPUT="a;b")) == []


def test_only_what_differs_is_written() -> None:
    """A rule is deleted by its text where that is unique, and inserted at its place."""
    assert lines(ruleset(INPUT="a;b;c"), ruleset(INPUT="a;x;c")) == [["-D INPUT b", "[0:0] -I INPUT 2 x"]]


def test_of_equal_rules_one_is_deleted_by_its_number() -> None:
    """Its text would mean the first of them."""
    assert lines(ruleset(INPUT="a;b;a"), ruleset(INPUT="a;b")) == [["-D INPUT 3"]]


def test_an_empty_rule_is_deleted_by_its_number() -> None:
    """-D without a text would mean something else."""
    assert lines(ruleset(INPUT="a"), ruleset(INPUT="a")) == []
    live = Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": Chain("INPUT", "ACCEPT", (Rule(""), Rule("a")))})})
    assert lines(live, ruleset(INPUT="a")) == [["-D INPUT 1"]]


def test_a_policy_keeps_its_counters() -> None:
    """The new policy is written with the packets that the chain has counted."""
    assert lines(counted(ruleset("ACCEPT", INPUT="a")), ruleset("DROP", INPUT="a")) == [[":INPUT DROP [9:9]"]]


def test_a_rule_that_moves_keeps_its_counters() -> None:
    """It is written anew with what it had counted."""
    (text,) = lines(ruleset(INPUT="a;b;c;d"), ruleset(INPUT="b;c;d;a"))
    assert text == ["-D INPUT a", "[1:0] -I INPUT 4 a"]


def test_a_new_chain_is_declared_before_any_rule() -> None:
    """A rule may jump to it from a chain that comes first."""
    assert lines(ruleset(INPUT=""), ruleset(INPUT="-j web", web="b")) == [
        [":web - [0:0]", "[0:0] -A INPUT -j web", "[0:0] -A web b"]
    ]


def test_a_chain_that_is_no_longer_wanted_goes_in_a_second_commit() -> None:
    """nf_tables does not remove a chain that was referenced when the transaction began."""
    assert lines(ruleset(INPUT="-j old", old="b"), ruleset(INPUT="")) == [["-D INPUT -j old", "-F old"], ["-X old"]]


def test_a_chain_that_has_nothing_left_is_flushed() -> None:
    """Many deletions, each searched for by its text, would take the square of their number."""
    live, wanted = ";".join(f"a{n}" for n in range(100)), ";".join(f"b{n}" for n in range(100))
    (text,) = lines(ruleset(INPUT=live), ruleset(INPUT=wanted))
    assert text[0] == "-F INPUT" and len(text) == 101


def test_what_belongs_to_others_is_not_in_the_text() -> None:
    """Chains of other programs and their rules in our chains stay; our rules are placed around them."""
    live = ruleset(FORWARD="-j DOCKER-USER;a;-j DOCKER-FWD;b", **{"DOCKER-USER": "x", "DOCKER-FWD": "y"})
    assert lines(live, ruleset(FORWARD="a;b"), DOCKER) == []
    assert lines(live, ruleset(FORWARD="b;c"), DOCKER) == [["-D FORWARD a", "[0:0] -I FORWARD 4 c"]]
    assert lines(live, ruleset(FORWARD=""), DOCKER) == [["-D FORWARD a", "-D FORWARD b"]]


def test_a_chain_that_others_use_is_not_removed() -> None:
    """-X would be refused as long as their chain jumps there, and the whole transaction with it."""
    live = ruleset(INPUT="", web="a", **{"DOCKER-USER": "-j web"})
    assert lines(live, ruleset(INPUT=""), DOCKER) == []


def test_a_table_that_is_let_go_is_emptied() -> None:
    """Nothing in it, everything accepted; a table that is not there is written whole."""
    empty = Canonical.emptied(Emptying.for_open(Owned({(Family.IPV4, "filter")}))).rulesets[Family.IPV4]
    assert tuple(empty.tables["filter"].chains) == BUILTIN_CHAINS["filter"]
    assert lines(ruleset("DROP", INPUT="a", FORWARD="", OUTPUT=""), empty) == [
        [":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", "-D INPUT a"]
    ]
    assert lines(Ruleset(Family.IPV4, {}), ruleset("DROP", INPUT="a")) == [[":INPUT DROP [0:0]", "[0:0] -A INPUT a"]]


def test_tables_that_are_not_wanted_are_not_in_the_text() -> None:
    """They belong to other programs, or are released by an emptied table."""
    assert lines(ruleset(INPUT="a"), Ruleset(Family.IPV4, {})) == []


def test_a_chain_of_thousands_that_differs_in_one_rule_is_planned_quickly() -> None:
    """The work grows with the change, not with the chain."""
    live = ";".join(f"a{n}" for n in range(20_000))
    (text,) = lines(ruleset(INPUT=live), ruleset(INPUT=live.replace("a9000;", "")))
    assert text == ["-D INPUT a9000"]


def test_a_table_that_is_written_says_the_counters_of_its_policies() -> None:
    """Legacy iptables zeroes them at each write, so a policy that stays is said again with what it had counted."""
    assert lines(counted(ruleset("ACCEPT", INPUT="a")), ruleset(INPUT="")) == [[":INPUT ACCEPT [9:9]", "-D INPUT a"]]


def _numbered(chosen: range) -> str:
    return ";".join(f"a{n}" for n in chosen)


def test_many_rules_behind_few_are_deleted_by_their_texts() -> None:
    """Deleted from the first to the last each search ends soon, and a text is right whatever others insert."""
    (text,) = lines(ruleset(INPUT=_numbered(range(6_000))), ruleset(INPUT="a0;a1"))
    assert text == [f"-D INPUT a{n}" for n in range(2, 6_000)]


def test_where_searches_would_take_too_long_the_chain_is_written_anew() -> None:
    """4,000 deletions behind 2,000 rules take 12 s: all are deleted from the head on, and those that stay come again
    with what they had counted."""
    live, wanted = ruleset(INPUT=_numbered(range(6_000))), ruleset(INPUT=_numbered(range(2_000)))
    (text,) = lines(live, wanted)
    assert text[:6_000] == [f"-D INPUT a{n}" for n in range(6_000)]
    assert text[6_000:] == [f"[{n + 1}:0] -A INPUT a{n}" for n in range(2_000)]


def test_a_long_chain_is_flushed_where_its_rules_would_be_searched_for_long() -> None:
    """nf_tables goes from the first rule to each one that is deleted, also where iptables finds that at once: without
    a flush, 100,000 rules took 58 s to go. What stays comes again with what it had counted."""
    live = ruleset(INPUT=_numbered(range(20_000)))
    assert lines(live, ruleset(INPUT="")) == [["-F INPUT"]]
    (text,) = lines(live, ruleset(INPUT=_numbered(range(12_000, 20_000))))
    assert text == ["-F INPUT", *(f"[{n + 1}:0] -A INPUT a{n}" for n in range(12_000, 20_000))]
    (text,) = lines(live, ruleset(INPUT=_numbered(range(19_000))))
    assert (text[0], len(text)) == ("-F INPUT", 19_001)
    (text,) = lines(live, ruleset(INPUT=_numbered(range(1_000, 20_000))))
    assert text == [f"-D INPUT a{n}" for n in range(1_000)]
    others = ruleset(INPUT=f"-j DOCKER-USER;{_numbered(range(7_000))}", **{"DOCKER-USER": "x"})
    (text,) = lines(others, ruleset(INPUT=""), DOCKER)
    assert text == [f"-D INPUT a{n}" for n in range(7_000)]


def test_a_few_rules_far_behind_in_a_long_chain_are_edited() -> None:
    """To find ten of 50,000 rules takes less time than to write all of them; to find a hundred takes more."""
    live = ruleset(INPUT=_numbered(range(50_000)))
    for few, expected in ((10, 20), (100, 50_001)):
        there = [f"a{number}" for number in range(50_000)]
        there[40_000 : 40_000 + 100 * few : 100] = ["b"] * few
        (text,) = lines(live, ruleset(INPUT=";".join(there)))
        assert len(text) == expected


def test_what_is_written_anew_leaves_rules_of_others_in_place() -> None:
    """Theirs are neither deleted nor written, and stand behind the same rule of ours as before."""
    live = ruleset(FORWARD=f"{_numbered(range(2_000))};-j DOCKER-FWD;{_numbered(range(2_000, 9_000))}")
    (text,) = lines(live, ruleset(FORWARD=f"{_numbered(range(2_000))};b"), DOCKER)
    assert not any("DOCKER-FWD" in line for line in text)
    assert text[8_999:9_001] == ["-D FORWARD a8999", "[1:0] -I FORWARD 1 a0"]
    assert text[-2:] == ["[2000:0] -I FORWARD 2000 a1999", "[0:0] -I FORWARD 2002 b"]


def test_insertions_at_far_places_are_not_many() -> None:
    """Each walks to its place: beyond a number of steps the chain is written anew, by appending."""
    even = ";".join(f"a{n}" for n in range(0, 14_000, 2))
    (text,) = lines(ruleset(INPUT=even), ruleset(INPUT=_numbered(range(14_000))))
    assert text[-1] == "[0:0] -A INPUT a13999"
    assert not any("-I" in line for line in text)


def test_a_policy_that_no_file_states_is_not_written() -> None:
    """The live one stays; a chain that the kernel does not have yet gets the one of a fresh kernel."""
    assert lines(counted(ruleset("DROP", INPUT="a")), ruleset(NOT_STATED, INPUT="")) == [["-D INPUT a"]]
    assert lines(ruleset("DROP", INPUT=""), ruleset(NOT_STATED, INPUT="")) == []
    (text,) = lines(Ruleset(Family.IPV4, {}), ruleset(NOT_STATED, INPUT="a"))
    assert text == [":INPUT ACCEPT [0:0]", "[0:0] -A INPUT a"]


def test_of_a_long_chain_of_which_little_stays_all_is_written_anew_after_a_flush() -> None:
    """What stays keeps its counters. Where a rule in it belongs to another program, ours are deleted one by one."""
    old, new = ("a" + ";".join(f";{letter}{number}" for number in range(3000)) for letter in "bc")
    (text,) = lines(ruleset(INPUT=old), ruleset(INPUT=new.replace(";;", ";")))
    assert text[:3] == ["-F INPUT", "[1:0] -A INPUT a", "[0:0] -A INPUT c0"]
    assert len(text) == 3002
    (text,) = lines(ruleset(INPUT=f"-j DOCKER-USER;{old}", **{"DOCKER-USER": "x"}), ruleset(INPUT=new), DOCKER)
    assert text[0] == "-D INPUT b0"


def with_nat(filter_table: Ruleset, nat_rules: str) -> Ruleset:
    """The same beside a table nat with these rules of POSTROUTING."""
    chains = {"POSTROUTING": Chain("POSTROUTING", "ACCEPT", tuple(map(Rule, filter(None, nat_rules.split(";")))))}
    return Ruleset(Family.IPV4, {**filter_table.tables, "nat": Table("nat", chains)})


def test_tables_that_do_not_change_are_not_weighed() -> None:
    """An edit in another table takes two steps for each rule of a long chain, to compare it; that what becomes stricter
    is written first is asked of changed tables only."""
    long = ";".join(f"-s 192.0.2.{number}/32 -j ACCEPT" for number in range(250))
    live, wanted = with_nat(ruleset(INPUT=long), "-j MASQUERADE"), with_nat(ruleset(INPUT=long), "")
    assert steps(lambda: make_plan(live, live, wanted)) < 250 * 4
    both = with_nat(ruleset(INPUT=f"-j DROP;{long}"), "-j DROP;-j DROP;-j MASQUERADE")
    assert [operation.table for operation in make_plan(live, live, both).operations] == ["nat", "nat", "filter"]
    assert make_plan(both, both, both).operations == ()
