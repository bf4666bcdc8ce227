"""The model of all packets against the kernel: random packets through random rules, and the packets of its answers."""

from __future__ import annotations

import random
import time
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.enforce.invariants import check_invariants
from fwguardd.kernel.bed import Beds
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool
from fwguardd.kernel.z3_solver import Solver
from fwguardd.packets.host import Host, Interface, Route, Sysctls
from fwguardd.packets.invariants import InvariantKind
from fwguardd.packets.keys import Accounts
from fwguardd.packets.model import Direction, Journey, Verdict
from fwguardd.packets.tests_file import read_policy_tests
from fwguardd.proof.answers import Counterexample
from fwguardd.proof.concrete import set_of
from fwguardd.proof.fields import NEW, SCTP, TCP, UDP, PacketField
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.intervals import of_numbers, single
from fwguardd.proof.model import Model
from fwguardd.proof.packet_sets import all_packets
from fwguardd.ruleset.model import FAMILIES, Family, RuleFile, Ruleset
from tests.netns.random_rules import HOST as ADDRESSES
from tests.netns.random_rules import random_packets, random_rules
from tests.netns.test_bed import rules
from tests.scale import scaled
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.packets.model import Packet, Undecided
    from fwguardd.packets.policy_results import PolicyOutcome
    from fwguardd.proof.formulas import Formula, Scope
    from fwguardd.proof.traversal import Outcome

RULESETS: Final = scaled(3, 500)
PACKETS: Final = scaled(40, 50)
"""Packets of each family through each ruleset; ``--long`` sends 50,000 in all for each backend."""

ROUTER: Final = Host(
    (
        Interface("lo", "loopback", ("127.0.0.1/8", "::1/128")),
        Interface("eth0", addresses=("192.0.2.1/24", "2001:db8:1::1/64"), forwarding=True),
        Interface("eth1", addresses=("10.1.0.1/24", "2001:db8:2::1/64"), forwarding=True),
    ),
    (
        *(Route(to, dev=dev, scope=253) for to, dev in (("192.0.2.0/24", "eth0"), ("10.1.0.0/24", "eth1"))),
        *(Route(to, dev=dev) for to, dev in (("2001:db8:1::/64", "eth0"), ("2001:db8:2::/64", "eth1"))),
        Route("10.0.0.0/8", "10.1.0.254", "eth1"),
        Route("2001:db8:102::/47", "2001:db8:2::fe", "eth1"),
        Route("0.0.0.0/0", "192.0.2.254", "eth0"),
        Route("::/0", "2001:db8:1::fe", "eth0"),
    ),
    sysctls=Sysctls(ipv6_forwarding=True),
)
"""The host of tests/netns/random_rules.py."""


@pytest.fixture
def pool() -> Iterator[NamespacePool]:
    """Namespaces that are made with privilege."""
    made = NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=1, for_beds=True)
    yield made
    made.close()


def model_of(ruleset: Ruleset) -> Model:
    """The model of a ruleset on the router."""
    return Model.of(ruleset, surroundings(ruleset.family, [ruleset], ROUTER))


def verdict_of(model: Model, packet: Packet) -> Verdict | None:
    """What the model says of a packet; None where that depends on what it does not have."""
    packets = set_of(packet, model.known)
    found = model.outcome(packets, packets.scope(model.known.family))
    decided: tuple[tuple[Verdict, Formula], ...] = (
        (Verdict.ACCEPT, found.accept),
        (Verdict.DROP, found.drop),
        (Verdict.REJECT, found.reject),
    )
    return next((verdict for verdict, formula in decided if formula is True), None)


