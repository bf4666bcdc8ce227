"""How many log lines a limit has suppressed: known only where a counter says how many packets reached the rule."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.log_limits import LimitedRule, SuppressionCount, limited_rules, origins_by_text
from fwguardd.ruleset.model import Chain, Counters, Family, Origin, Rule, Ruleset, Table

LOG = '-m limit --limit 5/min -j LOG --log-prefix "x: "'


def ruleset(*rules: tuple[str, int], policy: str | None = "DROP", packets: int = 0) -> dict[Family, Ruleset]:
    """One chain with rules and their packet counters."""
    made = tuple(Rule(text, Origin("a.rules", line), Counters(count, 0)) for line, (text, count) in enumerate(rules, 1))
    chain = Chain("INPUT" if policy else "web", policy, made, counters=Counters(packets, 0))
    return {Family.IPV4: Ruleset(Family.IPV4, {"filter": Table("filter", {chain.name: chain})})}


def known(*rules: tuple[str, int], policy: str | None = "DROP", packets: int = 0) -> list[tuple[int, int]]:
    """Packets that reached each rule of which that is known, and those that it logged."""
    found = limited_rules(ruleset(*rules, policy=policy, packets=packets))
    return [(rule.reached, rule.logged) for rule in found]


def test_the_policy_counts_what_reached_the_last_rule() -> None:
    """A LOG rule without other matches at the end of a built-in chain: whatever reaches it meets the policy."""
    assert known(("-i lo -j ACCEPT", 9), (LOG, 5), packets=401) == [(401, 5)]
    assert known((LOG.replace("-m limit --limit", "-m hashlimit --hashlimit-upto"), 5), packets=401) == [(401, 5)]


@pytest.mark.parametrize("matches", ["", "-p tcp ", "-i eth0 -p tcp -m tcp --dport 22 ", "-m conntrack --ctstate NEW "])
@pytest.mark.parametrize("policy", ["DROP", None])
def test_the_next_rule_counts_what_reached_it(matches: str, policy: str | None) -> None:
    """A next rule with the same matches and without a limit meets every packet that the LOG rule met."""
    assert known((f"{matches}{LOG}", 5), (f"{matches}-j DROP", 401), policy=policy) == [(401, 5)]
    commented = f"{matches}-m comment --comment hello -j DROP"
    assert known((f"{matches}{LOG}", 5), (commented, 401), policy=policy) == [(401, 5)]


@pytest.mark.parametrize(
    ("rules", "policy"),
    [
        ([(f"-p tcp {LOG}", 5)], "DROP"),
        ([(LOG, 5)], None),
        ([("-s 192.0.2.1/32 -j RETURN", 1), (LOG, 5)], "DROP"),
        ([("-s 192.0.2.1/32 -g web", 1), (LOG, 5)], "DROP"),
        ([(f"-p tcp {LOG}", 5), ("-p udp -j DROP", 9)], "DROP"),
        ([(LOG, 5), ("-m limit --limit 1/sec -j DROP", 9)], "DROP"),
        ([(LOG, 5), ("-i lo -j ACCEPT", 9)], "DROP"),
        ([('-j LOG --log-prefix "x: "', 5)], "DROP"),
        ([("-m limit --limit 5/min -j ACCEPT", 5)], "DROP"),
    ],
)
def test_elsewhere_nothing_is_computed(rules: list[tuple[str, int]], policy: str | None) -> None:
    """Where some packets pass the LOG rule by, or the next rule meets others, the number is not known."""
    assert known(*rules, policy=policy, packets=401) == []


def test_reports_say_what_came_since_the_last_one() -> None:
    """The first reading only begins to count, as does one whose counters were set back; reports keep their distance."""
    count = SuppressionCount(50.0)
    origins = origins_by_text(ruleset((LOG, 0)))

    def update(reached: int, logged: int, now: float) -> list[tuple[int, int]]:
        rules = [LimitedRule("ipv4", "filter", "INPUT", LOG, "x: ", reached, logged, "the policy of INPUT")]
        return [(found.count, found.reached) for found in count.update(rules, origins, now)]

    assert update(100, 5, 0.0) == []
    assert update(300, 9, 10.0) == []
    assert update(501, 10, 60.0) == [(396, 401)]
    assert update(501, 10, 120.0) == []
    assert update(20, 1, 180.0) == []
    assert update(30, 11, 240.0) == []
    assert update(31, 11, 300.0) == [(1, 1)]


def test_the_message_says_how_the_number_is_known() -> None:
    """The message names the rule, both numbers, and the counter."""
    count = SuppressionCount(0.0)
    origins = origins_by_text(ruleset((LOG, 0)))
    count.update(limited_rules(ruleset((LOG, 0))), origins, 0.0)
    (found,) = count.update(limited_rules(ruleset((LOG, 0), packets=401)), origins, 60.0)
    assert found.sentence == (
        "the limit of a rule with the prefix 'x: ' has suppressed 401 lines within 60 s (a.rules:1, ipv4 filter INPUT)"
        ": 401 packets by the counter of the policy of INPUT, 0 of them logged"
    )
