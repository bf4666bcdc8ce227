"""Which rule makes which log line."""

from __future__ import annotations

from types import MappingProxyType

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.families import families_of_name
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.references import LoggingRule, logging_rules, origins_by_prefix, origins_by_way, rules_not_read


def rules_of(**files: str) -> tuple[LoggingRule, ...]:
    """The logging rules of rule files with these texts."""
    readings = [
        read_rules(f"{name}.rules", text.encode(), families_of_name(f"{name}.rules")) for name, text in files.items()
    ]
    composition = compose(readings)
    assert composition.candidate is not None
    return logging_rules(composition.candidate.rulesets)


def named(**files: str) -> dict[tuple[str, str], str]:
    """The places of the one rule with each prefix."""
    return {key: str(origin) for key, origin in origins_by_prefix(rules_of(**files)).items()}


def test_the_one_rule_with_a_prefix_is_named() -> None:
    """A prefix that one rule of a family has leads to the line where that rule was written, for LOG and NFLOG."""
    assert named(
        a='# first\n-A INPUT -j LOG --log-prefix "in: "\n-4 -A FORWARD -j LOG --log-level 7 --log-prefix fw:\n',
        b='-A OUTPUT -j NFLOG --nflog-group 3 --nflog-prefix "out \\"quoted\\": "\n',
    ) == {
        ("ipv4", "in: "): "a.rules:2",
        ("ipv6", "in: "): "a.rules:2",
        ("ipv4", "fw:"): "a.rules:3",
        ("ipv4", 'out "quoted": '): "b.rules:1",
        ("ipv6", 'out "quoted": '): "b.rules:1",
    }


def test_a_prefix_that_two_rules_share_names_none() -> None:
    """Where two rules have the same prefix it is not known which of them made a line; a family stands for itself."""
    assert named(a='-A INPUT -j LOG --log-prefix "in: "\n-6 -A FORWARD -j LOG --log-prefix "in: "\n') == {
        ("ipv4", "in: "): "a.rules:1"
    }


def test_other_rules_log_nothing() -> None:
    """What only looks like a log rule is none."""
    assert named(a='-A INPUT -m comment --comment "-j LOG --log-prefix x" -j ACCEPT\n-A INPUT -j LOG\n') == {}


def test_the_mapping_cannot_be_changed() -> None:
    """Two roads share it, so nobody may write to it."""
    assert isinstance(origins_by_prefix(()), MappingProxyType)


def ways(**files: str) -> dict[tuple[str, str, str], str]:
    """The places of the one rule for each prefix and way."""
    return {key: str(origin) for key, origin in origins_by_way(rules_of(**files)).items() if key[0] == "ipv4"}


def test_rules_that_share_a_prefix_are_known_by_the_way_of_the_packet() -> None:
    """A rule in INPUT logs packets that came in, one in FORWARD those that came in and go out. A rule in a chain of the
    user may log all, so there it is not known which of two rules it was."""
    text = '-A INPUT -j LOG --log-prefix "x: "\n-A FORWARD -j LOG --log-prefix "x: "\n'
    assert ways(a=text) == {("ipv4", "x: ", "in"): "a.rules:1", ("ipv4", "x: ", "forward"): "a.rules:2"}
    assert ways(a=f'{text}-N web\n-A web -j LOG --log-prefix "x: "\n') == {("ipv4", "x: ", "out"): "a.rules:4"}


BOTH_WAYS = '-A INPUT -j LOG --log-prefix "in: "\n-A INPUT -j NFLOG --nflog-group 5 --nflog-prefix "in: "\n'


def test_a_rule_that_logs_elsewhere_is_unheard() -> None:
    """Who reads the kernel log hears no NFLOG rule, and who reads a group hears neither LOG nor another group."""
    rules = rules_of(
        a='-4 -A INPUT -j LOG --log-prefix "in: "\n',
        b='-4 -A OUTPUT -j NFLOG --nflog-group 5 --nflog-prefix "out: "\n',
        c='-4 -A OUTPUT -j NFLOG --nflog-prefix "zero: "\n',
    )
    assert [str(rule) for rule in rules_not_read(rules, None, ["in: ", "out: ", "zero: "])] == [
        "b.rules:1 (NFLOG to group 5)",
        "c.rules:1 (NFLOG to group 0)",
    ]
    assert [str(rule) for rule in rules_not_read(rules, 5, ["in: ", "out: "])] == ["a.rules:1 (LOG)"]


def test_a_prefix_that_is_heard_or_not_watched_is_nobodys_trouble() -> None:
    """Who logs under one prefix in both ways is heard; what nobody watches is meant for somebody else."""
    assert rules_not_read(rules_of(a=BOTH_WAYS), None, ["in: "]) == ()
    assert rules_not_read(rules_of(a=BOTH_WAYS), 5, ["in: "]) == ()
    assert rules_not_read(rules_of(a=BOTH_WAYS), 7, ["else: "]) == ()
