"""Tables outside of fwguardd that affect packets: which of them do, and how they are described."""

from __future__ import annotations

from fwguardd.ruleset.other_tables import DROP_IS_FINAL, REWRITES, BaseChain, OtherTable, describe, restricting

EMPTY = BaseChain("input", "filter", "input", 0, "accept")
CLOSED = BaseChain("input", "filter", "input", 0, "drop")
BUSY = BaseChain("forward", "filter", "forward", 10, "accept", 3)
NAT = BaseChain("pre", "nat", "prerouting", -100, "accept", 1)


def table(*chains: BaseChain, family: str = "inet", name: str = "filter", backend: str = "nft") -> OtherTable:
    """A table of nf_tables, unless ``backend`` names the other one."""
    return OtherTable(backend, family, name, chains)


def test_tables_without_effect_are_left_out() -> None:
    """An empty chain that accepts has no effect, and a table that has only such chains is left out."""
    assert restricting([table(EMPTY), table(name="sets only")]) == ()
    assert restricting([table(EMPTY, BUSY)]) == (table(BUSY),)
    assert restricting([table(CLOSED)]) == (table(CLOSED),)


def test_the_number_of_rules_makes_no_difference() -> None:
    """A table in use changes all the time; only another table, chain or policy is a difference."""
    more = BaseChain("forward", "filter", "forward", 10, "accept", 300)
    assert restricting([table(BUSY)]) == restricting([table(more)])
    assert restricting([table(BUSY)]) != restricting([table(BUSY, CLOSED)])
    assert restricting([table(BUSY), table(CLOSED, name="a")]) == restricting([table(CLOSED, name="a"), table(BUSY)])


def test_the_sentence_names_tables_hooks_and_effects() -> None:
    """Each table with the program that makes it and its hooks, and each effect once."""
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
    """The command that prints them is that of the program too."""
    closed = BaseChain("FORWARD", "filter", "forward", 0, "drop")
    legacy = table(closed, family="ip6", name="filter", backend="legacy")
    assert str(legacy) == "table filter of ip6tables-legacy, 0 rules and policy DROP for FORWARD"
    assert legacy.command == "ip6tables-legacy -t filter -S"
    assert table(BaseChain("INPUT", "filter", "input", 0, "drop"), family="ip").maker == "iptables-nft"
    assert table(CLOSED, family="ip").maker == "", "somebody has put a chain of his own into a table of that name"