def test_model_and_kernel_agree_on_every_packet(backend: str, pool: NamespacePool) -> None:
    """For each packet whose verdict does not depend on what is not modelled, the kernel says the same, but for those
    that it does not route."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    counts: Counter[str] = Counter()
    for number in range(RULESETS):
        chance = random.Random(seed + number)
        direction = chance.choice(list(Direction))
        texts = {family: random_rules(chance, family, direction) for family in FAMILIES}
        packets = [packet for family in FAMILIES for packet in random_packets(chance, family, direction, PACKETS)]
        loaded = {family: rules(family, text) for family, text in texts.items()}
        pool.refill()
        with Beds(backend, pool).prove(loaded, ROUTER) as bed:
            journeys = bed.send(packets)
        models = {family: model_of(ruleset) for family, ruleset in loaded.items()}
        for packet, journey in zip(packets, journeys, strict=True):
            verdict = verdict_of(models[packet.family], packet)
            counts[_compared(verdict, journey)] += 1
            assert _compared(verdict, journey) != "differs", (seed + number, packet, verdict, journey, texts)
    print(dict(counts))
    assert counts["agrees"], counts


def _compared(verdict: Verdict | None, journey: Journey | Undecided) -> str:
    if not isinstance(journey, Journey):
        return "undecided in the bed"
    if verdict is None:
        return "free"
    if journey.deciding is None and journey.verdict is not Verdict.ACCEPT:
        return "not routed"
    return {True: "agrees", False: "differs"}[verdict is journey.verdict]


def accepted(outcome: Outcome, _scope: Scope) -> Formula:
    """Whether packets are accepted."""
    return outcome.accept


def dropped(outcome: Outcome, _scope: Scope) -> Formula:
    """Whether packets are dropped."""
    return outcome.drop


def rejected(outcome: Outcome, _scope: Scope) -> Formula:
    """Whether packets are rejected."""
    return outcome.reject


OUTSIDE: Final = {
    Family.IPV4: ((0xCB00_7101, 0xCB00_71FE),),
    Family.IPV6: ((0x2001_0DB8_0113 << 80 | 1, 0x2001_0DB8_0113 << 80 | 99),),
}
"""203.0.113.0/24 and a part of 2001:db8:113::/64."""
INSIDE: Final = {
    Family.IPV4: ((0x0A02_0301, 0x0A02_03FE),),
    Family.IPV6: ((0x2001_0DB8_0103 << 80 | 1, 0x2001_0DB8_0103 << 80 | 99),),
}
"""10.2.3.0/24 and a part of 2001:db8:103::/64."""


def witnesses(model: Model, direction: Direction) -> Iterator[tuple[Packet, Verdict]]:
    """A packet that is accepted, one that is dropped and one that is rejected, as far as there are any, of those that
    the router can have."""
    family = model.known.family
    own = of_numbers(int(ip_address(address)) for address in ADDRESSES[family].values())
    limits = {
        PacketField.STATE: single(NEW),
        PacketField.PROTOCOL: of_numbers((TCP, UDP, SCTP)),
        PacketField.MARK: single(0),
    }
    eth0, eth1 = (model.known.interfaces.matching(name) for name in ("eth0", "eth1"))
    ways = {
        Direction.INBOUND: {PacketField.IN: eth0, PacketField.SOURCE: OUTSIDE[family], PacketField.DESTINATION: own},
        Direction.OUTBOUND: {PacketField.OUT: eth0, PacketField.SOURCE: own, PacketField.DESTINATION: OUTSIDE[family]},
        Direction.FORWARDED: {
            PacketField.IN: eth0, PacketField.OUT: eth1,
            PacketField.SOURCE: OUTSIDE[family], PacketField.DESTINATION: INSIDE[family],
        },
    }  # fmt: skip
    packets = all_packets(model.known, direction).narrowed({**limits, **ways[direction]})
    with Solver(time.monotonic() + LONGEST) as solver:
        for wanted in (accepted, dropped, rejected):
            answer = model.find(packets, wanted, solver)
            if isinstance(answer, Counterexample):
                witness = model.witness(packets, answer.values)
                yield witness.packet, witness.decided.verdict


def random_invariant(chance: random.Random) -> str:
    """An invariant, as a line of YAML."""
    keys: dict[str, str] = {}
    if chance.random() < 0.8:
        keys["proto"] = chance.choice(("tcp", "tcp", "udp", "icmp", "icmpv6", "sctp", "47", "[tcp, udp]"))
    if keys.get("proto") in ("tcp", "udp", "[tcp, udp]"):
        keys[chance.choice(("dport", "to_port"))] = chance.choice(("22", "5432", "1-1024", "[22, 443]"))
    if chance.random() < 0.4:
        keys["from"] = chance.choice(("198.51.100.0/24", "10.0.0.0/8", "'2001:db8:51::/48'"))
    if chance.random() < 0.3:
        keys["not_from"] = chance.choice(("10.0.0.0/8", "[10.0.0.0/8, '2001:db8:102::/47']"))
    if chance.random() < 0.2:
        keys["to"] = chance.choice(("192.0.2.1", "10.1.2.7", "'2001:db8:1::1'"))
    way = chance.random()
    if way < 0.5:
        keys["in"] = chance.choice(("eth0", "eth1", "eth+", "lo"))
    if way > 0.3:
        keys["out"] = chance.choice(("eth0", "eth1", "+"))
    if chance.random() < 0.2:
        keys["state"] = chance.choice(("established", "untracked", "related", "[new, established]"))
    written = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return f"- {chance.choice(tuple(InvariantKind))}: {{{written}}}"


def test_the_kernel_confirms_every_violation_of_random_invariants(backend: str, pool: NamespacePool) -> None:
    """A packet that violates an invariant by the model does so in the kernel, unless the host does not route it."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    accounts = Accounts(dict[str, int]().get, dict[str, int]().get)
    standings: Counter[PolicyOutcome] = Counter()
    for number in range(scaled(2, 200)):
        chance = random.Random(seed + number)
        direction = chance.choice(list(Direction))
        loaded = {family: rules(family, random_rules(chance, family, direction)) for family in FAMILIES}
        text = "\n".join(("tests:", *(random_invariant(chance) for _ in range(10))))
        read = read_policy_tests([RuleFile("a.tests.yaml", text.encode())], accounts)
        assert read.invariants
        pool.refill()
        beds = Beds(backend, pool)
        checked = check_invariants(read.invariants, loaded, ROUTER, beds, undecided_fails=False, seconds=LONGEST)
        for result in checked.results:
            standings[result.standing] += 1
            assert not result.is_defect, (seed + number, result.sentence, text, loaded)
    assert standings


def test_the_packets_of_answers_are_treated_so_by_the_kernel(backend: str, pool: NamespacePool) -> None:
    """A packet that shows that some are accepted, dropped or rejected gets that verdict from the kernel."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    for number in range(scaled(2, 200)):
        chance = random.Random(seed + number)
        direction, family = chance.choice(list(Direction)), chance.choice(FAMILIES)
        ruleset = rules(family, random_rules(chance, family, direction))
        found = list(witnesses(model_of(ruleset), direction))
        pool.refill()
        with Beds(backend, pool).prove({family: ruleset}, ROUTER) as bed:
            journeys = bed.send([packet for packet, _ in found])
        for (packet, verdict), journey in zip(found, journeys, strict=True):
            compared = _compared(verdict, journey)
            assert compared in ("agrees", "not routed"), (seed + number, packet, verdict, journey, ruleset)
