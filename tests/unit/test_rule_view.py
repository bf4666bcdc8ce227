"""The view of a rule's text: its options, values and negations, and where it jumps to."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.rule_view import Match, Option, RuleView, jump_target

SAVED = (
    '-s 10.0.0.0/8 ! -i lo -p tcp -m tcp --dport 22 -m comment --comment "not -j here" -j LOG --log-prefix "in: " '
    "--log-level 4"
)


def options(text: str) -> list[tuple[str, tuple[str, ...], bool]]:
    """The options of a text as plain tuples."""
    return [(option.name, option.values, option.negated) for option in RuleView.of(text).options]


def test_what_iptables_save_prints_is_read() -> None:
    """Options of iptables, matches with their options, the target with its options, and the text as it was."""
    view = RuleView.of(SAVED)
    assert view.text == SAVED
    assert view.core_options == (
        Option("-s", ("10.0.0.0/8",)),
        Option("-i", ("lo",), negated=True),
        Option("-p", ("tcp",)),
    )
    assert view.matches == (
        Match("tcp", (Option("--dport", ("22",)),)),
        Match("comment", (Option("--comment", ("not -j here",)),)),
    )
    assert (view.target, view.is_goto, view.jump_target) == ("LOG", False, "LOG")
    assert view.target_options == (Option("--log-prefix", ("in: ",)), Option("--log-level", ("4",)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("--source 10/8", [("-s", ("10/8",), False)]),
        ("--src=10/8", [("-s", ("10/8",), False)]),
        (
            "--proto tcp --dst a --out-int eth0",
            [("-p", ("tcp",), False), ("-d", ("a",), False), ("-o", ("eth0",), False)],
        ),
        ("-s10/8 -jDROP", [("-s", ("10/8",), False), ("-j", ("DROP",), False)]),
        ("--destination-port 22 --source-ports 1,2", [("--dport", ("22",), False), ("--sports", ("1,2",), False)]),
        ("! --syn ! -f", [("--syn", (), True), ("-f", (), True)]),
        ("-s ! 10/8 --dport ! 22", [("-s", ("10/8",), True), ("--dport", ("22",), True)]),
        ("--tcp-flags SYN,ACK SYN", [("--tcp-flags", ("SYN,ACK", "SYN"), False)]),
        ("! --match-set=a src", [("--match-set", ("a", "src"), True)]),
        ('--comment "-j" --comment -j --comment !', [("--comment", (value,), False) for value in ("-j", "-j", "!")]),
        ('--comm "a b" --log-p ""', [("--comment", ("a b",), False), ("--log-prefix", ("",), False)]),
        ("-m policy --proto esp", [("-m", ("policy",), False), ("--proto", ("esp",), False)]),
        ("-m recent --set --name x", [("-m", ("recent",), False), ("--set", (), False), ("--name", ("x",), False)]),
        ("a b -p", [("", ("a", "b"), False), ("-p", (), False)]),
        ("!", [("", ("!",), False)]),
        ("", []),
    ],
)
def test_what_people_write_is_read(text: str, wanted: list[tuple[str, tuple[str, ...], bool]]) -> None:
    """Long, short, cut and attached forms have one name, and a negation stands before an option or its value."""
    assert options(text) == wanted


def test_the_first_option_of_a_name_answers() -> None:
    """A name is asked for as iptables-save prints it; an option that is not there has no value."""
    view = RuleView.of("-m limit --limit 5/min --source-port 1 --sport 2 --syn")
    assert (view.value("--sport"), view.value("--syn"), view.value("--dport")) == ("1", "", None)
    assert view.option("--sport") == Option("--sport", ("1",))
    assert (view.has("--syn"), view.has("--dport"), view.has("--source-port")) == (True, False, False)
    assert (view.uses("limit"), view.uses("hashlimit")) == (True, False)


def test_the_match_that_a_protocol_loads_has_its_name() -> None:
    """Behind -p stand the options of the protocol's match, also without -m and behind the target."""
    view = RuleView.of("-j DNAT --to-destination a -p udp -i lo --dport 53")
    assert view.matches == (Match("udp", (Option("--dport", ("53",)),)),)
    assert view.target_options == (Option("--to-destination", ("a",)),)


def test_an_open_quote_leaves_nothing_known() -> None:
    """What stands behind a quote that is never closed may be part of the quoted text."""
    view = RuleView.of('-p tcp --comment "open -j web')
    assert (view.options, view.target, view.matches, view.target_options) == ((), None, (), ())


def test_a_goto_is_known_from_a_jump() -> None:
    """Both lead to the chain."""
    assert [(view.target, view.is_goto) for view in map(RuleView.of, ("-g web", "--goto=web", "-j web", "-p tcp"))] == [
        ("web", True),
        ("web", True),
        ("web", False),
        (None, False),
    ]


@pytest.mark.parametrize(
    ("rule", "target"),
    [
        ("-p tcp -j web", "web"),
        ("-g web", "web"),
        ("--jump web -p tcp", "web"),
        ("--jump=web", "web"),
        ("-jweb", "web"),
        ("-j\tweb", "web"),
        ("-p tcp  -j  web", "web"),
        ("--syn -j web", "web"),
        ('-j "web"', "web"),
        ("-j LOG --log-prefix x", "LOG"),
        ("-j ACCEPT", None),
        ("-j RETURN", None),
        ("-j", None),
        ("-p tcp", None),
        ("", None),
        ('-m comment --comment "to -j nowhere" -j web', "web"),
        ('-m comment --comment "-j" -j web', "web"),
        ("-m comment --comment -j -j web", "web"),
        ('-m comment --comment "open -j web', None),
        ("-i x-j -j web", "web"),
    ],
)
def test_the_target_of_a_jump(rule: str, target: str | None) -> None:
    """The chain or extension behind -j or -g; none for ACCEPT and its like. What a comment says does not count."""
    assert jump_target(rule) == target
    assert RuleView.of(rule).jump_target == target
