"""Differences between rulesets, as a person would tell them."""

from __future__ import annotations

from fwguardd.ruleset.diff import ChangeKind, Difference, changes, compare
from fwguardd.ruleset.model import NOT_STATED, Chain, Counters, Family, Origin, Rule, Ruleset, Table
from tests.counting import steps


def ruleset(policy: str = "DROP", table: str = "filter", **chains: str) -> Ruleset:
    """One table; chains by name with rules parted by semicolons; INPUT has the policy."""
    return Ruleset(
        Family.IPV4,
        {
            table: Table(
                table,
                {
                    name: Chain(
                        name, policy if name == "INPUT" else None, tuple(map(Rule, filter(None, rules.split(";"))))
                    )
                    for name, rules in chains.items()
                },
            )
        },
    )


def described(differences: tuple[Difference, ...]) -> list[tuple[str, str, str]]:
    """Chain, kind and text of each."""
    return [(difference.chain, difference.kind.value, difference.text) for difference in differences]


def test_equal_rulesets_have_no_difference() -> None:
    """Order of chains, origins and counters mean nothing."""
    one = ruleset(INPUT="-i lo", web="-j DROP")
    other = ruleset(web="-j DROP", INPUT="-i lo")
    assert compare(one, other) == ()
    counted = Chain("INPUT", "DROP", (Rule("-i lo", Origin("a", 1), Counters(1, 2)),))
    other = Ruleset(Family.IPV4, {"filter": Table("filter", {**one.tables["filter"].chains, "INPUT": counted})})
    assert compare(one, other) == ()


def test_missing_and_added_rules() -> None:
    """Each copy of a rule counts; the rest of the chain is silent."""
    assert described(compare(ruleset(INPUT="a;b;b;c"), ruleset(INPUT="b;c;d"))) == [
        ("INPUT", "missing", "a"),
        ("INPUT", "missing", "b"),
        ("INPUT", "added", "d"),
    ]


def test_moved_rules() -> None:
    """The same rules in another order: only those that were moved, not all between them, and none as missing."""
    for wanted, live, moved in (
        ("a;b;c;d", "a;c;b;d", "b"),
        ("a;b;c;d;e", "b;c;d;e;a", "a"),
        ("a;b;c;d;e", "a;d;c;b;e", "bc"),
        ("a;x;b;x;c", "a;x;x;b;c", "b"),
    ):
        assert described(compare(ruleset(INPUT=wanted), ruleset(INPUT=live))) == [
            ("INPUT", "moved", text) for text in moved
        ]
    assert described(compare(ruleset(INPUT="a;b;c"), ruleset(INPUT="new;c;b"))) == [
        ("INPUT", "missing", "a"),
        ("INPUT", "added", "new"),
        ("INPUT", "moved", "b"),
    ]


def test_a_large_chain_that_differs_at_both_ends() -> None:
    """Of ten thousand rules the first and the last changed places: two were moved. The work grows no faster than the
    chain: ten times as many rules take less than twenty times as many steps."""

    def work(count: int) -> int:
        rules = [f"-s 10.0.{number // 250}.{number % 250}" for number in range(count)]
        swapped = [rules[-1], *rules[1:-1], rules[0]]
        wanted, live = ruleset(INPUT=";".join(rules)), ruleset(INPUT=";".join(swapped))
        assert len(compare(wanted, live)) == 2
        return steps(lambda: compare(wanted, live))

    assert work(10_000) < 20 * work(1_000)


def test_policies() -> None:
    """The policy there and the one that is wanted."""
    assert described(compare(ruleset("DROP", INPUT=""), ruleset("ACCEPT", INPUT=""))) == [
        ("INPUT", "policy", "ACCEPT instead of DROP")
    ]


def test_chains_come_and_go_with_their_rules() -> None:
    """A chain that is only here or only there is reported, and so is each rule in it."""
    assert described(compare(ruleset(INPUT="", web="a"), ruleset(INPUT="", old="b"))) == [
        ("web", "chain missing", ""),
        ("web", "missing", "a"),
        ("old", "chain added", ""),
        ("old", "added", "b"),
    ]


def test_a_table_that_is_not_there_accepts_everything() -> None:
    """A kernel that was never asked has no table; its built-in chains differ only where they should not accept."""
    nothing = Ruleset(Family.IPV4, {})
    assert described(compare(ruleset("ACCEPT", INPUT=""), nothing)) == []
    assert described(compare(ruleset("DROP", INPUT="a"), nothing)) == [
        ("INPUT", "policy", "ACCEPT instead of DROP"),
        ("INPUT", "missing", "a"),
    ]


def test_tables_that_are_not_wanted_are_not_looked_at() -> None:
    """What no file names is nobody's business."""
    assert compare(Ruleset(Family.IPV4, {}), ruleset(INPUT="a")) == ()


def test_changes_are_reported_from_before_to_after() -> None:
    """What a write adds is added, with its origin; what it removes is missing."""
    before, after = ruleset(INPUT="a", old=""), ruleset(INPUT="b")
    assert described(changes(before, after)) == [
        ("INPUT", "missing", "a"),
        ("INPUT", "added", "b"),
        ("old", "chain missing", ""),
    ]
    assert described(changes(Ruleset(Family.IPV4, {}), after)) == [
        ("INPUT", "policy", "DROP instead of ACCEPT"),
        ("INPUT", "added", "b"),
    ]


def test_a_difference_prints_as_a_line_of_a_diff() -> None:
    """Sign, family, table, the line as iptables would have it, and whose it is."""
    difference = Difference(Family.IPV6, "nat", "OUTPUT", ChangeKind.MISSING, "-j ACCEPT", Origin("a.rules", 3))
    assert str(difference) == "- ipv6 nat -A OUTPUT -j ACCEPT (a.rules:3)"
    assert str(Difference(Family.IPV4, "filter", "web", ChangeKind.CHAIN_ADDED)) == "+ ipv4 filter -N web"
    assert (
        str(Difference(Family.IPV4, "filter", "INPUT", ChangeKind.POLICY, "x instead of y"))
        == "! ipv4 filter -P INPUT x instead of y"
    )


def test_a_policy_that_no_file_states_is_no_difference() -> None:
    """Whatever the kernel has, and whichever side does not state it."""
    here, there = ruleset(NOT_STATED, INPUT="a"), ruleset("DROP", INPUT="a")
    assert compare(here, there) == compare(there, here) == ()
