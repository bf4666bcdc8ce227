"""Rulesets and packets for tests of the model, and questions to it."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from fwguardd.kernel.z3_solver import Solver
from fwguardd.packets.host import Host, Interface, Route
from fwguardd.packets.model import Direction, Packet
from fwguardd.proof.fields import NEW, PacketField
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.intervals import single
from fwguardd.proof.model import Model
from fwguardd.proof.packet_sets import PacketSet, all_packets
from fwguardd.ruleset.model import Family, Ruleset
from fwguardd.ruleset.save_format import read_saved
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.proof.answers import Answer
    from fwguardd.proof.formulas import Formula, Scope
    from fwguardd.proof.traversal import Outcome

HOST = Host(
    (
        Interface("eth0", addresses=("192.0.2.1/24", "2001:db8::1/64"), forwarding=True),
        Interface("docker0", "bridge", addresses=("172.17.0.1/16",), forwarding=True),
    ),
    (
        Route("192.0.2.0/24", dev="eth0", scope=253),
        Route("172.17.0.0/16", dev="docker0", scope=253),
        Route("0.0.0.0/0", "192.0.2.254", "eth0"),
        Route("2001:db8::/64", dev="eth0"),
    ),
)

CLOSED = (":INPUT DROP", ":FORWARD DROP", ":OUTPUT ACCEPT")


def ruleset(*lines: str, family: Family = Family.IPV4) -> Ruleset:
    """A ruleset: lines of iptables-save without counters, those of the table filter without a line for the table."""
    if not lines[0].startswith("*"):
        lines = ("*filter", *lines)
    return read_saved(family, "\n".join(map(_counted, (*lines, "COMMIT"))) + "\n").shown


def _counted(line: str) -> str:
    if line.startswith(":") and "[" not in line:
        return f"{line} [0:0]"
    if line.startswith("-A"):
        return f"[0:0] {line}"
    return line


def tcp(port: int, source: str = "198.51.100.7", into: str | None = "eth0", **more: object) -> Packet:
    """A packet to this host."""
    address = ip_address(source)
    family, own = {4: (Family.IPV4, "192.0.2.1"), 6: (Family.IPV6, "2001:db8::1")}[address.version]
    values: dict[str, object] = {"destination": ip_address(own), "source_port": 40000, **more}
    return Packet(family, "tcp", address, destination_port=port, in_interface=into, **values)  # type: ignore[arg-type]


def new_tcp(model: Model, port: int | None = None) -> PacketSet:
    """All packets that begin a connection of TCP with this host, to a port or to any."""
    assert model.known.own is not None
    limits = {PacketField.PROTOCOL: single(6), PacketField.STATE: single(NEW), PacketField.DESTINATION: model.known.own}
    if port is not None:
        limits[PacketField.DPORT] = single(port)
    return all_packets(model.known, Direction.INBOUND).narrowed(limits)


def model_of(rules: Ruleset) -> Model:
    """The model of a ruleset on `HOST`."""
    return Model.of(rules, surroundings(rules.family, [rules], HOST))


def find(model: Model, packets: PacketSet, wanted: Callable[[Outcome, Scope], Formula]) -> Answer:
    """The answer of z3."""
    with Solver(time.monotonic() + LONGEST) as solver:
        return model.find(packets, wanted, solver)
