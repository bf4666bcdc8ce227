"""Tables outside of fwguardd that affect packets: which of them do, and how they are described."""

from __future__ import annotations

from fwguardd.ruleset.other_tables import DROP_IS_FINAL, REWRITES, BaseChain, OtherTable, describe, restricting

EMPTY = BaseChain("input", "filter", "input", 0, "accept")
CLOSED = BaseChain("input", "filter", "input", 0, "drop")
BUSY = BaseChain("forward", "filter", "forward", 10, "accept", 3)
NAT = BaseChain("pre", "nat", "prerouting", -100, "accept", 1)


def table(*chains: BaseChain, family: str = "inet", name: str = "filter", backend: str = "nft") -> OtherTable:
    """A table of nf_tables, unless it is said otherwise."""
    return OtherTable(backend, family, name, chains)


def test_what_can_do_nothing_is_nothing_to_tell() -> None:
    """An empty chain that accepts does nothing, and a table that has only such chains is not there for us."""
    assert restricting([table(EMPTY), table(name="sets only")]) == ()
    assert restricting([table(EMPTY, BUSY)]) == (table(BUSY),)
    assert restricting([table(CLOSED)]) == (table(CLOSED),)


def test_the_same_situation_is_the_same_however_many_rules_there_are() -> None:
    """A table in use changes all the time; it is another situation only with another table, chain or policy."""
    more = BaseChain("forward", "filter", "forward", 10, "accept", 300)
    assert restricting([table(BUSY)]) == restricting([table(more)])
    assert restricting([table(BUSY)]) != restricting([table(BUSY, CLOSED)])
    assert restricting([table(BUSY), table(CLOSED, name="a")]) == restricting([table(CLOSED, name="a"), table(BUSY)])


def test_the_sentence_says_who_where_and_what_it_does_to_us() -> None:
    """Each table with its maker and its hooks, and the effect once."""
    docker = table(BUSY, family="ip", name="docker-bridges")
    assert describe((docker,)) == (
        "1 other table sees this host's packets too: table ip docker-bridges of Docker, forward (filter,"
        f" priority 10, policy accept, 3 rules): {DROP_IS_FINAL}"
    )
    assert describe((docker, table(NAT))).endswith(
        f"prerouting (nat, priority -100, policy accept, 1 rule): {DROP_IS_FINAL}; {REWRITES}"
    )
    many = tuple(table(CLOSED, name=f"t{number}") for number in range(9))
    assert "; and 4 more: " in describe(many)


def test_tables_of_legacy_iptables_are_described_by_their_program() -> None:
    """With the command that shows them."""
    closed = BaseChain("FORWARD", "filter", "forward", 0, "drop")
    legacy = table(closed, family="ip6", name="filter", backend="legacy")
    assert str(legacy) == "table filter of ip6tables-legacy, 0 rules and policy DROP for FORWARD"
    assert legacy.command == "ip6tables-legacy -t filter -S"
    assert table(BaseChain("INPUT", "filter", "input", 0, "drop"), family="ip").maker == "iptables-nft"
    assert table(CLOSED, family="ip").maker == "", "somebody has put a chain of his own into a table of that name"
