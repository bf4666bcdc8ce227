"""Rules of one kind: reading one of them for all gives the same conditions and answers as reading each by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ruleset.conditions import read_conditions
from fwguardd.ruleset.model import Rule
from fwguardd.ruleset.read_rules import ReadRule, RuleReader
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.sample_packets import Certainty, SamplePacket, matches, meets

ADDRESSES = ("10.0.0.1", "10.0.0.1/32", "10.0.0.0/8", "127.0.0.1", "0177.0.0.1", "126.0.0.0/7", "0.0.0.0/0", "::1")
MORE_ADDRESSES = ("2001:db8::1", "2001:db8::/32", "::/0", "0::1", "10.0.0.1,10.0.0.2", "example.org", "1.2.3")
PORTS = ("22", "21", "20", "022", "ssh", "1024:65535", "0:65535", "22,80", "8080", "1:")
TEXTS = ("a", '"a b"', '"-s 1.2.3.4"', "-s", '"--dport 22 -j DROP"', r'"b\"c"', "1.2.3.4", '""')
PARTS = st.one_of(
    st.builds("{} {}".format, st.sampled_from(["-s", "! -s", "-d", "! -d"]), st.sampled_from(ADDRESSES)),
    st.builds("{} {}".format, st.sampled_from(["-s", "-d", "--source"]), st.sampled_from(MORE_ADDRESSES)),
    st.builds("{} {}".format, st.sampled_from(["--dport", "! --dport", "--sport"]), st.sampled_from(PORTS)),
    st.builds("-m comment --comment {}".format, st.sampled_from(TEXTS)),
    st.builds("-j LOG --log-prefix {}".format, st.sampled_from(TEXTS)),
    st.sampled_from(["-p tcp", "-i lo", "-m limit", "-m conntrack --ctstate NEW", "-j DROP", "-m recent --set"]),
)
RULES = st.lists(st.lists(PARTS, max_size=5).map(" ".join), min_size=2, max_size=12)
PACKETS = (SamplePacket("tcp"), SamplePacket("tcp", "ESTABLISHED"), SamplePacket("udp", is_loopback=True))


def _read(texts: list[str]) -> list[ReadRule]:
    reader = RuleReader()
    return [reader.read(Rule(text)) for text in texts]


@given(RULES)
def test_the_conditions_are_those_of_the_text(texts: list[str]) -> None:
    """Target and conditions of a rule are those of its own text, whatever rules were read before it."""
    for rule in _read(texts):
        view = RuleView.of(rule.rule.text)
        assert rule.conditions == read_conditions(view)
        assert (rule.target, rule.kind.is_goto) == (view.target or "", view.is_goto)


@given(RULES)
def test_a_value_is_that_of_the_first_condition(texts: list[str]) -> None:
    """The value of a name is that of the first condition of this name which is not negated."""
    for rule in _read(texts):
        for name in ("-s", "-d", "--dport", "--sport", "-p", "-i", "--ctstate"):
            wanted = [one.value for one in rule.conditions if one.name == name and not one.negated]
            assert rule.value(name) == next(iter(wanted), None)


@given(RULES)
def test_all_rules_of_a_kind_match_the_same_packets(texts: list[str]) -> None:
    """A sample packet gets the answer of the kind from each single rule."""
    for rule in _read(texts):
        for packet in PACKETS:
            answers = [meets(condition, packet) for condition in rule.conditions]
            assert matches(rule.kind, packet) == min(answers, default=Certainty.ALWAYS)
