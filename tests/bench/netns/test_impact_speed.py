"""The work of fwguardctl impact, explain and exposure on a host with 10 sockets, 20 connections, the shipped rules."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.ctl.beds import HostBeds, beds_with
from fwguardd.ctl.change_impact import measured
from fwguardd.ctl.explain import explain
from fwguardd.ctl.exposure import examine
from fwguardd.ctl.offline_verbs import OfflineInput, validated
from fwguardd.ctl.ruleset_sources import RulesetSource, change_of
from fwguardd.enforce.validate import Valid
from fwguardd.kernel.iptables import Backend
from fwguardd.packets.host_routes import completed
from fwguardd.packets.packet_words import read_packet_words
from fwguardd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.conftest import Recorder

    Rounds = Callable[[int], int]

SHIPPED = Path(__file__).resolve().parents[3] / "etc" / "fwguard.d"
NETWORK = (
    "ip link add guard0 type veth peer name peer0",
    "ip link set guard0 up",
    "ip address add 198.51.100.1/24 dev guard0",
    "ip route add default via 198.51.100.254",
)
PORTS = (22, 25, 80, 443, 3306, 5432, 8080, 8443, 9090, 9100)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _ready(beds: HostBeds, source: OfflineInput) -> None:
    """Make the namespaces, and do meanwhile what a verb does: validate files."""
    beds.pool.refill()
    validated(source)


def test_packets_of_a_usual_host(record: Recorder, rounds: Rounds, backend: str) -> None:
    """Each verb's work, without the start of Python and the rehearsal of the files."""
    for command in NETWORK:
        subprocess.run(command.split(), check=True)
    context = Settings().lint_context()
    source = OfflineInput((SHIPPED,), Path("/nonexistent"), Backend(backend), json=False, context=context)
    result, tool = validated(source)
    assert isinstance(result, Valid)
    change = change_of(result, tool, source)
    rules = RulesetSource(change.after, "the shipped rules", tool)
    taken: dict[str, list[float]] = {"impact": [], "exposure": [], "explain": []}
    with contextlib.ExitStack() as sockets:
        for port in PORTS:
            sockets.enter_context(socket.create_server(("0.0.0.0", port)))
        for number in range(20):
            sockets.enter_context(socket.create_connection(("127.0.0.1", PORTS[number % 3])))
        with beds_with(tool) as beds:
            packet = completed(read_packet_words(["in", "guard0", "tcp", "203.0.113.9", ":22"]), beds.routes)
            for _ in range(rounds(10)):
                _ready(beds, source)
                taken["impact"].append(_seconds(lambda: measured(change, beds)))
                _ready(beds, source)
                taken["exposure"].append(_seconds(lambda: examine(rules, beds, all_ports=False)))
                _ready(beds, source)
                taken["explain"].append(_seconds(lambda: explain(packet, rules, beds)))
    for verb, seconds in taken.items():
        record(f"{verb} ({backend})", "ms", (1000 * each for each in seconds))
