"""How soon a bed is ready, and how many packets it sends through how many rules."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.bed import Beds
from fwguardd.kernel.bed_network import BedNetwork
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool
from fwguardd.packets.host import Host, Interface, Route
from fwguardd.packets.model import Journey, Packet, Verdict
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table
from tests.bench.conftest import MEASURING
from tests.netns.namespaces import fresh_namespace

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.conftest import Recorder

    Rounds = Callable[[int], int]

INTERFACES = 10
HOST = Host(
    tuple(Interface(f"eth{number}", addresses=(f"192.0.{number}.1/24",)) for number in range(INTERFACES)),
    (
        *(Route(f"192.0.{number}.0/24", dev=f"eth{number}", scope=253) for number in range(INTERFACES)),
        Route("0.0.0.0/0", "192.0.0.254", "eth0"),
    ),
)


def _rules(count: int) -> Ruleset:
    """A ruleset that accepts another port from another network with each rule."""
    rules = [
        Rule(f"-s {_network(number)}0/24 -p tcp -m tcp --dport {1000 + number} -j ACCEPT") for number in range(count)
    ]
    return Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": Chain("INPUT", "DROP", tuple(rules))})})


def _network(number: int) -> str:
    return f"10.{number // 250}.{number % 250}."


def _packets(count: int) -> list[Packet]:
    """A packet for each rule, which the rule accepts."""
    destination = ip_address("192.0.0.1")
    packets: list[Packet] = []
    for number in range(count):
        source = ip_address(f"{_network(number)}9")
        packets.append(Packet(Family.IPV4, "tcp", source, destination, 40000, 1000 + number, "eth0"))
    return packets


def test_the_network_of_a_bed(record: Recorder, rounds: Rounds) -> None:
    """Rebuilding ten interfaces with their addresses and routes by netlink."""
    taken: list[float] = []
    for _ in range(rounds(20)):
        with fresh_namespace():
            start = time.perf_counter()
            network = BedNetwork(HOST)
            taken.append((time.perf_counter() - start) * 1000)
            assert network.left_out == []
            network.close()
    record("network of a bed, 10 interfaces", "ms", taken)


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_packets_through_rules(backend: str, count: int, record: Recorder, rounds: Rounds) -> None:
    """As many packets as rules, each accepted by another rule; and how soon the bed with the rules is ready."""
    if not MEASURING:
        count //= 20
    rules, packets = _rules(count), _packets(count)
    ready: list[float] = []
    sent: list[float] = []
    pool = NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=1)
    for _ in range(rounds(3)):
        pool.refill()
        if MEASURING:
            time.sleep(1)  # A daemon has its namespaces ready.
        start = time.perf_counter()
        with Beds(backend, pool).prove({Family.IPV4: rules}, HOST) as bed:
            ready.append((time.perf_counter() - start) * 1000)
            start = time.perf_counter()
            journeys = bed.send(packets)
            sent.append(time.perf_counter() - start)
        assert all(isinstance(one, Journey) and one.verdict is Verdict.ACCEPT for one in journeys)
    pool.close()
    record(f"bed with {count:,} rules, {backend}", "ms", ready)
    record(f"{count:,} packets through {count:,} rules, {backend}", "s", sent)
