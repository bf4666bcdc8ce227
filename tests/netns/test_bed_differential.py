"""Random packets through random rules: a bed says what a host does where the same rules are loaded for real."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.bed import Beds
from fwguardd.kernel.host_network import read_host
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool
from fwguardd.packets.frames import is_icmp_error
from fwguardd.packets.model import ConnectionState, Direction, Journey, Packet, Verdict
from fwguardd.ruleset.model import FAMILIES, Family
from tests.netns.namespaces import fresh_namespace
from tests.netns.random_rules import random_packets, random_rules
from tests.netns.real_host import RealHost
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.packets.model import Undecided
    from fwguardd.ruleset.model import Ruleset

RULESETS: Final = scaled(3, 200)
PACKETS: Final = scaled(60, 100)
"""Packets of each family through each ruleset; ``--long`` sends 40,000 in all for each backend."""

Path = tuple[str, str, int | None]


def test_a_bed_says_what_a_real_host_does(backend: str) -> None:
    """The verdict on each packet is what the peer of a real host sees, and the rules that were met are those whose
    counters the packets moved there."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with contextlib.closing(NamespacePool(lambda: NamespaceMethod.PRIVILEGED)) as pool:
        for number in range(RULESETS):
            chance = random.Random(seed + number)
            direction = chance.choice(list(Direction))
            with fresh_namespace(), RealHost(backend) as host:
                pool.refill()
                if direction is Direction.OUTBOUND:
                    host.send_nothing_else()
                texts = {family: random_rules(chance, family, direction) for family in FAMILIES}
                packets = [
                    packet for family in FAMILIES for packet in random_packets(chance, family, direction, PACKETS)
                ]
                packets = [_without_connection(packet, texts) for packet in packets]
                loaded = {family: host.load(family, text) for family, text in texts.items()}
                with Beds(backend, pool).prove(loaded, read_host()) as bed:
                    journeys = bed.send(packets)
                real = host.send(packets)
                context = (seed + number, texts)
                _compare_verdicts(packets, journeys, real, context)
                counted = {family: host.counted(family) for family in FAMILIES}
                _compare_counters(journeys, counted, direction, context)


def _without_connection(packet: Packet, texts: dict[Family, str]) -> Packet:
    """A new packet in place of an established one where rules have NAT: the real host would have to accept its first
    packet to know the translation."""
    if packet.state is ConnectionState.ESTABLISHED and "*nat" in texts[packet.family]:
        return replace(packet, state=ConnectionState.NEW)
    return packet


def _compare_verdicts(
    packets: Sequence[Packet], journeys: Sequence[Journey | Undecided], real: Sequence[Verdict], context: object
) -> None:
    for packet, journey, verdict in zip(packets, journeys, real, strict=True):
        assert isinstance(journey, Journey), (journey, context)
        seen = journey.verdict
        if seen is Verdict.REJECT and _is_not_answered(packet):
            seen = Verdict.DROP
        assert seen is verdict, (packet, journey, verdict, context)


def _is_not_answered(packet: Packet) -> bool:
    """Whether the peer sees no answer where a packet is rejected: the host's own, and errors, which have no errors."""
    return packet.direction is Direction.OUTBOUND or is_icmp_error(packet)


def _compare_counters(
    journeys: Sequence[Journey | Undecided], counted: dict[Family, Ruleset], direction: Direction, context: object
) -> None:
    for family, ruleset in counted.items():
        expected: Counter[Path] = Counter()
        for journey in journeys:
            assert isinstance(journey, Journey)
            if journey.packet.family is family:
                expected.update((step.table, step.chain, step.position) for step in journey.steps)
        for place, packets in _moved(ruleset).items():
            if not _of_answers(place, direction):
                assert expected[place] == packets, (family, place, expected[place], packets, context)


def _of_answers(place: Path, direction: Direction) -> bool:
    """Whether the host's own answers traverse this chain too."""
    _, chain, position = place
    return (direction is not Direction.OUTBOUND and chain in ("OUTPUT", "POSTROUTING")) or position is None


def _moved(ruleset: Ruleset) -> Counter[Path]:
    found: Counter[Path] = Counter()
    for table, chain in ruleset.chains():
        for position, rule in enumerate(chain.rules, 1):
            found[table.name, chain.name, position] = rule.counters.packets
    return found
