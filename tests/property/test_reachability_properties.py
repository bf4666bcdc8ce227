"""The way of a packet through chains: what is found without a kernel is what a plain simulation of the kernel does."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ruleset.model import Chain, Rule, Table
from fwguardd.ruleset.reachability import is_final, may_accept, rules_reached, usual_end
from fwguardd.ruleset.read_rules import ReadChains, RuleReader
from fwguardd.ruleset.sample_packets import SamplePacket

NAMES = ("INPUT", "A", "B", "C")
# Each of these either matches all new TCP packets or none of them.
CONDITIONS = ("", "-p tcp", "-p udp", "! -i lo", "-i lo", "-m conntrack --ctstate NEW", "-m state ! --state NEW")
MATCHING = {"", "-p tcp", "! -i lo", "-m conntrack --ctstate NEW"}
TARGETS = ("-j ACCEPT", "-j DROP", "-j REJECT", "-j RETURN", "-j LOG", "", "-j A", "-j B", "-j C", "-g B", "-g C")
PACKET = SamplePacket("tcp")


@dataclass(frozen=True)
class Written:
    """A rule of the test: its condition and its target."""

    condition: str
    target: str

    @property
    def text(self) -> str:
        """The text of the rule."""
        return " ".join(part for part in (self.condition, self.target) if part)


def _leads_on(chain: str, target: str) -> bool:
    """Whether a jump goes to a later chain, so that there are no loops."""
    return target[-1:] not in NAMES or NAMES.index(target[-1]) > NAMES.index(chain)


@st.composite
def _written_chains(draw: st.DrawFn) -> dict[str, list[Written]]:
    rule = st.builds(Written, st.sampled_from(CONDITIONS), st.sampled_from(TARGETS))
    chains: dict[str, list[Written]] = {}
    for name in NAMES:
        drawn = draw(st.lists(rule, max_size=5))
        chains[name] = [one for one in drawn if _leads_on(name, one.target)]
    return chains


def _read(written: dict[str, list[Written]], policy: str = "ACCEPT") -> tuple[ReadChains, Chain]:
    chains: dict[str, Chain] = {}
    for name, rules in written.items():
        chains[name] = Chain(name, policy if name == "INPUT" else None, tuple(Rule(rule.text) for rule in rules))
    return RuleReader().read_chains(Table("filter", chains)), chains["INPUT"]


def _simulated(written: dict[str, list[Written]], name: str) -> str:
    """ACCEPT or DROP where a rule decides about a new TCP packet; empty where it returns from the chain."""
    for rule in written[name]:
        if rule.condition not in MATCHING or rule.target in ("", "-j LOG"):
            continue
        if rule.target == "-j RETURN":
            return ""
        if rule.target[-1] in NAMES:
            result = _simulated(written, rule.target[-1])
            if result or rule.target.startswith("-g"):
                return result
        else:
            return {"-j ACCEPT": "ACCEPT"}.get(rule.target, "DROP")
    return ""


@given(_written_chains())
def test_the_usual_end_is_that_of_the_kernel(written: dict[str, list[Written]]) -> None:
    """Where every rule matches all or no packets of a kind, there is one way, and it is found."""
    chains, _ = _read(written)
    end = usual_end(chains, "INPUT", PACKET)
    assert (end.result if end else "") == _simulated(written, "INPUT")


@given(_written_chains(), st.sampled_from(["ACCEPT", "DROP"]))
def test_a_packet_may_be_accepted_if_it_is(written: dict[str, list[Written]], policy: str) -> None:
    """With one way, what may be accepted is what is accepted; the policy decides where no rule does."""
    chains, start = _read(written, policy)
    assert may_accept(chains, start, PACKET) is ((_simulated(written, "INPUT") or policy) == "ACCEPT")


@given(_written_chains())
def test_the_rule_that_decides_is_reached(written: dict[str, list[Written]]) -> None:
    """The rules that packets can get to contain the one at which the way ends."""
    chains, _ = _read(written)
    end = usual_end(chains, "INPUT", PACKET)
    assert end is None or end.rule in list(rules_reached(chains, "INPUT"))


@given(_written_chains())
def test_a_final_rule_lets_no_packet_go_on(written: dict[str, list[Written]]) -> None:
    """A jump is final only if the simulation decides in the chain about the packets of each kind."""
    chains, _ = _read(written)
    for rule in chains["INPUT"]:
        if rule.target in chains and is_final(chains, rule, {}):
            assert _simulated(written, rule.target) != ""
