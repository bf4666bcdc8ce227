"""A bed whose kernel reports no trace: counters and a log of the hooks say what a trace says, or that they do not."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel import namespaces
from fwguardd.kernel.bed import Beds
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool
from fwguardd.packets.model import Direction, Undecided
from fwguardd.packets.traces import NOT_CERTAIN
from fwguardd.ruleset.model import FAMILIES, Family
from tests.netns import test_bed as traced
from tests.netns.random_rules import random_packets, random_rules
from tests.netns.test_bed import ROUTER, packet, rules, sent
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fwguardd.packets.model import Journey, Packet
    from fwguardd.ruleset.model import Ruleset

TRACED = (
    traced.test_the_host_routes,
    traced.test_nat_changes_a_packet_and_its_connection,
    traced.test_states_owners_and_marks,
    traced.test_fragments_are_what_the_kernel_makes_of_them,
)
RULESETS = scaled(3, 100)
PACKETS = scaled(12, 40)
NO_TRACE = (
    "read, wait = bed_worker.NftTraces.read, bed_worker.BedWorker._read_up_to_barrier; "
    "bed_worker.NftTraces.read = lambda self: read(self)[:0]; bed_worker.BedWorker._read_up_to_barrier = lambda self, "
    "sent, within: wait(self, sent, 0.05 if isinstance(self._hooks, bed_worker.NftTraces) else within)"
)
NO_LEGACY_TRACE = "bed_worker.LegacyTraces.read = lambda self: []"
SILENT = {"nft": NO_TRACE, "legacy": NO_LEGACY_TRACE, "both": f"{NO_TRACE}; {NO_LEGACY_TRACE}"}
"""What makes a worker hear no trace: that of nf_tables, for which it does not wait long then, that of legacy iptables,
or both."""


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Workers that are started now hear no trace of the rules."""
    _silence(monkeypatch, SILENT[backend])


def _silence(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    start, _, run = namespaces._WORKER.partition("; from")
    lines = f"{start}; from fwguardd.kernel import bed_worker; {code}; from{run}"
    monkeypatch.setattr(namespaces, "_WORKER", lines)


def journeys(backend: str, rulesets: dict[Family, Ruleset], packets: Sequence[Packet]) -> list[Journey | Undecided]:
    """What becomes of packets in a new bed."""
    pool = NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=0)
    with contextlib.closing(pool), Beds(backend, pool).prove(rulesets, ROUTER) as bed:
        return bed.send(packets)


def shown(journey: Journey | Undecided) -> object:
    """What counters show of a journey: its verdict, where it was routed, and its rules with what they did."""
    if isinstance(journey, Undecided):
        return "undecided"
    met = [(step.table, step.chain, step.position, step.outcome) for step in journey.steps if step.position]
    return journey.verdict, journey.routed, met


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("test", TRACED, ids=lambda test: test.__name__)
@pytest.mark.either_backend
def test_counters_show_what_a_trace_shows(test: Callable[[NamespacePool, str], None], backend: str) -> None:
    """Routing, NAT with connections that have begun, states, owners, marks and rejects: what holds with a trace holds
    without one."""
    with contextlib.closing(NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=0)) as pool:
        test(pool, backend)


TWICE = """*mangle
:PREROUTING ACCEPT
:FORWARD ACCEPT
:both -
-A PREROUTING -j both
-A FORWARD -j both
-A both -i eth0 -j MARK --set-xmark 0x1/0xffffffff
-A both -o eth1 -j RETURN
COMMIT
"""


@pytest.mark.usefixtures("silent")
def test_what_counters_do_not_say_is_undecided(backend: str) -> None:
    """A chain that a packet comes to twice, and of which a rule matched once only."""
    forwarded = packet("198.51.100.7", "10.0.0.9", 80, "eth0", "eth1")
    with contextlib.closing(NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=0)) as pool:
        (found,) = sent(pool, backend, TWICE, [forwarded])
        assert found == f"undecided: {NOT_CERTAIN}"
        (found,) = sent(pool, backend, TWICE.replace("-A both -o eth1 -j RETURN\n", ""), [forwarded])
        assert found == "accept, eth1, FORWARD None"


def test_random_packets_are_counted_as_they_are_traced(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """What counters say is what the trace says; and they say it of most packets."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    decided = 0
    for number in range(RULESETS):
        chance = random.Random(seed + number)
        direction = list(Direction)[number % 3]
        rulesets = {family: rules(family, random_rules(chance, family, direction)) for family in FAMILIES}
        packets = [one for family in FAMILIES for one in random_packets(chance, family, direction, PACKETS)]
        by_trace = journeys(backend, rulesets, packets)
        with monkeypatch.context() as patched:
            _silence(patched, SILENT[chance.choice([backend, "both"])])
            by_counters = journeys(backend, rulesets, packets)
        for with_trace, without in zip(by_trace, by_counters, strict=True):
            if not isinstance(without, Undecided):
                assert shown(without) == shown(with_trace), (seed + number, rulesets)
                decided += 1
    print(f"{decided} of {2 * RULESETS * PACKETS} decided")
    assert decided > RULESETS * PACKETS
